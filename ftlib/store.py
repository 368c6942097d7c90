"""Files in and out: JSONL that names its bad rows, and the record of each run."""

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from ftlib.config import ROOT
from ftlib.schema import BadRow

RUNS = ROOT / "runs"
RUN_FILE = "run.json"
ADAPTER_FOLDER = "adapter"
_PACKAGES = ("ftlib", "torch", "transformers", "peft", "bitsandbytes", "datasets")


def read_jsonl(
    path: str | os.PathLike, find_fault: Callable[[Any], str | None] | None = None
) -> tuple[list[dict], list[BadRow]]:
    """
    Read a JSONL file, keeping the good rows and naming each bad one.

    Parameters
    ----------
    path : path
        A UTF-8 file, one JSON object a line; a byte-order mark is allowed.
    find_fault : callable, optional
        Given a row, says why it is bad, or None: such as `schema.find_fault`.

    Returns
    -------
    rows : list of dict
        The rows that could be read, in order.
    bad_rows : list of BadRow
        The others, by line number from 1. Blank lines are neither.

    Raises
    ------
    FileNotFoundError
        Naming the path, when there is no such file.

    Examples
    --------
    >>> path = RUNS / "doctest.jsonl"
    >>> write_jsonl(path, [{"a": 1}])
    >>> read_jsonl(path)
    ([{'a': 1}], [])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check its name and folder")
    rows: list[dict] = []
    bad_rows: list[BadRow] = []
    with path.open("rb") as lines:
        # Bytes are split at b"\n" alone: str.splitlines would also cut at U+2028.
        for number, line in enumerate(lines, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            line = line.rstrip(b"\r\n")
            if not line.strip():
                continue
            try:
                row = parse_row(line)
                fault = find_fault(row) if find_fault else None
            except BadRowError as error:
                fault = str(error)
            if fault:
                bad_rows.append(BadRow(number, fault))
            else:
                rows.append(row)
    return rows, bad_rows


class BadRowError(ValueError):
    """Why one line is no row."""


def parse_row(line: bytes) -> dict:
    """
    Parse one line, more strictly than `json.loads` does.

    Parameters
    ----------
    line : bytes
        One JSON object in UTF-8.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    BadRowError
        With a reason that a person can act on; NaN and repeated keys are refused.
    """

    def refuse_constant(name: str) -> None:
        raise BadRowError(f"{name} is not JSON: write null, or a number")

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict:
        row = dict(pairs)
        if len(row) < len(pairs):
            raise BadRowError("a key occurs twice: keep one of them")
        return row

    try:
        text = line.decode("utf-8")
        row = json.loads(
            text,
            object_pairs_hook=refuse_duplicates,
            parse_constant=refuse_constant,
            parse_float=_parse_float,
        )
        # A lone surrogate parses, but nothing downstream can write it back.
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadRowError("half of a \\u pair: the text is cut or broken") from None
    except UnicodeDecodeError as error:
        raise BadRowError(
            f"not UTF-8 at byte {error.start + 1}: save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise BadRowError(
            f"not JSON at column {error.colno}: {error.msg.lower()}"
        ) from None
    except RecursionError:
        raise BadRowError("nested too deeply to be read") from None
    except BadRowError:
        raise
    except ValueError as error:  # an integer of over 4,300 digits
        raise BadRowError(f"a value cannot be read: {error}") from None
    if not isinstance(row, dict):
        raise BadRowError(f"a {type(row).__name__}, not an object: write {{...}}")
    return row


def _parse_float(text: str) -> float:
    """Parse a float, refusing one that overflows to infinity."""
    number = float(text)
    if math.isinf(number):
        raise BadRowError(f"{text[:20]} is too large for a number")
    return number


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_jsonl(path: str | os.PathLike, rows: Iterable[Mapping]) -> None:
    """
    Write `rows` one JSON object a line, whole or not at all; makes the folder.

    Parameters
    ----------
    path : path
        Where to.
    rows : iterable of mapping
        What JSON can hold.
    """
    lines = [
        json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows
    ]
    _write_whole(Path(path), "".join(lines).encode("utf-8"))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """
    Write `value` as indented JSON, whole or not at all; makes the folder.

    Parameters
    ----------
    path : path
        Where to.
    value : object
        What JSON can hold; other things are written as text.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    _write_whole(Path(path), (text + "\n").encode("utf-8"))


def read_json(path: str | os.PathLike) -> Any:
    """
    Read one JSON file.

    Parameters
    ----------
    path : path
        A UTF-8 file.

    Returns
    -------
    object
        What it holds.
    """
    return json.loads(Path(path).read_text(encoding="utf-8"))


def hash_file(path: str | os.PathLike) -> str:
    """
    Give the SHA-256 of a file, in hexadecimal.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        64 digits.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measure_peak_mb() -> float:
    """
    Give the most memory that this process has held so far, in megabytes (10^6).

    Returns
    -------
    float
        Of resident memory.
    """
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def list_versions() -> dict[str, str]:
    """
    Give the versions of Python, the system and the libraries a run rests on.

    Returns
    -------
    dict of str to str
        By name; "not installed" where one is missing.
    """
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _name_input(path: Path) -> str:
    """Name a file by its path in the course, or in full: names alone may repeat."""
    full = path.resolve()
    return (full.relative_to(ROOT) if full.is_relative_to(ROOT) else full).as_posix()


@contextmanager
def record_run(
    folder: str | os.PathLike,
    config: Mapping[str, Any],
    inputs: Iterable[str | os.PathLike] = (),
    facts: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """
    Keep ``run.json`` in `folder` true while a run goes on.

    Its status is "running" inside the block; after it "finished", or "failed" with
    the error. A block may set the status itself, to "stopped" say, and add figures.

    Parameters
    ----------
    folder : path
        The run's own folder under ``runs/``; made when missing.
    config : mapping
        The settings, as `RunConfig.to_dict` gives them.
    inputs : iterable of path
        Files the run reads; their hashes are kept.
    facts : mapping, optional
        What else to keep from the start on, a killed run's record included.

    Yields
    ------
    dict
        The record; what the block puts in it is written at the end.
    """
    path = Path(folder) / RUN_FILE
    record: dict[str, Any] = {
        "status": "running",
        "config": dict(config),
        "seed": config.get("seed"),
        "inputs": {_name_input(Path(p)): hash_file(p) for p in inputs},
        "versions": list_versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    } | dict(facts or {})
    write_json(path, record)
    began = time.perf_counter()
    try:
        yield record
        if record["status"] == "running":
            record["status"] = "finished"
    except BaseException as error:
        record["status"] = "failed"
        record["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        record["seconds"] = round(time.perf_counter() - began, 2)
        record["peak_mb"] = round(measure_peak_mb(), 1)
        write_json(path, record)
