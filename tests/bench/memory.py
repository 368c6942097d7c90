"""
Memory estimated and measured, on Wren, in settings far from each other.

``python -m tests.bench.memory`` takes two minutes or so on two idle cores and writes
``data/reference_runs/memory_cpu.json``: for each setting the estimate by part, the
measured peak and their ratio, with hardware and versions.

The settings marked as held out were first run when the estimate was done.
"""

import os
import platform

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

from ftlib import memory, store
from ftlib.config import ROOT, WREN, RunConfig

RESULT = ROOT / "data" / "reference_runs" / "memory_cpu.json"
DEFAULT = {
    "method": "lora",
    "load_in_4bit": True,
    "r": 16,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": 0,
    "max_length": 160,
}
SIZE, EVERY = "per_device_train_batch_size", "gradient_checkpointing"
WHOLE = {"method": "full", "load_in_4bit": False}
SETTINGS: list[dict[str, object]] = [
    {},
    {EVERY: 1},
    WHOLE | {SIZE: 4},
    {"method": "ia3", "load_in_4bit": False, SIZE: 4},
    {"method": "dora", "load_in_4bit": False, SIZE: 4},
    {"method": "last_layers", "load_in_4bit": False},
    {"method": "ia3", SIZE: 4},
]
HELD_OUT: list[dict[str, object]] = [
    {"r": 64, SIZE: 2, EVERY: 2, "max_length": 512},
    {"r": 4, SIZE: 16, "load_in_4bit": False, "max_length": 64},
    WHOLE | {SIZE: 2, EVERY: 1, "max_length": 256},
    {"method": "rslora", SIZE: 4, "gradient_accumulation_steps": 2, "max_length": 300},
    {"method": "ia3", "load_in_4bit": False, EVERY: 2, "max_length": 96},
]


def main() -> None:
    """Estimate and measure each setting, print the table and write it down."""
    architecture = memory.load_architecture(WREN)
    rows = []
    for settings in HELD_OUT + SETTINGS:
        settings, held_out = DEFAULT | settings, settings in HELD_OUT
        config = RunConfig.for_profile("laptop", **settings)
        parts = memory.estimate_memory(architecture, config, "cpu")
        measured = memory.measure_memory(config)
        ratio = round(sum(parts.values()) / measured, 4)
        print(ratio, settings, flush=True)
        rows.append({"settings": settings, "held_out": held_out, "estimate": parts})
        rows[-1] |= {"estimated": sum(parts.values()), "measured": measured}
        rows[-1] |= {"ratio": ratio}
        found = {
            "hardware": {"machine": platform.machine(), "cpu_cores": os.cpu_count()},
            "versions": store.list_versions(),
            "unit": "bytes",
            "runs": rows,
        }
        store.write_json(RESULT, found)


if __name__ == "__main__":
    main()
