"""Run alone: ``python -m pytest tests/test_figures.py``."""

import matplotlib.pyplot as plt
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from ftlib import figures
from ftlib.decision import Cost, plot_break_even
from ftlib.figures import FIGURE_DATA, keep_figure_data, list_drawn
from ftlib.reporting import plot_before_after, plot_loss, plot_scores
from ftlib.scoring import Score


def test_the_numbers_of_bars_and_their_intervals_are_listed_by_name():
    scores = [Score("exact", 0.5, 40, 0.35, 0.65), Score("format", 0.9, 40, 0.8, 1)]
    assert list_drawn(plot_scores(scores, "test")) == [
        {"axes": "test", "series": "", "x": 0.5, "y": "exact"},
        {"axes": "test", "series": "", "x": 0.9, "y": "format"},
        {"axes": "test", "series": "", "x": 0.35, "y": "exact"}
        | {"x_to": 0.65, "y_to": "exact"},
        {"axes": "test", "series": "", "x": 0.8, "y": "format"}
        | {"x_to": 1.0, "y_to": "format"},
    ]


def test_the_numbers_of_lines_are_listed_by_series():
    figure = plot_loss([{"step": 1, "loss": 2.0, "validation_loss": 3.0}])
    assert [(row["series"], row["x"], row["y"]) for row in list_drawn(figure)] == [
        ("training, each step's batch", 1.0, 2.0),
        ("validation", 1.0, 3.0),
    ]


def test_a_loss_that_is_no_number_is_none():
    figure = plot_loss([{"step": 1, "loss": float("nan")}])
    assert [row["y"] for row in list_drawn(figure)] == [None]


def test_dots_and_upright_bars_of_a_cells_own_figure_are_listed():
    figure, (left, right) = plt.subplots(1, 2)
    left.scatter([1, 2], [3, 4], label="dots")
    right.bar(["u", "v"], [5, 6])
    plt.close(figure)
    listed = [(r["series"], r["x"], r["y"]) for r in list_drawn(figure)]
    assert listed == [("dots", 1, 3), ("dots", 2, 4), ("", "u", 5), ("", "v", 6)]


def test_what_an_axis_writes_its_numbers_with_gives_no_names():
    figure, axes = plt.subplots()
    axes.plot([100, 1000], [0.3, 20])
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y} USD")
    plt.close(figure)
    assert [(r["x"], r["y"]) for r in list_drawn(figure)] == [(100, 0.3), (1000, 20)]


def test_the_costs_of_a_break_even_figure_are_numbers():
    costs = [Cost("a", fixed=100, per_answer=0), Cost("b", fixed=0, per_answer=0.001)]
    rows = list_drawn(plot_break_even(costs))
    assert len(rows) > 800
    assert {type(row[side]) for row in rows for side in "xy"} == {float}


def test_a_place_between_named_ticks_keeps_its_number():
    figure, axes = plt.subplots()
    axes.plot([0.1, 0.3], [1, 2])
    axes.set_xticks([0.1, 0.5], ["few", "many"])
    plt.close(figure)
    assert [row["x"] for row in list_drawn(figure)] == ["few", 0.3]


def test_dots_of_two_series_beside_a_name_belong_to_it():
    scores = [Score(name, 0.5, 40, 0.4, 0.6) for name in ("sums", "dates")]
    rows = [r for r in list_drawn(plot_before_after(scores, scores)) if "x_to" not in r]
    assert [(row["series"], row["y"]) for row in rows] == [
        ("before", "sums"),
        ("before", "dates"),
        ("after", "sums"),
        ("after", "dates"),
    ]


def test_a_notebook_keeps_a_figures_numbers_beside_its_picture(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr(figures, "get_ipython", lambda: shell)
    keep_figure_data()
    for formatter in shell.display_formatter.formatters.values():
        formatter.pop(Figure, None)  # as pyplot does when it starts
    figure = plot_loss([{"step": 1, "loss": 2.0}])
    shown, _ = shell.display_formatter.format(figure)
    assert shown[FIGURE_DATA] == list_drawn(figure)
    assert FIGURE_DATA not in shell.display_formatter.format("text")[0]
