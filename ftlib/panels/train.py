"""The training panel: set, start, watch, pause, stop and resume one run."""

import math
import textwrap
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as widgets

from ftlib.config import RunConfig
from ftlib.panels.curves import LOSSES, draw_curves, pick_losses, tabulate
from ftlib.schema import make_safe

if TYPE_CHECKING:
    from ftlib.training import Progress, Run

TICK_S = 0.25  # seconds between two looks at a run: at most 4 drawings a second
PRESETS: dict[str, dict[str, float]] = {
    "as given": {},
    "quick look": {"num_train_epochs": 0.25},
    "careful": {"learning_rate": 0.5, "num_train_epochs": 2},
    "strong": {"r": 4, "lora_alpha": 4},
}
"""What each preset multiplies, of the settings that the panel was given."""
STATES: dict[str, tuple[str, set[str]]] = {
    "new": ("Ready", {"Start"}),
    "loading": ("Loading", {"Stop"}),
    "running": ("Running", {"Pause", "Stop"}),
    "paused": ("Paused", {"Stop", "Resume"}),
    "stopping": ("Stopping after the step under way", set()),
    "saving": ("Saving the adapter", set()),
    "stopped": ("Stopped, its checkpoint is kept", {"Start", "Resume"}),
    "finished": ("Finished", {"Start"}),
    "failed": ("Failed", {"Start"}),
}
"""What each state is called, and the buttons that do something in it."""


class TrainingPanel(widgets.VBox):
    """
    Set, start, watch, pause, stop and resume one fine-tuning run.

    Each button has a method of the same name, its twin for use without a browser.

    Parameters
    ----------
    config : RunConfig
        The settings to begin with; `value` equals them until a control is touched.
    make_run : callable or None
        Given settings, makes the `training.Run`, on a model without an adapter. It is
        called at each start, in the background. With None, nothing can be started.

    Examples
    --------
    >>> panel = TrainingPanel(RunConfig(), make_run=None)
    >>> panel.preset.value = "strong"
    >>> panel.value.r, panel.value.lora_alpha
    (64, 128)
    """

    def __init__(
        self, config: RunConfig, make_run: Callable[[RunConfig], "Run"] | None
    ) -> None:
        self._given = self._started = config
        self._make_run, self.run = make_run, None
        self._error, self._thread = None, None
        self._busy = self._stopping = False
        self._lock = threading.RLock()  # the kernel's thread shows, and ours does
        self._drawn, self._drawn_at, self._cost = None, -math.inf, 0.0

        # Sizes are fixed, so that nothing jumps while the numbers change.
        def size(width: str, height: str | None = None) -> widgets.Layout:
            return widgets.Layout(
                width=width, min_height=height, margin="2px 8px 2px 2px"
            )

        def row(*children: widgets.Widget) -> widgets.HBox:
            return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap"))

        field = {"layout": size("210px"), "style": {"description_width": "initial"}}
        names = list(PRESETS)
        self.preset = widgets.Dropdown(options=names, description="Preset", **field)
        self.knobs = {
            "learning_rate": widgets.FloatText(description="Learning rate", **field),
            "r": widgets.IntText(description="Adapter rank r", **field),
            "num_train_epochs": widgets.FloatText(description="Epochs", **field),
        }
        self.buttons = {
            name: widgets.Button(description=name, layout=size("90px"))
            for name in ("Start", "Pause", "Stop", "Resume")
        }
        self.note = widgets.HTML(layout=size("100%", "32px"))
        self.message = widgets.HTML(layout=size("100%", "32px"))
        nothing = {label: [] for label in LOSSES}
        self.image = widgets.Image(value=draw_curves(nothing, 0), width=640, height=300)
        self.numbers = widgets.HTML(layout=size("280px"))
        self._take_preset()
        super().__init__(
            [
                row(self.preset, *self.knobs.values()),
                self.note,
                row(*self.buttons.values()),
                self.message,
                row(self.image, self.numbers),
            ]
        )
        self.preset.observe(lambda change: self._take_preset(), "value")
        for knob in self.knobs.values():
            knob.observe(lambda change: self._show(), "value")
        for name, button in self.buttons.items():
            twin = getattr(self, name.lower())
            # A second click may be on its way when the first one disables the button.
            button.on_click(lambda button, twin=twin: button.disabled or twin())

    @property
    def value(self) -> RunConfig:
        """
        Give the settings as the controls stand.

        Returns
        -------
        RunConfig
            Checked; a contradiction raises ValueError, and is shown in the panel.
        """
        knobs = {name: knob.value for name, knob in self.knobs.items()}
        return self._given.change(**(self._preset_changes() | knobs))

    @property
    def state(self) -> str:
        """
        Say what goes on.

        Returns
        -------
        str
            A key of `STATES`.
        """
        progress = self.run.progress if self.run else None
        if not self._busy:
            return "failed" if self._error else progress.status if progress else "new"
        if self._stopping:
            return "stopping"
        if not progress or not self.run.is_alive:
            return "loading"
        return "saving" if progress.step >= progress.n_steps > 0 else progress.status

    def start(self) -> None:
        """Begin a run with the settings in `value`, in the background."""
        config = self.value
        self._launch(lambda: self._make_run(config).start(), None)
        self._started = config

    def pause(self) -> None:
        """Let the run wait after the step under way."""
        if self.run:
            self.run.pause()
        self._show()

    def stop(self) -> None:
        """Let the run end after the step under way; its checkpoint is kept."""
        self._stopping = self._busy
        if self.run:
            self.run.stop()
        self._show()

    def resume(self) -> None:
        """Let a paused run go on, or a stopped one from its checkpoint."""
        if self.state == "paused":
            self.run.unpause()
            self._show()
        elif self.run:
            self._launch(lambda: self.run.start(resume=True), self.run)

    def wait(self) -> "Progress":
        """
        Block until the run has ended.

        While a cell waits no button is heard: so a run not yet started is started, a
        paused one goes on, and interrupting the cell stops the run.

        Returns
        -------
        training.Progress
            How far it came; what made a run fail is raised instead.
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

    def _launch(self, begin: Callable[[], "Run"], run: "Run | None") -> None:
        if self._busy:
            raise RuntimeError("a run goes on already: stop it, or wait for it")
        if self._thread:
            self._thread.join()  # it may have a last curve to draw
        from ftlib.machine import release_threads

        release_threads()
        self.run, self._error, self._busy, self._stopping = run, None, True, False
        self._thread = threading.Thread(target=self._follow, args=(begin,), daemon=True)
        self._thread.start()
        self._show()

    def _follow(self, begin: Callable[[], "Run"]) -> None:
        """Show a run until it has ended; only sets traits, for prints would stray."""
        try:
            self.run = begin()
            if self._stopping:  # asked for while it was loading
                self.run.stop()
            while self.run.is_alive:
                self._show()
                # A twentieth of the time at most: the processor is for training.
                self._draw(time.monotonic(), rest=20 * self._cost)
                self.run.wait(TICK_S)  # returns at once when the run ends
            self.run.wait()
        except BaseException as error:  # `wait` raises it
            self._error = error
        self._busy = self._stopping = False
        self._show()
        time.sleep(max(0.0, self._drawn_at + TICK_S - time.monotonic()))
        self._draw(time.monotonic())

    def _preset_changes(self) -> dict[str, float]:
        factors = PRESETS[self.preset.value]
        return {name: getattr(self._given, name) * factors[name] for name in factors}

    def _take_preset(self) -> None:
        changes = self._preset_changes()
        for name, knob in self.knobs.items():
            knob.value = changes.get(name, getattr(self._given, name))
        self._show()

    def _show(self) -> None:
        """Set the texts, and what is disabled, to what is so now."""
        with self._lock:
            state = self.state
            message, enabled = STATES[state]
            if not self._make_run:
                enabled = set()
            try:
                note = _describe(self._given, self.value)
                if state == "stopped" and self.value != self._started:
                    enabled = enabled - {"Resume"}
                    note += ". To resume, set back what the stopped run had"
            except ValueError as error:
                note, enabled = str(error), enabled - {"Start", "Resume"}
            if self._error:
                reason = f"{type(self._error).__name__}: {self._error}"
                message += ", " + textwrap.shorten(reason, 300, placeholder=" ...")
            self.note.value = make_safe(note)
            self.message.value = f'<b role="status">{make_safe(message)}</b>'
            self.numbers.value = tabulate(self.run.progress if self.run else None)
            for name, button in self.buttons.items():
                button.disabled = name not in enabled
            for control in (self.preset, *self.knobs.values()):
                control.disabled = self._busy

    def _draw(self, now: float, rest: float = 0.0) -> None:
        """Draw the curves if they changed and `rest`, in seconds, has passed."""
        if self.run and now - self._drawn_at >= max(TICK_S, rest):
            curves = pick_losses(self.run.progress)
            if curves != self._drawn:
                self.image.value = draw_curves(curves, self.run.progress.n_steps)
                self._drawn, self._drawn_at = curves, now
                self._cost = time.monotonic() - now


def _describe(given: RunConfig, value: RunConfig) -> str:
    """Say which settings differ from those given, and which has no effect."""
    old, new = given.to_dict(), value.to_dict()
    changes = [f"{n} {old[n]} → {new[n]}" for n in old if old[n] != new[n]]
    text = "Changed: " + ", ".join(changes) if changes else "Settings as given"
    if value.max_steps > 0:
        text += f". max_steps {value.max_steps} sets the length, epochs do not"
    return text
