"""Formats: a file of training data becomes examples; rows that do not fit are named."""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyarrow import ArrowException, parquet

from ftlib.schema import BadRow, Example, Message, find_fault, make_example
from ftlib.store import BadRowError, parse_row, write_jsonl

CONVENTIONS = ("messages", "sharegpt", "alpaca", "prompt-completion", "text")
"""What `load_examples` can read; where a row fits two, the earlier one counts."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
_TYPES = {"ndjson": "jsonl", "tsv": "csv", "txt": "text", "md": "text"}
_PROMPTS = ("prompt", "question", "query", "input", "text")
_RESPONSES = ("completion", "response", "answer", "output", "label")
_ROLES = {"human": "user", "developer": "system", "function": "tool"}
_ROLES |= dict.fromkeys(("gpt", "chatgpt", "bot", "function_call"), "assistant")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?\S)[ \t#]*$")
_Row = tuple[int, Any, str | None]  # its number, the row as read, why it is none


@dataclass(frozen=True)
class Loaded:
    """What a file of training data holds: examples, and the rows that are none."""

    path: Path
    file_type: str
    encoding: str
    convention: str
    examples: list[Example]
    row_numbers: list[int]
    rows: list[dict[str, Any]]
    bad_rows: list[BadRow]
    rejected: list[Any]


def load_examples(path: str | os.PathLike, convention: str | None = None) -> Loaded:
    """
    Load a file of training data, in any of the conventions that people have.

    Parameters
    ----------
    path : path
        A ``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, ``.txt`` or ``.md``
        file. A text is cut at its headings into titled passages.
    convention : str, optional
        One of `CONVENTIONS`; when not given, the one that most rows are written in.

    Returns
    -------
    Loaded
        ``examples``, with the row number in the file and the raw row of each;
        ``bad_rows``, with the raw row or line of each in ``rejected``. Rows are
        counted from 1: lines in JSONL, records below the header in CSV, passages in
        text. Each row is an example or a bad row; blank lines are neither.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        Saying what was seen, when the file or its convention is not known.

    Examples
    --------
    >>> from ftlib.store import RUNS, write_jsonl
    >>> write_jsonl(RUNS / "doctest.jsonl", [{"question": "Hi", "answer": "Hello"}])
    >>> loaded = load_examples(RUNS / "doctest.jsonl")
    >>> loaded.convention, len(loaded.examples), loaded.bad_rows
    ('prompt-completion', 1, [])
    """
    path = Path(path)
    if convention not in (None, *CONVENTIONS):
        raise ValueError(f"no convention is {convention!r}: use one of {CONVENTIONS}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check its name and folder")
    try:
        file_type, encoding, rows = _read_rows(path)
        convention = convention or _detect_convention(rows)
    except (csv.Error, RecursionError, OSError, ValueError, ArrowException) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    loaded = Loaded(path, file_type, encoding, convention, [], [], [], [], [])
    for number, raw, fault in rows:
        try:
            if fault:
                raise BadRowError(fault)
            loaded.examples.append(_make_example(raw, convention))
            loaded.row_numbers.append(number)
            loaded.rows.append(raw)
        except BadRowError as error:
            loaded.bad_rows.append(BadRow(number, str(error)))
            loaded.rejected.append(raw)
    return loaded


def write_rejected(loaded: Loaded, path: str | os.PathLike) -> None:
    """
    Write the rows that were not taken to a JSONL file, to be mended and loaded again.

    Parameters
    ----------
    loaded : Loaded
        What `load_examples` gave.
    path : path
        Where to; each line has ``row``, ``reason`` and ``raw``, the row as it was read.
    """
    rows = zip(loaded.bad_rows, loaded.rejected, strict=True)
    write_jsonl(path, (vars(bad) | {"raw": raw} for bad, raw in rows))


# --- from a file to rows -----------------------------------------------------------


def _read_rows(path: Path) -> tuple[str, str, list[_Row]]:
    """Read a file's type, encoding and rows, by its suffix and what it begins with."""
    suffix, data = path.suffix.lower(), path.read_bytes()
    if suffix not in SUFFIXES:
        raise ValueError(f"no type of file it may be: use {', '.join(SUFFIXES)}")
    file_type = _TYPES.get(suffix[1:], suffix[1:])
    if file_type == "parquet":
        return file_type, "utf-8", list(_read_parquet(data))
    text, encoding = _decode(data)
    if not text.strip():
        raise ValueError("it is empty: give at least one row")
    if file_type in ("csv", "text"):
        read = _read_csv if file_type == "csv" else _read_text
        return file_type, encoding, list(read(text))
    # Either suffix is in use for either: what follows a first value tells JSONL.
    if file_type == "json" or text.lstrip()[0] == "[":
        try:
            return "json", encoding, _read_json(text)
        except json.JSONDecodeError as error:
            if file_type == "json" and error.msg != "Extra data":
                raise ValueError(f"not JSON: {error}") from None
    # As bytes where they are nearly UTF-8, so that each line that is not is named.
    data = text.encode() if encoding == "utf-16" else data
    # The text goes first: of a large file it is much of what is held.
    lines, text = io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), ""
    rows = [_parse(i, line) for i, line in enumerate(lines, start=1) if line.strip()]
    return "jsonl", "utf-16" if encoding == "utf-16" else "utf-8", rows


def _decode(data: bytes) -> tuple[str, str]:
    """Decode a file, and say its encoding: cp1252 is what Windows programs write."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16"), "utf-16"
    for encoding in ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return data.decode(encoding), encoding.removesuffix("-sig")
    return data.decode("latin-1"), "latin-1"


def _parse(number: int, line: bytes) -> _Row:
    """Parse one row; the text of one that cannot be parsed is kept."""
    line = line.rstrip(b"\r\n")
    try:
        return number, parse_row(line), None
    except BadRowError as error:
        return number, line.decode("utf-8", "backslashreplace"), str(error)


def _read_json(text: str) -> list[_Row]:
    """Read a list of objects, or the one under "data"."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(f"a key occurs twice beside {pairs[0][0]!r}: keep one")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=refuse_duplicates)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    rows = value if isinstance(value, list) else [value]
    return [_parse(i, json.dumps(row).encode()) for i, row in enumerate(rows, start=1)]


def _read_csv(text: str) -> Iterator[_Row]:
    """Read a table of text; the delimiter is the one that cuts its header most."""
    csv.field_size_limit(2**31 - 1)
    lines = list(io.StringIO(text.lstrip("\r\n"), newline=""))

    def read(delimiter: str) -> Any:
        return csv.reader(lines, delimiter=delimiter, strict=True)

    reader = read(max(",;\t|", key=lambda delimiter: len(next(read(delimiter)))))
    header, number = _check_columns(next(reader)), 0
    while (began := reader.line_num) < len(lines):
        try:
            cells, fault = next(reader), None
        except csv.Error as error:
            cells, fault = [""], f"its quotes are not right, check them: {error}"
        if cells and not fault and len(cells) != len(header):
            fault = f"{len(cells)} cells under a header of {len(header)}: quote cells"
        if cells:
            number += 1
            raw = "".join(lines[began : reader.line_num])
            yield number, raw if fault else dict(zip(header, cells, strict=True)), fault


def _check_columns(names: list[str]) -> list[str]:
    """Give the names back, or refuse two that are equal."""
    if len(set(names)) < len(names):
        raise ValueError(f"two columns have one name, rename one: {', '.join(names)}")
    return names


def _read_parquet(data: bytes) -> Iterator[_Row]:
    """Read a Parquet table; dates become text, and a NaN becomes None."""
    table = parquet.read_table(io.BytesIO(data))
    _check_columns(table.column_names)
    for number, row in enumerate(table.to_pylist(), start=1):
        text = json.dumps(row, default=str)
        yield number, json.loads(text, parse_constant=lambda _: None), None


def _read_text(text: str) -> Iterator[_Row]:
    """Cut a text at its Markdown headings into titled passages."""
    sections: list[tuple[int, str, list[str]]] = [(0, "", [])]
    fenced = False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else _HEADING.match(line.rstrip())
        if heading:
            sections.append((len(heading[1]), heading[2], []))
        else:
            sections[-1][2].append(line.rstrip("\r"))
    number = 0
    for (level, title, lines), (below, *_) in pairwise([*sections, (0, "", [])]):
        passage = "\n".join(lines).strip()
        # A heading with only smaller ones below it is no passage but their roof.
        if passage or 0 < level >= below:
            number += 1
            yield number, {"title": title, "text": passage}, None


# --- from a row to an example ------------------------------------------------------


def _fold_keys(row: dict[str, Any]) -> dict[str, Any]:
    """Give the values that are there, under keys in lower case."""
    return {str(k).strip().lower(): v for k, v in row.items() if v is not None}


def _find_convention(row: dict[str, Any]) -> str | None:
    """Say which convention a row is written in."""
    row = _fold_keys(row)
    answered = any(name in row for name in _RESPONSES)
    if "messages" in row or (answered and isinstance(row.get("prompt"), list)):
        return "messages"
    if "conversations" in row:
        return "sharegpt"
    if answered and "instruction" in row:
        return "alpaca"
    if answered and any(name in row for name in _PROMPTS):
        return "prompt-completion"
    return "text" if "text" in row and ("title" in row or "heading" in row) else None


def _detect_convention(rows: Sequence[_Row]) -> str:
    """Give the convention of most rows."""
    read = [raw for _, raw, fault in rows if fault is None]
    votes = Counter(filter(None, map(_find_convention, read)))
    if votes or not read:
        return max(CONVENTIONS, key=lambda name: votes[name])
    columns = ", ".join(dict.fromkeys(key for row in read[:100] for key in row))
    raise ValueError(
        f"its columns are {columns or 'none'}; rename them to messages, conversations, "
        "instruction and output, prompt and completion, or title and text"
    )


def _make_example(row: dict[str, Any], convention: str) -> Example:
    """Make the example of a row, or raise with what is wrong and how to mend it."""
    other, row = _find_convention(row), _fold_keys(row)
    if other not in (None, convention) and convention != "text":
        raise BadRowError(f"{other} in a file of {convention}: put it in a file apart")
    if convention == "text":
        title, text = _need(row, "title", "heading"), _need(row, "text")
        return make_example(f'Write the section "{title}".', text)
    system = next((n for n in ("system", "system_prompt") if row.get(n)), None)
    said = _need(row, system) if system else None
    if convention in ("alpaca", "prompt-completion"):
        prompt = _need(row, *(["instruction"] if convention == "alpaca" else _PROMPTS))
        beside = next((n for n in ("input", "context") if row.get(n)), None)
        if convention == "alpaca" and beside:
            prompt += "\n\n" + _need(row, beside)
        shots, response = row.get("history") or [], _need(row, *_RESPONSES)
        try:
            example = make_example(prompt, response, said, shots)
        except (TypeError, ValueError):
            raise BadRowError("history: write [[prompt, response], ...]") from None
    else:
        example = make_example("", "", said)
        turns = enumerate(_list_turns(row, convention), start=1)
        example["messages"][-2:] = [_read_turn(i, turn) for i, turn in turns]
    if fault := find_fault(example):
        raise BadRowError(fault)
    return example


def _list_turns(row: dict[str, Any], convention: str) -> list[Any]:
    """Give the turns of a row, also where they are cut into prompt and response."""
    name = "conversations" if convention == "sharegpt" else "messages"
    if name in row or "prompt" not in row:
        return _need(row, name, kind=list)
    last = next((row[name] for name in _RESPONSES if name in row), "")
    last = last if isinstance(last, list) else [{"role": "assistant", "content": last}]
    return _need(row, "prompt", kind=list) + last


def _need(row: dict[str, Any], *names: str, kind: type = str) -> Any:
    """Give the value under the first of `names` that the row has, if it can be used."""
    name = next((name for name in names if name in row), None)
    if name is None:
        raise BadRowError(f"there is no {' or '.join(names)}: give the row one")
    value, wanted = row[name], "text" if kind is str else "a list"
    if kind is list and isinstance(value, str):  # as a cell of CSV has to hold it
        value = parse_row(f'{{"cell": {value}}}'.encode())["cell"]
    if not isinstance(value, kind):
        raise BadRowError(f"{name} is a {type(value).__name__}: write it as {wanted}")
    if not (value.strip() if isinstance(value, str) else value):
        raise BadRowError(f"{name} is empty: fill it in, or drop the row")
    return value


def _read_turn(number: int, turn: Any) -> Message:
    """Give the message of a turn, whatever its keys and roles are called."""
    if not isinstance(turn, dict):
        raise BadRowError(f"message {number} is no object: give it role and content")
    role = str(turn.get("role") or turn.get("from")).lower()
    content = next((turn[k] for k in ("content", "value") if k in turn), None)
    if turn.get("tool_calls") or turn.get("function_call"):
        raise BadRowError(f"message {number} calls a tool: write that as its content")
    if turn.get("weight") == 0:
        raise BadRowError(f"message {number} has weight 0, yet is learned: drop it")
    if isinstance(content, list):
        try:
            content = "".join(part["text"] for part in content)
        except (TypeError, KeyError):
            raise BadRowError(f"message {number} is more than text: cut it") from None
    return Message(role=_ROLES.get(role, role), content=content)
