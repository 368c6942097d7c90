"""Figures: the numbers that a figure draws, kept beside its picture."""

from functools import partial
from math import isfinite
from typing import Any

from IPython import get_ipython
from IPython.core.formatters import BaseFormatter
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, Formatter
from traitlets import Unicode

# No notebook shows this; the site offers it as a file.
FIGURE_DATA = "application/vnd.ftlib.figure+json"


def list_drawn(figure: Figure) -> list[dict[str, Any]]:
    """
    Give the numbers that a figure draws: lines, dots, bars and their intervals.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Whoever drew it.

    Returns
    -------
    list of dict
        One a point: ``axes`` (its title, or what its y is), ``series``, ``x`` and
        ``y``, a name where the axis has names; an interval has ``x_to`` and ``y_to``.

    Examples
    --------
    >>> figure = Figure()
    >>> _ = figure.subplots(subplot_kw={"ylabel": "loss"}).plot([1], [2], label="train")
    >>> list_drawn(figure)
    [{'axes': 'loss', 'series': 'train', 'x': 1.0, 'y': 2.0}]
    """
    return [
        {"axes": axes.get_title() or axes.get_ylabel(), "series": name}
        | {
            column: _name(axes.yaxis if column[0] == "y" else axes.xaxis, place)
            for column, place in zip(("x", "y", "x_to", "y_to"), point, strict=False)
        }
        for axes in figure.axes
        for name, points in _list_points(axes)
        for point in points
    ]


def _list_points(axes: Any) -> list[tuple[str, list[list[float]]]]:
    """Give each series' name and points; those of an interval have four numbers."""
    named, found = {}, []
    for group in axes.containers:
        named |= dict.fromkeys(group.get_children(), group.get_label())
        if isinstance(group, ErrorbarContainer):  # its caps repeat its ends
            named |= dict.fromkeys(group.lines[1], None)
        elif isinstance(group, BarContainer):
            flat = group.orientation == "horizontal"
            boxes = [bar.get_bbox() for bar in group]
            places = [(b.y0 + b.y1 if flat else b.x0 + b.x1) / 2 for b in boxes]
            pairs = zip(group.datavalues.tolist(), places, strict=True)
            found.append((group.get_label(), [p if flat else p[::-1] for p in pairs]))
    for artist in [*axes.lines, *axes.collections]:
        name = named.get(artist, artist.get_label())
        if name is None:
            continue
        if isinstance(artist, LineCollection):
            ends = [e.ravel().tolist() for e in artist.get_segments() if len(e) == 2]
            found.append((f"{name}, interval", ends))
        elif isinstance(artist, Line2D):
            found.append((name, artist.get_xydata().tolist()))
        elif isinstance(artist, PathCollection):
            found.append((name, artist.get_offsets().tolist()))
    return [(name if name[:1] != "_" else "", list(points)) for name, points in found]


def _name(axis: Any, place: float) -> float | str | None:
    """Give the name of a place on an axis, or the place itself where it has none."""
    formatter, ticks = axis.get_major_formatter(), axis.get_majorticklocs()
    if not isfinite(place):
        return None  # JSON has no NaN
    if not _has_names(formatter):
        return float(place)
    # Names at 0, 1, 2 ... stand for a row each: what is drawn beside one belongs to it.
    near = 0.25 if list(ticks) == list(range(len(ticks))) else 1e-6
    names = zip(ticks, formatter.format_ticks(ticks), strict=True)
    return next((text for at, text in names if abs(at - place) < near), float(place))


def _has_names(formatter: Formatter) -> bool:
    """Say whether an axis was given names: other formatters write out numbers."""
    # What matplotlib itself makes of set_yticks(places, names) is a partial.
    is_given = isinstance(getattr(formatter, "func", None), partial)
    return is_given or isinstance(formatter, FixedFormatter | StrCategoryFormatter)


class _FigureData(BaseFormatter):
    """Puts the numbers of a figure beside its picture in the notebook's file."""

    format_type = Unicode(FIGURE_DATA)

    def __call__(self, obj: Any) -> list[dict[str, Any]] | None:
        # Not a printer for the type: pyplot, when it starts, removes all of those.
        return list_drawn(obj) if isinstance(obj, Figure) else None


def keep_figure_data() -> None:
    """Keep the numbers of each figure that this notebook shows, in its file."""
    shell = get_ipython()
    if shell:
        formatter = _FigureData(parent=shell.display_formatter)
        shell.display_formatter.formatters[FIGURE_DATA] = formatter
