"""Run alone: ``python -m pytest tests/test_training.py``."""

import json
import math
import time

import pytest
import torch
from safetensors.torch import load_file

from ftlib import models, trainer, training
from ftlib.batches import measure_loss, plan_rows
from ftlib.models import NoEffectError, prove_adapter
from ftlib.schema import IGNORE_INDEX
from ftlib.store import read_json, write_json
from ftlib.trainer import CheckedTrainer, NonFiniteLossError
from ftlib.training import Run, find_checkpoint, fine_tune

# --- whole runs, on the tiny model -----------------------------------------------


@pytest.fixture
def small(wren_config):
    """Settings of six steps of two rows, with dropout, a checkpoint at every second."""
    return wren_config.change(max_steps=6, lora_dropout=0.2, learning_rate=1e-2)


@pytest.fixture
def make_run(tiny_model, tokenizer, five_rows, small, tmp_path):
    def make(folder="run", train=None, validation=None, **changes):
        config = small.change(**changes)
        model = models.attach_adapter(tiny_model(), config)
        return Run(
            model,
            tokenizer,
            five_rows if train is None else train,
            five_rows[:2] if validation is None else validation,
            config,
            tmp_path / folder,
        )

    return make


def wait_until(is_so, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def adapter_bytes(run):
    return (run.folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_run_trains_measures_saves_and_says_so(make_run):
    run = make_run()
    assert run.progress.status == "new"
    progress = run.start().wait()
    assert (progress.status, progress.step, progress.n_steps) == ("finished", 6, 6)
    assert [row["step"] for row in progress.history] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["loss"]) for row in progress.history)
    measured = [row["step"] for row in progress.history if "validation_loss" in row]
    assert measured == [2, 4, 6]
    assert progress.effect > 0
    assert progress.seconds_left == 0
    assert not run.is_alive
    record = json.loads((run.folder / "run.json").read_text("utf-8"))
    assert record["status"] == "finished"
    assert record["steps"] == 6
    assert record["adapter_effect"] == progress.effect
    assert record["history"] == progress.history
    assert record["config"]["max_steps"] == 6
    names = {path.name for path in (run.folder / "checkpoints").iterdir()}
    assert names == {"checkpoint-4", "checkpoint-6"}  # the last two


def test_training_lowers_the_loss_on_what_it_is_trained_on(make_run, five_rows):
    run = make_run(max_steps=40, lora_dropout=0.0, validation=five_rows, eval_steps=40)
    before = measure_loss(run.model, run.tokenizer, five_rows)
    after = run.start().wait().history[-1]["validation_loss"]
    assert after < before - 0.5


def test_tokens_are_counted_without_padding(make_run, five_rows):
    progress = make_run(max_steps=5, save_steps=5).start().wait()
    # Five steps of two rows: each of the five rows twice.
    assert progress.n_tokens == 2 * sum(len(row["input_ids"]) for row in five_rows)
    assert progress.tokens_per_s == pytest.approx(progress.n_tokens / progress.seconds)


def test_epochs_give_the_number_of_steps(make_run):
    # One and a half times five rows, two a step: 3.75 steps.
    run = make_run(max_steps=-1, num_train_epochs=1.5)
    assert run.start().wait().step == 4


def test_gradients_are_added_up_over_passes(make_run, five_rows):
    run = make_run(
        max_steps=2, per_device_train_batch_size=1, gradient_accumulation_steps=5
    )
    progress = run.start().wait()
    assert progress.step == 2
    assert progress.n_tokens == 2 * sum(len(row["input_ids"]) for row in five_rows)


def test_the_same_rows_a_step_learn_the_same_in_smaller_passes(make_run):
    whole = make_run("a", lora_dropout=0.0, per_device_train_batch_size=4, max_steps=3)
    parts = make_run(
        "b",
        lora_dropout=0.0,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        max_steps=3,
    )
    losses = [
        [row["loss"] for row in run.start().wait().history] for run in (whole, parts)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


@pytest.mark.parametrize("every", [1, 2])
def test_layers_computed_again_learn_the_same(make_run, every):
    runs = [make_run("a"), make_run("b", gradient_checkpointing=every)]
    first, again = ([r["loss"] for r in run.start().wait().history] for run in runs)
    assert first == pytest.approx(again, rel=1e-3)
    layers = runs[1].model.get_base_model().model.layers
    assert [layer.gradient_checkpointing for layer in layers] == [every == 1, True]


def test_what_does_not_fit_is_trained_in_smaller_passes(make_run, monkeypatch):
    forward = CheckedTrainer.compute_loss

    def run_out(self, model, inputs, *args, **kwargs):
        if len(inputs["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory.")
        return forward(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(CheckedTrainer, "compute_loss", run_out)
    run = make_run(per_device_train_batch_size=4, max_steps=2)
    progress = run.start().wait()
    assert (progress.status, progress.step, progress.batch_size) == ("finished", 2, 2)


@pytest.mark.parametrize("where", ["compute_loss", "evaluate"])
def test_what_no_longer_fits_after_the_first_step_ends_the_run(
    where, make_run, monkeypatch
):
    before = getattr(CheckedTrainer, where)

    def run_out(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise RuntimeError("CUDA out of memory.")
        return before(self, *args, **kwargs)

    monkeypatch.setattr(CheckedTrainer, where, run_out)
    run = make_run(per_device_train_batch_size=4, max_steps=4)
    with pytest.raises(MemoryError, match="step 2 does not fit .* start again with a"):
        run.start().wait()
    # With weights that have moved, nothing was begun again.
    assert [row["step"] for row in run.progress.history] == [1, 2]


# --- early stopping ----------------------------------------------------------------


def test_stopping_while_it_validates_is_no_validation_without_a_better_loss(
    make_run, monkeypatch
):
    def stop(model, tokenizer, rows, batch_size, should_stop):
        if len(run.progress.history) == 4:
            run.stop()
        return math.nan if should_stop() else 1.0

    monkeypatch.setattr(trainer, "measure_loss", stop)
    run = make_run(max_steps=20, early_stopping_patience=2)
    run.start().wait()
    states = sorted(run.folder.glob("checkpoints/*/trainer_state.json"))
    callbacks = read_json(states[-1])["stateful_callbacks"]
    patience = callbacks["EarlyStoppingCallback"]["attributes"]
    assert run.progress.status == "stopped"
    assert patience["early_stopping_patience_counter"] == 0


def test_a_validation_loss_that_is_no_number_ends_the_run(make_run, monkeypatch):
    monkeypatch.setattr(trainer, "measure_loss", lambda *args: math.nan)
    with pytest.raises(NonFiniteLossError, match="validation loss is nan at step 2"):
        make_run().start().wait()


def test_patience_cannot_be_resumed_with_other_validation_rows(make_run, five_rows):
    run = make_run(max_steps=40, early_stopping_patience=9)
    run.start()
    wait_until(lambda: run.progress.step >= 4)
    run.stop()
    run.wait()
    other = make_run(max_steps=40, early_stopping_patience=9, validation=five_rows[3:])
    with pytest.raises(ValueError, match="the validation data differs"):
        other.start(resume=True)


def test_a_run_stops_early_and_keeps_its_best_weights(make_run, five_rows):
    # Learned by heart at a high rate, two rows; the others soon get worse.
    run = make_run(
        train=five_rows[:2],
        validation=five_rows[2:],
        max_steps=200,
        learning_rate=5e-2,
        lora_dropout=0.0,
        early_stopping_patience=3,
    )
    progress = run.start().wait()
    losses = {
        row["step"]: row["validation_loss"]
        for row in progress.history
        if "validation_loss" in row
    }
    assert progress.status == "finished"
    assert progress.step < 200
    assert progress.best_step == min(losses, key=losses.get)
    # Three measurements, of every second step, after the best one.
    assert progress.step == progress.best_step + 6
    n_rows = run.config.per_device_train_batch_size
    kept = measure_loss(run.model, run.tokenizer, five_rows[2:], n_rows)
    assert kept == pytest.approx(losses[progress.best_step], rel=1e-4)
    assert losses[progress.step] > kept + 0.01


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(make_run):
    runs = [make_run("a"), make_run("b"), make_run("c", seed=1)]
    for run in runs:
        run.start().wait()
    first, again, other = map(adapter_bytes, runs)
    assert first == again
    assert first != other


def test_measuring_the_validation_loss_leaves_the_training_as_it_is(make_run):
    runs = [make_run("a"), make_run("b", validation=[]), make_run("c", eval_steps=1)]
    for run in runs:
        run.start().wait()
    first, without, often = map(adapter_bytes, runs)
    assert first == without == often


def test_a_trained_model_is_not_trained_on_as_if_it_were_new(make_run, tmp_path):
    # A learner runs the training cell a second time, on the model of the cell before:
    # it would go on from the trained weights and say that it had begun afresh.
    run = make_run()
    run.start().wait()
    kept = adapter_bytes(run)
    with pytest.raises(RuntimeError, match="trained already"):
        run.start()
    again = Run(run.model, run.tokenizer, run.train, [], run.config, tmp_path / "other")
    with pytest.raises(RuntimeError, match="trained already"):
        again.start()
    assert adapter_bytes(run) == kept


def test_nothing_to_train_on_is_refused(make_run):
    with pytest.raises(ValueError, match="nothing to train on"):
        make_run(train=[])


def test_a_whole_model_can_be_trained_too(
    tiny_model, tokenizer, five_rows, small, tmp_path
):
    before = tiny_model().state_dict()
    progress = fine_tune(
        tiny_model(), tokenizer, five_rows, [], small, tmp_path / "run"
    )
    assert progress.status == "finished"
    saved = load_file(tmp_path / "run" / "adapter" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(saved[name], before[name])


# --- stop, pause, resume ---------------------------------------------------------


@pytest.fixture
def long_run(make_run):
    """A run that no test sees the end of by itself."""
    run = make_run(max_steps=100_000, save_steps=100_000, eval_steps=100_000)
    yield run
    run.stop()
    run.wait()


def test_a_stopped_run_keeps_a_whole_checkpoint_and_no_adapter(long_run):
    long_run.start()
    wait_until(lambda: long_run.progress.step >= 2)
    long_run.stop()
    progress = long_run.wait()
    assert progress.status == "stopped"
    checkpoint = find_checkpoint(long_run.folder)
    assert checkpoint.name == f"checkpoint-{progress.step}"
    assert not (long_run.folder / "adapter").exists()


def test_the_record_of_a_stopped_run_is_plain_json(long_run):
    long_run.start()
    wait_until(lambda: long_run.progress.step >= 1)
    long_run.stop()
    long_run.wait()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (long_run.folder / "run.json").read_text("utf-8")
    assert json.loads(text, parse_constant=refuse)["status"] == "stopped"


def test_a_run_may_be_stopped_at_once(long_run):
    long_run.start()
    long_run.stop()
    assert long_run.wait().status == "stopped"
    assert long_run.progress.step == 1  # the step under way is done


def test_a_paused_run_waits_and_goes_on(long_run):
    long_run.start()
    wait_until(lambda: long_run.progress.step >= 1)
    long_run.pause()
    wait_until(lambda: long_run.progress.status == "paused")
    seen = []

    def stands_still():
        seen.append(long_run.progress.step)
        time.sleep(0.3)
        return long_run.progress.step == seen[-1]

    wait_until(stands_still)
    time.sleep(0.5)
    assert long_run.progress.step == seen[-1]
    assert long_run.is_alive
    long_run.unpause()
    wait_until(lambda: long_run.progress.status == "running")
    wait_until(lambda: long_run.progress.step > seen[-1])


def test_a_paused_run_can_be_stopped(long_run):
    long_run.start()
    long_run.pause()
    long_run.stop()
    assert long_run.wait(60).status == "stopped"


def test_pausing_and_stopping_what_does_not_go_on_is_harmless(make_run):
    run = make_run(max_steps=1)
    run.pause()
    run.unpause()
    run.stop()
    assert run.wait().status == "new"
    assert run.start().wait().status == "finished"
    run.pause()
    run.stop()
    assert run.progress.status == "finished"


def test_a_run_that_goes_on_cannot_be_started(long_run):
    long_run.start()
    with pytest.raises(RuntimeError, match="goes on already"):
        long_run.start()


def stop_after(run, step):
    """Stop a run after exactly `step` steps, whatever the machine's speed."""
    count = training._Listener.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            self.run.stop()
        return count(self, args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Listener, "on_step_end", on_step_end)
        progress = run.start().wait()
    assert (progress.status, progress.step) == ("stopped", step)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(step, make_run):
    whole = make_run("whole")
    whole.start().wait()
    broken = make_run("broken")
    stop_after(broken, step)
    progress = broken.start(resume=True).wait()
    assert (progress.status, progress.step) == ("finished", 6)
    assert adapter_bytes(broken) == adapter_bytes(whole)
    # Losses and all, as if nothing had happened.
    assert progress.history == whole.progress.history


def test_a_new_session_resumes_with_the_same_bytes_and_the_whole_record(make_run):
    whole = make_run("whole")
    whole.start().wait()
    stop_after(make_run("broken"), 3)
    later = make_run("broken")  # all that is left is the folder
    later.start(resume=True).wait()
    assert adapter_bytes(later) == adapter_bytes(whole)
    steps = [row["step"] for row in read_json(later.folder / "run.json")["history"]]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resuming_a_run_that_had_taken_its_last_step_tells_all_its_steps(make_run):
    # Killed between the last step and the writing of the adapter.
    run = make_run()
    run.start().wait()
    first = adapter_bytes(run)
    again = make_run()
    progress = again.start(resume=True).wait()
    assert progress.status == "finished"
    assert adapter_bytes(again) == first
    assert progress.step == 6
    assert read_json(run.folder / "run.json")["steps"] == 6


def test_steps_that_a_resumed_run_takes_again_are_told_once(make_run, monkeypatch):
    run = make_run()
    count = training._Listener.on_step_end

    def fail_after_step_3(self, args, state, control, **kwargs):
        count(self, args, state, control, **kwargs)
        if state.global_step == 3:
            raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(training._Listener, "on_step_end", fail_after_step_3)
        with pytest.raises(OSError, match="disk is full"):
            run.start().wait()
    # The last checkpoint is of step 2, so step 3 is taken a second time.
    progress = run.start(resume=True).wait()
    assert [row["step"] for row in progress.history] == [1, 2, 3, 4, 5, 6]


def test_the_time_left_goes_by_the_steps_since_this_start(make_run, monkeypatch):
    run = make_run()
    stop_after(run, 3)
    seen = {}
    begin = training._Listener.on_step_begin

    def on_step_begin(self, args, state, control, **kwargs):
        progress = self.run.progress
        seen[progress.step] = (progress.seconds_left, progress.seconds)
        return begin(self, args, state, control, **kwargs)

    monkeypatch.setattr(training._Listener, "on_step_begin", on_step_begin)
    run.start(resume=True).wait()
    # Before step 5: one step done since the resumption, two of the six to come.
    left, seconds = seen[4]
    assert left == pytest.approx(2 * seconds)


def test_resuming_with_other_settings_is_refused_by_name(make_run):
    stop_after(make_run(), 2)
    for changes in ({"learning_rate": 2e-2}, {"target_modules": ("q_proj",)}):
        with pytest.raises(ValueError, match=f"cannot resume: {next(iter(changes))}"):
            make_run(**changes).start(resume=True)


def test_settings_that_json_writes_otherwise_are_still_the_same(make_run):
    stop_after(make_run(target_modules=("q_proj", "v_proj")), 2)
    run = make_run(target_modules=("q_proj", "v_proj"))
    assert run.start(resume=True).wait().status == "finished"


def test_resuming_where_there_is_no_checkpoint_begins_at_the_start(make_run):
    run = make_run()
    assert run.start(resume=True).wait().step == 6


def test_a_fresh_start_keeps_the_former_folder(make_run):
    first, second, third = make_run(), make_run(seed=1), make_run(seed=2)
    first.start().wait()
    kept = adapter_bytes(first)
    second.start().wait()
    before = first.folder.with_name("run.before")
    assert (before / "adapter" / "adapter_model.safetensors").read_bytes() == kept
    assert adapter_bytes(second) != kept
    kept = adapter_bytes(second)
    third.start().wait()
    assert (before / "adapter" / "adapter_model.safetensors").read_bytes() == kept


def test_a_torn_checkpoint_is_removed_and_the_last_whole_one_given(tmp_path):
    folder = tmp_path / "checkpoints"
    for step, whole in ((2, True), (10, True), (9, True), (12, False)):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}" / "optimizer.pt").write_text("x")
        if whole:
            write_json(folder / f"checkpoint-{step}" / "complete", {"step": step})
    assert find_checkpoint(tmp_path).name == "checkpoint-10"  # by number, not by name
    assert not (folder / "checkpoint-12").exists()
    assert find_checkpoint(tmp_path / "elsewhere") is None


def test_the_mark_of_a_whole_checkpoint_is_written_last(make_run):
    run = make_run()
    run.start().wait()
    folder = run.folder / "checkpoints" / "checkpoint-6"
    mark = (folder / "complete").stat().st_mtime_ns
    others = [path for path in folder.iterdir() if path.name != "complete"]
    assert {"optimizer.pt", "trainer_state.json", "rng_state.pth"} <= {
        path.name for path in others
    }
    assert all(path.stat().st_mtime_ns <= mark for path in others)


# --- what must not go unseen -----------------------------------------------------


def test_the_first_loss_that_is_no_number_ends_the_run_and_its_batch_is_kept(
    make_run, five_rows
):
    # One row has nothing to learn; alone in its batch, its mean loss is 0 / 0.
    rows = [dict(row) for row in five_rows[:4]]
    rows[2]["labels"] = [IGNORE_INDEX] * len(rows[2]["labels"])
    lengths = [len(row["input_ids"]) for row in rows]
    run = make_run(train=rows, validation=[], per_device_train_batch_size=1, seed=0)
    step = plan_rows(lengths, 1, 6, 0).index(2) + 1
    run.start()
    with pytest.raises(NonFiniteLossError, match=f"nan at step {step};"):
        run.wait()
    assert run.progress.status == "failed"
    assert run.progress.step == step - 1
    batch = read_json(run.folder / "bad_batch.json")
    (ids,), (seen,) = batch["input_ids"], batch["attention_mask"]
    shown = [token for token, is_seen in zip(ids, seen, strict=True) if is_seen]
    assert shown == rows[2]["input_ids"]
    record = read_json(run.folder / "run.json")
    assert record["status"] == "failed"
    assert record["error"].startswith(
        "NonFiniteLossError: nothing to learn: the loss is nan"
    )
    assert not (run.folder / "adapter").exists()


def test_an_infinite_loss_ends_the_run_before_it_spoils_the_adapter(make_run):
    run = make_run()
    with torch.no_grad():
        run.model.get_base_model().model.norm.weight.fill_(math.inf)
    weights = {n: p.detach().clone() for n, p in run.model.named_parameters()}
    run.start()
    with pytest.raises(NonFiniteLossError, match="at step 1;"):
        run.wait()
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, weights[name]), name


def test_an_error_in_the_thread_reaches_the_caller(make_run, five_rows):
    rows = [{"input_ids": [1, 10_000_000], "labels": [-100, 5]}] * 2
    run = make_run(train=rows, validation=[])
    with pytest.raises(IndexError):
        run.start().wait()
    assert run.progress.status == "failed"
    assert read_json(run.folder / "run.json")["error"].startswith("IndexError")


def test_an_adapter_that_changes_nothing_is_told(make_run):
    run = make_run(learning_rate=1e-30)
    with pytest.raises(NoEffectError, match="changes nothing"):
        run.start().wait()
    assert run.progress.status == "failed"
    assert read_json(run.folder / "run.json")["status"] == "failed"


def test_a_saved_adapter_that_is_not_the_trained_one_is_told(make_run, five_rows):
    run = make_run()
    run.start().wait()
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    with pytest.raises(NoEffectError, match="answers otherwise"):
        prove_adapter(run.model, run.folder / "adapter", five_rows[0])


@pytest.mark.parametrize("is_training", [True, False])
def test_proving_an_adapter_leaves_the_model_as_it_was(
    is_training, make_run, five_rows
):
    run = make_run()
    run.start().wait()
    model = run.model.train(is_training)
    before = {
        n: (p.detach().clone(), p.requires_grad) for n, p in model.named_parameters()
    }
    effect = prove_adapter(model, run.folder / "adapter", five_rows[0])
    assert effect == run.progress.effect
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, (weights, requires_grad) in before.items():
        assert torch.equal(after[name], weights)
        assert after[name].requires_grad is requires_grad, name
    assert list(model.peft_config) == ["default"]
    assert model.active_adapter == "default"
    assert model.training is is_training


def test_interrupting_the_cell_stops_the_run(long_run, monkeypatch):
    waits = []
    wait = Run.wait

    def interrupted_once(self, timeout_s=None):
        waits.append(self)
        if len(waits) == 1:
            wait_until(lambda: self.progress.step >= 1)
            raise KeyboardInterrupt
        return wait(self, timeout_s)

    monkeypatch.setattr(Run, "wait", interrupted_once)
    progress = fine_tune(
        long_run.model,
        long_run.tokenizer,
        long_run.train,
        [],
        long_run.config,
        long_run.folder,
    )
    assert progress.status == "stopped"


def test_wren_trains_in_4_bits(wren_config, tokenizer, five_rows, tmp_path):
    model = models.attach_adapter(models.load_base(wren_config), wren_config)
    progress = fine_tune(
        model, tokenizer, five_rows, five_rows, wren_config, tmp_path / "run"
    )
    assert (progress.status, progress.step) == ("finished", 4)
    losses = [r["validation_loss"] for r in progress.history if "validation_loss" in r]
    assert losses[-1] < losses[0]
