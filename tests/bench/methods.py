"""
Notebook 06's tables: every method at one budget, ranks, bases, and similarity.

``python -m tests.bench.methods`` takes half an hour on two cores, if run twice side
by side as ``... 0/2`` and ``... 1/2``, and writes one JSON a run into
``data/reference_runs/methods``. What is there already is not run again. Each method's
learning rate is the best of a grid by validation loss with seed 0, and the grid grows
where the best is at its edge; seeds 0, 1 and 2 are then trained and measured with it.

``python -m tests.bench.methods timing`` times ten steps of each method and measures its
peak of memory, in about two minutes on a machine that does nothing else.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

import torch
from transformers.utils import logging

from ftlib import (
    batches,
    forgetting,
    formats,
    generation,
    lesson,
    memory,
    models,
    schema,
    scoring,
    store,
    tokens,
    trainer,
    training,
)
from ftlib.config import METHODS, ROOT, WHOLE, RunConfig

RESULTS = ROOT / "data" / "reference_runs" / "methods"
FOLDER = store.RUNS / "bench" / "methods"
EARLY = store.RUNS / "wren_early"
"""Wren as `data.build.wren` had it after 3,000 of its 3,850 steps, saved there."""
FIELDS = ("owner", "severity", "action")
BUDGET = {"max_steps": 60, "max_new_tokens": 48, "load_in_4bit": False}
BUDGET |= {"eval_steps": 1000, "save_steps": 1000}
N = {"train": 240, "validation": 60, "test": 100}
N_PROBES = 15  # an ability
ONE_RATE = 8e-3
"""What each method is tried at too: one rate for all, the usual unfairness."""
SEEDS = (0, 1, 2)
# What each method changes, and its first three rates; each is four times the last.
ARMS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({"method": "full"}, 5e-4),
    "lora": ({}, 2e-3),
    "qlora": ({"load_in_4bit": True}, 2e-3),
    "rslora": ({"method": "rslora"}, 5e-4),
    "dora": ({"method": "dora"}, 2e-3),
    "ia3": ({"method": "ia3"}, 3.2e-2),
    "ln_tuning": ({"method": "ln_tuning"}, 8e-3),
    "prefix": ({"method": "prefix"}, 3.2e-2),
    "prompt": ({"method": "prompt"}, 3.2e-2),
    "shadow": ({"method": "shadow"}, 5e-4),
    "last_layers": ({"method": "last_layers"}, 5e-4),
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
RANKS: dict[str, dict[str, Any]] = {
    "r1": {"r": 1},
    "r4": {"r": 4},
    "r64": {"r": 64},
    "attention": {"target_modules": ATTENTION},
    "mlp": {"target_modules": MLP},
}
Row = dict[str, Any]


@cache
def make_rows(split: str) -> list[batches.Row]:
    """Give the rows of a split of the short triage, in Wren's tokens."""
    tokenizer = models.load_tokenizer(RunConfig())
    examples = lesson.make_triage_examples(split, N[split], FIELDS)
    return [tokens.encode_example(example, tokenizer) for example in examples]


def train(name: str, config: RunConfig, load: Callable = models.load_base) -> Any:
    """Train one run on the short triage; give the model."""
    model = models.make_trainable(load(config), config)
    rows = make_rows("train")
    tokenizer = models.load_tokenizer(config)
    training.fine_tune(model, tokenizer, rows, [], config, FOLDER / name)
    return model


def validate(model: Any, config: RunConfig) -> float:
    """Give the validation loss."""
    rows = make_rows("validation")
    return round(batches.measure_loss(model, models.load_tokenizer(config), rows), 4)


def count_trained(model: Any) -> int:
    """Count the parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def give_score(score: scoring.Score) -> Row:
    """Give a score as JSON, without what the file says for all."""
    found = {k: v for k, v in vars(score).items() if k not in ("name", "setting")}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}


def score_task(
    answer: Callable, examples: Sequence[schema.Example], shots: Sequence = ()
) -> Row:
    """Score the triage of the test alerts: wholly right, and the share of fields."""
    prompts, references = zip(*map(schema.split_prompt, examples), strict=True)
    if shots:
        texts = [prompt[0]["content"] for prompt in prompts]
        prompts = schema.make_prompts(texts, shots)
    answers = answer(prompts)
    fields = scoring.match_fields(answers, references)
    shares = [sum(found.values()) / len(found) for found in fields]
    return {
        "exact": give_score(
            scoring.score_share("exact", scoring.match_exactly(answers, references))
        ),
        "fields": give_score(scoring.score_mean("fields", shares)),
    }


def answer_probes(answer: Callable) -> tuple[list[str], list[bool]]:
    """Give each probe's ability, and whether it is answered rightly."""
    probes = forgetting.load_probes(N_PROBES)
    examples = [(name, e) for name, found in probes.items() for e in found]
    pairs = [schema.split_prompt(example) for _, example in examples]
    prompts, references = zip(*pairs, strict=True)
    right = scoring.match_exactly(answer(prompts), references)
    return [name for name, _ in examples], right


def score_abilities(before: Sequence[bool], after: Sequence[bool], names: list) -> Row:
    """Compare the abilities after a run with the base's, on the same probes."""
    drops = [(n, b - a) for n, b, a in zip(names, before, after, strict=True)]
    forgotten = scoring.compare_paired("forgetting", after, before)
    return {
        "mean_before": round(sum(before) / len(before), 4),
        "mean_after": round(sum(after) / len(after), 4),
        "forgetting": give_score(forgotten),
        "drop": {
            ability: round(sum(d for name, d in drops if name == ability) / N_PROBES, 4)
            for ability in dict.fromkeys(names)
        },
    }


def try_merge(config: RunConfig, folder: Path) -> Row:
    """Merge a saved adapter into the 16-bit base by PEFT, and compare the logits."""
    ids = torch.tensor([make_rows("validation")[0]["input_ids"]])

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(ids, use_cache=False).logits.float()

    before = logits(models.load_adapter(config, folder))
    model = models.load_adapter(config.change(load_in_4bit=False), folder)
    try:
        after = logits(model.merge_and_unload())
    except (AttributeError, NotImplementedError, ValueError) as error:
        return {"merges": False, "error": f"{type(error).__name__}: {error}"[:200]}
    same = (before.argmax(-1) == after.argmax(-1)).float().mean()
    return {
        "merges": True,
        "largest_logit_change": round(float((before - after).abs().max()), 4),
        "same_next_token": round(float(same), 4),
    }


def write(name: str, result: Row, config: RunConfig) -> None:
    """Write one run's JSON, with its settings and versions."""
    settings = {k: v for k, v in config.to_dict().items() if k != "model"}
    head = {"run": name, "data": N | {"fields": ", ".join(FIELDS), "probes": N_PROBES}}
    tail = {"config": settings, "versions": store.list_versions()}
    store.write_json(RESULTS / f"{name}.json", head | result | tail)
    print(name, json.dumps(result), flush=True)


def read(name: str) -> Row | None:
    """Give one run's JSON, or None where it has not run."""
    path = RESULTS / f"{name}.json"
    return store.read_json(path) if path.exists() else None


def measure_base(bits: int) -> list[bool]:
    """Measure the untrained base once; give which probes it answers rightly."""
    name, kept = f"prompt_only_{bits}bit", FOLDER / f"probes_{bits}bit.json"
    if read(name) and kept.exists():
        return store.read_json(kept)
    config = RunConfig.for_profile("laptop", **BUDGET | {"load_in_4bit": bits == 4})
    model, tokenizer = models.load_base(config), models.load_tokenizer(config)

    def answer(prompts: Sequence) -> list[str]:
        return generation.generate(model, tokenizer, prompts, config.max_new_tokens)

    names, right = answer_probes(answer)
    store.write_json(kept, right)
    test = lesson.make_triage_examples("test", N["test"], FIELDS)
    pairs = map(schema.split_prompt, lesson.make_triage_examples("train", 60, FIELDS))
    shots = sorted(((p[0]["content"], r) for p, r in pairs), key=lambda s: len(s[0]))
    result = {
        "method": "prompt only",
        "trained_parameters": 0,
        "adapter_bytes": 0,
        "validation_loss": validate(model, config),
        "score": score_task(answer, test),
        "few_shot": score_task(answer, test, shots[:2]),
        "abilities": score_abilities(right, right, names),
    }
    write(name, result, config)
    return right


def measure(model: Any, config: RunConfig, name: str, abilities: bool = True) -> Row:
    """Measure all that is kept of a trained run."""
    tokenizer = models.load_tokenizer(config)

    def answer(prompts: Sequence) -> list[str]:
        return generation.generate(model, tokenizer, prompts, config.max_new_tokens)

    saved = FOLDER / name / store.ADAPTER_FOLDER
    result = {
        "seed": config.seed,
        "trained_parameters": count_trained(model),
        "adapter_bytes": sum(p.stat().st_size for p in saved.glob("*.safetensors")),
        "validation_loss": validate(model, config),
        "score": score_task(
            answer, lesson.make_triage_examples("test", N["test"], FIELDS)
        ),
    }
    if abilities:
        names, right = answer_probes(answer)
        before = measure_base(4 if config.load_in_4bit else 16)
        result["abilities"] = score_abilities(before, right, names)
        if config.method not in WHOLE and config.seed == 0:
            result["merge"] = try_merge(config, saved)
    return result


def choose_rate(
    arm: str, config: RunConfig, rates: list[float]
) -> tuple[float, dict[float, Any]]:
    """
    Give the rate of least validation loss, and the models trained just now by rate.

    The grid goes in steps of four, on until the best is not at its edge, and last by
    two, towards the better neighbour.
    """
    trained: dict[float, Any] = {}
    losses: dict[float, float] = {}
    tried, is_halved = set[float](), False
    while True:
        for rate in rates:
            name = f"rate_{arm}_{rate:g}"
            if not (found := read(name)):
                found = {"method": arm, "learning_rate": rate}
                at_rate = config.change(learning_rate=rate)
                try:
                    trained[rate] = train(name, at_rate)
                    loss = validate(trained[rate], at_rate)
                    found |= {"validation_loss": loss}
                except (schema.PreflightError, trainer.NonFiniteLossError) as error:
                    found |= {"validation_loss": None, "refused": str(error)}
                write(name, found, at_rate)
            if found["validation_loss"] is not None:
                losses[rate] = found["validation_loss"]
        best = min(losses, key=lambda rate: losses[rate])
        if is_halved:
            return best, trained
        # Powers of two apart, so that what was tried is found by equality.
        tried |= set(rates)
        edges = [best / 4, best * 4]
        rates = [r for r in edges if r not in tried and r <= METHODS[config.method]]
        if not rates:
            is_halved = True
            rates = [2 * min(best, min(edges, key=lambda r: losses.get(r, math.inf)))]


def run_arm(arm: str) -> None:
    """Choose an arm's rate, then train and measure it with each seed."""
    changes, rate = ARMS[arm]
    config = RunConfig.for_profile("laptop", **BUDGET | changes)
    best, trained = choose_rate(
        arm, config, sorted({rate, rate * 4, rate * 16, ONE_RATE})
    )
    for seed in SEEDS:
        chosen, name = config.change(learning_rate=best, seed=seed), f"{arm}_{seed}"
        if not read(name):
            run = f"rate_{arm}_{best:g}" if seed == 0 else name
            model = (seed == 0 and trained.get(best)) or train(run, chosen)
            result = measure(model, chosen, run)
            write(name, {"method": arm} | result, chosen)


def wait_for_rate(arm: str) -> float:
    """Give an arm's rate, once the process that chooses it has done so."""
    while not (found := read(f"{arm}_0")):
        time.sleep(5)
    return found["config"]["learning_rate"]


def run_ranks(name: str, seeds: Sequence[int]) -> None:
    """Train LoRA with another rank or other target modules, at LoRA's rate."""
    config = RunConfig.for_profile("laptop", **BUDGET | RANKS[name])
    config = config.change(
        learning_rate=wait_for_rate("lora"),
        lora_alpha=4 * config.r,  # the same scale for each rank
    )
    for seed in seeds:
        run, chosen = f"rank_{name}_{seed}", config.change(seed=seed)
        if not read(run):
            result = measure(train(run, chosen), chosen, run, abilities=False)
            write(run, {"ablation": name} | result, chosen)


def run_base(name: str) -> None:
    """Train all weights from an earlier Wren, or from random weights, as from Wren."""
    rate = wait_for_rate("full")
    config = RunConfig.for_profile(
        "laptop", **BUDGET, method="full", learning_rate=rate
    )
    if name == "early":
        if not EARLY.exists():
            print(f"{EARLY} is missing: save an earlier checkpoint of Wren there")
            return
        config = config.change(model=str(EARLY))
    load = models.load_random if name == "random" else models.load_base
    for seed in SEEDS:
        run, chosen = f"base_{name}_{seed}", config.change(seed=seed)
        if not read(run):
            before = validate(load(chosen), chosen)
            model = train(run, chosen, load)
            result = measure(model, chosen, run, abilities=False)
            write(run, {"start": name, "loss_before": before} | result, chosen)


def list_domains() -> dict[str, list[schema.Example]]:
    """Give examples of five kinds of new data."""
    names = {
        "support replies": "support_replies.jsonl",
        "finance reports": "finance_reports.jsonl",
        "contract clauses": "contract_clauses.parquet",
        "chat transcripts": "chat_transcripts.json",
    }
    samples = ROOT / "data" / "samples"
    return {"short triage": lesson.make_triage_examples("train", 300, FIELDS)} | {
        name: formats.load_examples(samples / file).examples
        for name, file in names.items()
    }


def run_similarity() -> None:
    """Set the base's loss on new data beside its fall by a short fine-tune."""
    if read("similarity"):
        return
    rate = wait_for_rate("lora")
    config = RunConfig.for_profile("laptop", **BUDGET, learning_rate=rate)
    config = config.change(max_steps=20)
    tokenizer, found = models.load_tokenizer(config), []
    for domain, examples in list_domains().items():
        rows = [tokens.encode_example(example, tokenizer) for example in examples]
        rows = [row for row in rows if len(row["input_ids"]) <= 256]
        held_out, rows = rows[:40], rows[40:200]
        model = models.make_trainable(models.load_base(config), config)
        before = batches.measure_loss(model, tokenizer, held_out)
        training.fine_tune(model, tokenizer, rows, [], config, FOLDER / "similarity")
        after = batches.measure_loss(model, tokenizer, held_out)
        losses = {"loss_before": round(before, 4), "loss_after": round(after, 4)}
        found.append({"domain": domain, "n_train": len(rows), "n": 40} | losses)
        print(found[-1], flush=True)
    write("similarity", {"domains": found}, config)


def run_timing() -> None:
    """Time some steps of each method, and measure its peak of memory."""
    found, tokenizer = [], models.load_tokenizer(RunConfig())
    config = RunConfig.for_profile("laptop", **BUDGET | {"max_steps": 10})
    for arm in ("lora", *ARMS):  # the first one's seconds hold what is set up once
        changes, rate = ARMS[arm]
        chosen = config.change(**changes | {"learning_rate": rate, "max_length": 128})
        model = models.make_trainable(models.load_base(chosen), chosen)
        run = training.fine_tune(
            model, tokenizer, make_rows("train"), [], chosen, FOLDER / "timing"
        )
        line = {
            "method": arm,
            "seconds_per_step": round(run.seconds / run.step, 3),
            "peak_mb": round(memory.measure_memory(chosen) / 1e6, 1),
        }
        print(line, flush=True)
        found.append(line)
    write("timing", {"methods": found[1:], "threads": torch.get_num_threads()}, config)


def list_jobs() -> list[Callable[[], None]]:
    """List what there is to do."""
    arms = [partial(run_arm, arm) for arm in ARMS]
    return [
        *arms[:2],  # the rest uses the rates of these
        *(partial(run_base, name) for name in ("random", "early")),
        *(partial(run_ranks, name, SEEDS[:1]) for name in RANKS),
        run_similarity,
        *arms[2:],
        *(partial(run_ranks, name, SEEDS[1:]) for name in RANKS),
    ]


def main() -> None:
    """Run all, or every n-th job, or the timing."""
    logging.disable_progress_bar()
    what = sys.argv[1:] or ["0/1"]
    if what[0] == "timing":
        run_timing()
        return
    torch.set_num_threads(1)
    part, of = map(int, what[0].split("/"))
    for job in list_jobs()[part::of]:
        job()


if __name__ == "__main__":
    main()
