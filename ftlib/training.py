"""Training: one run in the background, that can be stopped, paused and resumed."""

import hashlib
import json
import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ftlib.config import RunConfig
from ftlib.models import keep_gradients_right, pick_dtype
from ftlib.schema import IGNORE_INDEX
from ftlib.store import ADAPTER_FOLDER, RUN_FILE, read_json, record_run, write_json

Row = dict[str, list[int]]
COMPLETE = "complete"  # the file that marks a checkpoint as whole


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the batch that did it was saved."""


class NoEffectError(RuntimeError):
    """A saved adapter that, loaded again, is not what was trained."""


def plan_rows(
    lengths: Sequence[int], batch_size: int, n_rows: int, seed: int
) -> list[int]:
    """
    Plan which row is trained on when, over all epochs, rows of like length together.

    Parameters
    ----------
    lengths : sequence of int
        Tokens in each row.
    batch_size : int
        Rows in a batch.
    n_rows : int
        Rows to train on in all, over as many epochs as that takes.
    seed : int
        Seed of the order.

    Returns
    -------
    list of int, length n_rows
        Indices of rows. Each comes once an epoch; the longest comes first, so that
        what does not fit in memory fails at once.

    Notes
    -----
    The whole order is fixed before the first step, so a resumed run goes on exactly
    where it left off; a sampler that draws from the global generator does not.

    Examples
    --------
    >>> plan_rows([3, 9, 5], batch_size=2, n_rows=3, seed=0)[0]
    1
    """
    rng, plan = random.Random(seed), []
    while len(plan) < n_rows:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        batches = []
        for begin in range(0, len(order), 20 * batch_size):
            chunk = order[begin : begin + 20 * batch_size]
            chunk.sort(key=lambda i: -lengths[i])
            batches += [
                chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)
            ]
        rng.shuffle(batches)
        if not plan:
            batches.sort(key=lambda batch: -max(lengths[i] for i in batch))
            first = batches.pop(0)
            rng.shuffle(batches)
            batches.insert(0, first)
        plan += [i for batch in batches for i in batch]
    return plan[:n_rows]


def make_collator(tokenizer: Any, attention: str | None = None) -> Callable:
    """
    Give what joins rows to a batch: padding-free where attention allows it.

    Flash attention takes rows end to end, with position ids that keep them apart.
    Other kinds would pay for a mask as wide as the batch: rows are padded there,
    which costs little as rows of like length come together.
    """
    if attention and attention.startswith("flash"):
        return DataCollatorWithFlattening()
    return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX)


def measure_loss(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    batch_size: int = 16,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """
    Give the mean loss per supervised token, without training on it.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to measure. Its train or eval mode is as before afterwards.
    tokenizer : transformers tokenizer
        For padding.
    rows : sequence of dict
        ``input_ids`` and ``labels`` of each example.
    batch_size : int
        Rows measured at once.
    should_stop : callable
        Asked before each batch; when it says yes, the result is NaN.

    Returns
    -------
    float
        In nats. Over all rows' tokens, not a mean of batch means.
    """
    collate = make_collator(tokenizer)
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    total, n_tokens = 0.0, 0
    was_training = model.training
    model.eval()
    try:
        for begin in range(0, len(rows), batch_size):
            if should_stop():
                return math.nan
            batch = collate(rows[begin : begin + batch_size]).to(model.device)
            n = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
            device_type = model.device.type
            with torch.no_grad(), torch.autocast(device_type, dtype=pick_dtype()):
                total += float(model(**batch, use_cache=False).loss) * n
            n_tokens += n
    finally:
        model.train(was_training)
    return total / n_tokens


@dataclass
class Progress:
    """How far a run is; a panel shows it, a test reads it."""

    status: str = "new"
    """new, running, paused, stopped, finished or failed."""
    step: int = 0
    n_steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    """A row per step: step and loss; validation_loss where it was measured."""
    n_tokens: int = 0
    """Tokens trained on since this start, padding left out."""
    seconds: float = 0.0
    """Seconds of training steps since this start, pauses and validation left out."""
    effect: float = math.nan
    """The largest change of a logit that the saved adapter makes, when reloaded."""
    error: BaseException | None = None

    @property
    def tokens_per_s(self) -> float:
        """Give the training speed so far."""
        return self.n_tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Give the time that the remaining steps will take at the speed so far."""
        done = sum("loss" in row for row in self.history)
        return (self.n_steps - self.step) * self.seconds / done if done else math.nan


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

    @property
    def is_alive(self) -> bool:
        """Say whether the run is going on, or paused."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, resume: bool = False) -> Self:
        """
        Start in the background; with `resume`, from the last whole checkpoint.

        A fresh start keeps what the folder held: it becomes ``FOLDER.before``.

        Raises
        ------
        RuntimeError
            When this run goes on already.
        ValueError
            When a run of other settings is to be resumed.
        """
        if self.is_alive:
            raise RuntimeError("this run goes on already: stop it, or wait for it")
        checkpoint = find_checkpoint(self.folder) if resume else None
        if checkpoint:
            self._refuse_other_settings()
        elif (self.folder / RUN_FILE).exists():
            before = self.folder.with_name(self.folder.name + ".before")
            shutil.rmtree(before, ignore_errors=True)
            self.folder.rename(before)
        history = self.progress.history if checkpoint else []
        self.progress = Progress(status="running", history=history)
        self._stop.clear()
        self._go.set()
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
            self.progress.status = "paused"

    def unpause(self) -> None:
        """Let a paused run go on."""
        if self.progress.status == "paused":
            self.progress.status = "running"
        self._go.set()

    def wait(self, timeout_s: float | None = None) -> Progress:
        """Wait for the end and give the progress; raises what ended a failed run."""
        if self._thread:
            self._thread.join(timeout_s)
        if self.progress.error:
            raise self.progress.error
        return self.progress

    def _refuse_other_settings(self) -> None:
        saved = read_json(self.folder / RUN_FILE)
        now = self.config.to_dict()
        changed = [
            name for name in now if _as_json(now[name]) != saved["config"].get(name)
        ]
        if saved["train_sha256"] != _hash_rows(self.train):
            changed.append("the training data")
        if changed:
            raise ValueError(
                f"cannot resume: {', '.join(changed)} differs from the run in "
                f"{self.folder.name}; start afresh, or set it back"
            )

    def _run(self, checkpoint: Path | None) -> None:
        progress = self.progress
        try:
            weights = Path(self.config.model) / "model.safetensors"
            with record_run(
                self.folder,
                self.config.to_dict(),
                inputs=[weights] if weights.exists() else [],
                facts={
                    "train_sha256": _hash_rows(self.train),
                    "validation_sha256": _hash_rows(self.validation),
                },
            ) as record:
                self._train(checkpoint)
                stopped = self._stop.is_set() and progress.step < progress.n_steps
                if not stopped:
                    self._save()
                progress.status = "stopped" if stopped else "finished"
                record |= {
                    "status": progress.status,
                    "steps": progress.step,
                    "tokens_per_s": round(progress.tokens_per_s, 1),
                    "adapter_effect": progress.effect,
                    "history": progress.history,
                }
        except BaseException as error:
            # The thread has no caller to raise to: `wait` raises it.
            progress.error, progress.status = error, "failed"

    def _train(self, checkpoint: Path | None) -> None:
        config, progress = self.config, self.progress
        rows_per_step = (
            config.per_device_train_batch_size * config.gradient_accumulation_steps
        )
        progress.n_steps = (
            config.max_steps
            if config.max_steps > 0
            else math.ceil(config.num_train_epochs * len(self.train) / rows_per_step)
        )
        lengths = [len(row["input_ids"]) for row in self.train]
        plan = plan_rows(
            lengths,
            config.per_device_train_batch_size,
            progress.n_steps * rows_per_step,
            config.seed,
        )
        dtype, on_cpu = pick_dtype(), self.model.device.type == "cpu"
        keep_gradients_right(self.model)
        arguments = TrainingArguments(
            output_dir=str(self.folder / "checkpoints"),
            num_train_epochs=1,  # the plan holds all epochs already
            train_sampling_strategy="sequential",
            per_device_train_batch_size=config.per_device_train_batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type,
            warmup_steps=min(config.warmup_steps, progress.n_steps // 10),
            weight_decay=config.weight_decay,
            seed=config.seed,
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=config.save_steps,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = _CheckedTrainer(
            model=self.model,
            args=arguments,
            train_dataset=[self.train[i] for i in plan],
            data_collator=make_collator(
                self.tokenizer, self.model.config._attn_implementation
            ),
            callbacks=[_Listener(self)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.bad_batch_file = self.folder / "bad_batch.json"
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _save(self) -> None:
        """Write the adapter whole, load it again, and prove that it has an effect."""
        final = self.folder / ADAPTER_FOLDER
        draft = self.folder / f".{ADAPTER_FOLDER}.tmp"
        shutil.rmtree(draft, ignore_errors=True)
        self.model.save_pretrained(draft)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        if isinstance(self.model, PeftModel):
            self.progress.effect = prove_adapter(self.model, final, self.train[0])


class _Listener(TrainerCallback):
    """Between the steps: report, pause, stop, measure the validation loss."""

    def __init__(self, run: Run) -> None:
        self.run, self.began, self.loss = run, 0.0, math.nan

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        while not self.run._go.wait(timeout=0.2):
            pass
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        run, progress = self.run, self.run.progress
        progress.seconds += time.perf_counter() - self.began
        progress.step = state.global_step
        rows_per_step = (
            args.per_device_train_batch_size * args.gradient_accumulation_steps
        )
        begin = (state.global_step - 1) * rows_per_step
        progress.n_tokens += sum(
            len(row["input_ids"])
            for row in kwargs["train_dataloader"].dataset[begin : begin + rows_per_step]
        )
        row: dict[str, float] = {"step": state.global_step}
        is_last = state.global_step >= progress.n_steps
        if run.validation and (
            state.global_step % run.config.eval_steps == 0 or is_last
        ):
            loss = measure_loss(
                run.model, run.tokenizer, run.validation, should_stop=run._stop.is_set
            )
            if not math.isnan(loss):
                row["validation_loss"] = loss
        progress.history.append(row)
        if run._stop.is_set():
            control.should_training_stop = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs, history = kwargs["logs"], self.run.progress.history
        if "loss" in logs and history and history[-1]["step"] == state.global_step:
            history[-1]["loss"] = logs["loss"]

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / COMPLETE, {"step": state.global_step})


class _CheckedTrainer(Trainer):
    """A `Trainer` that ends at the first loss that is not a number."""

    bad_batch_file: Path

    def training_step(self, model: Any, inputs: Any, *args: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args)
        if not torch.isfinite(loss):
            batch = {name: tensor.tolist() for name, tensor in inputs.items()}
            write_json(self.bad_batch_file, batch)
            raise NonFiniteLossError(
                f"the loss is {float(loss)} at step {self.state.global_step + 1}; its "
                f"batch is in {self.bad_batch_file.name}: lower the learning rate, and "
                "look for a row without supervised tokens"
            )
        return loss


def fine_tune(
    model: Any,
    tokenizer: Any,
    train: Sequence[Row],
    validation: Sequence[Row],
    config: RunConfig,
    folder: str | Path,
    resume: bool = False,
) -> Progress:
    """Train to the end in this cell: `Run` started and waited for; same parameters."""
    run = Run(model, tokenizer, train, validation, config, folder)
    try:
        return run.start(resume).wait()
    except KeyboardInterrupt:
        run.stop()
        return run.wait()


def find_checkpoint(folder: str | Path) -> Path | None:
    """
    Give the last whole checkpoint of a run, or None, and remove torn ones.

    A checkpoint is whole when it has the file ``complete``, which is written last.
    """
    found = {}
    for path in (Path(folder) / "checkpoints").glob("checkpoint-*"):
        if (path / COMPLETE).exists():
            found[int(path.name.split("-")[-1])] = path
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None


def prove_adapter(model: PeftModel, folder: str | Path, row: Row) -> float:
    """
    Load a saved adapter beside the trained one and compare what they do.

    Parameters
    ----------
    model : peft.PeftModel
        The model with the trained adapter.
    folder : path
        Where the adapter was saved.
    row : dict
        ``input_ids`` of an example to compare on.

    Returns
    -------
    float
        The largest absolute change of a logit, base model against reloaded adapter.

    Raises
    ------
    NoEffectError
        When the reloaded adapter answers otherwise than the trained one, or as the
        base model does.
    """
    trained = model.active_adapter
    was_training = model.training
    model.eval()

    def logits() -> torch.Tensor:
        ids = torch.tensor([row["input_ids"]], device=model.device)
        with torch.no_grad(), torch.autocast(model.device.type, dtype=pick_dtype()):
            return model(ids, use_cache=False).logits.float()

    try:
        before = logits()
        with model.disable_adapter():
            base = logits()
        model.load_adapter(folder, "reloaded")
        model.set_adapter("reloaded")
        after = logits()
    finally:
        if "reloaded" in model.peft_config:
            model.set_adapter(trained)
            model.delete_adapter("reloaded")
        model.train(was_training)
    if not torch.equal(before, after):
        raise NoEffectError(
            "the saved adapter, loaded again, answers otherwise than the trained one: "
            "save it again with PEFT's save_pretrained"
        )
    effect = float((after - base).abs().max())
    if effect == 0:
        raise NoEffectError(
            "the adapter changes nothing: check that its weights were given gradients "
            "and that the learning rate is above 0"
        )
    return effect


def _hash_rows(rows: Sequence[Row]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    """Give `value` as it reads back from JSON, where a tuple is a list."""
    return list(value) if isinstance(value, tuple) else value
