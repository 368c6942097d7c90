"""Replacement: placeholders or surrogates where a record names somebody."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlib.redaction.spans import PLACEHOLDER, find_spans, settle_overlaps
from ftlib.redaction.surrogates import Surrogates
from ftlib.redaction.vault import Vault
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
    return redact({"text": text}, keep=keep, spans={"text": spans})["text"]


def redact(
    record: Mapping[str, Any],
    fields: Sequence[str] = ("text",),
    entity_types: Collection[str] | None = None,
    keep: Collection[str] = (),
    patterns: str | Path | None = None,
    surrogates: Surrogates | None = None,
    vault: Vault | None = None,
    spans: Mapping[str, Iterable[Span]] | None = None,
) -> dict[str, Any]:
    """
    Put placeholders, or surrogates, where a record's fields hold an entity.

    Equal originals of a type share one number over all the fields. What was redacted is
    searched again until nothing more is found, so redacting twice equals once.

    Parameters
    ----------
    record : mapping
        A row; it stays as it is. Its field ``spans`` is left out of the copy, for it
        belongs to the text before.
    fields : sequence of str
        The fields to redact; each a text.
    entity_types, keep, patterns : optional
        As in `find_spans`.
    surrogates : Surrogates, optional
        Puts invented values of the same form in place of placeholders.
    vault : Vault, optional
        Where the originals go; the copy then has a ``vault_id``, which restores it.
    spans : mapping of str to iterable of Span, optional
        The spans of each field, reviewed: they are replaced and nothing is searched.

    Returns
    -------
    dict
        A copy of the record.

    Raises
    ------
    ValueError
        When a field is missing or no text, or a span lies outside its text.

    Examples
    --------
    >>> redact({"text": "Ana, ana@corp.example"}, entity_types={"EMAIL_ADDRESS"})
    {'text': 'Ana, [EMAIL_ADDRESS_1]'}
    """
    for field in fields:
        if not isinstance(record.get(field), str):
            raise ValueError(
                f"the record has no text in {field!r}: give fields= from "
                f"{', '.join(map(repr, record))}"
            )
    texts = {field: record[field] for field in fields}
    standing = set(PLACEHOLDER.findall("\n".join(texts.values())))
    given: dict[tuple[str, str], str] = {}
    numbers: dict[str, int] = {}

    def _replace(entity_type: str, original: str) -> str:
        """Give what stands for an original: the same for the same."""
        if (entity_type, original) not in given:
            if surrogates is not None:
                new = surrogates.make(entity_type, original, texts.values())
            else:
                while True:
                    numbers[entity_type] = numbers.get(entity_type, 0) + 1
                    new = f"[{entity_type}_{numbers[entity_type]}]"
                    if new not in standing:  # the record may have had some before
                        break
            given[entity_type, original] = new
        return given[entity_type, original]

    redacted = {}
    for field, text in texts.items():
        while True:
            if spans is None:
                found = find_spans(text, entity_types, patterns, keep)
            else:
                reviewed = spans.get(field, ())
                found = [span for span in reviewed if span.entity_type not in keep]
            found = settle_overlaps(text, found, _find_replaced(text, surrogates))
            text = _put(text, found, _replace)
            if spans is not None or not found:
                break
        redacted[field] = text
    copy = {name: value for name, value in record.items() if name != "spans"} | redacted
    if vault is not None and given:
        originals = {new: original for (_, original), new in given.items()}
        copy["vault_id"] = vault.add(originals, texts, redacted, copy.get("vault_id"))
    return copy


def _find_replaced(text: str, surrogates: Surrogates | None) -> list[tuple[int, int]]:
    """Find what stands for an original already."""
    replaced = [match.span() for match in PLACEHOLDER.finditer(text)]
    return replaced + (surrogates.find(text) if surrogates else [])


def _put(text: str, spans: Sequence[Span], replace: Callable[[str, str], str]) -> str:
    """Replace spans that are in order and do not overlap."""
    pieces, position = [], 0
    for span in spans:
        original = text[span.start : span.end]
        pieces += [text[position : span.start], replace(span.entity_type, original)]
        position = span.end
    return "".join([*pieces, text[position:]])
