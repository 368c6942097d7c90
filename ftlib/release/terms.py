"""Terms: who answers for a model, what it may be used for, and until when."""

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from ftlib.schema import fold_text

FIELDS = {
    "owner": "the role that answers for the model, such as security operations",
    "approver": "another role, which says whether it may ship",
    "purpose": "a sentence on what it is for",
    "allowed_uses": "a list of at least one use",
    "forbidden_uses": "a list of at least one use",
    "data_rights": "one of free, erasable, in house, no training",
    "retention": "how long its data and runs are kept, such as 400 days",
    "review_date": "a day to come, such as 2030-06-30",
    "licence": "the SPDX name of the model's licence, such as Apache-2.0",
}
"""The fields of ``release.yaml``, and what to write into each."""
DATA_RIGHTS = ("free", "erasable", "in house", "no training")


def read_terms(path: str | os.PathLike, today: date | None = None) -> dict[str, Any]:
    """
    Read a ``release.yaml`` and check it field by field.

    Parameters
    ----------
    path : path
        A YAML file with the keys of `FIELDS`; ``data/release.yaml`` is a template.
    today : date, optional
        The day after which the review is to come; by default the clock's.

    Returns
    -------
    dict
        By field.

    Raises
    ------
    ValueError
        Naming each field that is missing or wrong, with what to write.

    Examples
    --------
    >>> read_terms("data/release.yaml", date(2026, 1, 1))["owner"]
    'security operations'
    """
    name = Path(path).name
    try:
        terms = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(terms, dict):
        raise ValueError(f"{name} has no fields: write lines such as owner: ...")
    if faults := find_term_faults(terms, today):
        raise ValueError(f"{name} cannot be used.\n" + "\n".join(faults))
    return terms


def find_term_faults(terms: Mapping[str, Any], today: date | None = None) -> list[str]:
    """
    Say which terms are missing or wrong, and what to write instead.

    Parameters
    ----------
    terms : mapping of str to object
        By field.
    today : date, optional
        As for `read_terms`.

    Returns
    -------
    list of str
        A sentence a fault; empty where all is well.

    Examples
    --------
    >>> find_term_faults({}, date(2026, 1, 1))[1]
    'approver is missing: write another role, which says whether it may ship'
    """
    faults = []
    for name, hint in FIELDS.items():
        value = terms.get(name)
        if value in (None, "", []):
            faults.append(f"{name} is missing: write {hint}")
        elif not _fits(name, value, today or date.today()):
            faults.append(f"{name} is {str(value)!r}: write {hint}")
    owner, approver = (str(terms.get(name)) for name in ("owner", "approver"))
    if not faults and fold_text(owner) == fold_text(approver):
        faults.append("approver is the owner: name another role, or nobody checks")
    unknown = [str(name) for name in terms if name not in FIELDS]
    return [*faults, *(f"{n} is no field: use {', '.join(FIELDS)}" for n in unknown)]


def _fits(name: str, value: Any, today: date) -> bool:
    """Say whether a value is of the kind that its field wants."""
    if name == "review_date":
        try:
            return date.fromisoformat(str(value)) > today
        except ValueError:
            return False
    if name.endswith("_uses") and not isinstance(value, list):
        return False
    texts = value if name.endswith("_uses") else [value]
    known = name != "data_rights" or value in DATA_RIGHTS
    return known and all(isinstance(text, str) and text.strip() for text in texts)
