"""Run alone: ``python -m pytest tests/test_formats.py``."""

import io
import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from ftlib.formats import CONVENTIONS, load_examples, write_rejected
from ftlib.schema import find_fault, make_example
from ftlib.store import read_jsonl

HI = make_example("Hi", "Hello")
SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
PARTS = [{"type": "text", "text": text} for text in ("H", "i", "Hello")]


@pytest.fixture
def load(tmp_path):
    """Write a file, and load it."""

    def write_and_load(name, content, convention=None):
        path = tmp_path / name
        data = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return load_examples(path, convention)

    return write_and_load


def make_lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


# --- conventions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "convention", "example"),
    [
        ({"messages": SAID}, "messages", HI),
        ({"prompt": SAID[:1], "completion": SAID[1:]}, "messages", HI),
        ({"prompt": SAID[:1], "completion": "Hello"}, "messages", HI),
        (
            {
                "messages": [
                    SAID[0] | {"content": PARTS[:2]},
                    SAID[1] | {"content": PARTS[2:]},
                ]
            },
            "messages",
            HI,
        ),
        (
            {
                "system": "Be brief.",
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Hello"},
                ],
            },
            "sharegpt",
            make_example("Hi", "Hello", system="Be brief."),
        ),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "alpaca", HI),
        (
            {
                "instruction": "Add.",
                "input": "1 2",
                "output": "3",
                "system": "Be brief.",
                "history": [["Hi", "Hello"]],
            },
            "alpaca",
            make_example("Add.\n\n1 2", "3", "Be brief.", [("Hi", "Hello")]),
        ),
        (
            {"instruction": "Add.", "context": "1 2", "response": "3"},
            "alpaca",
            make_example("Add.\n\n1 2", "3"),
        ),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt-completion", HI),
        ({"Question ": "Hi", "ANSWER": "Hello", "id": 7}, "prompt-completion", HI),
        ({"input": "Hi", "output": "Hello"}, "prompt-completion", HI),
        ({"query": "Hi", "response": "Hello"}, "prompt-completion", HI),
        ({"text": "Hi", "label": "Hello"}, "prompt-completion", HI),
        (
            {"heading": "Leave", "text": "Ask first."},
            "text",
            make_example('Write the section "Leave".', "Ask first."),
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_row_of_each_convention_is_found_and_made_an_example(
    row, convention, example, suffix, load
):
    rows = {"jsonl": make_lines(row), "json": [row]}
    content = rows[suffix] if suffix in rows else make_parquet([row])
    loaded = load(f"rows.{suffix}", content)
    assert (loaded.file_type, loaded.convention) == (suffix, convention)
    assert (loaded.examples, loaded.row_numbers) == ([example], [1])
    assert (loaded.rows, loaded.bad_rows, loaded.rejected) == ([row], [], [])


def test_the_turns_of_a_tool_and_of_a_developer_keep_their_place(load):
    turns = [("developer", "Be brief."), ("user", "?"), ("function", "4")]
    turns += [("assistant", "Four.")]
    row = {"messages": [{"role": r, "content": c} for r, c in turns]}
    (example,) = load("a.jsonl", make_lines(row)).examples
    roles = [message["role"] for message in example["messages"]]
    assert roles == ["system", "user", "tool", "assistant"]


def test_the_convention_of_most_rows_counts_and_the_others_are_named(load):
    pair, talk = {"prompt": "Hi", "response": "Hello"}, {"messages": SAID}
    loaded = load("a.jsonl", make_lines(pair, talk, pair))
    assert loaded.convention == "prompt-completion"
    assert loaded.row_numbers == [1, 3]
    assert [bad.row for bad in loaded.bad_rows] == [2]
    assert "messages in a file of prompt-completion" in loaded.bad_rows[0].reason
    assert loaded.rejected == [talk]


def test_a_convention_that_is_given_counts_against_most_rows(load):
    pair, talk = {"prompt": "Hi", "response": "Hello"}, {"messages": SAID}
    loaded = load("a.jsonl", make_lines(pair, talk, pair), "messages")
    assert (loaded.examples, loaded.row_numbers) == ([HI], [2])


def test_a_convention_of_no_known_name_is_refused(load):
    with pytest.raises(ValueError, match="no convention is 'chatml': use one of"):
        load("a.jsonl", make_lines({"messages": SAID}), "chatml")


def test_columns_of_no_convention_are_named_with_what_would_do(load):
    with pytest.raises(ValueError, match="its columns are alert, triage; rename them"):
        load("a.jsonl", make_lines({"alert": "x", "triage": "y"}))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi"}, "there is no completion or response"),
        ({"prompt": "Hi", "response": " "}, "response is empty"),
        ({"prompt": "", "response": "x"}, "prompt is empty"),
        (
            {"prompt": "Hi", "response": {"a": 1}},
            "response is a dict: write it as text",
        ),
        ({"prompt": 3, "response": "x"}, "prompt is a int: write it as text"),
        ({"prompt": "Hi", "response": None}, "there is no completion or response"),
        ({"prompt": "Hi", "response": "x", "system": 3}, "system is a int"),
        ({"prompt": "Hi", "response": "x", "history": ["a"]}, "history: write"),
    ],
)
def test_what_is_wrong_in_a_pair_is_named(row, reason, load):
    good = {"prompt": "Hi", "response": "Hello"}
    loaded = load("a.jsonl", make_lines(good, row, good))
    assert loaded.row_numbers == [1, 3]
    (bad,) = loaded.bad_rows
    assert bad.row == 2
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (SAID[:1], "the last message must be the assistant's"),
        (SAID[1:], "the response answers no one"),
        ([], "messages is empty"),
        ("Hi", "not JSON"),
        (["Hi", "Hello"], "message 1 is no object"),
        ([SAID[0] | {"role": "boss"}, SAID[1]], "message 1 has no known role"),
        ([SAID[0] | {"content": None}, SAID[1]], "message 1 has no text"),
        (
            [SAID[0] | {"content": [{"type": "image_url"}]}, SAID[1]],
            "message 1 is more than text",
        ),
        ([SAID[0], SAID[1] | {"tool_calls": [1]}], "message 2 calls a tool"),
        ([SAID[0], SAID[1] | {"weight": 0}], "message 2 has weight 0"),
    ],
)
def test_what_is_wrong_in_a_conversation_is_named(turns, reason, load):
    loaded = load("a.jsonl", make_lines({"messages": SAID}, {"messages": turns}))
    (bad,) = loaded.bad_rows
    assert bad.row == 2
    assert bad.reason.startswith(reason)


# --- file types --------------------------------------------------------------------


def test_lines_that_are_no_row_are_named_by_their_line_and_kept(load):
    content = b'\xef\xbb\xbf{"prompt": "a", "response": "b"}\r\n\n{bad\n[1]\n'
    content += b'{"prompt": "caf\xe9", "response": "b"}\n'
    content += b'{"prompt": "c", "prompt": "d", "response": "b"}\n'
    loaded = load("a.jsonl", content)
    assert loaded.row_numbers == [1]
    assert [bad.row for bad in loaded.bad_rows] == [3, 4, 5, 6]
    reasons = [bad.reason.split(":")[0] for bad in loaded.bad_rows]
    assert reasons[0] == "not JSON at column 2"
    assert reasons[1] == "a list, not an object"
    assert reasons[2] == "not UTF-8 at byte 16"
    assert reasons[3] == "a key occurs twice"
    assert loaded.rejected[0] == "{bad"
    assert loaded.rejected[2] == '{"prompt": "caf\\xe9", "response": "b"}'


def test_a_json_file_may_hold_its_list_under_data(load):
    row = {"prompt": "Hi", "response": "Hello"}
    assert load("a.json", {"version": 1, "data": [row, 3]}).examples == [HI]


def test_rows_of_a_json_list_are_named_by_their_place(load):
    loaded = load("a.json", '[{"prompt":"a","response":"b"},{"prompt":NaN},[],"x"]')
    assert [bad.row for bad in loaded.bad_rows] == [2, 3, 4]
    assert loaded.bad_rows[0].reason == "NaN is not JSON: write null, or a number"


def test_jsonl_and_json_are_told_apart_by_what_they_hold(load):
    row = {"prompt": "Hi", "response": "Hello"}
    assert load("a.json", make_lines(row, row)).file_type == "jsonl"
    assert load("a.jsonl", [row, row]).file_type == "json"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", '[{"a": 1', "not JSON: .* line 1 column 9"),
        ("a.json", '[{"a": 1, "b": 2, "b": 3}]', "a key occurs twice beside 'a'"),
        ("a.json", "[" * 200_000, "recursion"),
        ("a.csv", "\ufeff\n", "it is empty"),
        ("a.csv", "prompt,prompt\na,b\n", "two columns have one name"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.docx", b"PK", "use .jsonl, .ndjson, .json"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    name, content, reason, load
):
    with pytest.raises(ValueError, match=reason):
        load(name, content)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        load_examples(tmp_path / "no.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_is_read_whatever_delimits_its_cells(delimiter, load):
    cells = [("prompt", "response"), ('"a;b,c\td|e"', '"He said ""no"".\nTwice."')]
    text = "\n".join(delimiter.join(row) for row in cells)
    (example,) = load("a.csv", "\ufeff" + text).examples
    assert example == make_example("a;b,c\td|e", 'He said "no".\nTwice.')


def test_rows_of_a_table_that_do_not_fit_its_header_are_named_and_kept(load):
    text = 'prompt,response\r\na,b\r\n\r\nc\r\nd,e,f\r\n"g"h,i\r\n"j\nk",l\r\n'
    loaded = load("a.csv", text)
    assert [bad.row for bad in loaded.bad_rows] == [2, 3, 4]
    assert loaded.bad_rows[0].reason.startswith("1 cells under a header of 2")
    assert loaded.bad_rows[1].reason.startswith("3 cells under a header of 2")
    assert loaded.bad_rows[2].reason.startswith("its quotes are not right")
    assert loaded.rejected == ["c\r\n", "d,e,f\r\n", '"g"h,i\r\n']
    assert loaded.row_numbers == [1, 5]
    assert loaded.examples[1] == make_example("j\nk", "l")


def test_a_quote_that_is_never_closed_loses_no_line(load):
    loaded = load("a.csv", 'prompt,response\na,b\n"c,d\ne,f\n')
    assert [bad.row for bad in loaded.bad_rows] == [2]
    assert loaded.rejected == ['"c,d\ne,f\n']


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_a_table_in_the_encodings_of_office_programs_is_read(encoding, load):
    text = "prompt,response\ncafé,“naïve” – 5 €\n"
    loaded = load("a.csv", text.encode(encoding))
    assert loaded.encoding == encoding
    assert loaded.examples == [make_example("café", "“naïve” – 5 €")]


def test_messages_may_stand_in_a_cell_as_json(load):
    cell = json.dumps(SAID).replace('"', '""')
    loaded = load("a.csv", f'id,messages\n7,"{cell}"\n8,[\n')
    assert loaded.examples == [HI]
    assert [bad.row for bad in loaded.bad_rows] == [2]


def test_a_parquet_table_with_gaps_is_read(load):
    rows = [
        {"prompt": "Hi", "response": "Hello", "score": float("nan")},
        {"prompt": "Hi", "response": None, "score": 1.0},
    ]
    loaded = load("a.parquet", make_parquet(rows))
    assert loaded.examples == [HI]
    assert loaded.rows[0]["score"] is None
    assert [bad.row for bad in loaded.bad_rows] == [2]


def test_a_text_is_cut_at_its_headings(load):
    text = "Before.\n# Handbook\n## Leave ##\nAsk.\n```\n# no heading\n```\n\n"
    text += "## Empty\n## Pay\nMonthly.\n#hashtag\n"
    loaded = load("a.md", text)
    assert loaded.examples == [
        make_example('Write the section "Leave".', "Ask.\n```\n# no heading\n```"),
        make_example('Write the section "Pay".', "Monthly.\n#hashtag"),
    ]
    # Handbook has nothing of its own: its sections are the rows.
    assert loaded.row_numbers == [2, 4]
    assert [(bad.row, bad.reason.split(":")[0]) for bad in loaded.bad_rows] == [
        (1, "title is empty"),
        (3, "text is empty"),
    ]


def test_a_text_without_headings_is_a_bad_row_with_the_remedy(load):
    loaded = load("a.txt", "Just words.\nMore of them.\n")
    assert loaded.examples == []
    assert loaded.bad_rows[0].reason.startswith("title is empty: fill it in")


# --- what was rejected -------------------------------------------------------------


def test_rejected_rows_are_written_with_their_number_and_reason(load, tmp_path):
    unfit = {"prompt": "Hi", "response": ""}
    good = {"prompt": "Hi", "response": "Hello"}
    loaded = load("a.jsonl", make_lines(good, unfit) + '{"prompt": "\\ud800"}\n')
    write_rejected(loaded, tmp_path / "rejected.jsonl")
    rows, bad_rows = read_jsonl(tmp_path / "rejected.jsonl")
    assert bad_rows == []
    assert [row["row"] for row in rows] == [2, 3]
    assert rows[0]["reason"].startswith("response is empty")
    assert [row["raw"] for row in rows] == [unfit, '{"prompt": "\\ud800"}']


def make_seeds():
    """Give a sound file of each type, as bytes."""
    pairs = [{"prompt": f"Say {i}, “so”", "response": f"{i}\n"} for i in range(4)]
    talks = [{"messages": SAID}] * 3
    return {
        "jsonl": make_lines(*pairs, *talks).encode(),
        "json": json.dumps({"data": talks + pairs}).encode(),
        "csv": b'prompt;response\n"a\nb";c\nd;"e ""f"""\n\ng;h\n',
        "parquet": make_parquet(pairs),
        "txt": b"# One\nText.\n## Two\n```\n# code\n```\nEnd.\n",
    }


def spoil(data, rng):
    """Give bytes with one to three faults: cut, flipped, doubled, put in."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randrange(1, 30))
        kind = rng.randrange(4)
        if kind == 0:
            del data[at : rng.choice((end, len(data)))]
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            data[at:at] = data[at:end] * rng.randrange(1, 4)
        else:
            odd = (
                b'"',
                b"\n",
                b"\x00",
                b"\xff",
                b"[",
                b"{}",
                b"NaN",
                b"# ",
                b"\\ud800",
            )
            data[at:at] = rng.choice(odd)
    return bytes(data)


def test_a_thousand_spoiled_files_are_loaded_or_refused_by_name(tmp_path):
    rng, seeds = random.Random(3), make_seeds()
    n_loaded, refusals = 0, []
    for i in range(1000):
        suffix = rng.choice(sorted(seeds))
        path = tmp_path / f"{i}.{suffix}"
        path.write_bytes(spoil(seeds[suffix], rng))
        try:
            loaded = load_examples(path, rng.choice((None, *CONVENTIONS)))
        except ValueError as error:
            refusals.append(str(error))
            continue
        n_loaded += 1
        assert len(loaded.examples) == len(loaded.row_numbers) == len(loaded.rows)
        assert len(loaded.bad_rows) == len(loaded.rejected)
        numbers = [*loaded.row_numbers, *(bad.row for bad in loaded.bad_rows)]
        assert len(set(numbers)) == len(numbers)
        if loaded.file_type == "jsonl":  # counted from the file itself
            lines = path.read_bytes().split(b"\n")
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            filled = [n for n, line in enumerate(lines, start=1) if line.strip()]
            assert sorted(numbers) == filled
        else:
            assert sorted(numbers) == list(range(1, len(numbers) + 1))
        assert all(find_fault(example) is None for example in loaded.examples)
        assert all(bad.reason for bad in loaded.bad_rows)
        if i % 25 == 0:  # each write waits for the disk
            write_rejected(loaded, tmp_path / "rejected.jsonl")
    assert n_loaded > 500
    assert len(refusals) > 50
    assert all(" cannot be read: " in refusal for refusal in refusals)
