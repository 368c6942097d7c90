"""Run alone: ``python -m pytest tests/test_redaction.py``."""

import pytest

from ftlib.redaction import replace_spans
from ftlib.schema import Span


def find(text, part, entity_type, nth=0):
    """Give the span of the nth place where `part` stands in `text`."""
    start = -1
    for _ in range(nth + 1):
        start = text.index(part, start + 1)
    return Span(start, start + len(part), entity_type)


def test_equal_originals_share_a_number_and_others_get_the_next():
    text = "Ana met Bo; Bo called Ana and Cy."
    spans = [
        find(text, "Ana", "PERSON"),
        find(text, "Bo", "PERSON"),
        find(text, "Bo", "PERSON", 1),
        find(text, "Ana", "PERSON", 1),
        find(text, "Cy", "PERSON"),
    ]
    wanted = "[PERSON_1] met [PERSON_2]; [PERSON_2] called [PERSON_1] and [PERSON_3]."
    assert replace_spans(text, spans) == wanted
    assert replace_spans(text, spans[::-1]) == wanted  # numbers go by place


def test_each_type_counts_from_one_of_its_own():
    text = "Ana (10.0.0.5) and Bo (10.0.0.6)"
    spans = [
        find(text, "10.0.0.6", "IP_ADDRESS"),
        find(text, "Bo", "PERSON"),
        find(text, "10.0.0.5", "IP_ADDRESS"),
        find(text, "Ana", "PERSON"),
    ]
    assert (
        replace_spans(text, spans)
        == "[PERSON_1] ([IP_ADDRESS_1]) and [PERSON_2] ([IP_ADDRESS_2])"
    )


def test_the_same_text_under_two_types_is_two_entities():
    text = "May in May"
    spans = [find(text, "May", "PERSON"), find(text, "May", "DATE", 1)]
    assert replace_spans(text, spans) == "[PERSON_1] in [DATE_1]"


def test_of_overlapping_spans_the_longer_wins_whatever_comes_first():
    # A name within a mail address: cut out alone, it would leave the rest standing.
    text = "write to ana@corp.example now"
    name = find(text, "ana", "PERSON")
    mail = find(text, "ana@corp.example", "EMAIL_ADDRESS")
    for spans in ([name, mail], [mail, name]):
        assert replace_spans(text, spans) == "write to [EMAIL_ADDRESS_1] now"


def test_what_is_kept_stays_but_a_name_within_it_goes():
    text = "seen on lap-ana-07 by Bo"
    spans = [
        find(text, "lap-ana-07", "HOSTNAME"),
        find(text, "ana", "PERSON"),
        find(text, "Bo", "PERSON"),
    ]
    assert (
        replace_spans(text, spans[::2], keep={"HOSTNAME"})
        == "seen on lap-ana-07 by [PERSON_1]"
    )
    assert (
        replace_spans(text, spans, keep={"HOSTNAME"})
        == "seen on lap-[PERSON_1]-07 by [PERSON_2]"
    )


def test_spans_that_touch_are_both_replaced():
    assert (
        replace_spans("AnaBo", [Span(0, 3, "PERSON"), Span(3, 5, "PERSON")])
        == "[PERSON_1][PERSON_2]"
    )


def test_positions_count_characters_not_bytes():
    text = "Zoë 🙂 Łukasz ruft an"
    spans = [find(text, "Zoë", "PERSON"), find(text, "Łukasz", "PERSON")]
    assert replace_spans(text, spans) == "[PERSON_1] 🙂 [PERSON_2] ruft an"


def test_no_span_leaves_the_text_as_it_is():
    assert replace_spans("nothing to hide", []) == "nothing to hide"


def test_spans_may_come_from_a_generator():
    assert (
        replace_spans("Ana", (Span(0, 3, "PERSON") for _ in range(1))) == "[PERSON_1]"
    )


@pytest.mark.parametrize(("start", "end"), [(0, 4), (-1, 2), (2, 2), (2, 1), (5, 6)])
def test_a_span_outside_its_text_is_refused(start, end):
    with pytest.raises(ValueError, match="outside a text of 3 characters"):
        replace_spans("Ana", [Span(start, end, "PERSON")])
