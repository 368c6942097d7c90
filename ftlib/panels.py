"""Panels: controls that take and give plain values, each with a headless twin."""

import html
import io
import math
import textwrap
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftlib.config import RunConfig

if TYPE_CHECKING:
    from ftlib.training import Progress, Run

TICK_S = 0.25  # between two looks at the run: at most 4 drawings a second
SIZE = (6.4, 3.0)  # of the curve, in hundreds of CSS pixels

PRESETS: dict[str, Callable[[RunConfig], dict[str, Any]]] = {
    "as given": lambda given: {},
    "quick look": lambda given: {"num_train_epochs": 1.0, "max_steps": -1},
    "careful": lambda given: {
        "learning_rate": given.learning_rate / 2,
        "num_train_epochs": given.num_train_epochs * 2,
    },
    "strong": lambda given: {"r": given.r * 4, "lora_alpha": given.lora_alpha * 4},
}
"""What each preset changes of the settings that the panel was given."""

STATES: dict[str, tuple[str, set[str]]] = {
    "new": ("Ready", {"Start"}),
    "loading": ("Loading", {"Stop"}),
    "running": ("Running", {"Pause", "Stop"}),
    "paused": ("Paused", {"Stop", "Resume"}),
    "stopping": ("Stopping after this step", set()),
    "saving": ("Saving", set()),
    "stopped": ("Stopped; Resume goes on from here", {"Start", "Resume"}),
    "finished": ("Finished", {"Start"}),
    "failed": ("Failed", {"Start"}),
}
"""What each state is called, and the buttons that do something in it."""


class TrainingPanel(widgets.VBox):
    """
    Set, start, watch, pause, stop and resume one fine-tuning run.

    Each button has a twin of the same name in small letters, for use without a browser.

    Parameters
    ----------
    config : RunConfig
        The settings to begin with; `value` equals them until a control is touched.
    make_run : callable
        Given the settings, makes the `training.Run`, on a model that carries no
        adapter yet. Called at each start, in the background.

    Attributes
    ----------
    run : training.Run or None
        The run that was started last.

    Examples
    --------
    >>> panel = TrainingPanel(RunConfig(), make_run=lambda config: None)
    >>> panel.preset.value = "strong"
    >>> panel.value.r, panel.value.lora_alpha
    (64, 128)
    """

    def __init__(self, config: RunConfig, make_run: Callable[[RunConfig], "Run"]) -> None:
        self._given, self._make_run = config, make_run
        self.run: Run | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._busy = self._stopping = False
        self._lock = threading.RLock()  # the kernel's thread and ours both show
        self._curve = Curve()

        look: dict[str, Any] = {"style": {"description_width": "105px"}}
        look["layout"] = widgets.Layout(width="225px")
        self.preset = widgets.Dropdown(
            options=list(PRESETS), description="Preset", **look
        )
        rate = widgets.FloatText(description="Learning rate", **look)
        rank = widgets.IntText(description="Adapter rank r", **look)
        epochs = widgets.FloatText(description="Training epochs", **look)
        self.knobs = {"learning_rate": rate, "r": rank, "num_train_epochs": epochs}
        self.buttons = {
            name: widgets.Button(description=name, layout=widgets.Layout(width="90px"))
            for name in ("Start", "Pause", "Stop", "Resume")
        }
        # Widths and heights are fixed, so that nothing jumps while numbers change.
        line = widgets.Layout(min_height="30px")
        self.note, self.message = widgets.HTML(layout=line), widgets.HTML(layout=line)
        self.numbers = widgets.HTML(layout=widgets.Layout(width="300px"))
        wide, high = (f"{100 * inches:.0f}px" for inches in SIZE)
        self.image = widgets.Image(
            value=self._curve.draw([], 0), layout=widgets.Layout(width=wide, height=high)
        )
        wrap = widgets.Layout(flex_flow="row wrap")
        super().__init__(
            [
                widgets.HBox([self.preset, *self.knobs.values()], layout=wrap),
                self.note,
                widgets.HBox(list(self.buttons.values()), layout=wrap),
                self.message,
                widgets.HBox([self.image, self.numbers], layout=wrap),
            ]
        )
        self._take_preset()
        self.preset.observe(self._take_preset, "value")
        for knob in self.knobs.values():
            knob.observe(lambda change: self._show(), "value")
        for name, button in self.buttons.items():
            twin = getattr(self, name.lower())
            # A second click may be on its way when the first one disables the button.
            button.on_click(lambda button, twin=twin: button.disabled or twin())

    @property
    def value(self) -> RunConfig:
        """Give the settings as the controls stand; ValueError when they contradict."""
        knobs = {name: knob.value for name, knob in self.knobs.items()}
        return self._given.change(**(PRESETS[self.preset.value](self._given) | knobs))

    @property
    def state(self) -> str:
        """Give the word for what goes on: a key of `STATES`."""
        progress = self.run.progress if self.run else None
        if self._busy:
            if self._stopping:
                return "stopping"
            if progress is None or not self.run.is_alive:
                return "loading"
            ended = progress.step >= progress.n_steps > 0
            return "saving" if ended else progress.status
        if self._error:
            return "failed"
        return progress.status if progress else "new"

    def start(self) -> None:
        """Start a run with the settings in `value`, in the background."""
        config = self.value
        self._launch(lambda: self._make_run(config).start(), forget=True)

    def pause(self) -> None:
        """Let the run wait after the step under way."""
        if self.run:
            self.run.pause()
        self._show()

    def stop(self) -> None:
        """Let the run end after the step under way; its checkpoint is kept."""
        self._stopping = self._busy
        if self._busy and self.run:
            self.run.stop()
        self._show()

    def resume(self) -> None:
        """Let a paused run go on, or a stopped one from its checkpoint."""
        if self.state == "paused":
            self.run.unpause()
            self._show()
        elif self.run:
            self._launch(lambda: self.run.start(resume=True))

    def wait(self) -> "Progress":
        """
        Block until the run has ended, and give its progress: for Run All.

        A run that was not started is started, and a paused one goes on: while a cell
        blocks, no button is heard. Interrupting the cell stops the run.

        Returns
        -------
        training.Progress
            Of the run; what made it fail is raised instead.
        """
        if self.state == "new":
            self.start()
        elif self.state == "paused":
            self.resume()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.stop()
            self._thread.join()
        if self._error:
            raise self._error
        return self.run.progress

    def _launch(self, begin: Callable[[], "Run"], forget: bool = False) -> None:
        """Begin a run, and follow it, in a thread of its own."""
        if self._busy:
            raise RuntimeError("a run goes on already: stop it, or wait for it")
        if self._thread:
            self._thread.join()  # it may have a last curve to draw
        if forget:
            self.run = None  # its model makes room for the next one
        self._error, self._busy, self._stopping = None, True, False
        self._thread = threading.Thread(
            target=self._follow, args=(begin,), name="ftlib-panel", daemon=True
        )
        self._thread.start()
        self._show()

    def _follow(self, begin: Callable[[], "Run"]) -> None:
        """Show a run until it has ended; only sets traits, as prints would stray."""
        try:
            self.run = begin()
            if self._stopping:
                self.run.stop()
            while self.run.is_alive:
                self._show()
                self._draw(time.monotonic())
                self.run.wait(TICK_S)  # ends early with the run, raises its error
            self.run.wait()
        except BaseException as error:
            self._error = error
        self._busy = self._stopping = False
        self._show()
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._draw(time.monotonic())

    def _take_preset(self, change: Any = None) -> None:
        """Set the knobs as the preset says."""
        changes = PRESETS[self.preset.value](self._given)
        for name, knob in self.knobs.items():
            knob.value = changes.get(name, getattr(self._given, name))
        self._show()

    def _show(self) -> None:
        """Set texts and disabled states to what is so now."""
        with self._lock:
            state, progress = self.state, self.run.progress if self.run else None
            text, enabled = STATES[state]
            try:
                value = self.value
                changes = [
                    f"{name} {old} → {new}"
                    for name, old in self._given.to_dict().items()
                    if (new := getattr(value, name)) != old
                ]
                note = "Changed: " + ", ".join(changes) if changes else "As given."
                if state == "stopped" and value != self.run.config:
                    enabled = enabled - {"Resume"}
                    note += " Resume needs the settings of the run that was stopped."
            except ValueError as error:
                enabled, note = enabled - {"Start", "Resume"}, f"{error}."
            if self._error:
                reason = textwrap.shorten(str(self._error), 300, placeholder=" ...")
                text += f": {reason or type(self._error).__name__}"
            self.note.value = html.escape(note)
            self.message.value = f'<b role="status">{html.escape(text)}</b>'
            self.numbers.value = show_numbers(progress)
            for name, button in self.buttons.items():
                button.disabled = name not in enabled
            for control in (self.preset, *self.knobs.values()):
                control.disabled = self._busy

    def _draw(self, now: float) -> None:
        """Draw the curve when it is due, which `now`, in seconds, says."""
