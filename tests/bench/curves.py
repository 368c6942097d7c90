"""
Three runs with faults, for lesson 05's exercise: which fault has which curve?

``python -m tests.bench.curves`` takes about three minutes on two cores and writes
``data/reference_runs/faulty_curves_cpu.json``, with hardware, versions and settings.
Where `CheckedTrainer` would refuse the first step, it is kept from looking, for the
curve of the fault is wanted.
"""

import os
import platform
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

from ftlib import lesson, models, store, tokens, training
from ftlib.config import ROOT, RunConfig
from ftlib.trainer import CheckedTrainer

RESULT = ROOT / "data" / "reference_runs" / "faulty_curves_cpu.json"
FIELDS = ("owner", "severity", "action")
SETTINGS = {"max_steps": 60, "eval_steps": 5, "save_steps": 1000}
N_VALIDATION = 40
TOO_HIGH = {"learning_rate": 0.024, "lr_scheduler_type": "constant_with_warmup"}
# Curve: its fault, the number of training examples, and the settings that make it.
RUNS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "A": ("trained too long", 16, {}),
    "B": ("rate too high", 300, TOO_HIGH),
    "C": ("adapter idle", 300, {}),
}


def run(name: str) -> dict[str, Any]:
    """Make the run of one curve; give its fault, settings and history."""
    fault, n_examples, changes = RUNS[name]
    config = RunConfig.for_profile("laptop", **SETTINGS | changes)
    tokenizer = models.load_tokenizer(config)
    train, validation = (
        [tokens.encode_example(example, tokenizer) for example in examples]
        for examples in (
            lesson.make_triage_examples("train", n_examples, FIELDS),
            lesson.make_triage_examples("validation", N_VALIDATION, FIELDS),
        )
    )
    model = models.make_trainable(models.load_base(config), config)
    if name == "C":
        # With A and B both zero the gradient of each, a product with the other, is too.
        for weight_name, weight in model.named_parameters():
            if "lora_" in weight_name:
                weight.data.zero_()
    folder = store.RUNS / "bench" / f"curve_{name}"
    job = training.Run(model, tokenizer, train, validation, config, folder)
    try:
        job.start().wait()
        error = ""
    except models.NoEffectError as refusal:  # of the adapter once saved
        error = str(refusal)
    settings = config.change(model="data/wren").to_dict() | {"n_examples": n_examples}
    history = job.progress.history
    return {"fault": fault, "error": error, "settings": settings, "history": history}


def main() -> None:
    """Make the three runs and keep them."""
    CheckedTrainer.try_first_step = lambda self: None
    kept = {
        "hardware": {"machine": platform.machine(), "cpu_cores": os.cpu_count()},
        "versions": store.list_versions(),
        "n_validation": N_VALIDATION,
        "runs": {name: run(name) for name in RUNS},
    }
    store.write_json(RESULT, kept)


if __name__ == "__main__":
    main()
