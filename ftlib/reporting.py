"""Reporting: tables, and figures that a notebook shows and a report keeps."""

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from random import Random
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from ftlib.schema import make_safe, spell_controls
from ftlib.scoring import Score
from ftlib.scoring.score import TOO_FEW

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
    return _show(rows, caption, escape=True)


def _show(rows: Sequence[Mapping[str, Any]], caption: str, escape: bool) -> HTML:
    """Show rows as a table, or rows of HTML that was made safe before."""
    # What looks like a formula is text.
    options = ("display.max_colwidth", None, "display.html.use_mathjax", False)
    with pd.option_context(*options):
        frame = pd.DataFrame(list(rows))
        # pandas would spell a line's end out as a backslash and an n.
        frame = frame.replace("\n", "\v", regex=True)
        body = frame.to_html(
            index=False, escape=escape, border=0, float_format="{:.3g}".format
        )
        body = spell_controls(body.replace("\v", "<br>"))
    if caption:
        safe = caption.replace("&", "&amp;").replace("<", "&lt;")
        start = body.index(">") + 1
        title = f'<caption style="text-align:left;color:inherit">{safe}</caption>'
        body = body[:start] + title + body[start:]
    style = (
        "<style>.ftlib td,.ftlib th{text-align:left!important;vertical-align:top;"
        "white-space:pre-wrap!important;max-width:34em;min-width:3em;"
        "overflow-wrap:anywhere}.ftlib th{overflow-wrap:break-word}"
        ".ftlib del{color:#9b1c1c;background:#fde2e2;text-decoration:line-through}"
        ".ftlib ins{color:#14532d;background:#d9f2e0;text-decoration:underline}</style>"
    )
    return HTML(f'{style}<div class="ftlib">{body}</div>')


def mark_difference(reference: str, response: str) -> str:
    """
    Mark where a response differs from its reference, word by word.

    Parameters
    ----------
    reference : str
        What the model should have said.
    response : str
        What it said.

    Returns
    -------
    str
        Safe HTML: struck through (``<del>``) what the response lacks, underlined
        (``<ins>``) what it should not hold.

    Examples
    --------
    >>> mark_difference("severity: low", "severity: high")
    'severity: <del>low</del><ins>high</ins>'
    """
    wanted, given = (re.findall(r"\w+|\s+|.", t) for t in (reference, response))
    marked = ""
    # White space alone is no common ground.
    matcher = SequenceMatcher(str.isspace, wanted, given, autojunk=False)
    for _, i, j, k, m in matcher.get_opcodes():
        if wanted[i:j] == given[k:m]:
            marked += make_safe("".join(given[k:m]))
            continue
        for tag, words in (("del", wanted[i:j]), ("ins", given[k:m])):
            marked += f"<{tag}>{make_safe(''.join(words))}</{tag}>" if words else ""
    return marked


def show_errors(
    prompts: Sequence[str],
    references: Sequence[str],
    predictions: Sequence[str],
    values: Sequence[float | None],
    n: int = 5,
    choose: Literal["worst", "best", "random"] = "worst",
) -> HTML:
    """
    Show the worst predictions: input, reference and what differs.

    Parameters
    ----------
    prompts, references, predictions : sequence of str, length n_items
        What the model was given, should have said, and said.
    values : sequence of float or None, length n_items
        What each prediction scored, more being better, as `score_items` of a metric
        gives it; items with None are left out.
    n : int
        How many to show.
    choose : {"worst", "best", "random"}
        The lowest values first, the highest first, or always the same few at random.

    Returns
    -------
    IPython.display.HTML
        For a notebook to display.

    Examples
    --------
    >>> "<del>Rome</del>" in show_errors(["City?"], ["Rome"], ["Bonn"], [0]).data
    True
    """
    if choose not in ("worst", "best", "random"):
        raise ValueError(f"{choose!r} is no choice: use worst, best or random")
    items = zip(values, prompts, references, predictions, strict=True)
    items = [item for item in items if item[0] is not None]
    if choose == "random":
        Random(0).shuffle(items)
    else:
        items.sort(key=lambda item: item[0], reverse=choose == "best")
    rows = [
        {
            "score": f"{value:.2f}",
            "input": make_safe(prompt),
            "reference": make_safe(reference),
            "prediction": mark_difference(reference, prediction),
        }
        for value, prompt, reference, prediction in items[:n]
    ]
    caption = (
        f"{choose}, {len(rows)} of {len(items)}: struck out is missing, underlined "
    )
    return _show(rows, caption + "is not in the reference", escape=False)


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
        One a score, its numbers as text; with k where one is a share, and with the
        setting where one has it.

    Examples
    --------
    >>> list_scores([Score("loss", 0.5, 40, 0.1504, 0.8496)])
    [{'score': 'loss', 'value': '0.50', '95 % interval': '0.15 to 0.85', 'n': 40}]
    """
    rows = [
        {
            "score": s.name,
            "value": f"{s.value:.2f}" if s.n else "not defined",
            "95 % interval": f"{s.low:.2f} to {s.high:.2f}" if s.n else "",
            "k": "" if s.k is None else s.k,
            "n": s.n if s.n >= TOO_FEW else f"{s.n} (too few)",
            "setting": str(s.setting or ""),
        }
        for s in scores
    ]
    used = {name for row in rows for name, value in row.items() if value != ""}
    return [{name: row[name] for name in row if name in used} for row in rows]


def list_results(results: Mapping[str, Sequence[Score]]) -> list[dict[str, str]]:
    """
    Give the scores of several systems as rows for `show_table`.

    Parameters
    ----------
    results : mapping of str to sequence of Score
        By system, such as "base" or "majority"; scores of one name stand in one
        column, so that `score_slices` gives a column a slice.

    Returns
    -------
    list of dict
        One a system: value, interval and n of each score; empty where it has none.

    Examples
    --------
    >>> list_results({"base": [Score("exact", 0.5, 40, 0.352, 0.648)]})
    [{'system': 'base', 'exact': '0.50 [0.35, 0.65], n=40'}]
    """
    names = dict.fromkeys(s.name for scores in results.values() for s in scores)
    return [
        {"system": system}
        | dict.fromkeys(names, "")
        | {s.name: str(s).removeprefix(f"{s.name} ") for s in scores}
        for system, scores in results.items()
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


def plot_points(
    points: Mapping[str, tuple[float, Score]], xlabel: str, ylabel: str, log: bool
) -> Figure:
    """
    Plot scores with their 95 % intervals against what each of them cost.

    Parameters
    ----------
    points : mapping of str to tuple of float and Score
        By what is compared: where it stands, and its score.
    xlabel, ylabel : str
        What the places are, and what the scores are.
    log : bool
        Whether places are on a logarithmic scale.

    Returns
    -------
    matplotlib.figure.Figure
        For a notebook to display.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for i, (name, (place, score)) in enumerate(points.items()):
        marker = "os^vDPX*<>d"[i % 11]  # told apart without colour too
        error = _list_errors([score])
        axes.errorbar(place, score.value, yerr=error, fmt=marker, label=name, capsize=3)
    axes.set(xscale="log" if log else "linear", xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
    return figure
