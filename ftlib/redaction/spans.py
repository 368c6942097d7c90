"""Finding: the spans of a text, by positions in the text as it was given."""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from ftlib.redaction.normalisation import normalise
from ftlib.schema import Span

LEAST_SCORE = 0.4
"""What scores less is dropped: a weak pattern without a word of context beside it."""
PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]*_\d+\]")
_WINDOW, _OVERLAP = 12_000, 4_096  # the longest private keys have 3,400 characters
# What the model finds; where none of these is asked for, it is not loaded.
_MODEL_TYPES = {"PERSON", "LOCATION", "ORGANIZATION", "STREET_ADDRESS", "USERNAME"}
_ALONE = Lock()
# What may stand between two pieces that read as one.
_JOINTS = {"PERSON": ("", " ", "-"), "STREET_ADDRESS": ("", " ", ", ", ",\n", " - ")}
# Check digits pass one number in ten: one without separators needs a word as well.
_NATIONAL = re.compile(r"(?:US|UK|ES|IT|PL|IN|AU|SG|FI|KR|SE|TR|DE|CA)_")
_NUMBER_WORDS = re.compile(
    r"\b(?:id|nhs|tfn|tax|acn|abn|sin|ssn|itin|nif|pesel|medicare|insurance|social|"
    r"number|national|identity|personal|patient|no|nr)\b",
    re.IGNORECASE,
)

# Where a password would stand, these are none.
_NO_SECRET = re.compile(
    r"[\"'`]?(?:true|false|null|none|nil|yes|no|str|string|bool|int|password|PASSWORD|"
    r"(?:os|env|process|settings)\.\w+|[$%]\{.*|\$\(.*|\$[A-Z_]+|\{\{.*|<.*)[\"'`]?",
    re.DOTALL,
)


def find_spans(
    text: str,
    entity_types: Collection[str] | None = None,
    patterns: str | Path | None = None,
    keep: Collection[str] = (),
) -> list[Span]:
    """
    Find what names a person or holds a secret.

    Parameters
    ----------
    text : str
        Any text. It is searched in a plain copy, without hidden characters.
    entity_types : collection of str, optional
        The types wanted; else all but ``ORGANIZATION``.
    patterns : str or Path, optional
        A YAML file with patterns of your own, in the form of ``recognizers.yaml``.
    keep : collection of str
        Types to leave out; what is of another type within one is still found.

    Returns
    -------
    list of Span
        In order, none overlapping, by positions in `text` itself. Where two met, the
        longer one won. Placeholders such as ``[PERSON_1]`` are in none.

    Raises
    ------
    ValueError
        When an entity type is unknown, or the file of patterns is in another form.

    Examples
    --------
    >>> text = "Mail ana@corp.example from 10.0.0.5"
    >>> [text[s.start : s.end] for s in find_spans(text, {"EMAIL_ADDRESS"})]
    ['ana@corp.example']
    """
    # Presidio takes seconds to import: only who looks for spans waits for it.
    from ftlib.redaction import engine

    with_model = entity_types is None or not _MODEL_TYPES.isdisjoint(entity_types)
    analyzer = engine.build_engine(str(patterns) if patterns else None, with_model)
    known = set(analyzer.get_supported_entities("en"))
    wanted = known - {"ORGANIZATION"} if entity_types is None else set(entity_types)
    if unknown := sorted(wanted - known):
        raise ValueError(
            f"no entity type {', '.join(unknown)}: use {', '.join(sorted(known))}"
        )
    wanted -= set(keep)
    plain, starts, ends = normalise(text)
    lefts = range(0, max(1, len(plain) - _OVERLAP), _WINDOW - _OVERLAP)
    windows = [(left, plain[left : left + _WINDOW]) for left in lefts]
    # But for a zone, which threads cannot share, spaCy keeps every word that it meets.
    with _ALONE, analyzer.nlp_engine.nlp["en"].memory_zone():
        seen = [(x, w, analyzer.analyze(w, "en")) for x, w in windows if w.strip()]
    found = [
        Span(left + one.start, left + one.end, one.entity_type, round(one.score, 3))
        for left, window, results in seen
        for one in results
        if one.entity_type in wanted and _is_likely(window, one)
    ]
    taken = [match.span() for match in PLACEHOLDER.finditer(plain)]
    return [
        Span(starts[span.start], ends[span.end - 1], span.entity_type, span.score)
        for span in join_pieces(plain, settle_overlaps(plain, found, taken))
    ]


def _is_likely(text: str, result: Any) -> bool:
    """Refuse numbers cut out of longer ones, bare ones, and what is no password."""
    if result.entity_type == "PASSWORD":
        return not _NO_SECRET.fullmatch(text[result.start : result.end])
    if not _NATIONAL.match(result.entity_type):
        return True
    before, after = text[: result.start][-1:], text[result.end : result.end + 1]
    if before.isalnum() or after.isalnum():
        return False
    number = text[result.start : result.end]
    if not number.isdigit():
        return True
    if {before, after} & set("-_/"):
        return False  # the end of a UUID, say
    if len(number) > 10:
        return True
    return bool(_NUMBER_WORDS.search(text[max(0, result.start - 40) : result.start]))


def settle_overlaps(
    text: str, spans: Iterable[Span], taken: Iterable[tuple[int, int]] = ()
) -> list[Span]:
    """
    Make spans that do not overlap and together cover what they did before.

    The longest wins; what another reaches beyond it stays as a shorter span.

    Parameters
    ----------
    text : str
        The text of the spans.
    spans : iterable of Span
        What was found; may overlap.
    taken : iterable of (int, int)
        Stretches that no span may touch.

    Returns
    -------
    list of Span
        In order.

    Raises
    ------
    ValueError
        When a span lies outside the text: it belongs to another text.

    Examples
    --------
    >>> name, mail = Span(0, 6, "PERSON"), Span(3, 12, "EMAIL_ADDRESS")
    >>> [(s.start, s.end) for s in settle_overlaps("Bo ana@a.b.c", [name, mail])]
    [(0, 2), (3, 12)]
    """
    owner: list[Span | None] = [None] * len(text)
    closed = bytearray(len(text))
    for start, end in taken:
        closed[start:end] = b"\1" * (end - start)
    for span in sorted(spans, key=lambda s: (s.start - s.end, -s.score, s.start)):
        if not 0 <= span.start < span.end <= len(text):
            raise ValueError(
                f"span {span.start}-{span.end} is outside a text of {len(text)} "
                "characters: use the spans found in this very text"
            )
        for i in range(span.start, span.end):
            if owner[i] is None and not closed[i]:
                owner[i] = span
    pieces: list[Span] = []
    i = 0
    while i < len(text):
        span, start = owner[i], i
        while i < len(text) and owner[i] is span:
            i += 1
        if span is None:
            continue
        whole = (start, i) == (span.start, span.end)
        kept = text[start:i] if whole else text[start:i].strip(" \t\n,;()[]\"'")
        start += 0 if whole else text[start:i].index(kept)
        end = start + len(kept)
        if any(character.isalnum() for character in kept):
            pieces.append(Span(start, end, span.entity_type, span.score))
        elif kept and pieces and pieces[-1].end == start:
            # The dot of a mail address, say, of which another span has the rest.
            pieces[-1] = replace(pieces[-1], end=end)
    return pieces


def join_pieces(text: str, spans: Iterable[Span]) -> list[Span]:
    """
    Join spans of one type with nothing but a space or a hyphen between them.

    Parameters
    ----------
    text : str
        The text of the spans.
    spans : iterable of Span
        In order, none overlapping.

    Returns
    -------
    list of Span
        In order.

    Examples
    --------
    >>> join_pieces("Ana Bo", [Span(0, 3, "PERSON"), Span(4, 6, "PERSON")])
    [Span(start=0, end=6, entity_type='PERSON', score=1.0)]
    """
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and last.entity_type == span.entity_type:
            between = text[last.end : span.start]
            if between in _JOINTS.get(span.entity_type, ("",)):
                score = min(joined.pop().score, span.score)
                span = Span(last.start, span.end, span.entity_type, score)
        joined.append(span)
    return joined
