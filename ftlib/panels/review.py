"""The review panel: a person checks redactions, one record at a time."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from ftlib import store
from ftlib.panels.layout import fix_size
from ftlib.schema import Span, make_safe, spell_controls

Record = Mapping[str, Any]
ENTITY_TYPES = {"PERSON", "LOCATION", "EMAIL_ADDRESS", "PHONE_NUMBER", "PASSWORD"}
"""What a missed stretch can be called, beside the types that the records have."""
_NAME = r"\b[A-ZÀ-ÞĀ-ŽΑ-ΩА-Я](?![A-ZÀ-ÞΑ-ΩА-Я])\w+"
TRIPWIRES = {
    "a long number": r"\d(?:[ .-]?\d){6}",
    "an @": "@",
    "a word for a secret": "(?i)passw|pwd|secret|token|api.?key",
    "two capitalised words": rf"{_NAME}[ \t]+{_NAME}",
}
"""Patterns that, outside every span, are signs of a miss."""
_MARK = (
    '<mark style="background:#fde3a7;color:#000;border-bottom:3px solid #c8590b">'
    '{}<small style="user-select:none;color:#5a2a00"> [{} {} {:.2f}]</small></mark>'
)
_FRAME = (
    '<div tabindex="0" role="region" aria-label="Record" style="height:200px;'
    "overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;"
    'padding:6px;border:1px solid #999">{}</div>'
)


def find_tripwires(text: str, spans: Sequence[Span]) -> list[str]:
    """
    Name the signs of a miss in what no span covers.

    Parameters
    ----------
    text : str
        A record's text.
    spans : sequence of Span
        What was found in it.

    Returns
    -------
    list of str
        Such as ``"an @"``; a sign is a reason to look, not a finding.

    Examples
    --------
    >>> find_tripwires("Ana Ruiz, ana@mail.example", [Span(10, 26, "EMAIL_ADDRESS")])
    ['two capitalised words']
    """
    for span in spans:
        gap = "\n" * (span.end - span.start)
        text = text[: span.start] + gap + text[span.end :]
    return [name for name, sign in TRIPWIRES.items() if re.search(sign, text)]


def order_for_review(records: Sequence[Record]) -> list[Record]:
    """
    Order records for review: most tripwires first, then the lowest score of a span.

    Parameters
    ----------
    records : sequence of mapping
        With ``id``, ``text`` and ``spans``, a list of `schema.Span`.

    Returns
    -------
    list of mapping
        The same records; those alike keep their order.

    Examples
    --------
    >>> sure, unsure = [Span(0, 3, "PERSON", 0.99)], [Span(0, 3, "PERSON", 0.41)]
    >>> texts = {"a": ("Ana left", sure), "b": ("Ana left", unsure), "c": ("@ana", [])}
    >>> records = [{"id": i, "text": t, "spans": s} for i, (t, s) in texts.items()]
    >>> [record["id"] for record in order_for_review(records)]
    ['c', 'b', 'a']
    """

    def _rate(record: Record) -> tuple[int, float]:
        spans = record["spans"]
        lowest = min((span.score for span in spans), default=1.0)
        return -len(find_tripwires(record["text"], spans)), lowest

    return sorted(records, key=_rate)


def bound_leak_rate(n_reviewed: int, n_misses: int) -> float:
    """
    Give the upper 95 % bound on the share of records in which something was missed.

    Parameters
    ----------
    n_reviewed : int
        Records looked at, drawn at random.
    n_misses : int
        How many of them had a miss.

    Returns
    -------
    float
        From 0 to 1; with nothing reviewed 1, for nothing is known.

    Raises
    ------
    ValueError
        When there are more misses than records.

    Notes
    -----
    The exact one-sided bound of C. J. Clopper and E. S. Pearson, Biometrika 26 (1934).
    Without a miss it is ``1 - 0.05 ** (1 / n)``, about 3/n: the rule of three.

    Examples
    --------
    >>> round(bound_leak_rate(100, 0), 4)
    0.0295
    """
    if not 0 <= n_misses <= n_reviewed:
        raise ValueError(f"{n_misses} of {n_reviewed} is no share: count records")
    if n_reviewed == 0:
        return 1.0
    from scipy.stats import binomtest  # half a second to import

    test = binomtest(n_misses, n_reviewed, alternative="less")
    return float(test.proportion_ci(0.95, "exact").high)


class ReviewPanel(widgets.VBox):
    """
    Review redactions one record at a time, the most suspect first.

    Each button has a method, its twin for use without a browser. Every decision is
    saved at once; a panel made with the same records and path goes on from there.

    Parameters
    ----------
    records : sequence of mapping
        With ``id``, ``text`` and ``spans``, a list of `schema.Span`. For the bound to
        hold they must be drawn at random from the records that will be trained on.
    path : path
        The JSONL file of the decisions; it holds no text of the records.
    n_population : int, optional
        How many records they were drawn from.

    Examples
    --------
    >>> record = {"id": 1, "text": "Ana left", "spans": [Span(0, 3, "PERSON", 0.9)]}
    >>> panel = ReviewPanel([record], store.RUNS / "doctest" / "review.jsonl")
    >>> panel.accept()
    >>> panel.value[0]["decision"], panel.record
    ('accept', None)
    >>> panel.undo()
    >>> panel.value
    []
    """

    def __init__(
        self,
        records: Sequence[Record],
        path: str | Path,
        n_population: int | None = None,
    ) -> None:
        self._records = {record["id"]: record for record in order_for_review(records)}
        if len(self._records) < len(records):
            raise ValueError("two records have one id: give each record its own")
        self._path, self._n_population = Path(path), n_population
        self._decisions = self._read_decisions()
        types = {span.entity_type for record in records for span in record["spans"]}
        self.status = widgets.HTML(layout=fix_size("98%", "80px"))
        self.text = widgets.HTML(layout=fix_size("98%", "222px"))
        self.message = widgets.HTML(layout=fix_size("98%"))
        self.missed = widgets.Text(description="Missed", layout=fix_size("260px"))
        types = sorted(types | ENTITY_TYPES)
        self.kind = widgets.Dropdown(options=types, description="Type")
        self.kind.layout = fix_size("260px")
        self.found = widgets.Dropdown(description="Span", layout=fix_size("392px"))
        twins: dict[str, Callable[[], None]] = {
            "Accept": self.accept,
            "Redact more": lambda: self.redact_more(self.missed.value, self.kind.value),
            "Not PII": lambda: self.not_pii(self.found.value),
            "Skip": self.skip,
            "Undo": self.undo,
        }
        self.buttons = {name: widgets.Button(description=name) for name in twins}
        for name, button in self.buttons.items():
            button.layout = fix_size("110px")
            button.on_click(lambda button, twin=twins[name]: self._try(twin))
        accept, redact, *others = self.buttons.values()
        rows = [accept, self.missed, self.kind, redact], [self.found, *others]
        boxes = [widgets.HBox(r, layout={"flex_flow": "row wrap"}) for r in rows]
        super().__init__([self.status, self.text, *boxes, self.message])
        self._show()

    @property
    def value(self) -> list[dict[str, Any]]:
        """
        Give the decisions so far, in order.

        Returns
        -------
        list of dict
            ``id``; ``decision``: accept, redact more, not PII or skip; ``spans`` as
            dicts, as they are after it; ``checksum`` of the text it was made on.
        """
        return [dict(decision) for decision in self._decisions]

    @property
    def record(self) -> Record | None:
        """
        Give the record in review: the first not accepted, skipped ones last.

        Returns
        -------
        mapping or None
            None when all are accepted.
        """
        skips = Counter(d["id"] for d in self._decisions if d["decision"] == "skip")
        waiting = self._records.keys() - self._list_ids("accept")
        open_records = [r for name, r in self._records.items() if name in waiting]
        return min(open_records, key=lambda r: skips[r["id"]], default=None)

    @property
    def spans(self) -> list[Span]:
        """
        Give the spans of the record in review, corrections included.

        Returns
        -------
        list of Span
            By place.
        """
        record = self.record
        spans = list(record["spans"]) if record else []
        for decision in self._decisions:
            if record and decision["id"] == record["id"]:
                spans = [Span(**span) for span in decision["spans"]]
        return sorted(spans, key=lambda span: (span.start, -span.end))

    def accept(self) -> None:
        """Take the record's spans as right and complete."""
        self._decide("accept", self.spans)

    def redact_more(self, text: str, entity_type: str) -> None:
        """
        Add every occurrence of a missed text to the record's spans.

        Parameters
        ----------
        text : str
            As it stands in the record, or as it is shown there.
        entity_type : str
            What it is, such as ``"PERSON"``.
        """
        literal = re.sub("⟨U\\+([0-9A-F]+)⟩", lambda m: chr(int(m[1], 16)), text)
        # A field makes a space of a line's end.
        pattern = r"\s+".join(map(re.escape, literal.split())) or "(?!)"
        spans = self.spans
        for match in re.finditer(pattern, self.record["text"] if self.record else ""):
            found = Span(*match.span(), entity_type)
            # Spans must not cross, or a redactor might leave out the shorter one.
            crossed = [s for s in spans if s.start < found.end and found.start < s.end]
            start = min(s.start for s in [found, *crossed])
            end = max(s.end for s in [found, *crossed])
            if (start, end) not in [(s.start, s.end) for s in crossed]:
                spans = [s for s in spans if s not in crossed]
                spans.append(Span(start, end, entity_type))
        if self.record and spans == self.spans:
            raise ValueError("no such text outside the spans: copy it from the record")
        self._decide("redact more", spans)

    def not_pii(self, index: int) -> None:
        """
        Take away one of the record's spans.

        Parameters
        ----------
        index : int
            Its place in `spans`, from 0.
        """
        if self.record and index not in range(len(self.spans)):
            raise ValueError("the record has no such span: choose one of its spans")
        self._decide("not PII", [s for i, s in enumerate(self.spans) if i != index])

    def skip(self) -> None:
        """Leave the record for later: it comes again after the others."""
        self._decide("skip", self.spans)

    def undo(self) -> None:
        """Take the last decision back, also one of an earlier sitting."""
        if not self._decisions:
            raise ValueError("there is no decision to undo")
        self._keep(self._decisions[:-1])

    def _decide(self, decision: str, spans: list[Span]) -> None:
        if not (record := self.record):
            raise ValueError("every record is accepted: none is left to decide on")
        made = {"id": record["id"], "decision": decision}
        made["spans"] = [asdict(span) for span in spans]
        self._keep([*self._decisions, made | {"checksum": _sum_text(record)}])

    def _keep(self, decisions: list[dict[str, Any]]) -> None:
        store.write_jsonl(self._path, decisions)  # if this fails, nothing has changed
        self._decisions = decisions
        self._show()

    def _read_decisions(self) -> list[dict[str, Any]]:
        """Read an earlier sitting's decisions, refusing those on other texts."""
        if not self._path.exists():
            return []
        known = {f"{name} {_sum_text(r)}" for name, r in self._records.items()}
        made, bad_rows = store.read_jsonl(self._path)
        if bad_rows or {f"{d.get('id')} {d.get('checksum')}" for d in made} - known:
            raise ValueError(
                f"{self._path} holds decisions on other records: give another path, or "
                "the records that it was made with"
            )
        return made

    def _list_ids(self, decision: str) -> set:
        return {made["id"] for made in self._decisions if made["decision"] == decision}

    def _try(self, twin: Callable[[], None]) -> None:
        """Do what a button says, or say why not."""
        try:
            twin()
        except (ValueError, OSError) as error:
            self.message.value = f'<b role="status">{make_safe(str(error))}</b>'

    def _show(self) -> None:
        """Set the texts, and what is disabled, to what is so now."""
        record, spans = self.record, self.spans
        accepted = self._list_ids("accept")
        n, n_misses = len(accepted), len(accepted & self._list_ids("redact more"))
        heading, text = f"{n} of {len(self._records)} records accepted", ""
        if record:
            text = record["text"]
            heading += f" · now {make_safe(str(record['id']))} · tripwires: "
            heading += ", ".join(find_tripwires(text, spans)) or "none"
        bound = bound_leak_rate(n, n_misses)
        share = f"at most {100 * bound:.1f} % of all records"
        if self._n_population:
            share += f" ({bound * self._n_population:,.0f} of {self._n_population:,})"
        self.status.value = (
            f"<b>{heading}</b><br>{n_misses} of {n} had a miss: if drawn at random, "
            f"{share} leak after redaction (95 % bound)"
        )
        self.text.value = _FRAME.format(_mark_spans(text, spans))
        self.missed.value = ""
        self.found.options = [
            (spell_controls(f"{i + 1} {s.entity_type}: {text[s.start : s.end]:.60}"), i)
            for i, s in enumerate(spans)
        ]
        self.found.index = 0 if spans else None  # after an empty list it would be None
        for name, button in self.buttons.items():
            button.disabled = not (self._decisions if name == "Undo" else record)
        self.buttons["Not PII"].disabled = not spans
        last = self._decisions[-1]["decision"] if self._decisions else "none yet"
        self.message.value = f'<span role="status">Last decision: {last}</span>'


def _sum_text(record: Record) -> int:
    """Give a checksum that tells texts apart and cannot be turned back into one."""
    return zlib.crc32(record["text"].encode("utf-8", "surrogatepass"))


def _mark_spans(text: str, spans: Sequence[Span]) -> str:
    """Give a text as HTML with its spans marked, numbered and named."""
    pieces, position = [], 0
    for number, span in enumerate(spans, 1):
        start, end = max(span.start, position), max(span.end, position)
        label = (number, make_safe(span.entity_type), span.score)
        pieces.append(make_safe(text[position:start]))
        pieces.append(_MARK.format(make_safe(text[start:end]), *label))
        position = end
    return "".join([*pieces, make_safe(text[position:])])
