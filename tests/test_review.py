"""Run alone: ``python -m pytest tests/test_review.py``."""

import json
import math

import pytest

from ftlib.panels.review import (
    ReviewPanel,
    bound_leak_rate,
    find_tripwires,
    order_for_review,
)
from ftlib.schema import Span, spell_controls

ANA = {"id": "ana", "text": "Ana met Bo and Bo left", "spans": [Span(0, 3, "PERSON")]}
SURE = {"id": "sure", "text": "Cy left", "spans": [Span(0, 2, "PERSON", 0.97)]}
UNSURE = {"id": "unsure", "text": "Di left", "spans": [Span(0, 2, "PERSON", 0.41)]}
WIRED = {"id": "wired", "text": "mail ed@mail.example", "spans": []}
RECORDS = [ANA, SURE, UNSURE, WIRED]  # reviewed as wired, unsure, sure, ana


@pytest.fixture
def path(tmp_path):
    return tmp_path / "review" / "decisions.jsonl"


@pytest.fixture
def panel(path):
    return ReviewPanel(RECORDS, path)


def places(spans):
    return [(span.start, span.end, span.entity_type) for span in spans]


def decide_all(panel):
    while panel.record:
        panel.accept()


# --- order and bound ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("order 123456 of Monday", []),
        ("call 555 01-234.99", ["a long number"]),
        ("write to x@y", ["an @"]),
        ("the Password is kept", ["a word for a secret"]),
        ("set api_key here", ["a word for a secret"]),
        ("then Ana Ruiz left", ["two capitalised words"]),
        ("then Émile Žák left", ["two capitalised words"]),
        ("ACCESS DENIED", []),
        ("ends with Ana\nRuiz begins", []),
    ],
)
def test_signs_of_a_miss_are_named(text, signs):
    assert find_tripwires(text, []) == signs


def test_what_a_span_covers_is_no_sign_and_its_neighbours_do_not_join():
    text = "Ana Bo 12345678"
    assert find_tripwires(text, [Span(4, 6, "PERSON"), Span(7, 15, "ID")]) == []
    assert find_tripwires("Ana Bo Cy", [Span(4, 6, "PERSON")]) == []


def test_the_most_suspect_come_first_and_equals_keep_their_order():
    ids = [record["id"] for record in order_for_review(RECORDS)]
    assert ids == ["wired", "unsure", "sure", "ana"]
    plain = [{"id": n, "text": "x", "spans": []} for n in (3, 1, 2)]
    assert [record["id"] for record in order_for_review(plain)] == [3, 1, 2]


@pytest.mark.parametrize(
    ("n_reviewed", "n_misses", "bound"),
    # 1 - 0.05 ** (1 / n) without a miss; the rest from printed tables.
    [
        (0, 0, 1.0),
        (1, 0, 0.95),
        (2, 0, 0.7764),
        (100, 0, 0.02951),
        (10, 1, 0.3942),
        (20, 1, 0.2161),
        (10, 10, 1.0),
    ],
)
def test_the_bound_is_the_exact_one(n_reviewed, n_misses, bound):
    assert bound_leak_rate(n_reviewed, n_misses) == pytest.approx(bound, abs=5e-5)


@pytest.mark.parametrize(("n", "k"), [(50, 0), (50, 3), (400, 17)])
def test_at_the_bound_so_few_misses_come_up_once_in_twenty(n, k):
    p = bound_leak_rate(n, k)
    chance = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
    assert chance == pytest.approx(0.05, abs=1e-6)


def test_the_rule_of_three_is_near_it():
    assert bound_leak_rate(1000, 0) == pytest.approx(3 / 1000, rel=0.01)


@pytest.mark.parametrize(("n", "k"), [(3, 4), (3, -1), (-1, 0)])
def test_more_misses_than_records_are_refused(n, k):
    with pytest.raises(ValueError, match="is no share"):
        bound_leak_rate(n, k)


# --- decisions ---------------------------------------------------------------------


def test_untouched_it_has_decided_nothing_and_written_nothing(panel, path):
    assert panel.value == []
    assert not path.exists()
    assert panel.record is WIRED
    assert panel.buttons["Undo"].disabled


def test_accepting_goes_through_all_records_until_none_is_left(panel):
    for record in (WIRED, UNSURE, SURE, ANA):
        assert panel.record is record
        panel.buttons["Accept"].click()
    assert panel.record is None
    assert [made["id"] for made in panel.value] == ["wired", "unsure", "sure", "ana"]
    off = {name for name, button in panel.buttons.items() if button.disabled}
    assert off == {"Accept", "Redact more", "Not PII", "Skip"}
    with pytest.raises(ValueError, match="every record is accepted"):
        panel.skip()


def test_redact_more_marks_every_occurrence_and_stays_on_the_record(path):
    panel = ReviewPanel([ANA], path)
    panel.missed.value, panel.kind.value = " Bo ", "PERSON"
    panel.buttons["Redact more"].click()
    both = [(0, 3, "PERSON"), (8, 10, "PERSON"), (15, 17, "PERSON")]
    assert places(panel.spans) == both
    assert panel.record is ANA
    assert panel.missed.value == ""
    panel.accept()
    assert [made["decision"] for made in panel.value] == ["redact more", "accept"]
    assert panel.value[1]["spans"][1] == {
        **{"start": 8, "end": 10, "entity_type": "PERSON", "score": 1.0}
    }
    assert ANA["spans"] == [Span(0, 3, "PERSON")], "what was given is not changed"


def test_a_longer_stretch_takes_up_the_spans_it_crosses(path):
    panel = ReviewPanel([ANA], path)
    panel.redact_more("a met", "PERSON")
    assert places(panel.spans) == [(0, 7, "PERSON")]
    with pytest.raises(ValueError, match="no such text outside the spans"):
        panel.redact_more("met", "PERSON")


def test_text_pasted_from_the_panel_is_found_over_line_ends_and_controls(path):
    text = "name: An\u200ba\nRuiz."
    panel = ReviewPanel([{"id": 1, "text": text, "spans": []}], path)
    assert "An⟨U+200B⟩a\nRuiz" in panel.text.value
    panel.redact_more("An⟨U+200B⟩a Ruiz", "PERSON")
    assert places(panel.spans) == [(6, 15, "PERSON")]


@pytest.mark.parametrize("text", ["", "  ", "Zoe", ".*"])
def test_a_text_that_is_not_there_is_refused_in_a_sentence(path, text):
    panel = ReviewPanel([ANA], path)
    panel.missed.value = text
    panel.buttons["Redact more"].click()
    assert "no such text outside the spans" in panel.message.value
    assert panel.missed.value == text, "it can be mended"
    assert panel.value == []


def test_not_pii_takes_the_chosen_span_away_and_only_that(path):
    spans = [Span(0, 3, "PERSON"), Span(8, 10, "PERSON"), Span(15, 17, "PERSON")]
    panel = ReviewPanel([ANA | {"spans": spans}], path)
    assert [label for label, _ in panel.found.options][1] == "2 PERSON: Bo"
    panel.found.value = 1
    panel.buttons["Not PII"].click()
    assert places(panel.spans) == [(0, 3, "PERSON"), (15, 17, "PERSON")]
    for index in (2, -1, None):
        with pytest.raises(ValueError, match="no such span"):
            panel.not_pii(index)


def test_after_a_record_without_spans_the_first_span_is_chosen_again(panel):
    assert panel.found.value is None
    assert panel.buttons["Not PII"].disabled
    panel.accept()
    assert panel.found.value == 0
    assert not panel.buttons["Not PII"].disabled


def test_a_skipped_record_comes_again_after_the_others(panel):
    panel.buttons["Skip"].click()
    assert panel.record is UNSURE
    for _ in range(3):
        panel.accept()
    assert panel.record is WIRED
    panel.accept()
    assert panel.record is None


def test_undo_goes_back_one_decision_at_a_time_to_the_start(panel, path):
    panel.redact_more("ed", "PERSON")
    panel.accept()
    panel.buttons["Undo"].click()
    assert panel.record is WIRED
    assert places(panel.spans) == [(5, 7, "PERSON")]
    panel.buttons["Undo"].click()
    assert panel.spans == panel.value == []
    assert path.read_text("utf-8") == ""
    with pytest.raises(ValueError, match="no decision to undo"):
        panel.undo()


# --- saving ------------------------------------------------------------------------


def test_each_decision_is_on_disk_at_once_and_holds_no_text(panel, path):
    panel.redact_more("ed@mail.example", "EMAIL_ADDRESS")
    panel.accept()
    lines = path.read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == panel.value
    assert "mail.example" not in path.read_text("utf-8")


def test_a_panel_made_again_goes_on_where_it_stopped(panel, path):
    panel.redact_more("ed", "PERSON")
    panel.accept()
    panel.skip()
    again = ReviewPanel(RECORDS, path)
    assert again.value == panel.value
    assert again.record is SURE
    assert again.status.value == panel.status.value
    again.undo()
    assert again.record is UNSURE


@pytest.mark.parametrize(
    "others",
    [
        [SURE],
        [r | {"text": r["text"] + "!"} for r in RECORDS],
        [r | {"id": r["id"] + "2"} for r in RECORDS],
    ],
)
def test_decisions_on_other_records_are_refused(panel, path, others):
    panel.accept()
    with pytest.raises(ValueError, match="holds decisions on other records"):
        ReviewPanel(others, path)


@pytest.mark.parametrize("line", ["{", '{"id": "ana"}', '{"id": ["ana"]}', "[]"])
def test_a_file_of_something_else_is_refused(path, line):
    path.parent.mkdir()
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="give another path"):
        ReviewPanel(RECORDS, path)
    assert path.read_text("utf-8") == line + "\n"


def test_a_decision_that_cannot_be_saved_is_not_taken(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    panel = ReviewPanel(RECORDS, tmp_path / "file" / "decisions.jsonl")
    panel.buttons["Accept"].click()
    assert panel.value == []
    assert panel.record is WIRED
    assert "file" in panel.message.value


def test_two_records_of_one_id_are_refused(path):
    with pytest.raises(ValueError, match="two records have one id"):
        ReviewPanel([ANA, ANA], path)


def test_no_records_are_no_error(path):
    panel = ReviewPanel([], path)
    assert panel.record is None
    assert "0 of 0 records accepted" in panel.status.value


# --- what is shown -----------------------------------------------------------------


def test_progress_and_bound_are_shown(path):
    panel = ReviewPanel(RECORDS, path, n_population=2000)
    assert "0 of 4 records accepted" in panel.status.value
    assert "at most 100.0 % of all records" in panel.status.value
    assert "tripwires: an @" in panel.status.value
    panel.accept()
    panel.accept()
    # 1 - 0.05 ** (1 / 2) = 0.7764, of 2,000
    assert "0 of 2 had a miss" in panel.status.value
    assert "at most 77.6 % of all records (1,553 of 2,000)" in panel.status.value
    assert "tripwires: none" in panel.status.value


def test_only_a_record_in_which_something_was_missed_counts_as_a_miss(path):
    panel = ReviewPanel(RECORDS, path)
    panel.redact_more("ed", "PERSON")
    panel.redact_more("mail", "PERSON")
    panel.accept()
    panel.not_pii(0)
    decide_all(panel)
    assert "1 of 4 had a miss" in panel.status.value


def test_spans_are_marked_with_type_and_score_and_not_by_colour_alone(path):
    panel = ReviewPanel([UNSURE], path)
    assert "Di<small" in panel.text.value
    assert "[1 PERSON 0.41]" in panel.text.value
    assert "border-bottom" in panel.text.value


def test_where_spans_overlap_no_text_is_lost_or_shown_twice(path):
    spans = [Span(0, 6, "A"), Span(2, 4, "B"), Span(4, 8, "C")]
    panel = ReviewPanel([{"id": 1, "text": "abcdefghij", "spans": spans}], path)
    shown = panel.text.value
    assert shown.index("abcdef<") < shown.index("gh<") < shown.index("ij</div>")
    for label in ("[1 A", "[2 B", "[3 C"):
        assert label in shown


def test_all_that_comes_from_a_record_is_escaped(path):
    hostile = "<img src=x onerror=alert(1)>"
    spans = [Span(4, 9, "<b>")]
    panel = ReviewPanel([{"id": hostile, "text": hostile, "spans": spans}], path)
    shown = panel.status.value + panel.text.value + panel.message.value
    assert "<img" not in shown
    assert "<b>&" not in shown
    assert "&lt;b&gt;" in panel.text.value


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\x1b[31m\x00", "a⟨U+001B⟩[31m⟨U+0000⟩"),
        ("a\u200b\u2028", "a⟨U+200B⟩⟨U+2028⟩"),
        ("a\tb\nc é 漢 🙂", "a\tb\nc é 漢 🙂"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text, spelled):
    assert spell_controls(text) == spelled


def test_the_buttons_are_in_keyboard_order_and_all_controls_have_labels(panel):
    assert list(panel.buttons) == ["Accept", "Redact more", "Not PII", "Skip", "Undo"]
    in_rows = [child for row in panel.children[2:4] for child in row.children]
    assert [c for c in in_rows if c in panel.buttons.values()] == [
        *panel.buttons.values()
    ]
    assert all(control.description.strip() for control in in_rows)


def test_no_size_changes_with_the_record(panel):
    sizes = [(w.layout.width, w.layout.height) for w in panel.children[:2]]
    assert all(height.endswith("px") for _, height in sizes)
    decide_all(panel)
    assert [(w.layout.width, w.layout.height) for w in panel.children[:2]] == sizes
