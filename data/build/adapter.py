"""
Train the adapters that ship: a short triage that forgets next to nothing, an agent.

The agent of lesson 10 learns the calls of ``data/agent``. The triage is released by
lesson 11: its settings are those of "rate / 8, replay 100 %, KL" in
``tests/bench/forgetting.py``, at a smaller rank. That is chosen on alerts of validation
and on probes after the 60th; lessons judge it on alerts of test and on the first 60.
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

FOLDER = ROOT / "data" / "adapters"
FIELDS = ("owner", "severity", "action")
N_TRAIN, N_JUDGING = 600, 60
RANKS = (16, 32)  # 64 passes too, in twice the space
SCALE = 4  # lora_alpha / r, as of Wren's other adapters
GENTLE = {"learning_rate": 1e-3, "num_train_epochs": 4, "kl_weight": 8.0}
# By alerts of validation: larger batches, and two epochs, hardly learn to act.
ACTING = {
    "learning_rate": 6e-3,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "load_in_4bit": False,
}
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


def train_agent() -> None:
    """Train on the conversations of ``data/agent`` that are for training, and ship."""
    config = RunConfig.for_profile("laptop", **ACTING)
    tokenizer = models.load_tokenizer(config)
    model = models.make_trainable(models.load_base(config), config)
    known, _ = store.read_jsonl(ROOT / "data" / "agent" / "calls.jsonl")
    known = [row for row in known if row["split"] == "train"]
    examples = [schema.Example(messages=row["messages"]) for row in known]
    rows = [tokens.encode_example(example, tokenizer) for example in examples]
    run = store.RUNS / "build" / "agent"
    training.fine_tune(model, tokenizer, rows, [], config, run)
    shrink(run / store.ADAPTER_FOLDER)
    ship(run, "agent", data={"n_conversations": len(rows)})


def ship(run: Any, name: str, **facts: Any) -> None:
    """Copy a run into the repository, with facts on it."""
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    adapter = FOLDER / name / store.ADAPTER_FOLDER
    adapter.mkdir(parents=True)
    for file in (WEIGHTS, "adapter_config.json"):
        shutil.copyfile(run / store.ADAPTER_FOLDER / file, adapter / file)
    record = store.read_json(run / store.RUN_FILE)
    record["config"] |= {"model": "data/wren"}
    store.write_json(FOLDER / name / store.RUN_FILE, record | facts)


def main() -> None:
    """Train the agent; of the ranks that pass the gate, ship what gains most."""
    train_agent()
    tried = [train(r) for r in RANKS]
    passed = [found for found in tried if found["ship"]]
    for found in tried:
        print(found)
    if passed:
        best = max(passed, key=lambda found: found["gain"])
        run = store.RUNS / "build" / f"short_triage_{best['r']}_{best['seed']}"
        data = {"n_triage": N_TRAIN, "fields": FIELDS, "n_replay": N_TRAIN}
        ship(run, "short_triage", data=data, tried=tried)
