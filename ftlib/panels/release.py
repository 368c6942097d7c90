"""The release panel: fill in who answers for a model, see which gates it passes."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import ipywidgets as widgets

from ftlib import release
from ftlib.panels.layout import fix_size, frame
from ftlib.release.terms import DATA_RIGHTS, FIELDS
from ftlib.reporting import show_table
from ftlib.schema import make_safe


class ReleasePanel(widgets.VBox):
    """
    Show how a pack of evidence fares as terms are changed; the pack stays as it is.

    Parameters
    ----------
    pack : release.Pack
        The evidence.
    terms : mapping of str to object
        The terms at first, as `release.read_terms` gives them.
    today : date, optional
        The day to judge on; by default the clock's.

    Examples
    --------
    >>> panel = ReleasePanel(pack, terms)  # doctest: +SKIP
    >>> panel.fields["approver"].value = "model risk"  # doctest: +SKIP
    >>> panel.value["approver"]  # doctest: +SKIP
    'model risk'
    """

    def __init__(
        self,
        pack: release.Pack,
        terms: Mapping[str, Any],
        today: date | None = None,
    ) -> None:
        self._pack, self._terms, self._today = pack, dict(terms), today
        self.fields = {name: self._make_field(name) for name in FIELDS}
        self.gates = widgets.HTML(layout=fix_size("98%", "400px"))
        controls = widgets.HBox(list(self.fields.values()))
        controls.layout.flex_flow = "row wrap"
        super().__init__([controls, self.gates])
        for field in self.fields.values():
            field.observe(lambda change: self._show(), "value")
        self._show()

    @property
    def value(self) -> dict[str, Any]:
        """The terms as they stand, whether they are right or not."""
        texts = {name: field.value for name, field in self.fields.items()}
        return {
            name: self._terms[name]
            if name in self._terms and text == self._write(name)
            else [line.strip() for line in text.splitlines() if line.strip()]
            if name.endswith("_uses")
            else text
            for name, text in texts.items()
        }

    def _write(self, name: str) -> str:
        """Give a term as its field shows it: a use a line."""
        value = self._terms.get(name, "")
        return "\n".join(map(str, value)) if isinstance(value, list) else str(value)

    def _make_field(self, name: str) -> widgets.Widget:
        label = name.replace("_", " ").capitalize()
        how = {"description": label, "style": {"description_width": "120px"}}
        if name == "data_rights" and self._write(name) in DATA_RIGHTS:
            layout = fix_size("440px")
            return widgets.Dropdown(
                options=DATA_RIGHTS, value=self._write(name), layout=layout, **how
            )
        is_list = name.endswith("_uses")
        kind = widgets.Textarea if is_list else widgets.Text
        layout = fix_size("440px", "80px" if is_list else "32px")
        how |= {"placeholder": FIELDS[name], "continuous_update": False}
        return kind(value=self._write(name), layout=layout, **how)

    def _show(self) -> None:
        """Show each gate by the terms as they stand; `release.judge` keeps them."""
        decision = release.decide(self._pack, self.value, self._today)
        words = {True: "PASS", False: "FAIL"}
        rows = [
            {"gate": g.name, "passed": words[g.passed], "why": g.reason}
            for g in decision.gates
        ]
        verdict = make_safe(str(decision).splitlines()[0])
        table = show_table(rows).data
        self.gates.value = frame("Gates", 390, f"<b>{verdict}</b>{table}")
