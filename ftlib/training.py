"""Training: one run in the background, that can be stopped, paused and resumed."""

import json
import math
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from ftlib import colab, machine, models, speed
from ftlib.batches import Row, hash_rows, make_collator, plan_rows
from ftlib.config import RunConfig
from ftlib.progress import COMPLETE, Progress, find_checkpoint
from ftlib.scale import join_processes
from ftlib.store import ADAPTER_FOLDER, RUN_FILE, read_json, record_run, write_json
from ftlib.trainer import CheckedTrainer, make_arguments, save_model


class Run:
    """
    One fine-tuning run: transformers' `Trainer`, in a thread that listens.

    Parameters
    ----------
    model : peft.PeftModel or transformers.PreTrainedModel
        What to train: a base model with an adapter, or a whole model.
    tokenizer : transformers tokenizer
        For padding.
    train : sequence of dict
        ``input_ids`` and ``labels`` of each training example, checked before by
        `tokens.check_rows`.
    validation : sequence of dict
        The same for validation; may be empty.
    config : RunConfig
        The settings.
    folder : path
        The run's own folder. It gets ``run.json``, ``adapter`` and ``checkpoints``.

    Examples
    --------
    >>> run = Run(model, tokenizer, train, [], config, folder)  # doctest: +SKIP
    >>> run.start().wait().status  # doctest: +SKIP
    'finished'
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        train: Sequence[Row],
        validation: Sequence[Row],
        config: RunConfig,
        folder: str | Path,
    ) -> None:
        if not train:
            raise ValueError("there is nothing to train on: give at least one row")
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.train, self.validation = list(train), list(validation)
        self.folder = Path(folder)
        self.progress = Progress()
        self._stop, self._go = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._shared: dict[str, Any] | None = None

    @property
    def is_alive(self) -> bool:
        """Say whether the run is going on, or paused."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, resume: bool = False) -> Self:
        """
        Start in the background; with `resume`, from the last whole checkpoint.

        A fresh start keeps what the folder held: it becomes ``FOLDER.before``. Where
        several processes train together, each starts the run; the first alone writes.

        Parameters
        ----------
        resume : bool
            Whether to go on from the last whole checkpoint, if there is one.

        Returns
        -------
        Run
            Itself.

        Raises
        ------
        RuntimeError
            When this run goes on already, or its model was trained before.
        ValueError
            When a run of other settings is to be resumed.
        """
        if self.is_alive:
            raise RuntimeError("this run goes on already: stop it, or wait for it")
        processes = join_processes()
        with processes.main_process_first():  # which removes torn ones
            if resume:
                colab.fetch_checkpoint(self.folder)
            checkpoint = find_checkpoint(self.folder) if resume else None
        if checkpoint:
            self._refuse_other_settings()
        elif getattr(self.model, "ftlib_was_trained", False):
            raise RuntimeError(
                "this model was trained already: load the base and attach an adapter "
                "anew, or resume"
            )
        elif processes.is_main_process and (self.folder / RUN_FILE).exists():
            before = self.folder.with_name(self.folder.name + ".before")
            shutil.rmtree(before, ignore_errors=True)
            self.folder.rename(before)
        kept = read_json(checkpoint / COMPLETE) if checkpoint else {"step": 0}
        self.progress = Progress("running", kept["step"], kept["step"])
        self.progress.history += kept.get("history", [])
        self._stop.clear()
        self._go.set()
        machine.release_threads()
        self._thread = threading.Thread(
            target=self._run, args=(checkpoint,), name="ftlib-run", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the run to end after the step under way; the checkpoint is kept."""
        self._stop.set()
        self._go.set()

    def pause(self) -> None:
        """Ask the run to wait after the step under way."""
        if self.is_alive and not self._stop.is_set():
            self._go.clear()

    def unpause(self) -> None:
        """Let a paused run go on."""
        self._go.set()

    def wait(self, timeout_s: float | None = None) -> Progress:
        """
        Wait for the end and give the progress; raises what ended a failed run.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds to wait at most.

        Returns
        -------
        Progress
            How far it got.
        """
        if self._thread:
            self._thread.join(timeout_s)
        if self.progress.error:
            raise self.progress.error
        return self.progress

    def _refuse_other_settings(self) -> None:
        saved = read_json(self.folder / RUN_FILE)
        now = json.loads(json.dumps(self.config.to_dict()))  # a tuple is a list there
        # A run of before a field was there had its default.
        before = {**RunConfig().to_dict(), **saved["config"]}
        changed = [name for name in now if now[name] != before[name]]
        if saved["train_sha256"] != hash_rows(self.train):
            changed.append("the training data")
        # The best loss so far, which patience compares with, is of the old rows.
        was, patient = saved["validation_sha256"], self.config.early_stopping_patience
        if patient and was != hash_rows(self.validation):
            changed.append("the validation data")
        if changed:
            raise ValueError(
                f"cannot resume: {', '.join(changed)} differs from the run in "
                f"{self.folder.name}; start afresh, or set it back"
            )

    def _run(self, checkpoint: Path | None) -> None:
        progress = self.progress
        try:
            weights = Path(self.config.model) / "model.safetensors"
            recorded = record_run(
                self.folder,
                self.config.to_dict(),
                inputs=[weights] if weights.exists() else [],
                facts={
                    "train_sha256": hash_rows(self.train),
                    "validation_sha256": hash_rows(self.validation),
                },
            )
            is_writer = PartialState().is_main_process
            with recorded if is_writer else nullcontext({}) as record:
                self._train(checkpoint)
                machine.release_memory()
                stopped = self._stop.is_set() and progress.step < progress.n_steps
                if not stopped:
                    to, example = self.folder / ADAPTER_FOLDER, self.train[0]
                    progress.effect = save_model(self.model, to, example, self._shared)
                progress.status = "stopped" if stopped else "finished"
                effect = progress.effect
                record |= {
                    "status": progress.status,
                    "steps": progress.step,
                    "tokens_per_s": round(progress.tokens_per_s, 1),
                    # JSON has no NaN.
                    "adapter_effect": None if math.isnan(effect) else effect,
                    "history": progress.history,
                }
        except BaseException as error:
            # The thread has no caller to raise to: `wait` raises it.
            progress.error, progress.status = error, "failed"

    def _train(self, checkpoint: Path | None) -> None:
        config, progress = self.config, self.progress
        progress.n_steps = config.count_steps(len(self.train))
        lengths = [len(row["input_ids"]) for row in self.train]
        n_rows = progress.n_steps * config.rows_per_step
        plan = plan_rows(lengths, config.rows_per_step, n_rows, config.seed)
        models.keep_gradients_right(self.model)
        self.model.ftlib_was_trained = True
        rows = [self.train[i] for i in plan]
        self._lengths = [lengths[i] for i in plan]
        speed.fit_in_memory(config, lambda fit: self._train_rows(rows, fit, checkpoint))

    def _train_rows(
        self, rows: list[Row], config: RunConfig, checkpoint: Path | None
    ) -> None:
        progress = self.progress
        progress.batch_size = config.per_device_train_batch_size
        arguments = make_arguments(
            config,
            progress.n_steps,
            self.folder / "checkpoints",
            self.model.device.type,
            has_validation=bool(self.validation),
        )
        # The pull to the base needs to know where rows end: they are padded then.
        attention = "" if config.kl_weight else self.model.config._attn_implementation
        is_soft = models.has_soft_prompt(self.model)
        padded = make_collator(self.tokenizer, attention, is_soft)
        data, collate = speed.lay_out(rows, config, padded)
        callbacks: list[TrainerCallback] = [_Listener(self)]
        if arguments.load_best_model_at_end:
            callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
        trainer = CheckedTrainer(
            model=self.model,
            args=arguments,
            train_dataset=data,
            eval_dataset=self.validation or None,
            processing_class=self.tokenizer,
            data_collator=collate,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.bad_batch_file = self.folder / "bad_batch.json"
        trainer.kl_weight, trainer.should_stop = config.kl_weight, self._stop.is_set
        trainer.first_step = progress.first_step
        with speed.hurry(self.model, config):
            if not checkpoint:
                trainer.try_first_step()
            trainer.train(str(checkpoint) if checkpoint else None)
        self._shared = trainer.gather_weights()
        progress.best_step = trainer.state.best_global_step or 0


class _Listener(TrainerCallback):
    """Between the steps: report, pause, stop, measure the validation loss."""

    def __init__(self, run: Run) -> None:
        self.run, self.began, self.loss = run, 0.0, math.nan

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.run._go.is_set():
            # Set here alone, so that it can never overwrite how the run ended.
            self.run.progress.status = "paused"
            self.run._go.wait()
            self.run.progress.status = "running"
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        run, progress = self.run, self.run.progress
        progress.seconds += time.perf_counter() - self.began
        progress.step = state.global_step
        rows_per_step = run.config.rows_per_step
        begin = (state.global_step - 1) * rows_per_step
        progress.n_tokens += sum(run._lengths[begin : begin + rows_per_step])
        progress.history.append({"step": state.global_step})
        if run.validation and state.global_step >= progress.n_steps:
            control.should_evaluate = True
        if any(gather_object([run._stop.is_set()])):  # all stop, or none
            run._stop.set()
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["metrics"]["eval_loss"]
        if math.isfinite(loss):
            self.run.progress.history[-1]["validation_loss"] = loss

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs, history = kwargs["logs"], self.run.progress.history
        if "loss" in logs and history and history[-1]["step"] == state.global_step:
            history[-1]["loss"] = logs["loss"]

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        kept = {"step": state.global_step, "history": self.run.progress.history}
        PartialState().wait_for_everyone()  # each writes its random state
        if args.should_save:
            write_json(folder / COMPLETE, kept)
            colab.copy_checkpoint(folder)


def fine_tune(
    model: Any,
    tokenizer: Any,
    train: Sequence[Row],
    validation: Sequence[Row],
    config: RunConfig,
    folder: str | Path,
    resume: bool = False,
) -> Progress:
    """
    Train to the end in this cell: `Run` started and waited for; same parameters.

    Parameters
    ----------
    model : peft.PeftModel or transformers.PreTrainedModel
        As for `Run`.
    tokenizer : transformers tokenizer
        As for `Run`.
    train : sequence of dict
        As for `Run`.
    validation : sequence of dict
        As for `Run`.
    config : RunConfig
        As for `Run`.
    folder : path
        As for `Run`.
    resume : bool
        Whether to go on from the last whole checkpoint.

    Returns
    -------
    Progress
        How the run ended.
    """
    run = Run(model, tokenizer, train, validation, config, folder)
    try:
        return run.start(resume).wait()
    except KeyboardInterrupt:
        run.stop()
        return run.wait()
