"""Run alone: ``python -m pytest tests/test_panels.py``."""

import struct
import threading
import time

import ipywidgets as widgets
import pytest

from ftlib.config import PROFILES, RunConfig
from ftlib.panels import AskPanel
from ftlib.panels import train as panels
from ftlib.panels.train import PRESETS, STATES, TrainingPanel
from ftlib.training import Progress

CONFIG = RunConfig.for_profile(
    "laptop", learning_rate=3e-3, lora_alpha=32, num_train_epochs=7.0
)


class FakeRun:
    """A run that does what the test says, with the surface of `training.Run`."""

    def __init__(self, config=CONFIG):
        self.config, self.progress = config, Progress()
        self.calls, self.ended = [], threading.Event()
        self.ended.set()

    @property
    def is_alive(self):
        return not self.ended.is_set()

    def start(self, resume=False):
        self.calls.append("resume" if resume else "start")
        history = self.progress.history if resume else []
        self.progress = Progress(status="running", n_steps=8, history=history)
        self.ended.clear()
        return self

    def pause(self):
        self.progress.status = "paused"

    def unpause(self):
        self.calls.append("unpause")
        self.progress.status = "running"

    def stop(self):
        self.calls.append("stop")

    def wait(self, timeout_s=None):
        self.ended.wait(timeout_s)
        if self.progress.error:
            raise self.progress.error
        return self.progress

    def step(self, loss, **more):
        self.progress.step += 1
        self.progress.history.append({"step": self.progress.step, "loss": loss, **more})

    def end(self, status="finished", error=None):
        self.progress.status, self.progress.error = status, error
        self.ended.set()


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(panels, "TICK_S", 0.01)


@pytest.fixture
def run():
    run = FakeRun()
    yield run
    run.end()


@pytest.fixture
def panel(run):
    return TrainingPanel(CONFIG, lambda config: run)


def until(is_so):
    """Wait for the panel's thread, at most ten seconds."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.002)


def click(panel, name, becomes):
    panel.buttons[name].click()
    until(lambda: panel.state == becomes and STATES[becomes][0] in panel.message.value)


def enabled(panel):
    return {name for name, button in panel.buttons.items() if not button.disabled}


# --- the value ---------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_untouched_it_gives_what_it_was_given(profile):
    config = RunConfig.for_profile(profile)
    panel = TrainingPanel(config, FakeRun)
    assert panel.value == config
    assert panel.value.to_dict() == config.to_dict()
    assert panel.note.value == "Settings as given"


def test_a_change_there_and_back_gives_what_it_was_given(panel):
    panel.preset.value = "strong"
    panel.preset.value = "as given"
    assert panel.value == CONFIG


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("as given", {}),
        ("quick look", {"num_train_epochs": 1.75}),
        ("careful", {"learning_rate": 1.5e-3, "num_train_epochs": 14.0}),
        ("strong", {"r": 64, "lora_alpha": 128}),
    ],
)
def test_a_preset_changes_its_fields_and_no_others(panel, preset, changes):
    panel.preset.value = preset
    assert panel.value == CONFIG.change(**changes)
    assert all(name in panel.note.value for name in changes)


def test_every_preset_is_tested():
    assert list(PRESETS) == ["as given", "quick look", "careful", "strong"]


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 1e-4), ("r", 4), ("num_train_epochs", 0.5)]
)
def test_a_knob_changes_its_field_and_no_other(panel, name, value):
    panel.knobs[name].value = value
    assert panel.value == CONFIG.change(**{name: value})
    assert panel.note.value == f"Changed: {name} {getattr(CONFIG, name)} → {value}"


def test_a_knob_turned_after_a_preset_keeps_the_presets_other_fields(panel):
    panel.preset.value = "strong"
    panel.knobs["r"].value = 32
    assert panel.value == CONFIG.change(r=32, lora_alpha=128)


def test_max_steps_is_said_to_rule_over_epochs():
    panel = TrainingPanel(CONFIG.change(max_steps=40), FakeRun)
    assert "max_steps 40 sets the length" in panel.note.value


def test_contradicting_knobs_are_refused_in_a_sentence(panel, run):
    panel.knobs["learning_rate"].value = 5.0
    refused = "learning_rate is 5.0: lora never trains above 0.1"
    assert panel.note.value == f"{refused}; LoRA likes 1e-5 to 1e-2"
    assert enabled(panel) == set()
    panel.buttons["Start"].click()
    assert run.calls == []
    with pytest.raises(ValueError, match="learning_rate is 5.0"):
        panel.start()
    panel.knobs["learning_rate"].value = 1e-3
    assert enabled(panel) == {"Start"}


def test_the_run_gets_the_settings_of_the_panel(run):
    given = []
    panel = TrainingPanel(CONFIG, lambda config: given.append(config) or run)
    panel.knobs["r"].value = 4
    click(panel, "Start", becomes="running")
    assert given == [CONFIG.change(r=4)]


# --- the buttons -------------------------------------------------------------------


def test_a_button_is_enabled_only_when_it_does_something(panel, run):
    assert enabled(panel) == {"Start"}
    click(panel, "Start", becomes="running")
    assert enabled(panel) == {"Pause", "Stop"}
    click(panel, "Pause", becomes="paused")
    assert enabled(panel) == {"Stop", "Resume"}
    click(panel, "Resume", becomes="running")
    click(panel, "Stop", becomes="stopping")
    assert enabled(panel) == set()
    run.end("stopped")
    until(lambda: enabled(panel) == {"Start", "Resume"})
    click(panel, "Resume", becomes="running")
    assert run.calls == ["start", "unpause", "stop", "resume"]
    run.end("finished")
    panel.wait()
    assert enabled(panel) == {"Start"}
    assert panel.message.value == '<b role="status">Finished</b>'


def test_the_headless_twins_do_what_the_buttons_do(panel, run):
    panel.start()
    until(lambda: panel.state == "running")
    panel.pause()
    assert panel.state == "paused"
    panel.resume()
    assert panel.state == "running"
    panel.stop()
    run.end("stopped")
    assert panel.wait().status == panel.state == "stopped"
    panel.resume()
    run.end()
    panel.wait()
    assert run.calls == ["start", "unpause", "stop", "resume"]


def test_a_double_click_starts_one_run(panel, run):
    panel.buttons["Start"].click()
    panel.buttons["Start"].click()
    until(lambda: panel.state == "running")
    assert run.calls == ["start"]
    with pytest.raises(RuntimeError, match="goes on already"):
        panel.start()


def test_while_a_run_goes_on_no_setting_can_be_changed(panel, run):
    controls = [panel.preset, *panel.knobs.values()]
    assert not any(control.disabled for control in controls)
    click(panel, "Start", becomes="running")
    assert all(control.disabled for control in controls)
    run.end("stopped")
    panel.wait()
    assert not any(control.disabled for control in controls)


def test_a_stopped_run_is_resumed_with_its_own_settings_only(panel, run):
    click(panel, "Start", becomes="running")
    run.end("stopped")
    panel.wait()
    panel.knobs["r"].value = 4
    assert enabled(panel) == {"Start"}
    assert "To resume, set back" in panel.note.value
    panel.knobs["r"].value = -1
    assert enabled(panel) == set()
    panel.knobs["r"].value = CONFIG.r
    assert enabled(panel) == {"Start", "Resume"}


def test_stop_is_heard_while_the_model_loads(run):
    loaded = threading.Event()
    panel = TrainingPanel(CONFIG, lambda config: loaded.wait(10) and run)
    click(panel, "Start", becomes="loading")
    assert enabled(panel) == {"Stop"}
    click(panel, "Stop", becomes="stopping")
    loaded.set()
    until(lambda: run.calls == ["start", "stop"])
    run.end("stopped")
    assert panel.wait().status == "stopped"


def test_after_the_last_step_nothing_can_be_stopped(panel, run):
    click(panel, "Start", becomes="running")
    run.progress.step = run.progress.n_steps
    until(lambda: panel.state == "saving" and not enabled(panel))


def test_without_a_run_to_make_nothing_can_be_started():
    assert enabled(TrainingPanel(CONFIG, None)) == set()


def test_wait_starts_what_was_not_started(panel, run):
    threading.Timer(0.05, run.end).start()
    assert panel.wait().status == "finished"
    assert panel.wait().status == "finished"
    assert run.calls == ["start"]


def test_wait_lets_a_paused_run_go_on(panel, run):
    click(panel, "Start", becomes="running")
    panel.pause()
    threading.Timer(0.05, run.end).start()
    panel.wait()
    assert run.calls == ["start", "unpause"]


def test_interrupting_wait_stops_the_run(panel, run, monkeypatch):
    click(panel, "Start", becomes="running")
    join, interrupts = panel._thread.join, iter([KeyboardInterrupt])

    def interrupted_once():
        for interrupt in interrupts:
            raise interrupt
        run.end("stopped")
        join()

    monkeypatch.setattr(panel._thread, "join", interrupted_once)
    assert panel.wait().status == "stopped"
    assert run.calls == ["start", "stop"]


# --- what is shown -----------------------------------------------------------------


def test_an_error_is_one_escaped_sentence_and_wait_raises_it(panel, run):
    click(panel, "Start", becomes="running")
    run.end("failed", OSError("no <b>disk</b>\nleft & none to come"))
    with pytest.raises(OSError, match="no <b>disk</b>"):
        panel.wait()
    assert panel.message.value == (
        '<b role="status">Failed, OSError: no &lt;b&gt;disk&lt;/b&gt; '
        "left &amp; none to come</b>"
    )
    assert enabled(panel) == {"Start"}


def test_a_model_that_cannot_be_loaded_is_shown_and_can_be_tried_again(run):
    answers = iter([None, run])

    def make_run(config):
        answer = next(answers)
        if not answer:
            raise MemoryError
        return answer

    panel = TrainingPanel(CONFIG, make_run)
    panel.start()
    with pytest.raises(MemoryError):
        panel.wait()
    assert "Failed, MemoryError" in panel.message.value
    click(panel, "Start", becomes="running")
    assert "MemoryError" not in panel.message.value


def test_settings_are_escaped():
    config = CONFIG.change(lr_scheduler_type="<script>")
    panel = TrainingPanel(CONFIG, FakeRun)
    panel._given = config.change(r=8)
    panel._preset_changes = lambda: {"lr_scheduler_type": "<img>"}
    panel._show()
    assert "&lt;script&gt; → &lt;img&gt;" in panel.note.value
    assert "<" not in panel.note.value


def test_the_numbers_are_read_off_the_run(panel, run):
    assert "0 of" not in panel.numbers.value
    click(panel, "Start", becomes="running")
    run.progress.n_tokens, run.progress.seconds = 2500, 2.0
    run.step(0.75)
    run.step(0.5, validation_loss=0.625)
    until(lambda: "0.625" in panel.numbers.value)
    for text in ("2 of 8", "0.500", "1,250 tokens/s", "0 min 06 s"):
        assert text in panel.numbers.value


def test_the_step_does_not_fall_back_while_a_run_resumes(panel, run):
    click(panel, "Start", becomes="running")
    run.step(0.75)
    run.end("stopped")
    panel.wait()
    click(panel, "Resume", becomes="running")
    assert run.progress.step == 0
    assert "1 of 8" in panel.numbers.value


class FakeClock:
    """A clock that moves when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("cost", "longest_rest"), [(0.0, 0.25), (0.0625, 1.25)])
def test_the_curve_is_drawn_four_times_a_second_at_most(
    run, monkeypatch, cost, longest_rest
):
    clock, drawn = FakeClock(), []

    def draw(curves, n_steps):
        drawn.append((clock.now, len(curves["Training loss"])))
        clock.now += cost
        return b""

    def wait(timeout_s=None):
        clock.now += 0.0625
        if run.progress.step == 101:
            run.end()
        elif run.is_alive:
            run.step(0.5)
        return run.progress

    panel = TrainingPanel(CONFIG, lambda config: run)
    monkeypatch.setattr(panels, "TICK_S", 0.25)
    monkeypatch.setattr(panels, "time", clock)
    monkeypatch.setattr(panels, "draw_curves", draw)
    monkeypatch.setattr(run, "wait", wait)
    run.progress.n_steps = 101
    panel.wait()
    rests = [later - at for (at, _), (later, _) in zip(drawn, drawn[1:], strict=False)]
    assert min(rests) >= 0.25
    assert max(rests) == longest_rest
    assert drawn[-1][1] == 101, "the last drawing shows the whole run"


def test_an_unchanged_curve_is_not_drawn_again(panel, run, monkeypatch):
    drawn = []
    monkeypatch.setattr(panels, "draw_curves", lambda *args: drawn.append(args) or b"")
    click(panel, "Start", becomes="running")
    run.step(0.5)
    until(lambda: drawn and drawn[-1][0]["Training loss"] == [(1, 0.5)])
    n_drawn = len(drawn)
    for now in (1e9, 2e9):
        panel._draw(now)
    assert len(drawn) == n_drawn


@pytest.mark.parametrize(
    "curves",
    [
        {"Training loss": [], "Validation loss": []},
        {"Training loss": [(1, 123456.0)], "Validation loss": []},
        {
            "Training loss": [(s, 1 / s) for s in range(1, 500)],
            "Validation loss": [(9, 2)],
        },
    ],
)
def test_every_drawing_has_one_size(curves):
    png = panels.draw_curves(curves, n_steps=500)
    assert png[:4] == b"\x89PNG"
    assert struct.unpack(">II", png[16:24]) == (960, 450)


def test_it_is_a_box_whose_controls_have_labels(panel):
    assert isinstance(panel, widgets.VBox)
    controls = [panel.preset, *panel.knobs.values(), *panel.buttons.values()]
    assert all(control.description.strip() for control in controls)


def test_its_thread_prints_nothing(panel, run, capfd):
    click(panel, "Start", becomes="running")
    run.step(0.5)
    run.end("failed", OSError("no disk"))
    with pytest.raises(OSError, match="no disk"):
        panel.wait()
    assert capfd.readouterr() == ("", "")


# --- with a real run ---------------------------------------------------------------


def test_a_real_run_stops_keeps_its_checkpoint_and_goes_on(tmp_path):
    from ftlib import models, tokens, training
    from ftlib.schema import make_example

    config = CONFIG.change(max_steps=6, per_device_train_batch_size=2, eval_steps=2)
    tokenizer = models.load_tokenizer(config)
    rows = [
        tokens.encode_example(make_example(f"Say {n}.", f"{n}"), tokenizer)
        for n in range(8)
    ]

    def make_run(config):
        model = models.attach_adapter(models.load_base(config), config)
        return training.Run(model, tokenizer, rows, rows[:2], config, tmp_path / "run")

    panel = TrainingPanel(config, make_run)
    panel.start()
    panel.stop()  # while it loads: one step is done, and kept
    assert panel.wait().status == "stopped"
    stopped_at = panel.run.progress.step
    assert 1 <= stopped_at < 6
    checkpoint = training.find_checkpoint(panel.run.folder)
    assert checkpoint.name == f"checkpoint-{stopped_at}"
    panel.resume()
    assert panel.wait().status == "finished"
    assert [row["step"] for row in panel.run.progress.history] == [1, 2, 3, 4, 5, 6]
    assert panel.run.progress.effect > 0
    assert "6 of 6" in panel.numbers.value


def test_the_asking_panel_answers_with_the_adapter_off_and_escapes(monkeypatch):
    from contextlib import contextmanager

    from ftlib.panels import ask

    class Model:
        off = False

        @contextmanager
        def disable_adapter(self):
            self.off = True
            yield
            self.off = False

    asked = []

    def generate(model, tokenizer, prompts):
        asked.append((model.off, prompts))
        return ["<b>Lima</b>"]

    monkeypatch.setattr(ask, "generate", generate)
    panel = AskPanel(Model(), None, "Capital of Peru?")
    assert panel.value is None
    panel.button.click()
    assert asked == [(True, [[{"role": "user", "content": "Capital of Peru?"}]])]
    assert panel.value == ("Capital of Peru?", "<b>Lima</b>")
    assert "&lt;b&gt;Lima" in panel.answer.value
