"""Run alone: ``python -m pytest tests/test_reporting.py``."""

import re

import matplotlib.pyplot as plt
import pytest

from ftlib.reporting import (
    list_scores,
    plot_before_after,
    plot_loss,
    plot_scores,
    show_table,
)
from ftlib.scoring import Score

HOSTILE = "<script>alert('x')</script> & \"<img src=x onerror=y>\""


def list_tags(text):
    return set(re.findall(r"<\s*(\w+)", text))


TABLE_TAGS = {"style", "div", "table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_cells_headings_and_caption_are_escaped():
    shown = show_table([{HOSTILE: HOSTILE}], caption=HOSTILE).data
    assert list_tags(shown) == TABLE_TAGS
    assert shown.count("&lt;script") == 3


def test_long_text_is_shown_whole():
    text = "word " * 200
    assert text.strip() in show_table([{"text": text.strip()}]).data


def test_lines_end_where_they_end_and_a_backslash_stays_one():
    shown = show_table([{"mail": "Hello Ada,\n\nC:\\new is full.", "n": 2}]).data
    assert "Hello Ada,<br><br>C:\\new is full." in shown


def test_rows_and_columns_come_in_the_order_given():
    shown = show_table([{"b": "first", "a": 1}, {"b": "second", "a": 2}]).data
    places = [shown.index(text) for text in (">b<", ">a<", "first", "second")]
    assert places == sorted(places)


def test_a_table_without_rows_is_shown_without_an_error():
    assert "<table" in show_table([]).data


def test_whole_numbers_stay_whole_and_others_have_three_digits():
    shown = show_table([{"n": 1200, "share": 0.123456}]).data
    assert ">1200<" in shown
    assert ">0.123<" in shown


def test_scores_become_rows():
    assert list_scores([Score("exact", 0.9, 20, 0.699, 0.972)]) == [
        {"score": "exact", "value": "0.90", "95 % interval": "0.70 to 0.97", "n": 20}
    ]


HISTORY = [
    {"step": 1, "loss": 2.0},
    {"step": 2, "loss": 1.5, "validation_loss": 1.8},
    {"step": 3},
    {"step": 4, "loss": 1.0, "validation_loss": 1.2},
]


def read_curves(figure):
    return {
        line.get_label(): [tuple(point) for point in line.get_xydata()]
        for line in figure.axes[0].get_lines()
    }


def test_the_loss_is_plotted_where_it_was_measured():
    assert read_curves(plot_loss(HISTORY)) == {
        "training, each step's batch": [(1, 2.0), (2, 1.5), (4, 1.0)],
        "validation": [(2, 1.8), (4, 1.2)],
    }


def test_a_run_without_validation_has_one_curve():
    history = [{"step": 1, "loss": 2.0}]
    assert list(read_curves(plot_loss(history))) == ["training, each step's batch"]


def test_loss_axes_have_names_and_units_and_begin_at_nought():
    axes = plot_loss(HISTORY).axes[0]
    assert axes.get_xlabel() == "optimizer step"
    assert axes.get_ylabel() == "loss (nats per token)"
    assert axes.get_ylim()[0] == 0


SCORES = [Score("base", 0.05, 200, 0.02, 0.1), Score("tuned", 0.9, 200, 0.85, 0.94)]


def test_scores_are_bars_from_the_top_with_their_intervals():
    axes = plot_scores(SCORES, "exact triage").axes[0]
    assert axes.get_title() == "exact triage"
    assert [bar.get_width() for bar in axes.patches] == [0.05, 0.9]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "tuned"]
    assert axes.yaxis_inverted()
    (whiskers,) = [c for c in axes.collections if hasattr(c, "get_segments")]
    ends = [segment[:, 0].tolist() for segment in whiskers.get_segments()]
    assert ends == [pytest.approx([0.02, 0.1]), pytest.approx([0.85, 0.94])]


def test_an_interval_that_rounding_puts_beside_its_value_is_plotted_too():
    # Wilson's upper end at n of n is 1 but for rounding.
    plot_scores([Score("all", 1.0, 3, 0.44, 0.9999999999)])
    plot_before_after([Score("none", 0.0, 3, 1e-17, 0.56)], [SCORES[0]])


def test_before_and_after_stand_side_by_side():
    before = [Score("facts", 1.0, 9, 0.7, 1.0), Score("words", 0.8, 9, 0.45, 0.94)]
    after = [Score("facts", 0.5, 9, 0.2, 0.8), Score("words", 0.9, 9, 0.57, 0.98)]
    axes = plot_before_after(before, after, "abilities").axes[0]
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["before", "after"]
    points = [handle.lines[0].get_xydata()[:, 0].tolist() for handle in handles]
    assert points == [[1.0, 0.8], [0.5, 0.9]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["facts", "words"]


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_loss(HISTORY),
        lambda: plot_scores(SCORES),
        lambda: plot_before_after(SCORES, SCORES),
    ],
)
def test_a_figure_is_left_to_the_cell_that_asked_for_it(plot):
    # One left open would be shown a second time, and kept in memory.
    plot()
    assert plt.get_fignums() == []
