"""The memory panel: what a run would take, part by part, and whether it fits a card."""

import io
from collections.abc import Mapping

import ipywidgets as widgets
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftlib.config import METHODS, WREN, RunConfig, name_knobs
from ftlib.panels.layout import fix_size
from ftlib.reporting import show_table
from ftlib.schema import make_safe

LABELS = {
    "r": "Rank r",
    "max_length": "Tokens in a row",
    "per_device_train_batch_size": "Rows in a batch",
    "gradient_checkpointing": "Compute again every n-th layer",
}
GB = 1e9


def draw_memory(parts: Mapping[str, int], n_bytes: int) -> bytes:
    """
    Draw what a run takes as one stacked bar against a card, a PNG of 960 x 300 pixels.

    Parameters
    ----------
    parts : mapping of str to int
        Bytes by part, as `memory.estimate_memory` gives them.
    n_bytes : int
        What the card has.

    Returns
    -------
    bytes
        The PNG.
    """
    figure = Figure(figsize=(6.4, 2.0), dpi=150)
    axes = figure.add_axes((0.03, 0.52, 0.94, 0.42))
    left = 0.0
    for place, (part, size) in enumerate(parts.items()):
        color = colormaps["tab10"](place)
        axes.barh(0, size / GB, left=left, color=color, label=part)
        left += size / GB
    axes.axvline(n_bytes / GB, color="black", lw=2, ls="--", label="memory there is")
    axes.set(xlim=(0, 1.05 * max(left, n_bytes / GB)), yticks=[], xlabel="GB")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.52), ncols=5, fontsize=7)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return png.getvalue()


class MemoryPanel(widgets.VBox):
    """
    Choose a model, a method and a card, and see whether a run fits.

    Parameters
    ----------
    config : RunConfig
        The settings to begin with; `value` equals them until a control is touched.

    Examples
    --------
    >>> panel = MemoryPanel(RunConfig())
    >>> panel.knobs["r"].value = 8
    >>> panel.value.r
    8
    """

    def __init__(self, config: RunConfig) -> None:
        from ftlib.memory import ARCHITECTURES, CARDS

        self._given = config
        field = {"layout": fix_size("290px"), "style": {"description_width": "initial"}}
        models = {"Wren": WREN, **{name: name for name in ARCHITECTURES}}
        if config.model not in models.values():
            models[config.model] = config.model
        choices = {
            "model": ("Model", list(models.items())),
            "method": ("Method", list(METHODS)),
            "load_in_4bit": ("Base weights", [("4 bits", True), ("16 bits", False)]),
        }
        self.knobs = {
            name: widgets.Dropdown(
                options=options, value=getattr(config, name), description=label, **field
            )
            for name, (label, options) in choices.items()
        } | {
            name: widgets.IntText(
                value=getattr(config, name), description=label, **field
            )
            for name, label in LABELS.items()
        }
        self.card = widgets.Dropdown(
            options=list(CARDS), value="my laptop", description="Card", **field
        )
        self.message = widgets.HTML(layout=fix_size("98%", "64px"))
        self.image = widgets.Image(value=draw_memory({}, 1), width=640, height=200)
        self.table = widgets.HTML(layout=fix_size("300px", "410px"))
        controls = widgets.HBox([*self.knobs.values(), self.card])
        shown = widgets.HBox([self.image, self.table])
        controls.layout.flex_flow = shown.layout.flex_flow = "row wrap"
        super().__init__([controls, self.message, shown])
        for control in (*self.knobs.values(), self.card):
            control.observe(lambda change: self._show(), "value")
        self._show()

    @property
    def value(self) -> RunConfig:
        """
        Give the settings as the controls stand.

        Returns
        -------
        RunConfig
            Checked; a contradiction raises ValueError, and is shown in the panel.
        """
        return self._given.change(**{n: knob.value for n, knob in self.knobs.items()})

    def _show(self) -> None:
        """Show what the settings take as they stand, or what is wrong with them."""
        from ftlib.memory import CARDS, estimate_memory, load_architecture

        card = self.card.value
        n_bytes, device = CARDS[card], "cpu" if card == "my laptop" else "cuda"
        parts: dict[str, int] = {}
        try:
            config = self.value
            parts = estimate_memory(load_architecture(config.model), config, device)
        except (ValueError, OSError) as error:
            message = str(error)
        else:
            needed = sum(parts.values())
            message = f"Fits {card}"
            if needed > n_bytes:
                message = f"Does not fit {card}: {name_knobs(config)}"
            message += f". It takes {needed / GB:.2f} GB of {n_bytes / GB:.1f} GB"
        self.message.value = f'<b role="status">{make_safe(message)}</b>'
        self.image.value = draw_memory(parts, n_bytes)
        rows = {**parts, "all": sum(parts.values()), card: n_bytes} if parts else {}
        lines = [{"Part": p, "MB": f"{n / 1e6:,.1f}"} for p, n in rows.items()]
        self.table.value = show_table(lines).data if lines else ""
