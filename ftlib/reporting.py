"""Reporting: tables, and figures that a notebook shows and a report keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from ftlib.schema import spell_controls
from ftlib.scoring import Score

BLUE, ORANGE, GREY = "#1f5fa8", "#c8590b", "#777777"


def show_table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> HTML:
    """
    Show rows as a table; all text is escaped and long text wraps.

    Parameters
    ----------
    rows : sequence of mapping
        One a line; the first row's keys give the columns.
    caption : str
        A line above the table.

    Returns
    -------
    IPython.display.HTML
        For a notebook to display.

    Examples
    --------
    >>> "&lt;b&gt;" in show_table([{"text": "<b>"}]).data
    True
    """
    # What looks like a formula is text.
    options = ("display.max_colwidth", None, "display.html.use_mathjax", False)
    with pd.option_context(*options):
        frame = pd.DataFrame(list(rows))
        # pandas would spell a line's end out as a backslash and an n.
        frame = frame.replace("\n", "\v", regex=True)
        body = frame.to_html(index=False, escape=True, border=0, float_format="%.3g")
        body = spell_controls(body.replace("\v", "<br>"))
    if caption:
        safe = caption.replace("&", "&amp;").replace("<", "&lt;")
        start = body.index(">") + 1
        title = f'<caption style="text-align:left;color:inherit">{safe}</caption>'
        body = body[:start] + title + body[start:]
    style = (
        "<style>.ftlib td,.ftlib th{text-align:left!important;vertical-align:top;"
        "white-space:pre-wrap!important;max-width:34em;overflow-wrap:anywhere}</style>"
    )
    return HTML(f'{style}<div class="ftlib">{body}</div>')


def list_scores(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """
    Give scores as rows for `show_table`.

    Parameters
    ----------
    scores : sequence of Score
        What to list.

    Returns
    -------
    list of dict
        One a score, its numbers as text.

    Examples
    --------
    >>> list_scores([Score("exact", 0.5, 4, 0.1504, 0.8496)])
    [{'score': 'exact', 'value': '0.50', '95 % interval': '0.15 to 0.85', 'n': 4}]
    """
    return [
        {
            "score": s.name,
            "value": f"{s.value:.2f}",
            "95 % interval": f"{s.low:.2f} to {s.high:.2f}",
            "n": s.n,
        }
        for s in scores
    ]


def plot_loss(history: Sequence[Mapping[str, float]]) -> Figure:
    """
    Plot the training and validation loss of a run, by step.

    Parameters
    ----------
    history : sequence of mapping
        Rows with ``step`` and ``loss`` or ``validation_loss``, as `training.Progress`
        keeps them.

    Returns
    -------
    matplotlib.figure.Figure
        For a notebook to display.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for key, label, style in [
        ("loss", "training, each step's batch", {"color": BLUE, "linewidth": 1}),
        (
            "validation_loss",
            "validation",
            {"color": ORANGE, "marker": "o", "linewidth": 2},
        ),
    ]:
        rows = [row for row in history if key in row]
        if rows:
            steps = [row["step"] for row in rows]
            axes.plot(steps, [row[key] for row in rows], label=label, **style)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    plt.close(figure)  # the notebook shows what the cell returns, once
    return figure


def _list_errors(scores: Sequence[Score]) -> list[list[float]]:
    """Give how far the interval of each score reaches down, and up."""
    return [
        [max(0, s.value - s.low) for s in scores],
        [max(0, s.high - s.value) for s in scores],
    ]


def plot_scores(scores: Sequence[Score], title: str = "") -> Figure:
    """
    Plot scores as bars with their 95 % intervals, in the order given, first on top.

    Parameters
    ----------
    scores : sequence of Score
        What to compare; values from 0 to 1.
    title : str
        The figure's title.

    Returns
    -------
    matplotlib.figure.Figure
        For a notebook to display.
    """
    height = 0.8 + 0.42 * len(scores)
    figure, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
    places = range(len(scores))
    values = [s.value for s in scores]
    axes.barh(
        places, values, xerr=_list_errors(scores), color=BLUE, ecolor=GREY, capsize=4
    )
    axes.set_yticks(places, [s.name for s in scores])
    axes.invert_yaxis()
    for place, s in zip(places, scores, strict=True):
        axes.text(max(s.high, s.value) + 0.02, place, f"{s.value:.2f}", va="center")
    axes.set(xlim=(0, 1.12), title=title, xlabel=f"share, n = {scores[0].n}")
    axes.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def plot_before_after(
    before: Sequence[Score], after: Sequence[Score], title: str = ""
) -> Figure:
    """
    Plot each ability before and after fine-tuning, with 95 % intervals.

    Parameters
    ----------
    before, after : sequence of Score
        The same abilities in the same order.
    title : str
        The figure's title.

    Returns
    -------
    matplotlib.figure.Figure
        For a notebook to display.
    """
    height = 1.0 + 0.4 * len(before)
    figure, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
    for scores, label, color, marker, shift in [
        (before, "before", GREY, "s", -0.12),
        (after, "after", ORANGE, "o", 0.12),
    ]:
        places = [i + shift for i in range(len(scores))]
        values = [s.value for s in scores]
        axes.errorbar(
            values,
            places,
            xerr=_list_errors(scores),
            fmt=marker,
            color=color,
            label=label,
            capsize=3,
        )
    axes.set_yticks(range(len(before)), [s.name for s in before])
    axes.invert_yaxis()
    axes.set(xlim=(-0.02, 1.02), title=title, xlabel="share answered right")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(1, 0))
    plt.close(figure)
    return figure
