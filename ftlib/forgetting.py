"""Forgetting: what the base model can do, counted before and after a fine-tune."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ftlib.config import ROOT
from ftlib.schema import Example, Message, make_example, split_prompt
from ftlib.scoring import Score, match_exactly, score_share
from ftlib.store import read_jsonl

Probes = dict[str, list[Example]]


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


def measure_abilities(
    answer: Callable[[Sequence[Sequence[Message]]], Sequence[str]],
    probes: Mapping[str, Sequence[Example]],
) -> list[Score]:
    """
    Score each ability by exact match of the answers with the references.

    Parameters
    ----------
    answer : callable
        Given prompts, gives the responses: `generation.generate` with a model and
        tokenizer filled in by ``functools.partial``.
    probes : mapping of str to sequence of Example
        As `load_probes` gives them.

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
    scores = []
    for ability, examples in probes.items():
        prompts, references = zip(*map(split_prompt, examples), strict=True)
        right = match_exactly(answer(prompts), references)
        scores.append(score_share(ability, right))
    return scores
