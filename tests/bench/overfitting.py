"""
Notebook 07's runs for seeds 0, 1 and 2: how much data, how long, what kind.

``python -m tests.bench.overfitting`` makes 60 runs and writes one JSON a run under
``data/reference_runs/overfitting``, with settings and versions; a run whose file is
there is skipped, so it goes on where it was cut off. ``1/2`` and ``2/2`` as argument
share the list between two processes, which on two cores is the faster way.

The task is the short triage. A seed draws the examples, the adapter's weights and the
order. Arms, at the laptop's settings but for what stands in `ARMS`:

- curve: from 10 examples to 1,000, ended by early stopping; loss and answers on alerts
  of the test, measured once;
- steady: 10 and 300 examples for the same number of steps, without early stopping;
- long: 300 examples for three times as many; noise: the same with some labels wrong;
- rate, dropout, decay: one thing changed from a steady run;
- kind: 300 alerts of two techniques only; the 10 of steady, again and again, are the
  other kind of little diversity.

Validation has 65 alerts in all of them.
"""

import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

import torch

from data.build import soc
from ftlib import (
    batches,
    cleaning,
    generation,
    models,
    records,
    redaction,
    schema,
    scoring,
    store,
    tokens,
    training,
)
from ftlib.config import ROOT, RunConfig

FOLDER = ROOT / "data" / "reference_runs" / "overfitting"
FIELDS = ("owner", "severity", "action")
TWO_TECHNIQUES = ("T1110.003", "T1486")  # identity and endpoint, low and critical
STEADY = {"max_steps": 48, "eval_steps": 16}
LONG = {"max_steps": 144, "eval_steps": 24}
OFTEN = STEADY | {"eval_steps": 8}
CURVE = {"max_steps": 192, "eval_steps": 16, "early_stopping_patience": 3}
HELD = {name: records.load_reviewed(name) for name in ("validation", "test")}
HELD["validation"] = HELD["validation"][:130:2]
SETTINGS = {"load_in_4bit": False, "save_steps": 10_000}
ARMS: dict[str, tuple[int, dict]] = {
    "steady_10": (10, OFTEN),
    "steady_300": (300, STEADY),
    **{f"curve_{n}": (n, CURVE) for n in (10, 30, 100, 300, 1000)},
    "long_300": (300, LONG),
    **{f"noise_{n}": (300, LONG | {"noise": n / 100}) for n in (40, 20, 10)},
    "rate_0.0005": (300, STEADY | {"learning_rate": 5e-4}),
    "rate_0.03": (300, STEADY | {"learning_rate": 3e-2}),
    "rate_0.002": (300, STEADY | {"learning_rate": 2e-3}),
    "two_techniques": (300, STEADY | {"techniques": TWO_TECHNIQUES}),
    "dropout_0.3": (10, OFTEN | {"lora_dropout": 0.3}),
    "decay_1": (10, OFTEN | {"weight_decay": 1.0}),
    "rate_0.016": (300, STEADY | {"learning_rate": 1.6e-2}),
    "dropout_0.1": (10, OFTEN | {"lora_dropout": 0.1}),
    "decay_0.1": (10, OFTEN | {"weight_decay": 0.1}),
}
"""By name: how many examples, and what is changed."""


def make_example(alert: soc.Row) -> schema.Example:
    """Make a short triage of an alert, as `lesson.make_triage_examples` does."""
    text = redaction.replace_spans(alert["text"], alert["spans"], {"HOSTNAME"})
    triage = {field: alert["triage"][field] for field in FIELDS}
    order = f"Give {', '.join(FIELDS)} as JSON."
    return schema.make_example(f"{order}\n{text}", json.dumps(triage))


def make_more(held: list[str]) -> list[soc.Row]:
    """Give alerts of other incidents, none with 13 words in a row that `held` has."""
    alerts = []
    for seed in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            soc.main(Path(folder), seed)
            for split in soc.SHARES:
                alerts += records.load_reviewed(split, folder)
    texts = [alert["text"] for alert in alerts]
    found = cleaning.measure_overlap(held, texts)
    pairs = [*found.exact, *found.shared_ngrams, *found.near_duplicates]
    seen = {pair[1] for pair in pairs}
    return [alert for i, alert in enumerate(alerts) if i not in seen]


def draw_examples(
    n: int, seed: int, noise: float = 0.0, techniques: tuple[str, ...] = ()
) -> list[schema.Example]:
    """
    Draw examples; those of a smaller `n` are the first of a larger one's.

    The 649 alerts of the course's training part come first. With `noise`, so large a
    share has the triage of the next such example.
    """
    rng = random.Random(seed)
    alerts = records.load_reviewed("train")
    rng.shuffle(alerts)
    if n > len(alerts) or techniques:
        held = [a["text"] for s in ("validation", "test") for a in HELD[s]]
        more = make_more(held)
        rng.shuffle(more)
        alerts += more
    if techniques:
        alerts = [a for a in alerts if a["triage"]["technique"] in techniques]
    if n > len(alerts):
        raise ValueError(f"there are {len(alerts)} alerts: {n} cannot be drawn")
    examples = [make_example(alert) for alert in alerts[:n]]
    chosen = rng.sample(range(n), round(noise * n))
    wrong = [examples[i]["messages"][1] for i in chosen]
    for i, response in zip(chosen, wrong[1:] + wrong[:1], strict=True):
        examples[i] = {"messages": [examples[i]["messages"][0], response]}
    return examples


def measure(arm: str, seed: int) -> dict[str, object]:
    """Make one run and give what is kept of it."""
    n, changes = ARMS[arm]
    data = {k: v for k, v in changes.items() if k in ("noise", "techniques")}
    changes = SETTINGS | {k: v for k, v in changes.items() if k not in data}
    config = RunConfig.for_profile("laptop", seed=seed, **changes)
    examples = draw_examples(n, seed, **data)
    kept = {"arm": arm, "seed": seed, "n_examples": n, "task": FIELDS} | data
    if data.get("noise"):
        clean = draw_examples(n, seed)
        kept["n_wrong"] = sum(a != b for a, b in zip(examples, clean, strict=True))
    tokenizer = models.load_tokenizer(config)
    model = models.make_trainable(models.load_base(config), config)
    encode = [tokens.encode_example(e, tokenizer) for e in examples]
    validation = [make_example(alert) for alert in HELD["validation"]]
    watched = [tokens.encode_example(e, tokenizer) for e in validation]
    folder = store.RUNS / "bench" / f"overfitting_{arm}_{seed}"
    try:
        run = training.fine_tune(model, tokenizer, encode, watched, config, folder)
    except schema.PreflightError as error:
        return kept | {"refused": error.problems[0].name, "history": []}
    kept |= {"steps": run.step, "best_step": run.best_step}
    kept["history"] = [{k: round(v, 4) for k, v in r.items()} for r in run.history]
    if config.early_stopping_patience:
        test = [make_example(alert) for alert in HELD["test"][:150]]
        rows = [tokens.encode_example(e, tokenizer) for e in test]
        losses = batches.measure_losses(model, tokenizer, rows)
        prompts, references = zip(*map(schema.split_prompt, test), strict=True)
        told = generation.generate(model, tokenizer, prompts, 48)
        right = scoring.match_exactly(told, references)
        scores = scoring.score_mean("loss", losses), scoring.score_share("exact", right)
        for s in scores:
            shown = {"name": s.name, "value": s.value, "low": s.low, "high": s.high}
            kept[s.name] = shown | {"n": s.n}
    return kept


def main(part: str = "1/1") -> None:
    """Make the runs that are not there yet, or every n-th of them."""
    torch.set_num_threads(1)
    first, n_parts = map(int, part.split("/"))
    runs = [(arm, seed) for arm in ARMS for seed in (0, 1, 2)]
    versions = {"versions": store.list_versions()}
    for arm, seed in runs[first - 1 :: n_parts]:
        path = Path(FOLDER, f"{arm}_seed{seed}.json")
        if not path.exists():
            kept = measure(arm, seed)
            store.write_json(path, kept | {"changes": ARMS[arm][1]} | versions)
            print(path.stem, kept.get("steps", kept.get("refused")), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
