"""Records: the raw rows a team has, loaded, split by group, made into examples."""

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlib.config import ROOT
from ftlib.schema import Span
from ftlib.store import read_jsonl

TRIAGE_ORDER = "Triage as JSON."
"""What the course's examples ask for; what a triage is, the responses show."""


def load_reviewed(
    split: str, folder: str | os.PathLike = ROOT / "data" / "soc"
) -> list[dict[str, Any]]:
    """
    Load the alerts of a split that a reviewer has found without fault.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        No incident has alerts in two splits.
    folder : path
        Where ``alerts.jsonl`` and ``truth.jsonl`` are.

    Returns
    -------
    list of dict
        With ``alert_id``, ``incident_id``, ``text``, ``spans`` (of `Span`) and
        ``triage``, among others.

    Examples
    --------
    >>> len(load_reviewed("test")) >= 200
    True
    """
    alerts, _ = read_jsonl(Path(folder) / "alerts.jsonl")
    truth, _ = read_jsonl(Path(folder) / "truth.jsonl")
    reviewed = {
        row["alert_id"]: row
        for row in truth
        if row["split"] == split and not row["faults"]
    }
    if not reviewed:
        raise ValueError(f"there is no split {split!r}: use train, validation or test")
    return [
        alert | {"spans": [Span(**span) for span in alert["spans"]]}
        for alert in alerts
        if alert["alert_id"] in reviewed
    ]


def split_by_group(
    rows: Sequence[Mapping[str, Any]],
    group: str,
    shares: Mapping[str, float],
    seed: int = 0,
) -> dict[str, list]:
    """
    Split rows so that no group falls into two parts.

    Rows of one incident, customer or document look alike: split row by row, the test
    would ask what training has already shown.

    Parameters
    ----------
    rows : sequence of mapping, length n_rows
        The rows to split; each has the key `group`.
    group : str
        The key whose equal values stay together.
    shares : mapping of str to float
        The parts and the share of groups each gets; the shares add up to 1.
    seed : int
        Seed of the shuffle of groups.

    Returns
    -------
    dict of str to list
        The parts, `n_rows` rows in all, each in the order of `rows`.

    Raises
    ------
    ValueError
        When the shares do not add up to 1, a row has no group, or a part stays empty.

    Examples
    --------
    >>> rows = [{"id": i, "incident": i // 2} for i in range(8)]
    >>> parts = split_by_group(rows, "incident", {"train": 0.75, "test": 0.25})
    >>> len(parts["train"]), len(parts["test"])
    (6, 2)
    """
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"the shares add up to {sum(shares.values())}: make it 1")
    for i, row in enumerate(rows, start=1):
        if row.get(group) is None:
            raise ValueError(f"row {i} has no {group!r}: give each row its group")
    groups = sorted({str(row[group]) for row in rows})
    random.Random(seed).shuffle(groups)
    part_of: dict[str, str] = {}
    begin, reached = 0, 0.0
    for name, share in shares.items():
        reached += share
        end = round(reached * len(groups))
        if end == begin:
            raise ValueError(
                f"{name} would be empty: there are {len(groups)} groups; give more "
                "groups or a larger share"
            )
        part_of |= dict.fromkeys(groups[begin:end], name)
        begin = end
    parts: dict[str, list] = {name: [] for name in shares}
    for row in rows:
        parts[part_of[str(row[group])]].append(row)
    return parts
