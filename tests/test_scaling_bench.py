"""Run alone: pytest tests/test_scaling_bench.py. The scaling bench measures right."""

import json
import math

import pytest

from tests.bench import scaling


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    """200 rows of the generator, in a file."""
    path = tmp_path_factory.mktemp("scaling") / "200.jsonl"
    lines = [json.dumps(row) for row in scaling.make_rows(200)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read_out(folder):
    """Read what a streamed stage wrote."""
    from ftlib import store

    rows, bad_rows = store.read_jsonl(folder / "out.jsonl")
    assert not bad_rows
    return rows


def run_of(stage, n_rows, seconds, peak_mb=500.0, start_mb=100.0):
    return {
        "stage": stage,
        "rows": n_rows,
        "seconds": seconds,
        "peak_mb": peak_mb,
        "start_mb": start_mb,
    }


def test_the_exponent_is_the_slope_of_the_logs():
    assert scaling.fit_exponent([10, 100, 1000], [2, 20, 200]) == pytest.approx(1)
    assert scaling.fit_exponent([10, 1000], [3, 30_000]) == pytest.approx(2)
    assert scaling.fit_exponent([10, 100], [5, 5]) == pytest.approx(0)
    # 0, 1, 2 against 0, 1, 1 in powers of ten: the least squares give 1/2.
    assert scaling.fit_exponent([1, 10, 100], [1, 10, 10]) == pytest.approx(0.5)
    assert scaling.fit_exponent([10_000], [1]) is None


def test_one_row_in_twenty_repeats_an_earlier_one_and_the_others_differ():
    seen, repeats = set(), []
    for number, row in enumerate(scaling.make_rows(2_000), start=1):
        line = json.dumps(row)
        if line in seen:
            repeats.append(number)
        seen.add(line)
    assert repeats == list(range(20, 2_001, 20))
    folded = {" ".join(json.loads(line)["text"].lower().split()) for line in seen}
    assert len(folded) == 1_900


def test_a_longer_file_begins_as_a_shorter_one_does():
    longer = list(scaling.make_rows(300))
    assert longer[:100] == list(scaling.make_rows(100))


def test_both_ways_of_deduplicating_keep_the_same_rows(rows_file, tmp_path):
    from ftlib import cleaning, store

    rows = store.read_jsonl(rows_file)[0]
    n_kept = scaling.deduplicate(rows_file, tmp_path)()
    groups = cleaning.find_exact_duplicates([scaling._to_example(row) for row in rows])
    later = {i for group in groups for i in group[1:]}
    assert read_out(tmp_path) == [row for i, row in enumerate(rows) if i not in later]
    assert n_kept == scaling.deduplicate_in_memory(rows_file, tmp_path)() == 190
    assert scaling.find_near_in_memory(rows_file, tmp_path)() <= 190


def test_a_row_that_differs_in_case_and_space_alone_is_not_first():
    seen = set()
    rows = [("A b", "c"), ("a  B", "C"), ("a", "b c")]
    rows = [{"text": text, "response": response} for text, response in rows]
    assert [scaling.is_first(row, seen) for row in rows] == [True, False, True]


def test_both_ways_of_tokenising_give_the_same_tokens(rows_file, tmp_path):
    from ftlib import store, tokens

    scaling.tokenise(rows_file, tmp_path)()
    tokenizer = scaling._load_tokenizer()
    rows = store.read_jsonl(rows_file)[0]
    examples = [scaling._to_example(row) for row in rows]
    encoded = [tokens.encode_example(example, tokenizer) for example in examples]
    assert read_out(tmp_path) == encoded
    assert scaling.tokenise_in_memory(rows_file, tmp_path)() == 200


def test_both_ways_of_redacting_give_the_same_text(rows_file, tmp_path):
    from ftlib import redaction, store

    # Two dozen fixed formats: the model of names takes each text alone either way.
    types = frozenset({"EMAIL_ADDRESS", "IP_ADDRESS", "PHONE_NUMBER", "PASSWORD"})
    scaling.redact(rows_file, tmp_path, types)()
    rows = store.read_jsonl(rows_file)[0]
    texts = [redaction.redact(row, entity_types=types)["text"] for row in rows]
    assert [row["text"] for row in read_out(tmp_path)] == texts
    assert sum("[IP_ADDRESS_1]" in text for text in texts) >= 20


def test_both_ways_of_loading_give_the_same_rows(rows_file, tmp_path):
    from ftlib import formats

    loaded = formats.load_examples(rows_file)
    for streaming in (True, False):
        opened = scaling._open_dataset(rows_file, tmp_path, streaming)
        assert list(opened) == loaded.rows
    assert scaling.load(rows_file, tmp_path)() == 200
    assert scaling.load_in_memory(rows_file, tmp_path)() == 200
    assert scaling.read_in_memory(rows_file, tmp_path)() == 200


def test_the_table_marks_what_is_not_measured():
    runs = [
        run_of("load", 1_000, 0.9, peak_mb=200),  # not fitted: mostly done once
        run_of("load", 10_000, 1.0, peak_mb=300),
        run_of("load", 100_000, 10.0, peak_mb=1_500),
        run_of("tokenise", 1_000, 1.0),
    ]
    table = {row["stage"]: row for row in scaling.make_table(runs)}
    assert list(table) == list(scaling.STAGES)
    load, tokenise, redact = (table[s] for s in ("load", "tokenise", "redact"))
    assert load["10,000"] == "1.0 s, 300 MB"
    assert load["100,000"] == "10.0 s, 1,500 MB"
    assert load["1,000,000"] == tokenise["10,000"] == "not measured"
    assert (load["exponent"], load["rows in 1 GB"]) == ("1.00", "10,000")
    # One size, and that below those which time is fitted on.
    assert (tokenise["1,000"], tokenise["exponent"]) == (
        "1.0 s, 500 MB",
        "not measured",
    )
    assert {redact[column] for column in list(redact)[2:]} == {"not measured"}


def test_the_table_of_contributing_is_that_of_the_recorded_runs():
    recorded = json.loads(scaling.RESULT.read_text("utf-8"))
    page = (scaling.ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert scaling.write_markdown(scaling.make_table(recorded["runs"])) in page
    figure = scaling.RESULT.with_suffix(".svg")
    assert f"({figure.relative_to(scaling.ROOT).as_posix()})" in page
    assert figure.is_file()


def test_a_streamed_stage_of_a_million_rows_stays_within_1_gb():
    # Load, deduplicate, tokenise; redaction takes hours and is recorded as far as run.
    runs = json.loads(scaling.RESULT.read_text("utf-8"))["runs"]
    streamed = [run for run in runs if run["way"] == "streamed"]
    assert {run["stage"] for run in streamed} >= {"load", "deduplicate", "tokenise"}
    assert {r["stage"]: r["peak_mb"] for r in streamed if r["peak_mb"] > 1_000} == {}


@pytest.mark.parametrize(
    ("seconds", "peak_mb", "memory_mb", "answer"),
    [
        (89.0, 200.0, 10_000, False),
        (91.0, 200.0, 10_000, True),  # over 900 s with ten times the rows
        (1.0, 1_000.0, 10_000, True),  # 1,000 + 10 * 900 MB is over 8,000
        (1.0, 1_000.0, 13_000, False),
    ],
)
def test_what_would_take_too_long_or_too_much_is_left_out(
    seconds, peak_mb, memory_mb, answer
):
    before = run_of("load", 1_000, seconds, peak_mb)
    assert scaling.is_too_much(before, 10_000, memory_mb) is answer
    assert not scaling.is_too_much(None, 10_000, memory_mb)


def test_what_is_measured_is_kept_and_only_the_rest_is_added(tmp_path, monkeypatch):
    asked = []

    def measure(stage, n_rows):
        asked.append((stage, n_rows))
        return run_of(stage, n_rows, n_rows / 1e6)

    monkeypatch.setattr(scaling, "measure_apart", measure)
    monkeypatch.setattr(scaling, "write_rows", lambda n_rows: None)
    result = tmp_path / "scaling.json"
    scaling.main([10, 20], ["load"], result)
    scaling.main([10, 20, 40], ["load"], result)
    assert asked == [("load", 10), ("load", 20), ("load", 40)]
    assert result.with_suffix(".svg").read_text("utf-8").startswith("<?xml")
    monkeypatch.setitem(scaling.SETTINGS, "seed", 1)
    scaling.main([10], ["load"], result)
    assert asked[3:] == [("load", 10)]
    assert len(json.loads(result.read_text("utf-8"))["runs"]) == 1


def test_memory_now_is_no_more_than_its_peak():
    found = scaling.read_memory_mb()
    assert found["VmHWM"] >= found.get("VmRSS", 0) > 0 or math.isnan(found["VmHWM"])
