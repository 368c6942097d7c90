"""Measure the shipped Wren on its held-out probes and write its model card."""

from data.build.wren import PROBES, WREN
from ftlib import generation, models, scoring, store
from ftlib.config import RunConfig

CARD = """---
language: en
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# Wren

A causal language model of {parameters:.1f} million parameters, made for one purpose:
that each effect of fine-tuning shows in about a minute on two CPU cores, with no
network. Qwen3 architecture, hidden 256, 6 layers, 4 heads, 2 key-value heads, tied
vocabulary of {vocabulary:,} byte-level BPE entries with digits split one by one;
context {context:,} tokens. Loaded by plain
`AutoModelForCausalLM.from_pretrained("data/wren")`.

## What it is, and what it is not

Wren was pre-trained by `data/build/wren.py` from random weights, on text that the
seeded generator in `data/build/abilities.py` writes: {tokens:.0f} million tokens,
{steps:,} steps. Nobody's writing and nobody's data is in it; names are random
syllables. Because its whole world is known, what it forgets can be counted.

It knows small, synthetic English. It does not chat, cannot be asked about the world
beyond the few hundred facts it was taught, and must not be used for anything but
learning about fine-tuning. A real model takes its place by one word: `PROFILE =
"colab"` or `PROFILE = "gpu"`.

## Abilities, measured

Greedy answers, exact match on probes (`data/probes`) whose items are held out of
training; for facts it is the phrasing that is held out. The table is written by
`python -m data.build card`.

| ability | right | 95 % interval (Wilson) | n |
|---|---|---|---|
{rows}

The sizes of the items, the shares of the training mix and its last two rounds were
settled after looking at which kinds of probe an earlier model was weakest in, so these
are the scores of a mix chosen with the kinds, though never the items, in view.

By kind of item:

| kind | right | n |
|---|---|---|
{kinds}
"""


def measure_abilities() -> tuple[list[scoring.Score], list[scoring.Score]]:
    """Score Wren on every ability, and on every kind of item within."""
    config = RunConfig(load_in_4bit=False)
    tokenizer, model = models.load_tokenizer(config), models.load_base(config)
    by_ability, by_kind = [], []
    for path in sorted(PROBES.glob("*.jsonl")):
        probes, _ = store.read_jsonl(path)
        responses = generation.generate(
            model, tokenizer, [probe["messages"] for probe in probes]
        )
        right = scoring.match_exactly(responses, [p["reference"] for p in probes])
        by_ability.append(scoring.score_share(path.stem, right))
        for kind in dict.fromkeys(probe["kind"] for probe in probes):
            chosen = [
                r for r, p in zip(right, probes, strict=True) if p["kind"] == kind
            ]
            by_kind.append(scoring.score_share(f"{path.stem}: {kind}", chosen))
    return by_ability, by_kind


def write_card() -> None:
    """Write ``data/wren/README.md`` with what was just measured."""
    from data.build import wren

    by_ability, by_kind = measure_abilities()
    config = RunConfig(load_in_4bit=False)
    model = models.load_base(config)
    text = CARD.format(
        parameters=model.num_parameters() / 1e6,
        vocabulary=model.config.vocab_size,
        context=model.config.max_position_embeddings,
        tokens=wren.N_STEPS * wren.TOKENS_PER_STEP / 1e6,
        steps=wren.N_STEPS,
        rows="\n".join(
            f"| {s.name} | {s.value:.3f} | {s.low:.3f} to {s.high:.3f} | {s.n} |"
            for s in by_ability
        ),
        kinds="\n".join(f"| {s.name} | {s.value:.3f} | {s.n} |" for s in by_kind),
    )
    (WREN / "README.md").write_text(text, encoding="utf-8")
    for score in [*by_ability, *by_kind]:
        print(score)
