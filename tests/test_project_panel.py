"""Run alone: ``python -m pytest tests/test_project_panel.py``."""

import json
import re
import threading
from types import SimpleNamespace

import pytest

from ftlib import project
from ftlib.config import RunConfig
from ftlib.forgetting import Verdict
from ftlib.panels import project as panels
from ftlib.panels.project import SAMPLES, STEPS, ProjectPanel, read_upload
from ftlib.progress import Progress
from ftlib.schema import BadRow, Span, make_example

CONFIG = RunConfig.for_profile("laptop")
EVIL = "<img src=x onerror=alert(1)>"
RESULTS = [result for result, *_ in STEPS.values()]
TWINS = [step for step in STEPS if step != "train"]


class FakeRun:
    """A finished or waiting run, with the surface of `training.Run`."""

    def __init__(self, config):
        self.config, self.model, self.progress = config, "the model", Progress()
        self.ended = threading.Event()
        self.ended.set()

    @property
    def is_alive(self):
        return not self.ended.is_set()

    def start(self, resume=False):
        self.progress = Progress(status="running", n_steps=1)
        self.ended.clear()
        threading.Timer(0.02, self._end).start()
        return self

    def _end(self):
        self.progress.step, self.progress.status = 1, "finished"
        self.ended.set()

    def stop(self):
        self.progress.status = "stopped"
        self.ended.set()

    def wait(self, timeout_s=None):
        self.ended.wait(timeout_s)
        return self.progress


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Do no stage's work; give what each was called with."""
    made = {}
    rows = [
        {
            "id": n,
            "group": "",
            "messages": make_example(f"{EVIL} {n}", "No")["messages"],
        }
        for n in range(1, 5)
    ]
    found = [
        {"id": f"{row['id']}.{i}", "text": m["content"], "spans": [Span(0, 2, EVIL)]}
        for row in rows
        for i, m in enumerate(row["messages"], 1)
    ]
    hidden = make_example("[X_1]", EVIL)["messages"]
    parts = {"train": rows[:2], "validation": rows[2:3], "test": rows[3:]}
    scores = {"tuned": {"exact_match": [1.0]}}
    probes = {"before": {"facts": [True]}, "answers": {"base": [EVIL]}}
    verdict = Verdict(False, (f"{EVIL} is down",))
    done = project.Evaluation(
        {"tuned": [EVIL]}, scores, {}, {"facts": [False]}, verdict
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    problems = {"not read": [BadRow(2, EVIL)], "duplicate": [BadRow(3, EVIL)]}
    problems |= {"chat marks": [BadRow(4, EVIL)], "too long": []}
    given = {
        "find_problems": problems,
        "take_rows": rows,
        "find_spans": found,
        "redact": [row | {"messages": hidden} for row in rows],
        "split": parts,
        "measure_baseline": SimpleNamespace(**probes),
        "score_answers": scores,
        "evaluate": done,
        "export": out,
    }

    def fake(name):
        def stand_in(*arguments):
            made[name] = arguments
            return given[name]

        return stand_in

    for name in given:
        monkeypatch.setattr(project, name, fake(name))

    def make_run(parts, config, folder):
        made["make_run"] = parts, config, folder
        made["run"] = FakeRun(config)
        return made["run"]

    monkeypatch.setattr(project, "make_run", make_run)
    made["given"] = given
    return made


@pytest.fixture
def panel(calls, tmp_path):
    return ProjectPanel(tmp_path / "project", CONFIG, n_rows=7, n_probes=3)


def enabled(panel):
    return [step for step in TWINS if not panel.buttons[step].disabled]


# --- upload ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"a.csv": {"metadata": {"name": "a.csv", "size": 3}, "content": b"q,a"}},
        ({"name": "a.csv", "type": "", "size": 3, "content": memoryview(b"q,a")},),
    ],
    ids=["ipywidgets 7", "ipywidgets 8"],
)
def test_an_upload_is_read_under_both_versions(value):
    assert read_upload(value) == ("a.csv", b"q,a")


@pytest.mark.parametrize("value", [{}, ()])
def test_no_upload_is_named(value):
    with pytest.raises(ValueError, match="nothing was uploaded"):
        read_upload(value)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("my rows.csv", "upload-my_rows.csv"),
        ("../../../etc/passwd", "upload-.._.._.._etc_passwd"),
        ("..\\..\\a.csv", "upload-.._.._a.csv"),
        ("/etc/cron.d/a.csv", "upload-_etc_cron.d_a.csv"),
        (f"{EVIL}.csv", "upload-_img_src_x_onerror_alert_1_.csv"),
        ("a\x00b.csv", "upload-a_b.csv"),
        ("x" * 300 + ".csv", "x" * 86 + ".csv"),
    ],
)
def test_an_upload_is_written_under_a_safe_name_in_the_folder_alone(
    panel, tmp_path, monkeypatch, name, kept
):
    before = set(tmp_path.rglob("*"))
    content = b"question,answer\nHow?,So.\n"
    monkeypatch.setattr(panels, "read_upload", lambda value: (name, content))
    panel._try("load", panel._take_upload)
    folder = tmp_path / "project" / "uploads"
    assert set(tmp_path.rglob("*")) - before == {folder.parent, folder, folder / kept}
    assert (folder / kept).read_bytes() == content
    assert panel.file.value == folder / kept


def test_a_real_upload_is_taken_and_loaded(panel):
    content = b"question,answer\nHow?,So.\n"
    if isinstance(panel.upload.value, dict):  # ipywidgets 7
        value = {"b.csv": {"content": content}}
    else:
        more = {"type": "", "size": len(content), "last_modified": None}
        value = ({"name": "b.csv", "content": memoryview(content)} | more,)
    panel.upload.send_state = lambda *_, **__: None  # its dates are a browser's
    panel.upload.set_trait("value", value)
    assert panel.file.value.name == "upload-b.csv"
    assert "upload-b.csv is taken: press Load." in panel.status["load"].value
    panel.buttons["load"].click()
    assert panel.value["loaded"].examples == [make_example("How?", "So.")]


def test_the_worked_examples_ship_and_a_path_can_be_typed(panel, tmp_path):
    assert [name for name, _ in panel.file.options] == [
        "support_replies.jsonl",
        "contract_clauses.parquet",
        "finance_reports.jsonl",
        "code_snippets.csv",
    ]
    assert all(path.is_file() for path in SAMPLES)
    path = tmp_path / "mine.csv"
    path.write_text("prompt,completion\nHow?,So.\n")
    panel.path.value = str(path)
    assert "mine.csv is taken: press Load." in panel.status["load"].value
    panel.load()
    assert panel.value["loaded"].path == path


@pytest.mark.parametrize("nothing", ["", "  "])
def test_an_empty_path_is_no_file(panel, tmp_path, nothing):
    panel.path.value = str(tmp_path / "mine.csv")
    options = panel.file.options
    panel.path.value = nothing
    assert panel.file.options == options
    assert panel.file.value == tmp_path / "mine.csv"


# --- steps -------------------------------------------------------------------------


def test_each_step_can_be_done_only_after_the_one_before(panel):
    assert panel.value == {}
    for n, step in enumerate(STEPS):
        if step == "train":
            assert enabled(panel) == TWINS[:5]
            panel.training.wait()
        else:
            assert enabled(panel) == [s for s in list(STEPS)[: n + 1] if s != "train"]
            for later in list(STEPS)[n + 1 :]:
                if later != "train":
                    with pytest.raises(RuntimeError, match=r"\d\. .* comes first"):
                        getattr(panel, later)()
            panel.override.value = "a trial"
            panel.buttons[step].click()
        assert list(panel.value) == RESULTS[: n + 1]


def test_wait_does_all_that_is_left_and_exports_only_for_a_reason(panel, calls):
    panel.load()
    assert list(panel.wait()) == RESULTS[:-1]
    assert "export" not in calls
    panel.override.value = "a trial"
    assert list(panel.wait()) == RESULTS
    run, done, folder, reason = calls["export"]
    assert (run, done, reason) == (calls["run"], calls["given"]["evaluate"], "a trial")
    assert folder.parts[-2:] == ("project", "export")


def test_what_may_ship_is_exported_without_a_reason(panel, calls):
    done = calls["given"]["evaluate"]
    calls["given"]["evaluate"] = project.Evaluation(
        done.answers, done.items, done.gains, done.after, Verdict(True)
    )
    assert list(panel.wait()) == RESULTS


def test_the_controls_are_what_the_steps_are_given(panel, calls):
    panel.load()
    panel.find_problems()
    assert panel.keep.options == ("duplicate", "chat marks")
    assert panel.keep.value == ("chat marks",)
    panel.keep.value = ("duplicate",)
    panel.test_share.value = 0.4
    panel.wait()
    assert calls["take_rows"][2:] == (CONFIG, ("duplicate",), 7)
    shares = calls["split"][1]
    assert shares == pytest.approx({"train": 0.5, "validation": 0.1, "test": 0.4})
    assert calls["measure_baseline"][1:] == (CONFIG, 3)


def test_profile_and_model_make_the_settings(panel):
    panel.profile.value = "gpu"
    panel.load()
    assert panel.config == RunConfig.for_profile("gpu")
    panel.model.value = " Qwen/Qwen3-4B "
    panel.load()
    assert panel.config == RunConfig.for_profile("gpu", model="Qwen/Qwen3-4B")
    panel.profile.value = panel.model.value = ""
    panel.load()
    assert panel.config == CONFIG


def test_a_reviewers_decisions_reach_the_redaction(panel, calls):
    panel.load()
    panel.find_problems()
    panel.find_spans()
    review = panel.review.children[0]
    review.not_pii(0)
    panel.split()
    decisions = calls["redact"][2]
    assert decisions == review.value
    assert decisions[0]["spans"] == []


def test_a_step_done_again_takes_back_what_came_after(panel):
    panel.wait()
    panel.split()
    assert list(panel.value) == RESULTS[:4]
    assert panel.training is None
    for step in ("measure_baseline", "evaluate"):
        assert panel.status[step].value == ""
        assert panel.shown[step].value == "Not done yet."
    panel.load()
    assert list(panel.value) == RESULTS[:1]
    assert panel.review.children == ()


def test_a_second_training_takes_the_first_ones_evaluation_back(panel):
    panel.wait()
    panel.training.start()
    assert panel.training.wait().status == "finished"
    assert list(panel.value) == RESULTS[:6]


def test_a_second_training_that_fails_leaves_no_run(panel, monkeypatch):
    panel.wait()

    def fail(*arguments):
        raise ValueError("no such model")

    monkeypatch.setattr(project, "make_run", fail)
    panel.training.start()
    with pytest.raises(ValueError, match="no such model"):
        panel.training.wait()
    assert list(panel.value) == RESULTS[:5]


def test_nothing_else_can_be_done_while_a_run_goes_on(panel, calls):
    panel.wait()
    panel.training.run.ended.clear()
    panel.training._busy = True
    panel.training.run.progress = Progress("running", 1, n_steps=9)
    panel._enable()
    assert enabled(panel) == []
    with pytest.raises(RuntimeError, match="a run goes on: stop it"):
        panel.load()
    panel.training._busy = False
    panel.training.run.stop()


# --- what is shown -----------------------------------------------------------------


def test_what_fails_is_said_and_nothing_is_lost_before_it(panel, monkeypatch):
    panel.load()
    panel.find_problems()

    def fail(*arguments):
        raise ValueError(f"{EVIL} is left")

    monkeypatch.setattr(project, "take_rows", fail)
    panel.buttons["find_spans"].click()
    said = panel.status["find_spans"].value
    assert "&lt;img src=x onerror=alert(1)&gt; is left" in said
    assert list(panel.value) == RESULTS[:2]
    assert enabled(panel) == TWINS[:3]
    with pytest.raises(ValueError, match="is left"):
        panel.find_spans()


def test_no_text_of_rows_models_or_errors_becomes_markup(panel, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": f"{EVIL}\x1b[31m", "completion": EVIL}))
    panel.path.value = str(path)
    panel.override.value = EVIL
    panel.wait()
    for step in TWINS:
        shown = panel.shown[step].value + panel.status[step].value
        assert "<img" not in shown, step
        assert "\x1b" not in shown, step
    for step in ("load", "find_problems", "find_spans", "split", "evaluate"):
        assert "&lt;img" in panel.shown[step].value, step
    assert "⟨U+001B⟩" in panel.shown["load"].value


def test_sizes_are_fixed_so_that_nothing_jumps(panel):
    def sizes():
        shown = [*panel.shown.values(), *panel.status.values(), panel.review]
        return [
            (one.layout.width, one.layout.height) for one in [*shown, panel._trains]
        ]

    before = sizes()
    assert all(height and height.endswith("px") for _, height in before)
    panel.wait()
    assert sizes() == before


def test_forgetting_is_not_taken_for_a_score(panel):
    panel.wait()
    shown = panel.shown["evaluate"].value
    assert shown.index("do not ship") < shown.index("<td>tuned</td>")
    row = shown.split("<td>forgetting facts</td>")[1]
    assert re.match(r"\s*<td>1\.00</td>", row)  # right before, wrong after


def test_probes_of_wren_are_called_that_for_another_model(panel, calls):
    panel.wait()
    assert "written for Wren" not in panel.status["evaluate"].value
    panel.model.value = "other/model"
    panel.load()
    panel.wait()
    assert "written for Wren" in panel.status["evaluate"].value
