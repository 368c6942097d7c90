"""Run alone: ``python -m pytest tests/test_store.py``."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ftlib import store
from ftlib.schema import BadRow, find_fault
from ftlib.store import read_json, read_jsonl, record_run, write_json, write_jsonl

ROOT = Path(__file__).resolve().parents[1]


def read_bytes(folder, data, check=None):
    path = folder / "rows.jsonl"
    path.write_bytes(data)
    return read_jsonl(path, check)


# --- reading, worked by hand -----------------------------------------------------


def test_rows_are_read_in_order_and_blank_lines_are_skipped(tmp_path):
    data = b'{"a": 1}\n\n  \t\r\n{"a": 2}\r\n{"a": "\xc3\xa9"}'
    assert read_bytes(tmp_path, data) == ([{"a": 1}, {"a": 2}, {"a": "é"}], [])


def test_an_empty_file_has_no_rows(tmp_path):
    assert read_bytes(tmp_path, b"") == ([], [])
    assert read_bytes(tmp_path, b"\xef\xbb\xbf\n") == ([], [])


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    assert read_bytes(tmp_path, b'\xef\xbb\xbf{"a": 1}\n') == ([{"a": 1}], [])


def test_a_line_separator_within_a_text_ends_no_row(tmp_path):
    data = '{"a": "one\u2028two\x85three"}\n'.encode()
    assert read_bytes(tmp_path, data)[0] == [{"a": "one\u2028two\x85three"}]


BAD = {
    b'{"a": 1': "not JSON at column 8",
    b"{'a': 1}": "not JSON at column 2",
    b'{"a": 1,}': "not JSON at column",
    b'{"a": 1} {"a": 2}': "not JSON at column 10",
    b"[1, 2]": "a list, not an object",
    b'"text"': "a str, not an object",
    b"null": "a NoneType, not an object",
    b"7": "a int, not an object",
    b'{"a": NaN}': "NaN is not JSON",
    b'{"a": Infinity}': "Infinity is not JSON",
    b'{"a": -Infinity}': "-Infinity is not JSON",
    b'{"a": 1e400}': "1e400 is too large",
    b'{"a": -1e400}': "-1e400 is too large",
    b'{"a": 1, "a": 2}': "a key occurs twice",
    b'{"b": {"a": 1, "a": 1}}': "a key occurs twice",
    b'{"a": "\xff"}': "not UTF-8 at byte 8",
    b'{"a": "\xc3': "not UTF-8 at byte 8",
    b'{"a": "\\ud800"}': "half of a \\u pair",
    b'{"\\udfff": 1}': "half of a \\u pair",
    b'{"a": "\x00"}': "not JSON at column 8",
    b'{"a": "tab\there"}': "not JSON at column",
    b"\x00": "not JSON",
    b'{"a":' * 50_000: "nested too deeply",
    b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}": "nested too deeply",
    b'{"a": ' + b"9" * 5_000 + b"}": "a value cannot be read",
    "{}".encode("utf-16"): "not UTF-8 at byte 1",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:24]))
def test_a_bad_row_is_named_by_number_and_reason_and_the_good_ones_stay(line, tmp_path):
    data = b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n'
    rows, bad_rows = read_bytes(tmp_path, data)
    assert rows == [{"a": 1}, {"a": 2}]
    (bad_row,) = bad_rows
    assert bad_row.row == 3  # the blank line counts as a line
    assert BAD[line] in bad_row.reason


def test_rows_are_checked_with_the_given_check(tmp_path):
    data = (
        b'{"messages": []}\n'
        b'{"messages": [{"role": "user", "content": "a"}, '
        b'{"role": "assistant", "content": "b"}]}\n'
        b"{\n"
    )
    rows, bad_rows = read_bytes(tmp_path, data, find_fault)
    assert len(rows) == 1
    assert [(b.row, b.reason[:17]) for b in bad_rows] == [
        (1, "messages is empty"),
        (3, "not JSON at colum"),
    ]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.jsonl"):
        read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(FileNotFoundError, match="check its name and folder"):
        read_jsonl(tmp_path)


# --- a thousand malformed files --------------------------------------------------

SOUND = [
    {"text": "Zoë saw 10.0.0.5", "n": 3, "spans": [{"start": 0, "end": 3}]},
    {"text": "line\nbreak \u2028 🙂 \x7f", "x": -0.0, "y": 1e-320, "big": 10**40},
    {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
        ]
    },
    {"": None, "t": True, "list": [[], {}, "", [1.5, "\\u0000"]]},
]


def damage_line(rng, line):
    """Give one line, damaged in one of the ways that exports and editors have."""
    place = rng.randrange(len(line) + 1)
    digits = b"9" * rng.choice([18, 400, 4_299, 4_301, 20_000])
    depth = rng.choice([5, 60, 300, 900, 980, 1_000, 1_500, 30_000])
    return rng.choice(
        [
            line[:place],
            line[place:],
            line[:place] + bytes([rng.randrange(256)]) + line[place + 1 :],
            line[:place] + rng.randbytes(rng.randint(1, 9)) + line[place:],
            line[:place] + b"\x00" * rng.randint(1, 4) + line[place:],
            rng.randbytes(rng.randint(0, 60)),
            line + line,
            b"[" + line + b"]",
            b'{"n": ' + rng.choice([b"NaN", b"-Infinity", b"1e999", b"-1E+999"]) + b"}",
            b'{"n": ' + rng.choice([b"", b"-"]) + digits + b"}",
            b'{"n": 0.' + digits + b"e-5}",
            b'{"n": 1e' + digits + b"}",
            b'{"n": ' + b"[" * depth + b"]" * depth + b"}",
            b'{"n":' * depth + b"1" + b"}" * depth,
            b'{"n": ' + b"[" * depth,
            b'{"s": "\\ud83d"}',
            b'{"s": "\\ude42\\ud83d"}',
            b'{"\\udc00": 1}',
            b'{"s": "\xed\xa0\x80"}',  # a surrogate in UTF-8's clothes
            b'{"s": "' + b"x" * rng.choice([10_000, 1_000_000]) + b'"',
            b'{"n": 1, "n": 1}',
            line.replace(b'"', b"'"),
            b"\xef\xbb\xbf" + line,
            line + b"\r\r",
            b" \t\x0b\x0c\r",
            b"",
            line.decode().encode(
                rng.choice(["latin-1", "cp1252", "utf-16"]), "replace"
            ),
        ]
    )


def make_file(rng):
    """Give a file's bytes, and the rows that stand in it unharmed, in order."""
    lines, unharmed = [], []
    for _ in range(rng.randint(0, 12)):
        row = rng.choice(SOUND)
        line = json.dumps(row, ensure_ascii=rng.random() < 0.5).encode()
        if rng.random() < 0.4:
            unharmed.append(row)
        else:
            line = damage_line(rng, line)
        lines.append(line)
    data = rng.choice([b"\n", b"\r\n"]).join(lines)
    if rng.random() < 0.2:
        data = b"\xef\xbb\xbf" + data
    harm = rng.random()
    if harm < 0.15:
        data = data[: rng.randrange(len(data) + 1)]
    elif harm < 0.3:
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 20) if data else 0):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        data = bytes(flipped)
    elif harm < 0.35:
        data = data.decode("utf-8", "replace").encode("utf-16")
    elif harm < 0.4:
        data = rng.randbytes(rng.randint(0, 2_000))
    return data, unharmed if harm >= 0.4 else []


def number_lines_with_text(data):
    """Number the lines that hold anything but white space: this test's own count."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    blank = b" \t\r\x0b\x0c"
    return [i + 1 for i in range(len(lines)) if lines[i].translate(None, blank)]


def same_json(value, other):
    """Compare without taking 1 for 1.0 or true, or -0.0 for 0.0; of any depth."""
    left, right = [value], [other]
    while left:
        a, b = left.pop(), right.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            if list(a) != list(b):
                return False
            left, right = left + list(a.values()), right + list(b.values())
        elif isinstance(a, list):
            if len(a) != len(b):
                return False
            left, right = left + a, right + b
        elif repr(a) != repr(b):
            return False
    return True


@pytest.mark.parametrize("block", range(10))
def test_of_a_thousand_malformed_files_each_row_is_kept_or_named(block, tmp_path):
    for seed in range(100 * block, 100 * block + 100):
        data, unharmed = make_file(random.Random(seed))
        expected = number_lines_with_text(data)
        path = tmp_path / "rows.jsonl"
        path.write_bytes(data)
        rows, bad_rows = read_jsonl(path)
        assert len(rows) + len(bad_rows) == len(expected), seed
        bad_numbers = [bad_row.row for bad_row in bad_rows]
        assert bad_numbers == sorted(set(bad_numbers) & set(expected)), seed
        assert all(0 < len(b.reason) < 200 and "\n" not in b.reason for b in bad_rows)
        # Each unharmed row is among those kept, in order.
        kept = iter(rows)
        assert all(any(same_json(row, k) for k in kept) for row in unharmed), seed
        # And each kept row can be written back and read equal.
        write_jsonl(tmp_path / "again.jsonl", rows)
        again, none_bad = read_jsonl(tmp_path / "again.jsonl")
        assert none_bad == [], seed
        assert len(again) == len(rows), seed
        assert all(map(same_json, rows, again)), seed
        # With a check on top no row is lost either.
        rows, bad_rows = read_jsonl(path, find_fault)
        assert len(rows) + len(bad_rows) == len(expected), seed


def test_the_thousand_files_hold_every_kind_of_fault_and_many_good_rows(tmp_path):
    n_unharmed, n_bad, reasons = 0, 0, ""
    for seed in range(1000):
        data, unharmed = make_file(random.Random(seed))
        n_unharmed += len(unharmed)
        bad_rows = read_bytes(tmp_path, data)[1]
        n_bad += len(bad_rows)
        reasons += " ".join(bad_row.reason for bad_row in bad_rows)
    assert n_unharmed > 1_000
    assert n_bad > 2_000
    for words in (
        "not JSON at column",
        "NaN is not JSON",
        "-Infinity is not JSON",
        "too large",
        "not UTF-8",
        "occurs twice",
        "half of a \\u pair",
        "nested too deeply",
        "4300",
        "a list, not an object",
    ):
        assert words in reasons


# --- writing ---------------------------------------------------------------------


def test_rows_are_written_one_a_line_in_utf8_and_the_folder_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "rows.jsonl"
    write_jsonl(path, [{"a": "é\n"}, {"b": [1, None]}])
    assert path.read_bytes() == b'{"a": "\xc3\xa9\\n"}\n{"b": [1, null]}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_could_not_be_read_back_is_not_written(value, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(ValueError, match="(?i)json|nan|inf"):
        write_jsonl(path, [{"a": value}])
    assert read_jsonl(path) == ([{"a": 1}], [])


def test_rows_that_cannot_be_written_leave_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError):
        write_jsonl(path, rows())
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": 2}, {"a": object()}])
    with pytest.raises(UnicodeEncodeError):
        write_jsonl(path, [{"a": 2}, {"a": "\ud800"}])
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def refuse(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(store.os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}


KILLED = """
import os, signal, sys
from pathlib import Path
from ftlib import store

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "fsync":
    store.os.fsync = die
else:
    store.Path.replace = die
store.write_json(sys.argv[1], {"a": "new" * 100_000})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_process_killed_while_it_writes_leaves_the_old_file(moment, tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": "old"})
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), moment], cwd=ROOT, check=False
    )
    assert child.returncode == -9
    assert read_json(path) == {"a": "old"}
    write_json(path, {"a": "newer"})  # and what it left behind is in no one's way
    assert read_json(path) == {"a": "newer"}


def test_a_file_is_hashed_by_its_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # NIST's worked example of SHA-256.
    assert store.hash_file(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# --- the record of a run ---------------------------------------------------------


def read_strictly(path):
    """Read JSON as the standard has it: without NaN and Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def test_a_record_says_running_until_the_block_ends_and_then_finished(tmp_path):
    path = tmp_path / "run" / "run.json"
    with record_run(path.parent, {"seed": 7, "r": 4}) as record:
        assert read_json(path)["status"] == "running"
        record["steps"] = 12
    record = read_strictly(path)
    assert record["status"] == "finished"
    assert record["steps"] == 12
    assert record["config"] == {"seed": 7, "r": 4}
    assert record["seed"] == 7
    assert record["versions"]["python"].startswith("3.")
    assert record["versions"]["torch"][0].isdigit()
    assert record["seconds"] >= 0
    assert record["peak_mb"] > 1
    assert "error" not in record


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_record_says_failed_with_the_error_which_goes_on(error, tmp_path):
    with pytest.raises(error), record_run(tmp_path, {}):
        raise error("no luck today")
    record = read_strictly(tmp_path / "run.json")
    assert record["status"] == "failed"
    assert record["error"] == f"{error.__name__}: no luck today"
    assert record["seconds"] >= 0


def test_a_block_may_set_the_status_itself(tmp_path):
    with record_run(tmp_path, {}) as record:
        record["status"] = "stopped"
    assert read_json(tmp_path / "run.json")["status"] == "stopped"


def test_a_killed_run_still_says_running(tmp_path):
    code = (
        "import os, signal, sys\nfrom ftlib.store import record_run\n"
        "with record_run(sys.argv[1], {}):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert read_json(tmp_path / "run.json")["status"] == "running"


def test_the_inputs_of_a_run_are_kept_by_hash(tmp_path):
    first, second = tmp_path / "a" / "train.jsonl", tmp_path / "b" / "train.jsonl"
    for path, row in ((first, {"a": 1}), (second, {"a": 2})):
        write_jsonl(path, [row])
    with record_run(tmp_path / "run", {}, inputs=[first, second]):
        pass
    kept = read_json(tmp_path / "run" / "run.json")["inputs"]
    # One name in two folders is two files.
    assert sorted(kept.values()) == sorted(map(store.hash_file, (first, second)))
    assert all("train.jsonl" in name for name in kept)


def test_the_peak_of_memory_grows_with_what_is_held():
    measure = (
        "from ftlib.store import measure_peak_mb\n"
        "before = measure_peak_mb()\nkept = bytearray(200_000_000)\n"
        "print(measure_peak_mb() - before)"
    )
    # On Linux a process begins with the peak of the one that started it, so a small one
    # stands between.
    between = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {measure!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", between], cwd=ROOT, capture_output=True, check=True
    )
    assert 190 < float(done.stdout) < 230


def test_bad_rows_compare_by_number_and_reason():
    assert BadRow(1, "cut") == BadRow(1, "cut") != BadRow(2, "cut")
