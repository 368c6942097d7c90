"""Scoring: each score with its n and an interval, and tests of paired differences."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from ftlib.store import parse_row

Z_95 = 1.959964  # the normal quantile that leaves 2.5 % above it


@dataclass(frozen=True)
class Score:
    """A measured value from 0 to 1 (or a mean), its n and its 95 % interval."""

    name: str
    value: float
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        """Write the score as text, such as ``exact 0.90 [0.85, 0.94], n=200``."""
        interval = f"[{self.low:.2f}, {self.high:.2f}]"
        return f"{self.name} {self.value:.2f} {interval}, n={self.n}"


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """
    Give Wilson's 95 % interval of a share.

    Parameters
    ----------
    n_right : int
        How many of the `n` came out right.
    n : int
        How many were tried; at least one.

    Returns
    -------
    tuple of float
        The lower and the upper end, within 0 and 1.

    Notes
    -----
    E. B. Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22 (1927). Unlike value +/- 2 standard errors, it holds at 0 of n.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(0, 10)]
    [0.0, 0.278]
    """
    if n < 1 or not 0 <= n_right <= n:
        raise ValueError(f"{n_right} of {n} is no share: give 0 <= n_right <= n, n > 0")
    share, z2 = n_right / n, Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def score_share(name: str, right: Sequence[bool]) -> Score:
    """
    Give the share of answers that are right, with Wilson's interval.

    Parameters
    ----------
    name : str
        What is measured.
    right : sequence of bool, length n
        Whether each answer is right.

    Returns
    -------
    Score
        The share, its n and interval.

    Examples
    --------
    >>> str(score_share("exact", [True, True, False, True]))
    'exact 0.75 [0.30, 0.95], n=4'
    """
    low, high = wilson_interval(sum(right), len(right))
    return Score(name, sum(right) / len(right), len(right), low, high)


def score_mean(
    name: str, values: Sequence[float], seed: int = 0, n_resamples: int = 2_000
) -> Score:
    """
    Give the mean of `values`, with a seeded bootstrap's 95 % interval.

    Parameters
    ----------
    name : str
        What is measured.
    values : sequence of float, length n
        One value an item.
    seed : int
        Seed of the resampling.
    n_resamples : int
        How often the items are drawn anew.

    Returns
    -------
    Score
        The mean, its n and interval.
    """
    if not values:
        raise ValueError("there is nothing to score: give at least one value")
    low, high = _bootstrap(values, seed, n_resamples)
    return Score(name, math.fsum(values) / len(values), len(values), low, high)


def _bootstrap(
    values: Sequence[float], seed: int, n_resamples: int
) -> tuple[float, float]:
    """Give the 2.5th and 97.5th percentile of the mean over resampled items."""
    # Sorted, so that the interval does not hang on the order of the items.
    rng, n, values = random.Random(seed), len(values), sorted(values)
    means = sorted(math.fsum(rng.choices(values, k=n)) / n for _ in range(n_resamples))
    cut = round(0.025 * n_resamples)
    return means[cut], means[-cut - 1]


def compare_paired(
    name: str,
    before: Sequence[float],
    after: Sequence[float],
    seed: int = 0,
    n_resamples: int = 2_000,
) -> Score:
    """
    Give the mean gain of `after` over `before` on the same items, with an interval.

    Parameters
    ----------
    name : str
        What is compared.
    before, after : sequence of float or bool, length n
        The two systems' value on each item, in the same order.
    seed, n_resamples : int
        Of the bootstrap over items.

    Returns
    -------
    Score
        The mean of after minus before, its n and interval.

    Examples
    --------
    >>> compare_paired("gain", [0, 1], [0, 1]).value
    0.0
    """
    pairs = zip(before, after, strict=True)
    return score_mean(name, [float(b) - float(a) for a, b in pairs], seed, n_resamples)


def compare_mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """
    Give the exact McNemar p value that two systems err equally often.

    Parameters
    ----------
    before, after : sequence of bool, length n
        Whether each system was right on the same items.

    Returns
    -------
    float
        Two-sided; 1.0 when they never differ.

    Examples
    --------
    >>> compare_mcnemar([False] * 5, [True] * 5)
    0.0625
    """
    pairs = list(zip(before, after, strict=True))
    gained = sum(b and not a for a, b in pairs)
    lost = sum(a and not b for a, b in pairs)
    n, k = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n)


def parse_json(text: str) -> dict[str, Any] | None:
    """
    Give the JSON object that a response is, or None.

    Strict: nothing before or after it, so prose around an object counts as wrong.

    Parameters
    ----------
    text : str
        The response.

    Returns
    -------
    dict or None
        The object, when the whole text is one.

    Examples
    --------
    >>> parse_json('{"a": 1}'), parse_json('Here: {"a": 1}')
    ({'a': 1}, None)
    """
    try:
        return parse_row(text.encode("utf-8"))
    except ValueError:  # BadRowError among them
        return None


def _tag(value: Any) -> Any:
    """Tell true from 1, which Python holds to be equal."""
    if isinstance(value, dict):
        return {name: _tag(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_tag(part) for part in value]
    return (value,) if isinstance(value, bool) else value


def match_exactly(responses: Sequence[str], references: Sequence[str]) -> list[bool]:
    """
    Say of each response whether it equals its reference.

    Two JSON objects are equal when their keys and values are; other texts when they
    are the same but for white space at the ends.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said.
    references : sequence of str, length n
        What it should have said.

    Returns
    -------
    list of bool, length n
        Whether each is right.

    Examples
    --------
    >>> match_exactly(['{"a":1, "b":2}', "Rome "], ['{"b": 2, "a": 1}', "Rome"])
    [True, True]
    """

    def equal(response: str, reference: str) -> bool:
        wanted = parse_json(reference)
        if wanted is not None:
            return _tag(parse_json(response)) == _tag(wanted)
        return response.strip() == reference.strip()

    return [equal(r, w) for r, w in zip(responses, references, strict=True)]


def match_schema(responses: Sequence[str], schema: Mapping[str, Any]) -> list[bool]:
    """
    Say of each response whether it is JSON that is valid under a JSON Schema.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said.
    schema : mapping
        A JSON Schema, draft 2020-12.

    Returns
    -------
    list of bool, length n
        Whether each is valid.
    """
    validator = Draft202012Validator(schema)
    parsed = [parse_json(response) for response in responses]
    return [value is not None and validator.is_valid(value) for value in parsed]


def score_fields(responses: Sequence[str], references: Sequence[str]) -> list[Score]:
    """
    Score each field of JSON responses against their references.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said; one that is no JSON is wrong in each field.
    references : sequence of str, length n
        JSON objects, all with the same keys.

    Returns
    -------
    list of Score
        One a field, in the order of the first reference's keys.
    """
    wanted = [json.loads(reference) for reference in references]
    given = [parse_json(response) or {} for response in responses]
    return [
        score_share(
            name,
            [
                name in g and _tag(g[name]) == _tag(w[name])
                for g, w in zip(given, wanted, strict=True)
            ],
        )
        for name in wanted[0]
    ]
