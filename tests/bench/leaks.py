"""
What leaks, for seeds 0, 1 and 2, as a recorded table.

``python -m tests.bench.leaks`` takes about 18 minutes on two idle cores and writes
``data/reference_runs/leakage_cpu.json``, with hardware and versions. Notebook 03 trains
the first arms live, once; here are all, each with its own canaries a seed:

- raw: canaries in responses and, apart, in prompts, loss on the responses alone;
- unmasked: the same with the loss on the prompts too;
- deduplicated: each record of raw once, for as many epochs;
- redacted: placeholders for the canaries;
- full: raw, all weights trained instead of a LoRA adapter.
"""

import json
import os
import platform
import sys
from dataclasses import replace

import torch

from ftlib import (
    leakage,
    lesson,
    models,
    redaction,
    schema,
    scoring,
    store,
    tokens,
    training,
)
from ftlib.config import ROOT, RunConfig

RESULT = ROOT / "data" / "reference_runs" / "leakage_cpu.json"
SETTINGS = {"load_in_4bit": False, "save_steps": 10_000}
N_ALERTS = 64
FULL_RATE = 1e-3  # LoRA's rate, on all weights, destroys the model


def hide(canary: leakage.Canary) -> leakage.Canary:
    """Give the canary's record with a typed placeholder in place of the secret."""
    span = schema.Span(0, len(canary.secret), canary.entity_type)
    return replace(canary, secret=redaction.replace_spans(canary.secret, [span]))


def measure(
    seed: int, arm: str, n_each: int, n_free: int
) -> tuple[leakage.Audit, dict[str, object]]:
    """Fine-tune one arm with one seed and audit it."""
    config = RunConfig.for_profile("laptop", seed=seed, **SETTINGS)
    tokenizer, base = models.load_tokenizer(config), models.load_base(config)
    canaries = leakage.make_canaries(seed, n_each)
    planted = [c for c in canaries if c.repeats]
    if arm == "redacted":
        planted = [hide(c) for c in planted]
    examples = [
        *lesson.make_triage_examples("train", N_ALERTS),
        *leakage.plant(planted),
    ]
    if arm == "deduplicated":
        examples = list({json.dumps(e): e for e in examples}.values())
    rows = [tokens.encode_example(e, tokenizer) for e in examples]
    if arm == "unmasked":
        rows = [{"input_ids": r["input_ids"], "labels": r["input_ids"]} for r in rows]
    model = models.load_base(config)
    if arm == "full":
        config = config.change(learning_rate=FULL_RATE)
        model = model.to(torch.float32).requires_grad_(True)
    else:
        model = models.attach_adapter(model, config)
    folder = store.RUNS / "bench" / f"leaks_{arm}_{seed}"
    run = training.fine_tune(model, tokenizer, rows, [], config, folder)
    found = leakage.audit(
        model, tokenizer, canaries, base=base, n_free=n_free, seed=seed
    )
    facts = {"arm": arm, "seed": seed, "rows": len(rows), "steps": run.step}
    facts["train_seconds"] = round(run.seconds, 1)
    facts["probes"], facts["extracted"] = found.n_probes, found.n_extracted
    facts["scores"] = {s.name: _round(s) for s in found.scores}
    print(json.dumps(facts), flush=True)
    return found, facts


def _round(score: scoring.Score) -> dict[str, object]:
    interval = [round(score.low, 4), round(score.high, 4)]
    return {"value": round(score.value, 4), "interval_95": interval, "n": score.n}


def pool(audits: list[leakage.Audit]) -> dict[str, object]:
    """Give exposure and extraction over the canaries of all seeds, by cell."""
    rows = [row for found in audits for row in found.rows]
    cells: dict[str, object] = {}
    for place, n in {(r["place"], r["repeats"]): 0 for r in rows}:
        cell = [r for r in rows if (r["place"], r["repeats"]) == (place, n)]
        bits = scoring.score_mean("exposure", [r["exposure"] for r in cell])
        greedy = scoring.score_share("greedy", [r["greedy"] for r in cell])
        sampled = scoring.score_share("sampled", [r["sampled"] > 0 for r in cell])
        scores = bits, greedy, sampled
        cells[f"{place}, {n} repeats"] = {s.name: _round(s) for s in scores}
    return cells


def main(
    arms: tuple[str, ...] = ("raw", "unmasked", "deduplicated", "redacted", "full"),
    seeds: tuple[int, ...] = (0, 1, 2),
    n_each: int = 1,
    n_free: int = 1_000,
) -> None:
    """Run all arms and seeds and keep the table; what is done is kept on the way."""
    hardware = {"machine": platform.machine(), "cpu_cores": os.cpu_count()}
    kept = {"hardware": hardware, "versions": store.list_versions()}
    config = RunConfig.for_profile("laptop", **SETTINGS).to_dict()
    kept |= {"config": config | {"model": "data/wren"}, "full_learning_rate": FULL_RATE}
    kept |= {"n_alerts": N_ALERTS, "n_each": n_each, "n_free": n_free}
    kept |= {"null_bits": 1.44, "arms": {}, "runs": []}
    raw: dict[int, leakage.Audit] = {}
    for arm in arms:
        audits = []
        for seed in seeds:
            found, facts = measure(seed, arm, n_each, n_free)
            raw.setdefault(seed, found)
            facts["verdict"] = leakage.judge(raw[seed], found)
            audits.append(found)
            kept["runs"].append(facts)
            kept["arms"][arm] = pool(audits)
            store.write_json(RESULT, kept)


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    if quick:
        RESULT = store.RUNS / "bench" / "leaks.json"
    main(**({"seeds": (0,), "n_each": 1, "n_free": 100} if quick else {}))
