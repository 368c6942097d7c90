"""What the training panel shows of a run: its losses as a picture, its numbers."""

import io
import math
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftlib.reporting import BLUE, ORANGE

if TYPE_CHECKING:
    from ftlib.training import Progress

LOSSES = {"Training loss": "loss", "Validation loss": "validation_loss"}
Curves = dict[str, list[tuple[float, float]]]


def pick_losses(progress: "Progress") -> Curves:
    """
    Give, by label, the steps at which each loss was measured, and the losses.

    Parameters
    ----------
    progress : training.Progress
        Of a run that may go on meanwhile.

    Returns
    -------
    dict of str to list
        Pairs of step and loss.
    """
    history = list(progress.history)  # the run goes on adding to it
    return {
        label: [(row["step"], row[name]) for row in history if name in row]
        for label, name in LOSSES.items()
    }


def tabulate(progress: "Progress | None") -> str:
    """
    Give how far a run is as an HTML table, with a dash for what is not known.

    Parameters
    ----------
    progress : training.Progress or None
        None before a run was made.

    Returns
    -------
    str
        HTML of our own words and numbers only.
    """
    rows = dict.fromkeys(("Step", *LOSSES, "Speed", "Time left"), "–")
    if progress and progress.n_steps:
        # On resume, `progress.step` is 0 until a step is done; the history is kept.
        step = progress.history[-1]["step"] if progress.history else 0
        rows["Step"] = f"{step} of {progress.n_steps}"
        for label, points in pick_losses(progress).items():
            rows[label] = f"{points[-1][1]:.3f}" if points else "–"
        if progress.tokens_per_s:
            rows["Speed"] = f"{progress.tokens_per_s:,.0f} tokens/s"
        if math.isfinite(progress.seconds_left):
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            rows["Time left"] = f"{minutes} min {seconds:02} s"
    line = '<tr><th scope="row" align="left">{}</th><td align="right">{}</td></tr>'
    lines = "".join(line.format(*row) for row in rows.items())
    style = "width:100%;font-variant-numeric:tabular-nums"
    return f'<table style="{style}">{lines}</table>'


def draw_curves(curves: Curves, n_steps: int) -> bytes:
    """
    Draw the losses as a PNG of 960 x 450 pixels, `n_steps` wide from the start.

    Parameters
    ----------
    curves : dict
        As `pick_losses` gives them.
    n_steps : int
        Steps of the whole run, so that the axis does not move.

    Returns
    -------
    bytes
        The PNG. Drawn without pyplot, whose state threads must not share.
    """
    figure = Figure(figsize=(6.4, 3.0), dpi=150)
    axes = figure.add_axes((0.09, 0.16, 0.88, 0.8))
    styles = ({"color": BLUE, "lw": 1}, {"color": ORANGE, "lw": 2, "marker": "o"})
    for (label, points), style in zip(curves.items(), styles, strict=True):
        steps, losses = zip(*points, strict=True) if points else ((), ())
        axes.plot(steps, losses, label=label, **style)
    top = max((loss for points in curves.values() for _, loss in points), default=1)
    axes.set(xlim=(0, n_steps or 1), ylim=(0, 1.08 * top))
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.yaxis.set_label_coords(-0.07, 0.5)  # wherever the numbers on the axis end
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()
