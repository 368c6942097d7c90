"""Redaction: put placeholders where a record names a person or holds a secret."""

from collections.abc import Collection, Iterable

from ftlib.schema import Span


def replace_spans(text: str, spans: Iterable[Span], keep: Collection[str] = ()) -> str:
    """
    Replace each span by a placeholder such as ``[PERSON_1]``.

    Parameters
    ----------
    text : str
        The record's text.
    spans : iterable of Span
        What to replace. Where two overlap, the longer one wins.
    keep : collection of str
        Entity types to leave as they are.

    Returns
    -------
    str
        The text in which equal originals of a type share one number, counted from 1.

    Raises
    ------
    ValueError
        When a span lies outside the text: it belongs to another text.

    Examples
    --------
    >>> replace_spans("Ana called Bo. Ana left.", [
    ...     Span(0, 3, "PERSON"), Span(11, 13, "PERSON"), Span(15, 18, "PERSON")])
    '[PERSON_1] called [PERSON_2]. [PERSON_1] left.'
    """
    chosen: list[Span] = []
    wanted = [span for span in spans if span.entity_type not in keep]
    for span in sorted(wanted, key=lambda s: (s.start - s.end, s.start)):
        if not 0 <= span.start < span.end <= len(text):
            raise ValueError(
                f"span {span.start}-{span.end} is outside a text of {len(text)} "
                "characters: use the spans found in this very text"
            )
        if all(span.end <= s.start or s.end <= span.start for s in chosen):
            chosen.append(span)
    numbers: dict[tuple[str, str], int] = {}
    pieces, position = [], 0
    for span in sorted(chosen, key=lambda s: s.start):
        original = (span.entity_type, text[span.start : span.end])
        if original not in numbers:
            same_type = sum(
                entity_type == span.entity_type for entity_type, _ in numbers
            )
            numbers[original] = same_type + 1
        placeholder = f"[{span.entity_type}_{numbers[original]}]"
        pieces += [text[position : span.start], placeholder]
        position = span.end
    return "".join([*pieces, text[position:]])
