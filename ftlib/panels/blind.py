"""The blind vote: two arms' answers side by side, without their names."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import ipywidgets as widgets

from ftlib import store
from ftlib.panels.layout import fix_size, frame
from ftlib.schema import make_safe

CHOICES = {"A": "A is better", "B": "B is better", "tie": "Tie", "skip": "Skip"}
"""What can be voted, and what its button says."""
_WRAP = '<div style="white-space:pre-wrap;overflow-wrap:anywhere"><b>{}</b><br>{}</div>'


class BlindPanel(widgets.VBox):
    """
    Vote on two arms' answers without knowing whose is whose.

    Which arm is A is drawn for each prompt. Each vote is saved at once; a panel made
    with the same answers, seed and path goes on from there.

    Parameters
    ----------
    answers : mapping of str to sequence of str, length n_prompts
        By name, the answers of the two arms.
    prompts : sequence of str, length n_prompts
        What was asked.
    path : path
        The JSONL file of the votes.
    seed : int
        Of the order in which the two are shown.

    Examples
    --------
    >>> answers = {"base": ["Rome", "5"], "tuned": ["Milan", "5"]}
    >>> path = store.RUNS / "doctest" / "votes.jsonl"
    >>> path.unlink(missing_ok=True)
    >>> panel = BlindPanel(answers, ["Capital of Italy?", "2 + 3?"], path)
    >>> panel.vote("tie")
    >>> panel.value[0]["choice"], panel.value[0]["winner"]
    ('tie', None)
    """

    def __init__(
        self,
        answers: Mapping[str, Sequence[str]],
        prompts: Sequence[str],
        path: str | Path,
        seed: int = 0,
    ) -> None:
        lengths = {len(given) for given in answers.values()}
        if len(answers) != 2 or lengths != {len(prompts)} or not prompts:
            raise ValueError("give the answers of two arms, one to each prompt")
        self._items = []
        for i, (prompt, *pair) in enumerate(
            zip(prompts, *answers.values(), strict=True)
        ):
            shown = dict(zip(answers, pair, strict=True))
            names = Random(f"{seed} {i}").sample(list(shown), 2)
            text = json.dumps([prompt, shown])
            item = {"item": i, "A": names[0], "B": names[1]}
            item["checksum"] = zlib.crc32(text.encode("utf-8", "surrogatepass"))
            self._items.append((item, prompt, [shown[name] for name in names]))
        self._path = Path(path)
        self._votes = self._read_votes()
        self.status = widgets.HTML(layout=fix_size("98%"))
        self.prompt = widgets.HTML(layout=fix_size("98%", "84px"))
        self.shown = {
            name: widgets.HTML(layout=fix_size("48%", "222px")) for name in "AB"
        }
        self.buttons = {
            choice: widgets.Button(description=label, layout=fix_size("130px"))
            for choice, label in CHOICES.items()
        }
        for choice, button in self.buttons.items():
            button.on_click(lambda button, choice=choice: self._try(choice))
        rows = [widgets.HBox(list(w.values())) for w in (self.shown, self.buttons)]
        super().__init__([self.status, self.prompt, *rows])
        self._show()

    @property
    def value(self) -> list[dict[str, Any]]:
        """
        Give the votes so far, in the order of the prompts.

        Returns
        -------
        list of dict
            ``item``, from 0; the arms that stood as ``A`` and ``B``; a ``checksum`` of
            what was shown; ``choice``: A, B, tie or skip; ``winner``: an arm or None.
        """
        return [dict(vote) for vote in self._votes]

    def vote(self, choice: str) -> None:
        """
        Vote on the pair that is shown.

        Parameters
        ----------
        choice : {"A", "B", "tie", "skip"}
            Which is better; skip says nothing.
        """
        if choice not in CHOICES or len(self._votes) == len(self._items):
            raise ValueError(
                f"{choice!r} is no vote, or there is nothing left to vote on"
            )
        item = self._items[len(self._votes)][0]
        made = [*self._votes, item | {"choice": choice, "winner": item.get(choice)}]
        store.write_jsonl(self._path, made)  # if this fails, nothing has changed
        self._votes = made
        self._show()

    def _read_votes(self) -> list[dict[str, Any]]:
        """Read an earlier sitting's votes, refusing those on other answers."""
        if not self._path.exists():
            return []
        votes, bad_rows = store.read_jsonl(self._path)
        items = [item for item, *_ in self._items[: len(votes)]]
        kept = [{name: vote.get(name) for name in self._items[0][0]} for vote in votes]
        choices = {vote.get("choice") for vote in votes}
        if bad_rows or kept != items or not choices <= set(CHOICES):
            raise ValueError(
                f"{self._path} holds votes on other answers, or in another order: give "
                "another path"
            )
        return votes

    def _try(self, choice: str) -> None:
        """Do what a button says, or say why not."""
        try:
            self.vote(choice)
        except OSError as error:
            self.status.value = f'<b role="status">{make_safe(str(error))}</b>'

    def _show(self) -> None:
        """Show the pair to vote on, and how many are done."""
        done, n = len(self._votes), len(self._items)
        _, prompt, pair = (
            self._items[done] if done < n else (None, "All done.", ["", ""])
        )
        self.status.value = f'<span role="status">{done} of {n} voted on</span>'
        self.prompt.value = frame(
            "Prompt", 80, _WRAP.format("Prompt", make_safe(prompt))
        )
        for (name, box), text in zip(self.shown.items(), pair, strict=True):
            label = f"Answer {name}"
            body = _WRAP.format(label, make_safe(text) or "(no answer)")
            box.value = frame(label, 216, body)
        for button in self.buttons.values():
            button.disabled = done == n
