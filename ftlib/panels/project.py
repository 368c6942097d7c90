"""The project panel: one's own data, from a file to an exported adapter, by steps."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import ipywidgets as widgets

from ftlib import project
from ftlib.config import PROFILES, ROOT, WREN, RunConfig
from ftlib.forgetting import compare_abilities
from ftlib.formats import SUFFIXES
from ftlib.panels.layout import fix_size, frame
from ftlib.panels.review import ReviewPanel
from ftlib.panels.train import TrainingPanel
from ftlib.reporting import list_scores, show_errors, show_table
from ftlib.schema import make_safe, spell_controls, split_prompt

_NAMES = "support_replies.jsonl contract_clauses.parquet finance_reports.jsonl "
_NAMES += "code_snippets.csv"
SAMPLES = [ROOT / "data" / "samples" / name for name in _NAMES.split()]
"""The worked examples to choose from."""
STEPS = {
    "load": ("loaded", "1. Data and model", "Load", 190),
    "find_problems": ("problems", "2. Problems by row", "Find problems", 190),
    "find_spans": ("found", "3. Names and secrets", "Find names", 120),
    "split": ("parts", "4. Redact and split", "Redact and split", 190),
    "measure_baseline": ("baseline", "5. Before training", "Measure", 150),
    "train": ("run", "6. Train", "", 0),
    "evaluate": ("evaluation", "7. After training", "Evaluate", 560),
    "export": ("exported", "8. Export", "Export", 110),
}
"""Each step's result, title, button, and the height in pixels of what it shows."""
FOREIGN_PROBES = "The probes were written for Wren: of another model they show less."
BUSY = ("loading", "running", "paused", "stopping", "saving")
"""The states of training in which no other step may be done."""
N_REVIEWED = 12  # messages that are drawn for review
N_SHOWN = 20  # problems of one kind at most that are listed


def read_upload(value: Any) -> tuple[str, bytes]:
    """
    Give the name and content of what was uploaded last, under ipywidgets 7 and 8.

    Parameters
    ----------
    value : mapping or sequence of mapping
        A ``FileUpload``'s: by name under ipywidgets 7, a tuple under 8.

    Returns
    -------
    tuple of str and bytes
        The name is as the browser gave it: not to be trusted.

    Raises
    ------
    ValueError
        When nothing was uploaded.

    Examples
    --------
    >>> read_upload({"a.csv": {"content": b"q,a"}})
    ('a.csv', b'q,a')
    >>> read_upload(({"name": "a.csv", "content": memoryview(b"q,a")},))
    ('a.csv', b'q,a')
    """
    if isinstance(value, dict):
        value = [{"name": name} | file for name, file in value.items()]
    if not value:
        raise ValueError("nothing was uploaded: choose a file")
    return value[-1]["name"], bytes(value[-1]["content"])


def _field(kind: Callable, label: str, width: str = "300px", **more: Any) -> Any:
    """Give a control whose label has the width that all labels have."""
    style = {"description_width": "100px"}
    return kind(description=label, layout=fix_size(width), style=style, **more)


def _tabulate(*tables: Sequence[dict[str, Any]]) -> str:
    """Give tables one below the other, as HTML."""
    return "".join(show_table(rows).data for rows in tables if rows) or "Nothing found."


class ProjectPanel(widgets.VBox):
    """
    Go from a file to an exported adapter, one step after the other.

    Each button has a method, its twin for use without a browser. Each step reads its
    own controls, and takes back what the steps after it have done.

    Parameters
    ----------
    folder : path
        Where all is written that is written.
    config : RunConfig
        The settings to begin with.
    n_rows : int
        How many rows are taken at most.
    n_probes : int
        How many probes of each ability are asked before and after.
    """

    def __init__(
        self,
        folder: str | Path,
        config: RunConfig,
        n_rows: int = 240,
        n_probes: int = 30,
    ) -> None:
        self._folder, self._given, self._n_probes = Path(folder), config, n_probes
        self.config, self._done = config, {}
        samples = [(path.name, path) for path in SAMPLES]
        self.file = _field(widgets.Dropdown, "File", options=samples)
        self.upload = widgets.FileUpload(accept=",".join(SUFFIXES), multiple=False)
        self.path = _field(widgets.Text, "Or a path", continuous_update=False)
        profiles = [("as given", ""), *((name, name) for name in PROFILES)]
        self.profile = _field(widgets.Dropdown, "Profile", options=profiles)
        self.model = _field(widgets.Text, "Or a model", placeholder="hub id or folder")
        most = {"value": n_rows, "min": 1, "max": 10**6}
        self.n_rows = _field(widgets.BoundedIntText, "Rows at most", **most)
        self.keep = _field(widgets.SelectMultiple, "Keep rows with")
        self.keep.layout = fix_size("300px", "84px")
        share = {"value": 0.2, "min": 0.05, "max": 0.8, "step": 0.05}
        self.test_share = _field(widgets.BoundedFloatText, "Share of test", **share)
        self.override = _field(widgets.Text, "Override, for", "640px")
        self.review = widgets.VBox(layout=fix_size("98%", "420px"))
        self.training, self._trains = None, widgets.VBox()
        self._trains.layout = fix_size("98%", "470px")
        beside = {
            "load": [self.file, self.upload, self.path, self.profile, self.model],
            "find_spans": [self.n_rows, self.keep],
            "split": [self.test_share],
            "export": [self.override],
        }
        self.buttons, self.status, self.shown, boxes = {}, {}, {}, []
        for step, (_, title, label, height_px) in STEPS.items():
            self.buttons[step] = button = widgets.Button(description=label)
            button.layout = fix_size("160px")
            button.on_click(lambda b, step=step: b.disabled or self._try(step))
            self.status[step] = widgets.HTML(layout=fix_size("98%", "44px"))
            size = fix_size("98%", f"{height_px + 8}px")
            self.shown[step] = widgets.HTML(layout=size)
            row = widgets.HBox(beside.get(step, ()), layout={"flex_flow": "row wrap"})
            parts = [row, button, self.status[step], self.shown[step]]
            parts += [self.review] if step == "find_spans" else []
            parts = [self._trains] if step == "train" else parts
            boxes += [widgets.HTML(f"<h3>{title}</h3>"), *parts]
        super().__init__(boxes)
        self.upload.observe(lambda _: self._try("load", self._take_upload), "value")
        self.path.observe(lambda change: self._offer(change["new"]), "value")
        self._drop("load")

    @property
    def value(self) -> dict[str, Any]:
        """
        Give what the steps done so far have given.

        Returns
        -------
        dict
            In order: ``loaded``, ``problems``, ``found``, ``parts``, ``baseline``,
            ``run``, ``evaluation`` and ``exported``, as `ftlib.project` gives them.
        """
        return {STEPS[step][0]: result for step, result in self._done.items()}

    def load(self) -> None:
        """Load the chosen file, for the chosen model."""
        self._begin("load")
        profile, model = self.profile.value, self.model.value.strip()
        config = RunConfig.for_profile(profile) if profile else self._given
        self.config = config.change(model=model) if model else config
        loaded = project.load(self.file.value)
        facts = {"file": loaded.path.name, "type": loaded.file_type}
        facts |= {"encoding": loaded.encoding, "convention": loaded.convention}
        facts |= {"examples": len(loaded.examples), "not read": len(loaded.bad_rows)}
        said = loaded.examples[0]["messages"][-2:]
        first = [{"first example": m["role"], "": f"{m['content']:.400}"} for m in said]
        self._keep("load", loaded, _tabulate([facts], first))

    def find_problems(self) -> None:
        """Find the problems of the loaded rows."""
        loaded = self._begin("find_problems")
        problems = project.find_problems(loaded, self.config)
        counts = {kind: len(bad) for kind, bad in problems.items() if bad}
        rows = [{"problem": k} | vars(b) for k in counts for b in problems[k][:N_SHOWN]]
        self.keep.options = [kind for kind in counts if kind != "not read"]
        self.keep.value = [kind for kind in self.keep.options if kind in project.KEPT]
        self._keep("find_problems", problems, _tabulate([counts] * bool(counts), rows))

    def find_spans(self) -> None:
        """Take the rows without problems, and find names and secrets in them."""
        problems, loaded = self._begin("find_spans"), self.value["loaded"]
        most, keep = self.n_rows.value, self.keep.value
        self._rows = project.take_rows(loaded, problems, self.config, keep, most)
        found = project.find_spans(self._rows)
        counts = Counter(span.entity_type for one in found for span in one["spans"])
        drawn = Random(0).sample(found, min(N_REVIEWED, len(found)))
        checksum = zlib.crc32(repr(drawn).encode("utf-8", "replace"))
        path = self._folder / "review" / f"{checksum:08x}.jsonl"
        self.review.children = [ReviewPanel(drawn, path, len(found))]
        told = f"{len(self._rows)} rows. Review {len(drawn)} of {len(found)} messages:"
        self._keep("find_spans", found, _tabulate([counts] * bool(counts)), told)

    def split(self) -> None:
        """Redact as reviewed, and split."""
        found, share = self._begin("split"), self.test_share.value
        redacted = project.redact(self._rows, found, self.review.children[0].value)
        shares = {"train": 0.9 - share, "validation": 0.1, "test": share}
        parts = project.split(redacted, shares, self.config.seed)
        sizes = {name: len(part) for name, part in parts.items()}
        learned = [m["content"] for row in redacted for m in row["messages"]]
        pairs = zip([one["text"] for one in found], learned, strict=True)
        rows = [{"as it was": a, "as it is learned": b} for a, b in pairs if a != b]
        self._keep("split", parts, _tabulate([sizes], rows[:3]))

    def measure_baseline(self) -> None:
        """Measure the base model and plain look-up on the test rows."""
        step, folder = "measure_baseline", self._folder / "run"
        parts = self._begin(step)
        baseline = project.measure_baseline(parts, self.config, self._n_probes)
        items = project.score_answers(parts, baseline.answers)
        self._keep(step, baseline, _tabulate(project.list_scores(items)))
        self.training = TrainingPanel(
            self.config, lambda config: project.make_run(parts, config, folder)
        )
        self.training.message.observe(lambda _: self._follow(), "value")
        self._trains.children = [self.training]

    def evaluate(self) -> None:
        """Measure the tuned model, and judge it."""
        run, parts = self._begin("evaluate"), self.value["parts"]
        baseline = self.value["baseline"]
        done = project.evaluate(run, parts, baseline)
        compared = compare_abilities(baseline.before, done.after)
        lost = [replace(one, name=f"forgetting {one.name}") for one in compared]
        prompts, references = zip(*map(split_prompt, parts["test"]), strict=True)
        asked, tuned = [p[-1]["content"] for p in prompts], done.answers["tuned"]
        values = next(iter(done.items["tuned"].values()))
        rows = list_scores([*done.gains.values(), *lost])
        body = "<br>".join(make_safe(line) for line in str(done.verdict).split("\n"))
        body += _tabulate(project.list_scores(done.items), rows)
        body += show_errors(asked, references, tuned, values, 3).data
        told = "" if run.config.model == WREN else FOREIGN_PROBES
        self._keep("evaluate", done, body, told)

    def export(self) -> None:
        """Export the adapter, where the verdict or a reason to override it allows."""
        done, run = self._begin("export"), self.value["run"]
        path = project.export(run, done, self._folder / "export", self.override.value)
        names = ", ".join(sorted(file.name for file in path.iterdir()))
        self._keep("export", path, _tabulate([{"folder": str(path), "files": names}]))

    def wait(self) -> dict[str, Any]:
        """
        Do the steps that are not done yet, with the controls as they stand.

        Returns
        -------
        dict
            `value`; without ``exported`` where the verdict is not to ship and no reason
            is given to override it.
        """
        for step in [step for step in STEPS if step not in self._done]:
            twin = self.training.wait if step == "train" else getattr(self, step)
            ships = step != "export" or self.value["evaluation"].verdict.ship
            if ships or self.override.value.strip():
                twin()
        return self.value

    def _begin(self, step: str) -> Any:
        """Give the result of the step before, and take back what came after it."""
        before = [None, *STEPS][list(STEPS).index(step)]
        if self.training and self.training.state in BUSY:
            raise RuntimeError("a run goes on: stop it, or wait for it")
        if before and before not in self._done:
            raise RuntimeError(f"{STEPS[before][1]} comes first: do that step")
        self._drop(step)
        return self._done.get(before)

    def _drop(self, first: str) -> None:
        """Forget what a step and those after it have given."""
        for step in list(STEPS)[list(STEPS).index(first) :]:
            self._done.pop(step, None)
            self.shown[step].value, self.status[step].value = "Not done yet.", ""
            if step == "find_spans":
                self.review.children = []
            if step == "measure_baseline":
                self.training = None
                self._trains.children = [widgets.HTML("This comes after step 5.")]
        self._enable()

    def _keep(self, step: str, result: Any, body: str, told: str = "") -> None:
        """Keep and show what a step has given."""
        self._done[step] = result
        self._tell(step, told or "Done.")
        self.shown[step].value = frame(STEPS[step][1], STEPS[step][3], body)
        self._enable()

    def _enable(self) -> None:
        """Let a button be pressed where the step before is done."""
        is_busy = bool(self.training and self.training.state in BUSY)
        for before, step in pairwise([None, *STEPS]):
            self.buttons[step].disabled = is_busy or before not in (None, *self._done)

    def _follow(self) -> None:
        """Keep a run that has finished; what was made of one before it goes."""
        run = self.training.run if self.training.state == "finished" else None
        if self._done.get("train") is not run:
            self._drop("train")
            self._done |= {"train": run} if run else {}
        self._enable()

    def _tell(self, step: str, text: str) -> None:
        """Say how a step stands."""
        self.status[step].value = f'<span role="status">{make_safe(text)}</span>'

    def _try(self, step: str, twin: Callable[[], None] | None = None) -> None:
        """Do what a button says, or say why not."""
        self._tell(step, "Working ...")
        try:
            (twin or getattr(self, step))()
        except Exception as error:
            reason = make_safe(f"{str(error) or type(error).__name__:.500}")
            self.status[step].value = f'<b role="status">{reason}</b>'

    def _take_upload(self) -> None:
        """Keep what was uploaded under a name that is safe, and choose it."""
        name, content = read_upload(self.upload.value)
        safe = re.sub(r"[^\w.-]+", "_", f"upload-{name}")[-90:]
        path = self._folder / "uploads" / safe
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._offer(str(path))

    def _offer(self, path: str) -> None:
        """Add a file to those to choose from, and choose it."""
        if name := Path(path.strip()).name:
            options = dict(self.file.options) | {spell_controls(name): Path(path)}
            self.file.options = list(options.items())
            self.file.value = Path(path)
            self._tell("load", f"{name} is taken: press Load.")
