"""The panel in which one talks to a model."""

from contextlib import nullcontext
from typing import Any

import ipywidgets as widgets

from ftlib.generation import generate
from ftlib.schema import make_safe


class AskPanel(widgets.VBox):
    """
    Ask a model whatever is typed; its adapter, where it has one, is off.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model that answers.
    tokenizer : transformers tokenizer
        Its tokenizer.
    question : str
        What stands in the field at first.
    """

    def __init__(self, model: Any, tokenizer: Any, question: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._answered: tuple[str, str] | None = None
        wide = widgets.Layout(width="640px")
        self.field = widgets.Text(
            value=question, description="Question", layout=wide, continuous_update=False
        )
        self.button = widgets.Button(description="Ask")
        self.answer = widgets.HTML(layout=widgets.Layout(min_height="64px"))
        super().__init__([self.field, self.button, self.answer])
        self.button.on_click(lambda button: self.ask())

    @property
    def value(self) -> tuple[str, str] | None:
        """The last question and its answer; None before anything was asked."""
        return self._answered

    def ask(self) -> None:
        """Ask what stands in the field."""
        question = self.field.value
        asked = [[{"role": "user", "content": question}]]
        has_adapter = hasattr(self._model, "disable_adapter")
        with self._model.disable_adapter() if has_adapter else nullcontext():
            answer = generate(self._model, self._tokenizer, asked)[0]
        self._answered = (question, answer)
        self.answer.value = f"<pre>{make_safe(answer) or '(no answer)'}</pre>"
