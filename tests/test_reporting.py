"""Run alone: ``python -m pytest tests/test_reporting.py``."""

import html
import re

import matplotlib.pyplot as plt
import pytest

from ftlib.reporting import (
    list_results,
    list_scores,
    mark_difference,
    plot_before_after,
    plot_loss,
    plot_points,
    plot_scores,
    show_errors,
    show_table,
)
from ftlib.scoring import Score, Setting

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
    assert list_scores([Score("loss", 0.9, 30, 0.699, 0.972)]) == [
        {"score": "loss", "value": "0.90", "95 % interval": "0.70 to 0.97", "n": 30}
    ]


def test_rows_of_scores_tell_what_some_of_them_have():
    setting = Setting(0, "a1" * 32, "b2" * 32, "c3" * 32, "greedy")
    scores = [
        Score("exact", 0.9, 20, 0.699, 0.972, 18),
        Score("loss", 1.5, 200, 1.4, 1.6, setting=setting),
        Score("value", float("nan"), 0, float("nan"), float("nan")),
    ]
    exact, loss, value = list_scores(scores)
    assert (exact["k"], exact["n"], exact["setting"]) == (18, "20 (too few)", "")
    assert (loss["k"], loss["n"]) == ("", 200)
    assert loss["setting"] == (
        "data a1a1a1a1, model b2b2b2b2, prompts c3c3c3c3, greedy, seed 0"
    )
    assert (value["value"], value["95 % interval"]) == ("not defined", "")


def test_results_are_a_row_a_system_and_a_column_a_score():
    exact = [Score("exact", 0.05, 200, 0.02, 0.1), Score("exact", 0.9, 20, 0.7, 0.97)]
    rare = Score("exact (rare)", 0.5, 40, 0.35, 0.65)
    assert list_results({"base": exact[:1], "tuned": [rare, exact[1]]}) == [
        {"system": "base", "exact": "0.05 [0.02, 0.10], n=200", "exact (rare)": ""},
        {
            "system": "tuned",
            "exact": "0.90 [0.70, 0.97], n=20 (too few)",
            "exact (rare)": "0.50 [0.35, 0.65], n=40",
        },
    ]


# --- predictions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "prediction", "marked"),
    [
        ("low", "low", "low"),
        ("", "", ""),
        ("red lamp", "red old lamp", "red <ins>old </ins>lamp"),
        ("red old lamp", "red lamp", "red <del>old </del>lamp"),
        ("low", "", "<del>low</del>"),
        ("", "low", "<ins>low</ins>"),
        ('{"n": 3}', '{"n": 4}', "{&quot;n&quot;: <del>3</del><ins>4</ins>}"),
        ("a\nb", "a b", "a<del>\n</del><ins> </ins>b"),
        # The spaces of two texts with no word in common do not match.
        ("a b c", "x y z", "<del>a b c</del><ins>x y z</ins>"),
        # A word is changed whole.
        ("lamps", "lamp", "<del>lamps</del><ins>lamp</ins>"),
    ],
)
def test_a_difference_is_marked_word_by_word(reference, prediction, marked):
    assert mark_difference(reference, prediction) == marked


def strip_marks(marked, dropped):
    """Give the text that is left when one kind of mark goes, with what it holds."""
    rest = re.sub(f"<{dropped}>.*?</{dropped}>", "", marked, flags=re.S)
    return html.unescape(re.sub("</?(ins|del)>", "", rest))


def test_a_marked_difference_holds_both_texts_whole():
    reference = 'Alert: "lap-abc-01",\tlow.\n\nÉté & <b> 漢字 the end ' + "word " * 300
    prediction = 'Alarm: "lap-abd-01", low!\nÉté <i> the  end' + "word lamp " * 290
    marked = mark_difference(reference, prediction)
    assert strip_marks(marked, "ins") == reference
    assert strip_marks(marked, "del") == prediction


ITEMS = {
    "prompts": ["P1", "P2", "P3", "P4"],
    "references": ["R1", "R2", "R3", "R4"],
    "predictions": ["R1", "Q2", "Q3", "Q4"],
    "values": [1.0, 0.25, None, 0.0],
}


def list_prompts(shown):
    return re.findall(r"<td>(P\d)</td>", shown.data)


def test_errors_come_worst_first_and_without_items_that_have_no_value():
    shown = show_errors(**ITEMS)
    assert list_prompts(shown) == ["P4", "P2", "P1"]
    assert "<td>R4</td>" in shown.data
    assert "<td><del>R4</del><ins>Q4</ins></td>" in shown.data
    assert "<td>0.25</td>" in shown.data
    assert "worst, 3 of 3" in shown.data


def test_the_best_or_a_few_at_random_can_be_shown_instead():
    assert list_prompts(show_errors(**ITEMS, n=1)) == ["P4"]
    assert list_prompts(show_errors(**ITEMS, n=2, choose="best")) == ["P1", "P2"]
    some = list_prompts(show_errors(**ITEMS, n=2, choose="random"))
    assert len(set(some)) == 2
    assert list_prompts(show_errors(**ITEMS, n=2, choose="random")) == some
    prompts = [f"P{i}" for i in range(9)]
    rest = [["R"] * 9, ["R"] * 9, [0.0] * 9]
    drawn = list_prompts(show_errors(prompts, *rest, n=9, choose="random"))
    assert sorted(drawn) == prompts
    assert drawn != prompts


def test_a_choice_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="'worse' is no choice: use worst, best or"):
        show_errors(**ITEMS, choose="worse")


def test_of_no_predictions_an_empty_table_is_shown():
    assert "worst, 0 of 0" in show_errors([], [], [], []).data


def test_unequal_numbers_of_predictions_are_refused():
    with pytest.raises(ValueError, match="longer"):
        show_errors(["P"], ["R"], ["Q"], [])


def test_what_differs_is_told_by_more_than_colour():
    style = show_errors(**ITEMS).data
    assert re.search(r"del\{[^}]*text-decoration:line-through", style)
    assert re.search(r"ins\{[^}]*text-decoration:underline", style)


@pytest.mark.parametrize(
    "hostile",
    [
        HOSTILE,
        "</del></td><script>alert(1)</script>",
        "<ins>fine</ins>",
        "\u202e\u200b\x1b[31m</table>",
    ],
)
def test_hostile_text_of_a_prediction_is_only_shown(hostile):
    for reference, prediction in [(hostile, "7"), ("7", hostile), (hostile, hostile)]:
        shown = show_errors([hostile], [reference], [prediction], [0.0]).data
        assert list_tags(shown) <= TABLE_TAGS | {"br", "del", "ins"}
        assert not set("\u202e\u200b\x1b") & set(shown)
        # What the text says of tags is escaped: ours are all that is marked.
        marks = 0 if reference == prediction else 1
        assert shown.count("<del>") == shown.count("</del>") == marks
        assert shown.count("<ins>") == shown.count("</ins>") == marks


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


def test_a_column_of_numbers_and_texts_is_shown():
    shown = show_table([{"change": 0.12345}, {"change": "none"}]).data
    assert "<td>0.123</td>" in shown
    assert "<td>none</td>" in shown


def test_a_point_stands_at_its_cost_with_its_interval():
    points = {
        "small": (100.0, Score("exact", 0.5, 40, 0.35, 0.65)),
        "large": (1e6, Score("exact", 0.75, 40, 0.6, 0.85)),
    }
    axes = plot_points(points, "trained parameters", "exact", log=True).axes[0]
    assert axes.get_xscale() == "log"
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["small", "large"]
    assert [h.lines[0].get_xydata()[0].tolist() for h in handles] == [
        [100.0, 0.5],
        [1e6, 0.75],
    ]
    (bar,) = handles[0].lines[2]
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([0.35, 0.65])


@pytest.mark.parametrize(
    "plot",
    [
        lambda: plot_points({"a": (1.0, SCORES[0])}, "", "", log=False),
        lambda: plot_loss(HISTORY),
        lambda: plot_scores(SCORES),
        lambda: plot_before_after(SCORES, SCORES),
    ],
)
def test_a_figure_is_left_to_the_cell_that_asked_for_it(plot):
    # One left open would be shown a second time, and kept in memory.
    plot()
    assert plt.get_fignums() == []
