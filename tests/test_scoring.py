"""Run alone: ``python -m pytest tests/test_scoring.py``."""

import json
import math

import pytest

from ftlib.scoring import (
    Score,
    compare_mcnemar,
    compare_paired,
    match_exactly,
    match_schema,
    parse_json,
    score_fields,
    score_mean,
    score_share,
    wilson_interval,
)

# --- intervals, worked by hand ---------------------------------------------------


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [
        # z^2 = 3.8415. At 0 of n the upper end is z^2 / (n + z^2): 3.8415 / 13.8415.
        (0, 10, 0.0, 0.27754),
        (10, 10, 0.72246, 1.0),
        # One of one: 1 / (1 + z^2) = 1 / 4.8415.
        (1, 1, 0.20655, 1.0),
        # Half: 0.5 -+ z / 2 / sqrt(n + z^2) = 0.5 -+ 0.97998 / sqrt(103.8415).
        (50, 100, 0.40383, 0.59617),
        # (0.9 + 0.0960) / 1.1921 -+ 1.96 sqrt(0.0045 + 0.0024) / 1.1921.
        (18, 20, 0.69897, 0.97213),
    ],
)
def test_wilsons_interval_is_the_one_worked_by_hand(n_right, n, low, high):
    assert wilson_interval(n_right, n) == pytest.approx((low, high), abs=2e-5)


def test_wilsons_interval_is_the_mirror_image_for_the_share_that_is_wrong():
    low, high = wilson_interval(3, 17)
    assert wilson_interval(14, 17) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("n_right", "n"), [(0, 0), (1, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(n_right, n):
    with pytest.raises(ValueError, match="is no share"):
        wilson_interval(n_right, n)


def test_a_share_carries_its_n_and_its_interval():
    score = score_share("exact", [True] * 18 + [False] * 2)
    assert (score.name, score.value, score.n) == ("exact", 0.9, 20)
    assert (score.low, score.high) == pytest.approx((0.69897, 0.97213), abs=2e-5)
    assert str(score) == "exact 0.90 [0.70, 0.97], n=20"


def test_the_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="is no share"):
        score_share("exact", [])


def test_a_mean_of_equal_values_has_no_width():
    assert score_mean("loss", [0.25] * 7) == Score("loss", 0.25, 7, 0.25, 0.25)


def test_a_mean_of_one_value_is_that_value():
    assert score_mean("loss", [3.5]) == Score("loss", 3.5, 1, 3.5, 3.5)


def test_a_bootstrap_of_two_values_reaches_from_one_to_the_other():
    # A quarter of the resamples is 0, 0 and a quarter 1, 1: more than 2.5 % each.
    score = score_mean("x", [0.0, 1.0])
    assert (score.value, score.low, score.high) == (0.5, 0.0, 1.0)


def test_a_bootstrap_interval_is_about_as_wide_as_theory_has_it():
    # 100 zeros and 100 ones: standard error sqrt(0.25 / 200) = 0.035355, times 1.96.
    score = score_mean("x", [0.0, 1.0] * 100)
    assert score.value == 0.5
    assert score.low == pytest.approx(0.5 - 0.0693, abs=0.01)
    assert score.high == pytest.approx(0.5 + 0.0693, abs=0.01)


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to score"):
        score_mean("x", [])


def test_the_bootstrap_hangs_on_its_seed_alone():
    values = [0.1, 0.4, 0.9, 0.2]
    assert score_mean("x", values, seed=3) == score_mean("x", values, seed=3)
    first, other = score_mean("x", values), score_mean("x", values, seed=1)
    assert first.value == other.value


# --- paired comparisons ----------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[True, False, True], [0.1, 0.7, 0.30000000000000004], [1]]
)
def test_nothing_differs_from_itself(values):
    assert compare_paired("gain", values, values) == Score(
        "gain", 0.0, len(values), 0.0, 0.0
    )
    assert compare_mcnemar([v > 0.5 for v in values], [v > 0.5 for v in values]) == 1.0


def test_a_gain_is_after_minus_before():
    score = compare_paired("gain", [0, 0, 1, 1], [1, 1, 1, 0])
    assert score.value == 0.25  # two gained, one lost, of four
    assert compare_paired("gain", [1, 1, 1, 0], [0, 0, 1, 1]).value == -0.25


def test_pairing_leaves_out_what_both_find_hard():
    # Each item gains exactly 0.1, though the items differ widely.
    before = [0.0, 0.2, 0.4, 0.6, 0.8]
    score = compare_paired("gain", before, [value + 0.1 for value in before])
    assert score.low == pytest.approx(0.1)
    assert score.high == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 0.0625),  # 2 * 1/32
        (0, 5, 0.0625),
        (6, 0, 0.03125),  # 2 * 1/64
        (3, 3, 1.0),  # 2 * 42/64, cut at 1
        (7, 1, 0.0703125),  # 2 * (1 + 8) / 256
        (9, 2, 0.0654296875),  # 2 * (1 + 11 + 55) / 2048
    ],
)
def test_mcnemars_exact_p_is_the_one_worked_by_hand(gained, lost, p):
    before = [False] * gained + [True] * lost + [True, False] * 4
    after = [True] * gained + [False] * lost + [True, False] * 4
    assert compare_mcnemar(before, after) == p
    assert compare_mcnemar(after, before) == p


def test_mcnemar_stands_more_pairs_than_a_float_can_count():
    assert compare_mcnemar([False] * 1_200, [True] * 1_200) == 0.0
    assert compare_mcnemar([False, True] * 600, [True, False] * 600) == 1.0


@pytest.mark.parametrize(
    "compare", [compare_mcnemar, lambda a, b: compare_paired("", a, b)]
)
def test_unequal_numbers_of_items_are_refused(compare):
    with pytest.raises(ValueError, match="shorter"):
        compare([True, False], [True])


# --- invariance to order ---------------------------------------------------------


def test_scores_do_not_hang_on_the_order_of_items():
    right = [True, False, True, True, False, True, True]
    assert score_share("x", right[::-1]) == score_share("x", right)
    values = [0.1, 0.2, 0.3, 1e16, -1e16, 0.7]
    assert score_mean("x", values).value == score_mean("x", values[::-1]).value
    before, after = right, [*right[1:], right[0]]
    assert compare_mcnemar(before[::-1], after[::-1]) == compare_mcnemar(before, after)
    forward = compare_paired("x", before, after)
    assert compare_paired("x", before[::-1], after[::-1]).value == forward.value


def test_an_interval_does_not_hang_on_the_order_of_items():
    values = [(7 * i % 41) ** 2 / 1681 for i in range(41)]  # forty-one unequal ones
    for seed in range(5):
        wanted = score_mean("x", values, seed)
        assert score_mean("x", values[::-1], seed) == wanted
        assert score_mean("x", sorted(values), seed) == wanted


# --- what is right ---------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Rome",
        "[1]",
        "null",
        "3",
        '"a"',
        '{"a": 1} ok',
        "```json\n{}\n```",
        "{'a': 1}",
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_json_object_alone_is_none(text):
    assert parse_json(text) is None


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}'])
def test_json_is_read_as_strictly_as_in_files(text):
    assert parse_json(text) is None


def test_white_space_around_an_object_is_json():
    assert parse_json(' {"a": [1, {"b": null}]}\n') == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("response", "reference", "right"),
    [
        ('{"a":1,"b":"x"}', '{"b": "x", "a": 1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1, "b": 2}', '{"a": 1}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": "x "}', '{"a": "x"}', False),
        ('Here: {"a": 1}', '{"a": 1}', False),
        ("Rome", '{"a": 1}', False),
        ("  Rome\n", "Rome", True),
        ("rome", "Rome", False),
        ("Rome.", "Rome", False),
        ("", "Rome", False),
    ],
)
def test_a_response_is_right_when_it_equals_its_reference(response, reference, right):
    assert match_exactly([response], [reference]) == [right]


def test_true_is_not_one():
    assert match_exactly(['{"a": true}'], ['{"a": 1}']) == [False]
    assert score_fields(['{"a": true}'], ['{"a": 1}'])[0].value == 0.0


def test_unequal_numbers_of_responses_are_refused():
    with pytest.raises(ValueError, match="longer"):
        match_exactly(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="longer"):
        score_fields(["{}"], ['{"a": 1}'] * 2)


SCHEMA = {
    "type": "object",
    "properties": {"severity": {"enum": ["low", "high"]}, "n": {"type": "integer"}},
    "required": ["severity"],
    "additionalProperties": False,
}


def test_valid_is_what_the_schema_admits():
    responses = [
        '{"severity": "low"}',
        '{"n": 3, "severity": "high"}',
        '{"severity": "Low"}',
        '{"severity": "low", "n": "3"}',
        '{"severity": "low", "more": 1}',
        '{"n": 3}',
        "{}",
        'low {"severity": "low"}',
        "null",
    ]
    assert match_schema(responses, SCHEMA) == [True, True] + [False] * 7


def test_each_field_is_scored_on_its_own():
    references = ['{"a": "x", "b": 1}', '{"a": "y", "b": 2}', '{"a": "z", "b": null}']
    responses = ['{"a": "x", "b": 0}', "no JSON", '{"a": "z"}']
    a, b = score_fields(responses, references)
    assert (a.name, a.value, a.n) == ("a", pytest.approx(2 / 3), 3)
    # A missing field is not the same as null.
    assert (b.name, b.value, b.n) == ("b", 0.0, 3)


def test_fields_come_in_the_order_of_the_first_reference():
    reference = json.dumps({"severity": 1, "action": 2, "host": 3})
    names = [score.name for score in score_fields([reference], [reference])]
    assert names == ["severity", "action", "host"]


def test_a_score_may_lie_outside_nought_and_one():
    score = score_mean("loss", [-2.0, 4.0])
    assert score.value == 1.0
    assert math.isfinite(score.low)
    assert score.low <= score.value <= score.high
