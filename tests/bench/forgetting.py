"""
Notebook 08's remedies for seeds 0, 1 and 2, one recorded file a run.

``python -m tests.bench.forgetting`` writes ``data/reference_runs/forgetting/*.json``:
what each run answers rightly, alert by alert and probe by probe, so that any paired
interval can be taken from it. A run whose file is there is left out, so the bench goes
on where it ended; ``0/2`` and ``1/2`` share the runs between two processes.
"""

import os
import platform
import random
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import OSFConfig, get_peft_model
from peft.helpers import rescale_adapter_scale

from ftlib import (
    batches,
    forgetting,
    generation,
    lesson,
    models,
    schema,
    scoring,
    store,
    tokens,
    training,
)
from ftlib.config import ROOT, RunConfig

FOLDER = ROOT / "data" / "reference_runs" / "forgetting"
FIELDS = ("owner", "severity", "action")
N_TRAIN, N_TEST, N_PROBES = 600, 150, 60
GIVEN = {"num_train_epochs": 2, "load_in_4bit": False}
GENTLE: dict[str, Any] = {"r": 64, "lora_alpha": 256, "kl_weight": 2.0}
# Chosen with seeds 1 and 2 on probes after the 60th and on alerts of validation, by
# which no run is judged: a smaller rate, more replay and a stronger pull keep the sums,
# which are lost first.
GENTLER = GENTLE | {"learning_rate": 1e-3, "num_train_epochs": 4, "kl_weight": 8.0}
RUNS: dict[str, dict[str, Any]] = {
    "careless": {},
    "lower rate": {"learning_rate": 2e-3},
    "lower rank": {"r": 2, "lora_alpha": 8},
    "half the epochs": {"num_train_epochs": 1},
    "orthogonal (OSF)": {"learning_rate": 1e-3, "method": "full"},
    "full fine-tuning": {"learning_rate": 1e-3, "method": "full"},
    "replay 1 %": {"replay": 0.01},
    "replay 5 %": {"replay": 0.05},
    "replay 20 %": {"replay": 0.2},
    "KL": {"kl_weight": 1.0},
    "rate / 4, replay 50 %, KL": GENTLE | {"learning_rate": 2e-3, "replay": 0.5},
    "rate / 8, replay 100 %, KL": GENTLER | {"replay": 1.0},
}
SCALES = (0.25, 0.5, 0.75)
Row = dict[str, Any]


def make_tasks() -> dict[str, tuple[list[schema.Example], list[schema.Example]]]:
    """Give the examples to train on and to test on, by task."""
    rows, _ = store.read_jsonl(ROOT / "data" / "samples" / "support_replies.jsonl")
    support = [schema.Example(messages=row["messages"]) for row in rows]
    triage = [
        lesson.make_triage_examples(split, n, FIELDS)
        for split, n in (("train", N_TRAIN), ("test", N_TEST))
    ]
    return {"triage": (triage[0], triage[1]), "support": (support[:200], support[200:])}


def examine(model: Any, tokenizer: Any, seed: int) -> Row:
    """Give what a model answers rightly, its loss on neutral text and on support."""
    answer = partial(generation.generate, model, tokenizer, max_new_tokens=96)
    tasks = make_tasks()
    prompts, references = zip(
        *map(schema.split_prompt, tasks["triage"][1]), strict=True
    )
    encode = partial(tokens.encode_example, tokenizer=tokenizer)
    loss = {
        name: batches.measure_loss(model, tokenizer, list(map(encode, examples)))
        for name, examples in (
            ("neutral", forgetting.load_neutral()),
            ("support", tasks["support"][1]),
        )
    }
    right = scoring.match_exactly(answer(prompts, max_new_tokens=48), references)
    probes = forgetting.answer_probes(answer, forgetting.load_probes(N_PROBES))
    found: Row = {"seed": seed, "triage": [int(r) for r in right], "loss": loss}
    found["probes"] = {name: [int(r) for r in each] for name, each in probes.items()}
    if hasattr(model, "disable_adapter"):
        rows = list(map(encode, tasks["triage"][1]))
        found["kl"] = forgetting.measure_kl(model, tokenizer, rows)
    return found


def tune(
    model: Any,
    tokenizer: Any,
    examples: Sequence[schema.Example],
    config: RunConfig,
    name: str,
) -> None:
    """Train the model on the examples."""
    rows = [tokens.encode_example(example, tokenizer) for example in examples]
    folder = store.RUNS / "bench" / "forgetting" / f"{_spell(name)}_{config.seed}"
    training.fine_tune(model, tokenizer, rows, [], config, folder)


def measure(name: str, seed: int) -> list[tuple[str, Row]]:
    """Train once; give what was found, by the name of its file."""
    changes = GIVEN | RUNS.get(name, {})
    replay = changes.pop("replay", 0)
    config = RunConfig.for_profile("laptop", seed=seed, **changes)
    tokenizer = models.load_tokenizer(config)
    base = models.load_base(config)
    if name == "base":
        return [(name, examine(base, tokenizer, seed))]
    if name == "orthogonal (OSF)":
        models.set_seed(seed)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        targets += ["gate_proj", "up_proj", "down_proj"]
        base.float()
        model = get_peft_model(base, OSFConfig(target_modules=targets))
    else:
        model = models.make_trainable(base, config)
    examples = list(make_tasks()["triage"][0])
    examples += forgetting.load_replay(round(replay * N_TRAIN), seed)
    random.Random(seed).shuffle(examples)
    tune(model, tokenizer, examples, config, name)
    found = examine(model, tokenizer, seed)
    found["settings"] = config.change(model="data/wren").to_dict() | {"replay": replay}
    results = [(name, found)]
    if name == "careless":
        for scale in SCALES:
            with rescale_adapter_scale(model, scale):
                results.append((f"scale {scale}", examine(model, tokenizer, seed)))
        second = config.change(learning_rate=2e-3)
        folder = store.RUNS / "bench" / "forgetting" / f"careless_{seed}" / "adapter"
        model = models.load_adapter(second, folder, is_trainable=True)
        tune(model, tokenizer, make_tasks()["support"][0], second, "then support")
        results.append(("then support", examine(model, tokenizer, seed)))
    return results


def main() -> None:
    """Run what has no file yet."""
    torch.set_num_threads(1)
    part, n_parts = map(int, (sys.argv[1:] or ["0/1"])[0].split("/"))
    wanted = [("base", 0)] + [(name, seed) for name in RUNS for seed in (0, 1, 2)]
    for name, seed in wanted[part::n_parts]:
        if (FOLDER / f"{_spell(name)}_{seed}.json").exists():
            continue
        for label, found in reversed(measure(name, seed)):
            found |= {
                "name": label,
                "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
                "versions": store.list_versions(),
            }
            store.write_json(FOLDER / f"{_spell(label)}_{seed}.json", found)
        print(label, seed, sum(found["triage"]) / N_TEST, flush=True)


def _spell(name: str) -> str:
    """Give a file's name for a run's."""
    return re.sub(r"[^\w.]+", "_", name).strip("_")


if __name__ == "__main__":
    main()
