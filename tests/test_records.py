"""Run alone: ``python -m pytest tests/test_records.py``."""

import pytest

from ftlib.records import load_reviewed, split_by_group
from ftlib.schema import Span

# Ten incidents of unequal size: incident i has i + 1 rows, 55 in all.
ROWS = [{"incident": f"I{i}", "row": n} for i in range(10) for n in range(i + 1)]
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def groups(rows):
    return {row["incident"] for row in rows}


def test_parts_get_their_share_of_the_groups():
    parts = split_by_group(ROWS, "incident", SHARES)
    assert list(parts) == ["train", "validation", "test"]
    assert [len(groups(part)) for part in parts.values()] == [6, 2, 2]


@pytest.mark.parametrize("seed", range(20))
def test_no_group_falls_into_two_parts_and_no_row_is_lost(seed):
    parts = split_by_group(ROWS, "incident", SHARES, seed)
    train, validation, test = (groups(part) for part in parts.values())
    assert not train & validation
    assert not train & test
    assert not validation & test
    taken = [row for part in parts.values() for row in part]
    assert len(taken) == 55
    assert all(taken.count(row) == 1 for row in ROWS)


def test_rows_keep_their_order_within_a_part():
    for part in split_by_group(ROWS, "incident", SHARES).values():
        places = [ROWS.index(row) for row in part]
        assert places == sorted(places)


def test_the_split_hangs_on_the_seed_and_not_on_the_order_of_rows():
    first = split_by_group(ROWS, "incident", SHARES, seed=1)
    again = split_by_group(ROWS[::-1], "incident", SHARES, seed=1)
    other = split_by_group(ROWS, "incident", SHARES, seed=2)
    assert groups(first["test"]) == groups(again["test"])
    assert first == split_by_group(ROWS, "incident", SHARES, seed=1)
    assert groups(first["train"]) != groups(other["train"])


def test_one_part_may_take_all():
    assert split_by_group(ROWS, "incident", {"all": 1.0}) == {"all": ROWS}


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"add up to 0\.75: make it 1"):
        split_by_group(ROWS, "incident", {"train": 0.5, "test": 0.25})


@pytest.mark.parametrize("row", [{}, {"incident": None}])
def test_a_row_without_a_group_is_refused_by_number(row):
    with pytest.raises(ValueError, match="row 56 has no 'incident'"):
        split_by_group([*ROWS, row], "incident", SHARES)


def test_a_group_may_be_called_nought_or_nothing():
    rows = [{"incident": 0}, {"incident": ""}]
    parts = split_by_group(rows, "incident", {"a": 0.5, "b": 0.5})
    assert sorted(len(part) for part in parts.values()) == [1, 1]


def test_a_part_that_would_stay_empty_is_refused_by_name():
    rows = [{"incident": i} for i in range(3)]
    with pytest.raises(
        ValueError, match="validation would be empty: there are 3 groups"
    ):
        split_by_group(
            rows, "incident", {"train": 0.9, "validation": 0.05, "test": 0.05}
        )


def write_reviewed(folder, truth):
    from ftlib.store import write_jsonl

    span = {"start": 0, "end": 3, "entity_type": "PERSON"}
    write_jsonl(
        folder / "alerts.jsonl",
        [{"alert_id": f"A{i}", "text": "Ana", "spans": [span]} for i in range(4)],
    )
    write_jsonl(folder / "truth.jsonl", truth)


def test_only_sound_alerts_of_the_split_are_loaded(tmp_path):
    truth = [
        {"alert_id": "A0", "split": "train", "faults": []},
        {"alert_id": "A1", "split": "train", "faults": ["wrong_label"]},
        {"alert_id": "A2", "split": "test", "faults": []},
        {"alert_id": "A3", "split": "train", "faults": []},
    ]
    write_reviewed(tmp_path, truth)
    rows = load_reviewed("train", tmp_path)
    assert [row["alert_id"] for row in rows] == ["A0", "A3"]
    assert rows[0]["spans"] == [Span(0, 3, "PERSON")]
    with pytest.raises(ValueError, match="no split 'validation'"):
        load_reviewed("validation", tmp_path)


def test_no_incident_of_the_shipped_alerts_is_in_two_splits():
    seen = [
        {row["incident_id"] for row in load_reviewed(split)}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, seen)) == len(set().union(*seen))
