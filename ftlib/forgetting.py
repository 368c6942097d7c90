"""Forgetting: what the base model can do, counted before and after a fine-tune."""

import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ftlib.batches import Row, cut_batches, sum_kl
from ftlib.config import ROOT
from ftlib.models import hold_still
from ftlib.schema import Example, Message, make_example, split_prompt
from ftlib.scoring import Score, compare_paired, match_exactly, score_share
from ftlib.scoring.score import TOO_FEW
from ftlib.scoring.statistics import N_RESAMPLES
from ftlib.store import read_jsonl

Probes = dict[str, list[Example]]
Right = Mapping[str, Sequence[bool]]
"""Whether each probe was answered right, by ability; or each item, by task."""

MIN_RETENTION = 0.95
"""The gate wants at least so much of the old abilities kept, on average."""
MAX_LOSS = 0.05
"""The gate lets no ability fall surely by more than this: five points."""

SHORT_TOKENS = 32
"""Abilities whose references have three quarters of it at most need no more tokens."""
REPLAY = ROOT / "data" / "replay"


def load_probes(
    n_per_ability: int | None = None,
    folder: str | os.PathLike = ROOT / "data" / "probes",
) -> Probes:
    """
    Load the held-out probes of each ability.

    Parameters
    ----------
    n_per_ability : int, optional
        How many of each to take, from the first; all by default.
    folder : path
        Where ``ABILITY.jsonl`` are.

    Returns
    -------
    dict of str to list of Example
        By ability, in alphabetical order.

    Examples
    --------
    >>> len(load_probes(2)["reading"])
    2
    """
    probes: Probes = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        rows, _ = read_jsonl(path)
        probes[path.stem] = [
            Example(messages=[*row["messages"], *_answer(row["reference"])])
            for row in rows[:n_per_ability]
        ]
    return probes


def _answer(reference: str) -> list[Message]:
    return make_example("", reference)["messages"][1:]


def load_replay(n: int, seed: int = 0) -> list[Example]:
    """
    Draw conversations of the base model's own training, to learn again beside a task.

    Parameters
    ----------
    n : int
        How many; 80 beside 400 examples is replay of 20 %.
    seed : int
        Of the draw.

    Returns
    -------
    list of Example, length n
        None of them is a probe.

    Raises
    ------
    ValueError
        When there are not so many.

    Examples
    --------
    >>> len(load_replay(3))
    3
    """
    rows, _ = read_jsonl(REPLAY / "conversations.jsonl")
    if not 0 <= n <= len(rows):
        raise ValueError(f"{n} rows of replay: there are {len(rows)}, give 0 or more")
    chosen = random.Random(seed).sample(rows, n)
    return [Example(messages=row["messages"]) for row in chosen]


def load_neutral(n: int | None = None) -> list[Example]:
    """
    Load neutral text, which no task is about, to take the loss on.

    Parameters
    ----------
    n : int, optional
        How many documents, from the first; all by default.

    Returns
    -------
    list of Example
        Each a document as the response to an empty prompt, of the kind that the base
        model was trained on but not among what it saw. For `tokens.encode_example`
        and `batches.measure_loss`.

    Examples
    --------
    >>> load_neutral(1)[0]["messages"][0]["content"]
    ''
    """
    rows, _ = read_jsonl(REPLAY / "neutral.jsonl")
    return [make_example("", row["text"]) for row in rows[:n]]


def answer_probes(
    answer: Callable[..., Sequence[str]],
    probes: Mapping[str, Sequence[Example]],
    tokenizer: Any = None,
) -> dict[str, list[bool]]:
    """
    Have each probe answered, and say which answers match their reference exactly.

    Parameters
    ----------
    answer : callable
        Given prompts, gives the responses: `generation.generate` with a model and
        tokenizer filled in by ``functools.partial``.
    probes : mapping of str to sequence of Example
        As `load_probes` gives them.
    tokenizer : transformers tokenizer, optional
        With it, `answer` is told a ``max_new_tokens`` of `SHORT_TOKENS` for abilities
        whose references are short: an answer that goes on beyond is wrong already.

    Returns
    -------
    dict of str to list of bool
        By ability, one a probe, in their order.

    Examples
    --------
    >>> probes = {"facts": [make_example("Capital of Peru?", "Lima")]}
    >>> answer_probes(lambda prompts: ["Lima"], probes)
    {'facts': [True]}
    """
    pairs = {name: list(map(split_prompt, rows)) for name, rows in probes.items()}
    short, right = [], {}
    if tokenizer is not None:
        for name, asked in pairs.items():
            lengths = [len(tokenizer(response)["input_ids"]) for _, response in asked]
            short += [name] * (max(lengths) <= 3 * SHORT_TOKENS // 4)
    # Many at once: a batch is far faster than as many batches as there are abilities.
    for names in filter(None, (short, [name for name in pairs if name not in short])):
        limit = {"max_new_tokens": SHORT_TOKENS} if names is short else {}
        prompts, references = zip(*(p for n in names for p in pairs[n]), strict=True)
        marks = iter(match_exactly(answer(prompts, **limit), references))
        right |= {name: [bool(next(marks)) for _ in pairs[name]] for name in names}
    return {name: right[name] for name in pairs}


def measure_abilities(
    answer: Callable[..., Sequence[str]],
    probes: Mapping[str, Sequence[Example]],
    tokenizer: Any = None,
) -> list[Score]:
    """
    Score each ability by exact match of the answers with the references.

    Parameters
    ----------
    answer : callable
        As for `answer_probes`.
    probes : mapping of str to sequence of Example
        As `load_probes` gives them.
    tokenizer : transformers tokenizer, optional
        As for `answer_probes`.

    Returns
    -------
    list of Score
        One an ability, in the order of `probes`.

    Examples
    --------
    >>> probes = {"facts": [make_example("Capital of Peru?", "Lima")]}
    >>> measure_abilities(lambda prompts: ["Lima"], probes)[0].value
    1.0
    """
    right = answer_probes(answer, probes, tokenizer)
    return [score_share(ability, marks) for ability, marks in right.items()]


def compare_abilities(before: Right, after: Right) -> list[Score]:
    """
    Give the forgetting of each ability: its share right before, minus that after.

    Parameters
    ----------
    before, after : mapping of str to sequence of bool
        As `answer_probes` gives them for the same probes.

    Returns
    -------
    list of Score
        One an ability, in the order of `before`; above 0 is forgotten. The interval is
        paired: over the difference on each probe.

    Raises
    ------
    ValueError
        When the two are not of the same probes.

    Examples
    --------
    >>> compare_abilities({"facts": [True, True]}, {"facts": [True, False]})[0].value
    0.5
    """
    _check_pairs(before, after)
    return [compare_paired(name, after[name], before[name]) for name in before]


def _check_pairs(before: Right, after: Right) -> None:
    """Refuse results that are not of the same probes."""
    sizes, others = ({a: len(r) for a, r in part.items()} for part in (before, after))
    if sizes != others or not sizes or not all(sizes.values()):
        raise ValueError(
            f"before has {sizes or 'no'} probes and after {others or 'no'}: "
            "measure the same probes twice, at least one of each ability"
        )


def summarise(before: Right, after: Right, seed: int = 0) -> dict[str, Score]:
    """
    Sum up what became of all abilities, or of all tasks learned earlier.

    Parameters
    ----------
    before, after : mapping of str to sequence of bool
        As `answer_probes` gives them for the same probes.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to Score
        ``retention``, the mean over abilities of the share after divided by that
        before; ``mean forgetting``; ``worst ability``, the one forgotten most, by its
        name; and ``backward transfer``, the mean of after minus before (Lopez-Paz &
        Ranzato 2017, arXiv:1706.08840): learning the new made the old better where it
        is above 0.

    Raises
    ------
    ValueError
        When the two are not of the same probes, or nothing was right before.

    Notes
    -----
    The intervals are a bootstrap's: probes are drawn anew within each ability, with
    their answers before and after together. An ability of which nothing was right
    before has no retention and is left out of its mean.

    Examples
    --------
    >>> before = {"facts": [True, True], "words": [True, True]}
    >>> after = {"facts": [True, False], "words": [True, True]}
    >>> summarise(before, after)["retention"].value
    0.75
    """
    worst = max(compare_abilities(before, after), key=lambda score: score.value)
    rng = np.random.default_rng(seed)
    shares, drawn = [], []
    for name in before:
        pairs = np.array([before[name], after[name]], dtype=float)
        n = pairs.shape[1]
        shares.append(pairs.mean(axis=1))
        drawn.append(pairs[:, rng.integers(0, n, (N_RESAMPLES, n))].mean(axis=2))
    old, new = np.array(shares).T
    if not old.any():
        raise ValueError("nothing was right before: there is nothing to forget")
    drawn_old, drawn_new = np.array(drawn).transpose(1, 2, 0)
    n = sum(map(len, before.values()))
    parts = {
        "retention": (_divide(new, old), _divide(drawn_new, drawn_old)),
        "mean forgetting": (old - new, drawn_old - drawn_new),
        "backward transfer": (new - old, drawn_new - drawn_old),
    }
    summary = {"worst ability": replace(worst, name=f"worst ability ({worst.name})")}
    for name, (values, redrawn) in parts.items():
        n_defined = (~np.isnan(redrawn)).sum(axis=1).astype(float)
        means = _divide(np.nansum(redrawn, axis=1), n_defined)
        low, high = np.nanpercentile(means, [2.5, 97.5])
        summary[name] = Score(name, _mean(values), n, float(low), float(high))
    return summary


def _divide(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Divide where `old` is above 0; elsewhere there is no number."""
    return np.divide(new, old, out=np.full_like(old, np.nan), where=old > 0)


def _mean(values: np.ndarray) -> float:
    """Give the mean of what is a number; exact, so that 0.95 at the gate is 0.95."""
    numbers = values[~np.isnan(values)]
    return math.fsum(numbers) / len(numbers)


def measure_kl(
    model: Any, tokenizer: Any, rows: Sequence[Row], batch_size: int = 16
) -> float:
    """
    Measure how far an adapter has led a model away from its base, on prompts.

    Parameters
    ----------
    model : peft.PeftModel
        The model with its adapter; the base is the same model with it disabled. Its
        train or eval mode is as before afterwards.
    tokenizer : transformers tokenizer
        For padding.
    rows : sequence of dict
        ``input_ids`` and ``labels`` of examples, of the new task as a rule.
    batch_size : int
        Rows measured at once.

    Returns
    -------
    float
        The mean over the tokens that are not supervised of the KL divergence, in nats,
        of the tuned model's guess at them from the base model's: 0 when they agree.

    Raises
    ------
    ValueError
        When the model has no adapter, or the rows no prompt.
    """
    if not hasattr(model, "disable_adapter"):
        raise ValueError("this model has no adapter: its base is not there to compare")
    total, n_tokens = 0.0, 0
    with hold_still(model):
        for batch in cut_batches(model, tokenizer, rows, batch_size):
            batch = batch.to(model.device)
            asked = {k: batch[k] for k in ("input_ids", "attention_mask")}
            tuned = model(**asked, use_cache=False).logits
            with model.disable_adapter():
                base = model(**asked, use_cache=False).logits
            kl, n = sum_kl(tuned, base, batch)
            total, n_tokens = total + float(kl), n_tokens + n
    if not n_tokens:
        raise ValueError("these rows have no prompt: give examples of the task")
    return total / n_tokens


@dataclass(frozen=True)
class Verdict:
    """Whether a fine-tuned model may ship and, where it may not, every reason why."""

    ship: bool
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write the verdict as text, a reason a line."""
        if self.ship:
            return "ship"
        return "\n- ".join(["do not ship", *self.reasons])


def check_gate(gain: Score, before: Right, after: Right) -> Verdict:
    """
    Say whether a fine-tuned model may ship: it gains, and forgets next to nothing.

    Parameters
    ----------
    gain : Score
        What it gains on its task: `scoring.compare_paired` of the base model and it.
    before, after : mapping of str to sequence of bool
        What the two do on the same probes, as `answer_probes` gives them.

    Returns
    -------
    Verdict
        To ship where the gain's interval lies above 0, at least `MIN_RETENTION` of the
        abilities is retained on average, and no ability is down by more than `MAX_LOSS`
        with an interval above 0.

    Raises
    ------
    ValueError
        When the two are not of the same probes, or nothing was right before.

    Notes
    -----
    The abilities' intervals are not adjusted for how many are looked at. That would
    make false alarms rarer and let more harm through, and here the harm costs more: a
    false alarm is settled by more probes. For the same reason too few items never pass.

    Examples
    --------
    >>> gain = Score("gain", 0.4, 200, 0.33, 0.47)
    >>> before = {"facts": [True] * 40, "words": [True] * 40}
    >>> print(check_gate(gain, before, before))
    ship
    >>> print(check_gate(gain, before, before | {"words": [False] * 40}))
    do not ship
    - retention is 0.50: 0.95 is wanted
    - words is down by 1.00 [1.00, 1.00]: 0.05 is let pass
    """
    reasons = []
    if not gain.low > 0:
        reasons.append(f"{gain}: its interval must lie above 0")
    retention = summarise(before, after)["retention"].value
    if retention < MIN_RETENTION:
        reasons.append(f"retention is {retention:.2f}: {MIN_RETENTION} is wanted")
    for score in compare_abilities(before, after):
        if score.value > MAX_LOSS and score.low > 0:
            down = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
            reasons.append(f"{score.name} is down by {down}: {MAX_LOSS} is let pass")
    sizes = {gain.name: gain.n} | {name: len(right) for name, right in before.items()}
    too_few = [name for name, n in sizes.items() if n < TOO_FEW]
    if too_few:
        reasons.append(f"fewer than {TOO_FEW} items to tell by: {', '.join(too_few)}")
    return Verdict(not reasons, tuple(reasons))
