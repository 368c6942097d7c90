"""The data card: what a file of training data holds, and how the model will see it."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from ftlib.formats import SUFFIXES, Loaded, load_examples
from ftlib.panels.layout import fix_size
from ftlib.reporting import BLUE, ORANGE, show_table
from ftlib.schema import Example, make_safe, spell_controls
from ftlib.tokens import encode_example, show_mask

N_MEASURED = 2000  # examples at most whose lengths are measured, evenly spaced
N_SHOWN = 20  # bad rows at most that are listed
_FRAME = '<div tabindex="0" style="height:{}px;overflow:auto;line-height:1.5">{}</div>'


def draw_lengths(lengths: Sequence[int], max_length: int) -> bytes:
    """
    Draw the distribution of lengths as a PNG of 720 x 338 pixels.

    Parameters
    ----------
    lengths : sequence of int
        Of the examples, in tokens.
    max_length : int
        The longest that training takes; drawn as a line.

    Returns
    -------
    bytes
        The PNG.
    """
    figure = Figure(figsize=(4.8, 2.25), dpi=150)
    axes = figure.add_axes((0.12, 0.22, 0.85, 0.74))
    top = 1.05 * max([max_length, *lengths])
    axes.hist(lengths, bins=40, range=(0, top), color=BLUE)
    axes.axvline(max_length, color=ORANGE, ls="--", label=f"max_length {max_length}")
    axes.set(xlim=(0, top), xlabel="tokens in an example", ylabel="examples")
    axes.yaxis.get_major_locator().set_params(integer=True)
    if not lengths:
        axes.set_ylim(0, 1)
    axes.legend(loc="upper right")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


class DataCardPanel(widgets.VBox):
    """
    Show what a file of training data holds, its faults, and its examples as tokens.

    Parameters
    ----------
    folder_or_paths : path or iterable of path
        A folder with data files, or the files to choose from.
    tokenizer : transformers tokenizer
        One with a chat template.
    max_length : int
        The longest example that training takes, in tokens.
    """

    def __init__(
        self,
        folder_or_paths: str | Path | Iterable[str | Path],
        tokenizer: Any,
        max_length: int = 512,
    ) -> None:
        if isinstance(folder_or_paths, str | Path):
            folder = Path(folder_or_paths)
            found = sorted(folder.iterdir()) if folder.is_dir() else [folder]
            paths = [path for path in found if path.suffix.lower() in SUFFIXES]
        else:
            paths = [Path(path) for path in folder_or_paths]
        if not paths:
            raise ValueError(f"no data file there: give one of {', '.join(SUFFIXES)}")
        self._tokenizer, self._max_length = tokenizer, max_length
        names = [(spell_controls(path.name), path) for path in paths]
        self.file = widgets.Dropdown(options=names, description="File")
        self.file.layout = fix_size("360px")
        self.path = widgets.Text(description="Or a path", layout=fix_size("400px"))
        self.path.continuous_update = False
        self.message = widgets.HTML(layout=fix_size("98%", "44px"))
        self.facts = widgets.HTML(layout=fix_size("300px", "230px"))
        self.problems = widgets.HTML(layout=fix_size("98%", "150px"))
        self.image = widgets.Image(width=480, height=225)
        self.slider = widgets.IntSlider(min=1, max=1, description="Example")
        self.slider.layout = fix_size("400px")
        steps = {"Previous": -1, "Next": 1}
        self.buttons = {name: widgets.Button(description=name) for name in steps}
        self.example = widgets.HTML(layout=fix_size("98%", "220px"))
        rows = [self.file, self.path], [self.message], [self.image, self.facts]
        rows += [self.problems], [self.slider, *self.buttons.values()], [self.example]
        wrap = {"flex_flow": "row wrap"}
        super().__init__([widgets.HBox(row, layout=wrap) for row in rows])
        self._open()
        for control in (self.file, self.path):
            control.observe(lambda change: self._open(), "value")
        self.slider.observe(lambda change: self._show_example(), "value")
        for name, button in self.buttons.items():
            button.on_click(lambda button, step=steps[name]: self._move(step))

    @property
    def value(self) -> Loaded:
        """
        Give what the chosen file holds.

        Returns
        -------
        Loaded
            As `load_examples` gives it; what made a file unreadable is raised instead.
        """
        if self._loaded is None:
            raise self._error
        return self._loaded

    def _open(self) -> None:
        """Load the chosen file and show it, or say why it cannot be read."""
        self._loaded, lengths, facts, problems, error = None, [], "", "", ""
        try:
            self._loaded = loaded = load_examples(self.path.value or self.file.value)
            sample = loaded.examples[:: 1 + len(loaded.examples) // N_MEASURED]
            lengths = [len(self._encode(example)["input_ids"]) for example in sample]
            facts, problems = self._list_facts(lengths), _list_problems(loaded)
        except Exception as fault:  # `value` raises it when nothing was loaded
            self._error, error = fault, str(fault) or type(fault).__name__
        self.message.value = f'<b role="status">{make_safe(error)}</b>'
        self.facts.value = _FRAME.format(225, facts)
        self.problems.value = _FRAME.format(140, problems)
        self.image.value = draw_lengths(lengths, self._max_length)
        self._examples = loaded.examples if lengths else []
        self.slider.max, self.slider.value = max(1, len(self._examples)), 1
        self._show_example()

    def _encode(self, example: Example) -> dict[str, list[int]]:
        return encode_example(example, self._tokenizer)

    def _list_facts(self, lengths: Sequence[int]) -> str:
        """Give what was detected, and the lengths, as an HTML table."""
        loaded, n_bad = self.value, len(self.value.bad_rows)
        facts = {"File": f"{loaded.path.name:.60}", "Type": loaded.file_type}
        facts |= {"Convention": loaded.convention}
        facts |= {"Rows": len(loaded.examples) + n_bad, "Bad rows": n_bad}
        if lengths:
            over = sum(length > self._max_length for length in lengths)
            facts |= {"Tokens, median": round(median(lengths)), "longest": max(lengths)}
            facts |= {"over max_length": f"{over} of {len(lengths)} measured"}
        return show_table([{"What": k, "Found": str(v)} for k, v in facts.items()]).data

    def _move(self, step: int) -> None:
        self.slider.value += step  # the slider keeps within its ends

    def _show_example(self) -> None:
        """Show the chosen example as tokens, cut where training would cut it."""
        number, text = self.slider.value, ""
        self.buttons["Previous"].disabled = number == 1
        self.buttons["Next"].disabled = number == self.slider.max
        if self._examples:
            row = self._encode(self._examples[number - 1])
            n_over = len(row["input_ids"]) - self._max_length
            cut = {name: ids[: self._max_length] for name, ids in row.items()}
            text = f"Row {self.value.row_numbers[number - 1]} of the file"
            text += f", without its last {n_over} tokens" if n_over > 0 else ""
            text += show_mask(cut, self._tokenizer).data
        self.example.value = _FRAME.format(210, text)


def _list_problems(loaded: Loaded) -> str:
    """Give the rows that do not fit as an HTML table."""
    rows = [{"Row": bad.row, "Problem": bad.reason} for bad in loaded.bad_rows]
    if not rows:
        return "Every row fits."
    more = f"... {len(rows) - N_SHOWN} more" if rows[N_SHOWN:] else ""
    return show_table(rows[:N_SHOWN], "Rows that do not fit").data + more
