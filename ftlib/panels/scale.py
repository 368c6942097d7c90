"""The scale panel: one adapter turned up and down, one model after the other."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
from peft.helpers import rescale_adapter_scale

from ftlib.generation import generate
from ftlib.panels.layout import fix_size, frame
from ftlib.reporting import show_table
from ftlib.schema import Example, Message, split_prompt
from ftlib.scoring import match_exactly


def answer_at_scale(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    alpha: float,
    max_new_tokens: int = 96,
) -> list[str]:
    """
    Answer prompts with the adapter's update scaled by `alpha`.

    Parameters
    ----------
    model : peft.PeftModel
        A model with a LoRA adapter; its own scale is as before afterwards.
    tokenizer : transformers tokenizer
        Its tokenizer.
    prompts : sequence of sequence of Message, length n_prompts
        Each a conversation that waits for the assistant.
    alpha : float
        From 0, the base model (for DoRA, but for its magnitudes), to 1, the adapter as
        it was trained.
    max_new_tokens : int
        The longest answer, in tokens.

    Returns
    -------
    list of str, length n_prompts
        The answers.
    """
    with rescale_adapter_scale(model, alpha):
        return generate(model, tokenizer, prompts, max_new_tokens)


class ScalePanel(widgets.VBox):
    """
    Slide between the base model and the tuned one, and see what each between answers.

    Parameters
    ----------
    model : peft.PeftModel
        A model with a LoRA adapter.
    tokenizer : transformers tokenizer
        Its tokenizer.
    examples : sequence of Example
        What is asked: a few of the task, and one of each ability.
    alpha : float
        The adapter's scale at first, from 0 to 1.
    """

    def __init__(
        self, model: Any, tokenizer: Any, examples: Sequence[Example], alpha: float = 1
    ) -> None:
        if not examples:
            raise ValueError("nothing to ask: give at least one example")
        self._model, self._tokenizer, self._examples = model, tokenizer, examples
        self.scale = widgets.FloatSlider(
            value=alpha,
            min=0.0,
            max=1.0,
            step=0.05,
            description="Scale of the adapter",
            continuous_update=False,  # each move answers all prompts anew
            style={"description_width": "130px"},
            layout=fix_size("480px"),
        )
        self.table = widgets.HTML(layout=fix_size("98%", "420px"))
        super().__init__([self.scale, self.table])
        self.scale.observe(lambda change: self._show(), "value")
        self._show()

    @property
    def value(self) -> float:
        """The scale as it stands."""
        return self.scale.value

    def _show(self) -> None:
        """Answer at the scale as it stands, and show what is right."""
        prompts, references = zip(*map(split_prompt, self._examples), strict=True)
        answers = answer_at_scale(self._model, self._tokenizer, prompts, self.value)
        rows = []
        for prompt, reference, answer in zip(prompts, references, answers, strict=True):
            is_right = match_exactly([answer], [reference])[0]
            verdict = "right" if is_right else f"wrong, it is: {reference}"
            asked = f"{prompt[-1]['content']:.120}"
            rows.append({"Asked": asked, "Answer": answer, "Verdict": verdict})
        shown = show_table(rows, f"Answers at a scale of {self.value:.2f}").data
        self.table.value = frame("Answers", 410, shown)
