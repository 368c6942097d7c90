"""
Train an adapter that may ship: the short triage, with next to nothing forgotten.

The settings are those of "rate / 8, replay 100 %, KL" in ``tests/bench/forgetting.py``,
at a smaller rank. That is chosen on alerts of validation and on probes after the 60th;
lessons judge it on alerts of test and on the first 60.
"""

import random
import shutil
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ftlib import (
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

FOLDER = ROOT / "data" / "adapters" / "short_triage"
FIELDS = ("owner", "severity", "action")
N_TRAIN, N_JUDGING = 600, 60
RANKS = (16, 32)  # 64 passes too, in twice the space
SCALE = 4  # lora_alpha / r, as of Wren's other adapters
GENTLE = {"learning_rate": 1e-3, "num_train_epochs": 4, "kl_weight": 8.0}
WEIGHTS = "adapter_model.safetensors"


def make_examples(seed: int) -> list[schema.Example]:
    """Give the triages to learn, and as many conversations of the base's own."""
    examples = lesson.make_triage_examples("train", N_TRAIN, FIELDS)
    examples += forgetting.load_replay(len(examples), seed)
    random.Random(seed).shuffle(examples)
    return examples


def measure(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Say whether an adapter passes the gate, on what will not judge it."""
    answer = partial(generation.generate, model, tokenizer, max_new_tokens=96)
    alerts = lesson.make_triage_examples("validation", 150, FIELDS)
    prompts, references = zip(*map(schema.split_prompt, alerts), strict=True)
    probes = forgetting.load_probes()
    probes = {name: rows[N_JUDGING:] for name, rows in probes.items()}
    with model.disable_adapter():
        old = scoring.match_exactly(answer(prompts), references)
        before = forgetting.answer_probes(answer, probes)
    new = scoring.match_exactly(answer(prompts), references)
    after = forgetting.answer_probes(answer, probes)
    gain = scoring.compare_paired("gain", old, new)
    verdict = forgetting.check_gate(gain, before, after)
    summary = forgetting.summarise(before, after)
    figures = [gain, summary["retention"], summary["worst ability"]]
    says = [*map(str, figures), *verdict.reasons]
    return {"ship": verdict.ship, "gain": gain.value, "says": says}


def train(r: int, seed: int = 0) -> dict[str, Any]:
    """Train with one rank; leave the run in ``runs/`` and give what was measured."""
    settings = GENTLE | {"r": r, "lora_alpha": SCALE * r, "load_in_4bit": False}
    config = RunConfig.for_profile("laptop", seed=seed, **settings)
    tokenizer = models.load_tokenizer(config)
    model = models.make_trainable(models.load_base(config), config)
    examples = make_examples(seed)
    rows = [tokens.encode_example(example, tokenizer) for example in examples]
    run = store.RUNS / "build" / f"short_triage_{r}_{seed}"
    training.fine_tune(model, tokenizer, rows, [], config, run)
    adapter = run / store.ADAPTER_FOLDER
    shrink(adapter)
    found = measure(models.load_adapter(config, adapter), tokenizer)
    return {"r": r, "seed": seed} | found


def shrink(adapter: Any) -> None:
    """Save the weights in 16 bits, and name the base as it is named in the course."""
    weights = load_file(adapter / WEIGHTS)
    halves = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    save_file(halves, adapter / WEIGHTS, metadata={"format": "pt"})
    settings = store.read_json(adapter / "adapter_config.json")
    settings |= {"base_model_name_or_path": "data/wren"}
    settings["target_modules"].sort()  # a set's order changes from run to run
    store.write_json(adapter / "adapter_config.json", settings)


def ship(found: dict[str, Any], tried: list[dict[str, Any]]) -> None:
    """Copy a run into the repository, with what it was chosen by."""
    run = store.RUNS / "build" / f"short_triage_{found['r']}_{found['seed']}"
    shutil.rmtree(FOLDER, ignore_errors=True)
    adapter = FOLDER / store.ADAPTER_FOLDER
    adapter.mkdir(parents=True)
    for name in (WEIGHTS, "adapter_config.json"):
        shutil.copyfile(run / store.ADAPTER_FOLDER / name, adapter / name)
    record = store.read_json(run / store.RUN_FILE)
    record["config"] |= {"model": "data/wren"}
    record["data"] = {"n_triage": N_TRAIN, "fields": FIELDS, "n_replay": N_TRAIN}
    store.write_json(FOLDER / store.RUN_FILE, record | {"tried": tried})


def main() -> None:
    """Train with each rank; of those that pass, ship the one that gains most."""
    tried = [train(r) for r in RANKS]
    passed = [found for found in tried if found["ship"]]
    for found in tried:
        print(found)
    if passed:
        ship(max(passed, key=lambda found: found["gain"]), tried)
