"""The decision panel: answer eight questions, see which way they point and why."""

from collections.abc import Mapping

import ipywidgets as widgets

from ftlib.decision import CHOICES, Needs, recommend
from ftlib.panels.layout import fix_size, frame
from ftlib.reporting import show_table


class DecisionPanel(widgets.VBox):
    """
    Rank the ways to get answers from a model, as the answers are changed.

    Parameters
    ----------
    needs : Needs, optional
        The answers at first.
    evidence : mapping of str to str, optional
        What was measured, by the key that each advice names as its evidence.

    Examples
    --------
    >>> panel = DecisionPanel()
    >>> panel.answers["tone"].value = "house voice"
    >>> panel.value.tone
    'house voice'
    """

    def __init__(
        self, needs: Needs | None = None, evidence: Mapping[str, str] | None = None
    ) -> None:
        self._evidence = evidence or {}
        needs = needs or Needs()
        self.answers = {
            name: widgets.Dropdown(
                options=choices,
                value=getattr(needs, name),
                description=name.replace("_", " ").capitalize(),
                style={"description_width": "120px"},
                layout=fix_size("300px"),
            )
            for name, choices in CHOICES.items()
        }
        self.table = widgets.HTML(layout=fix_size("98%", "560px"))
        controls = widgets.HBox(list(self.answers.values()))
        controls.layout.flex_flow = "row wrap"
        super().__init__([controls, self.table])
        for control in self.answers.values():
            control.observe(lambda change: self._show(), "value")
        self._show()

    @property
    def value(self) -> Needs:
        """The answers as they stand."""
        return Needs(**{name: control.value for name, control in self.answers.items()})

    def _show(self) -> None:
        """Show the advice on the answers as they stand."""
        rows = []
        for place, advice in enumerate(recommend(self.value), 1):
            out = advice.reasons[0].startswith("out")
            row = {"Place": "out" if out else str(place), "Way": advice.way}
            row["Points"] = "" if out else str(advice.points)
            row["Why"] = "\n".join(filter(None, [*advice.reasons, advice.note]))
            measured = self._evidence.get(advice.evidence, "")
            row["Evidence"] = "\n".join(filter(None, [advice.evidence, measured]))
            rows.append(row)
        table = show_table(rows).data
        self.table.value = frame("Advice", 550, table)
