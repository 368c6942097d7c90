"""The comparison panel: one prompt, several arms, their answers side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from ftlib.panels.layout import fix_size
from ftlib.schema import make_safe, spell_controls

if TYPE_CHECKING:
    from ftlib.retrieval import Answer

Arms = Mapping[str, Callable[[str], "Answer | str | Iterator[str]"]]
Answers = dict[str, "Answer | str"]
_COLUMN = (
    '<div tabindex="0" role="region" aria-label="{0}" style="flex:1 0 150px;'
    "overflow:auto;padding:6px;border:1px solid #999;white-space:pre-wrap;"
    'overflow-wrap:anywhere;line-height:1.5"><b>{0}</b><br>{1}</div>'
)
_PASSAGE = (
    '<div style="margin-top:8px;border-top:1px solid #999">{}<b>{}</b> [{}]<br>{}</div>'
)
_CITED = '<mark style="background:#fde3a7;color:#000">cited</mark> '


def compare(
    arms: Arms, prompt: str, report: Callable[[Answers], None] | None = None
) -> Answers:
    """
    Give each arm's answer to one prompt.

    Parameters
    ----------
    arms : mapping of str to callable
        By name, what gives a `retrieval.Answer` or text to a prompt, or an iterator of
        the pieces of a text as they come, such as `generation.stream`.
    prompt : str
        What is asked.
    report : callable, optional
        Told the answers so far after each piece and each answer.

    Returns
    -------
    dict
        By name, the answer; text where an arm gave nothing else, and a sentence that
        says why where it failed.

    Examples
    --------
    >>> compare({"late": lambda prompt: 1 / 0}, "Who owns the alert?")
    {'late': 'No answer, ZeroDivisionError: division by zero'}
    """
    answers: Answers = {}
    for name, arm in arms.items():
        try:
            answer = arm(prompt)
            if isinstance(answer, Iterator):
                answers[name] = ""
                for piece in answer:
                    answers[name] += piece
                    if report:
                        report(answers)
            else:
                answers[name] = answer if hasattr(answer, "cited") else str(answer)
        except Exception as error:  # the other arms still have their say
            said = answers.get(name) or "No answer"
            answers[name] = f"{said}, {type(error).__name__}: {error}"
        if report:
            report(answers)
    return answers


class ComparePanel(widgets.VBox):
    """
    Ask chosen arms the same and show their answers and passages side by side.

    Parameters
    ----------
    arms : mapping of str to callable
        By name, what gives a `retrieval.Answer` to a prompt.
    prompts : sequence of str
        Prompts to choose from.
    """

    def __init__(self, arms: Arms, prompts: Sequence[str]) -> None:
        if not arms or not prompts:
            raise ValueError("nothing to compare: give at least one arm and one prompt")
        self._arms = arms
        self._value: Answers | None = None
        self.arms = {
            name: widgets.Checkbox(value=True, description=name, indent=False)
            for name in arms
        }
        names = [(spell_controls(f"{i} {p:.90}"), p) for i, p in enumerate(prompts, 1)]
        self.prompt = widgets.Dropdown(options=names, description="Prompt")
        self.prompt.layout = fix_size("640px")
        self.typed = widgets.Text(description="Or type one", layout=fix_size("640px"))
        self.button = widgets.Button(description="Compare")
        self.status = widgets.HTML(layout=fix_size("98%", "44px"))
        self.answers = widgets.HTML(layout=fix_size("98%", "420px"))
        boxes = widgets.HBox(list(self.arms.values()))
        rows = [boxes, self.prompt, self.typed, self.button, self.status, self.answers]
        super().__init__(rows)
        self.button.on_click(lambda button: self.compare())

    @property
    def value(self) -> Answers | None:
        """The last comparison, as `compare` gives it; None before the first."""
        return self._value

    def compare(self) -> None:
        """Ask the chosen arms what is typed, or else the chosen prompt."""
        chosen = {name: self._arms[name] for name in self.arms if self.arms[name].value}
        prompt = self.typed.value.strip() or self.prompt.value
        if not chosen:
            self.status.value = '<b role="status">Choose at least one arm.</b>'
            return
        self.status.value = '<span role="status">Asking ...</span>'
        # A browser shows what is set while this runs; a thread is not needed for that.
        self._value = compare(chosen, prompt, self._show)
        asked = make_safe(f"{prompt:.200}")
        self.status.value = f'<span role="status">Asked: {asked}</span>'

    def _show(self, answers: Answers) -> None:
        """Show answers side by side, as far as they have come."""
        columns = "".join(
            _COLUMN.format(make_safe(name), _show_answer(answer))
            for name, answer in answers.items()
        )
        style = "display:flex;gap:8px;height:410px;overflow-x:auto"
        self.answers.value = f'<div style="{style}">{columns}</div>'


def _show_answer(answer: "Answer | str") -> str:
    """Give an answer and its passages as HTML, the cited one marked."""
    if isinstance(answer, str):
        return make_safe(answer) or "(no answer)"
    shown = make_safe(answer.text) or "(no answer)"
    if answer.cited not in [None, *(p.passage_id for p in answer.passages)]:
        shown += f"<br><b>Cites {make_safe(answer.cited)}, which was not retrieved.</b>"
    for passage in answer.passages:
        mark = _CITED if passage.passage_id == answer.cited else ""
        texts = passage.title, passage.passage_id, passage.text
        shown += _PASSAGE.format(mark, *map(make_safe, texts))
    return shown
