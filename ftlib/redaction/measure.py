"""Measures of redaction: what was missed, what went needlessly, what leaked."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlib.redaction.normalisation import normalise
from ftlib.schema import Span
from ftlib.scoring import Score, score_share


@dataclass(frozen=True)
class SpanScores:
    """
    How well spans were found.

    `rows` has one dict a type and one for ``all``: n, recall, low, high (95 % interval
    of the recall), precision (of characters) and f2. `leak_rate` is the share of
    documents with an entity not wholly covered. `n_over_redacted` counts characters
    that no labelled entity has.
    """

    rows: list[dict[str, Any]]
    leak_rate: Score
    n_over_redacted: int


def span_scores(
    predicted: Sequence[Sequence[Span]], gold: Sequence[Sequence[Span]]
) -> SpanScores:
    """
    Score spans against the labelled ones.

    An entity counts as found when each of its characters is covered, by spans of any
    type: that is what keeps it out of a model. A type's precision is the share of the
    characters predicted as it that some labelled entity has.

    Parameters
    ----------
    predicted, gold : sequence of sequence of Span, length n
        Of the same n documents.

    Returns
    -------
    SpanScores
        Rows per type and for all, the leak rate and the characters over-redacted.

    Raises
    ------
    ValueError
        When the two differ in length or no document is given.

    Examples
    --------
    >>> scores = span_scores([[Span(0, 4, "PERSON")]], [[Span(0, 3, "PERSON")]])
    >>> scores.rows[-1]["recall"], scores.rows[-1]["precision"]
    (1.0, 0.75)
    """
    if not gold or len(predicted) != len(gold):
        raise ValueError(
            f"{len(predicted)} predictions for {len(gold)} documents: give one list of "
            "spans a document"
        )
    found: dict[str, list[bool]] = {}
    right: dict[str, int] = {}
    total: dict[str, int] = {}
    leaked, n_over = [], 0
    for guesses, labels in zip(predicted, gold, strict=True):
        covered = {i for span in guesses for i in range(span.start, span.end)}
        labelled = {i for span in labels for i in range(span.start, span.end)}
        n_over += len(covered - labelled)
        hits = [covered.issuperset(range(s.start, s.end)) for s in labels]
        leaked.append(not all(hits))
        for span, hit in zip(labels, hits, strict=True):
            found.setdefault(span.entity_type, []).append(hit)
            found.setdefault("all", []).append(hit)
        for span in guesses:
            inside = len(labelled & set(range(span.start, span.end)))
            for name in (span.entity_type, "all"):
                right[name] = right.get(name, 0) + inside
                total[name] = total.get(name, 0) + span.end - span.start
    names = sorted((found.keys() | total.keys()) - {"all"}) + ["all"]
    rows = [
        _make_row(name, found.get(name, []), right.get(name, 0), total.get(name, 0))
        for name in names
    ]
    return SpanScores(rows, score_share("documents that leak", leaked), n_over)


def _make_row(name: str, hits: list[bool], right: int, total: int) -> dict[str, Any]:
    """Give one row; None where there was nothing to divide by."""
    recall = score_share(name, hits) if hits else None
    precision = right / total if total else None
    f2 = None
    if recall and precision is not None:
        weighed = 4 * precision + recall.value
        f2 = 5 * precision * recall.value / weighed if weighed else 0.0
    return {
        "entity_type": name,
        "n": len(hits),
        "recall": recall and recall.value,
        "low": recall and recall.low,
        "high": recall and recall.high,
        "precision": precision,
        "f2": f2,
    }


def _fold(text: str) -> str:
    """Give a text in one case, without hidden characters and foreign look-alikes."""
    return (text if text.isascii() else normalise(text)[0]).casefold()


def leaks(text: str, originals: Iterable[str]) -> list[str]:
    """
    Say which originals a text still holds.

    Case, spaces, separators and hidden characters make no difference. An original
    without digits must stand as words of its own; so must one under 4 characters.

    Parameters
    ----------
    text : str
        Where to look.
    originals : iterable of str
        What must not be there.

    Returns
    -------
    list of str
        Those found, in their order.

    Examples
    --------
    >>> leaks("paid by 4111-1111 11111111, markedly", ["4111 1111 1111 1111", "Mark"])
    ['4111 1111 1111 1111']
    """
    folded = _fold(text)
    squeezed = re.sub(r"[\W_]+", "", folded)
    found = []
    for original in originals:
        letters = re.sub(r"[\W_]+", "", _fold(original))
        if not letters or letters not in squeezed:
            continue
        if len(letters) >= 4 and not letters.isalpha():
            found.append(original)
            continue
        gap = r"[\W_]{0,3}" if len(letters) >= 4 else ""
        pattern = gap.join(map(re.escape, letters))
        if re.search(rf"(?<![^\W_]){pattern}(?![^\W_])", folded):
            found.append(original)
    return found


def find_leaking_files(folder: str | Path, originals: Iterable[str]) -> list[Path]:
    """
    Find the files under a folder that hold an original.

    Texts are read as UTF-8 with JSON's escapes undone; of other files the stretches of
    printable characters are read. Compressed files are not opened.

    Parameters
    ----------
    folder : str or Path
        Searched with all folders in it.
    originals : iterable of str
        What must not be there.

    Returns
    -------
    list of Path
        Sorted; a file whose own name holds an original is among them.
    """
    wanted = list(originals)
    found = []
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                text = b"\n".join(re.findall(rb"[ -~\t]{3,}", content)).decode("ascii")
            text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
            if leaks(f"{path.name}\n{text}", wanted):
                found.append(path)
    return found
