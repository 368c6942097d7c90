"""The mask panel: what the loss is taken on, with and without a classic fault."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from ftlib.batches import Row
from ftlib.config import RunConfig
from ftlib.faults import FAULTS_IN_ROWS, Setup
from ftlib.panels.layout import fix_size, frame
from ftlib.schema import Example, make_safe
from ftlib.tokens import find_problems, show_mask


class MaskPanel(widgets.VBox):
    """
    Show a row's loss mask, plant a fault in it, and read what the pre-flight says.

    Parameters
    ----------
    examples : sequence of Example
        Conversations to choose from.
    tokenizer : transformers tokenizer
        One with a chat template; a copy is used.
    config : RunConfig, optional
        Whose ``max_length`` holds.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: RunConfig | None = None,
    ) -> None:
        if not examples:
            raise ValueError("there is no row to look at: give at least one example")
        self._examples, self._tokenizer = list(examples), tokenizer
        self._config = config or RunConfig()
        self.slider = widgets.IntSlider(
            min=1, max=len(examples), description="Row", layout=fix_size("400px")
        )
        self.fault = widgets.Dropdown(
            options=["none", *FAULTS_IN_ROWS],
            description="Fault",
            layout=fix_size("360px"),
        )
        self.mask = widgets.HTML(layout=fix_size("98%", "240px"))
        self.said = widgets.HTML(layout=fix_size("98%", "100px"))
        controls = widgets.HBox([self.slider, self.fault])
        controls.layout.flex_flow = "row wrap"
        super().__init__([controls, self.mask, self.said])
        for control in (self.slider, self.fault):
            control.observe(lambda change: self._show(), "value")
        self._show()

    @property
    def value(self) -> Row:
        """The row as it is shown: its ``input_ids`` and ``labels``."""
        return self._plant().rows[0]

    def _plant(self) -> Setup:
        """Give the chosen row as a set-up, with the chosen fault in it."""
        example = self._examples[self.slider.value - 1]
        setup = Setup(self._config, self._tokenizer, [example])
        if self.fault.value != "none":
            FAULTS_IN_ROWS[self.fault.value](setup)
        return setup

    def _show(self) -> None:
        """Show the row, and the pre-flight's words on it, as the controls stand."""
        setup = self._plant()
        problems = find_problems(
            setup.rows, setup.examples, setup.tokenizer, self._config.max_length
        )
        said = "".join(
            f"<p><b>{make_safe(p.name)}</b>: {make_safe(p.remedy)}</p>"
            for p in problems
        )
        shown = show_mask(setup.rows[0], setup.tokenizer).data
        self.mask.value = frame("Loss mask", 230, shown)
        said = f'<div role="status">{said or "The pre-flight finds no fault."}</div>'
        self.said.value = frame("Pre-flight", 90, said)
