"""The trainer: transformers' own, its arguments, and what it must not do in silence."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size
from transformers import Trainer, TrainingArguments

from ftlib.batches import measure_loss, sum_kl
from ftlib.config import RunConfig, name_knobs
from ftlib.models import pick_dtype
from ftlib.schema import IGNORE_INDEX, PreflightError, Problem
from ftlib.store import write_json

ROUGH = 1.0
"""A first step at the full rate may raise its batch's loss by so much, in nats."""


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the batch that did it was saved."""


class CheckedTrainer(Trainer):
    """A `Trainer` that ends at the first bad loss, and measures losses by token."""

    bad_batch_file: Path
    first_step = 0
    kl_weight = 0.0
    should_stop: Callable[[], bool]

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """
        Give the loss; with a `kl_weight`, tokens not supervised pull to the base.

        Parameters
        ----------
        model : torch.nn.Module
            The model; a PEFT model where there is a `kl_weight`.
        inputs : mapping
            The batch.
        return_outputs : bool
            Whether to give the outputs too.
        num_items_in_batch : tensor, optional
            Supervised tokens in the whole step.

        Returns
        -------
        torch.Tensor, or tuple of it and the outputs
            The mean loss per supervised token, plus `kl_weight` times the mean KL
            divergence of the model's next token from the base model's, where the next
            token is in a prompt: learning without forgetting (Li & Hoiem 2016,
            arXiv:1606.09282), on the task's own inputs.
        """
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.kl_weight:
            asked = {k: inputs[k] for k in ("input_ids", "attention_mask")}
            with torch.no_grad(), model.disable_adapter():
                base = model(**asked, use_cache=False)
            kl, n_tokens = sum_kl(outputs.logits, base.logits, inputs)
            share = self.kl_weight / self.args.gradient_accumulation_steps
            loss = loss + share * kl / max(n_tokens, 1)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """
        Measure the validation loss, over all tokens, not as a mean of batch means.

        Parameters
        ----------
        *args, **kwargs
            As transformers passes them on; not used.

        Returns
        -------
        dict
            ``eval_loss``; infinite when the run was stopped meanwhile, which early
            stopping is not told of.

        Raises
        ------
        NonFiniteLossError
            When the loss is no number.
        """
        loss = measure_loss(
            self.model,
            self.processing_class,
            self.eval_dataset,
            self.args.per_device_train_batch_size,
            self.should_stop,
        )
        if math.isnan(loss) and self.should_stop():
            return {"eval_loss": math.inf}
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the validation loss is {loss} at step {self.state.global_step}: look "
                "for faulty rows in validation, or lower the learning rate"
            )
        metrics = {"eval_loss": loss}
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def try_first_step(self) -> None:
        """
        Take the first step at the full rate, look what it does, and take it back.

        Raises
        ------
        PreflightError
            When nothing is trained, no gradient arrives, or the step, at a rate that
            warm-up would only reach later, ruins the loss.
        NonFiniteLossError
            When the loss is no number.
        """
        weights = [p for p in self.model.parameters() if p.requires_grad]
        if not weights:
            _refuse(
                "nothing is trained",
                "no weight takes gradients; attach an adapter, or load the saved one "
                "with is_trainable=True",
            )
        # Not on the GPU, which has to hold no more here than in training.
        kept = [weight.detach().to("cpu", copy=True) for weight in weights]
        rows = self.train_dataset[: self.args.per_device_train_batch_size]
        batch = self._prepare_inputs(self.data_collator(rows))

        def _give_loss() -> torch.Tensor:
            with torch.autocast(self.model.device.type, dtype=pick_dtype()):
                return self.model(**batch, use_cache=False).loss

        was_training = self.model.training
        self.model.train()
        try:
            with torch.random.fork_rng():
                loss = _give_loss()
                before = float(loss.detach())
                self._check_loss(before, batch)
                loss.backward()
                grads = [weight.grad for weight in weights]
                if not any(g is not None and bool(g.any()) for g in grads):
                    _refuse(
                        "no gradients",
                        "no trained weight gets a gradient; attach the adapter after "
                        "freezing, and call model.enable_input_require_grads()",
                    )
                torch.optim.AdamW(weights, self.args.learning_rate).step()
                with torch.no_grad():
                    after = float(_give_loss())
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, kept, strict=True):
                    weight.copy_(value)
            self.model.zero_grad(set_to_none=True)
            self.model.train(was_training)
        if not after < before + ROUGH:
            _refuse(
                "learning rate too high",
                f"one step at {self.args.learning_rate:g} takes the loss from "
                f"{before:.2f} to {after:.2f}; divide it by 10",
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """
        Train, and end where memory runs out once weights have moved.

        Parameters
        ----------
        *args, **kwargs
            As transformers takes them.

        Returns
        -------
        transformers.trainer_utils.TrainOutput
            What transformers gives.

        Raises
        ------
        MemoryError
            When memory runs out after the first step, in training or in validation:
            the run cannot begin again with a smaller batch then.
        """
        try:
            return super().train(*args, **kwargs)
        except RuntimeError as error:
            n_steps = self.state.global_step
            if n_steps <= self.first_step or not should_reduce_batch_size(error):
                raise
            raise MemoryError(
                f"what follows step {n_steps} does not fit in memory, though others "
                "did: something else uses it; free it and resume, or start again with "
                "a smaller per_device_train_batch_size"
            ) from error

    def training_step(self, model: Any, inputs: Any, *args: Any) -> torch.Tensor:
        """
        Take one pass, and raise `NonFiniteLossError` when its loss is no number.

        Parameters
        ----------
        model : torch.nn.Module
            The model.
        inputs : mapping
            The batch.
        *args
            As transformers passes them on.

        Returns
        -------
        torch.Tensor
            The loss.

        Raises
        ------
        NonFiniteLossError
            When it is no number.
        """
        loss = super().training_step(model, inputs, *args)
        self._check_loss(float(loss), inputs)
        return loss

    def _check_loss(self, loss: float, inputs: Any) -> None:
        if not math.isfinite(loss):
            batch = {name: tensor.tolist() for name, tensor in inputs.items()}
            write_json(self.bad_batch_file, batch)
            halves = {pick_dtype()}  # or the type that 4-bit layers compute in
            halves |= {getattr(m, "compute_dtype", None) for m in self.model.modules()}
            name, remedy = "", "lower the learning rate"
            if not bool((inputs["labels"] != IGNORE_INDEX).any()):
                name, remedy = "nothing to learn: ", "leave that row out"
            elif torch.float16 in halves:
                name = "float16 overflow: "
                remedy = "compute in bfloat16 or float32, or lower the learning rate"
            raise NonFiniteLossError(
                f"{name}the loss is {loss} at step {self.state.global_step + 1}; its "
                f"batch is in {self.bad_batch_file.name}: {remedy}"
            )


def fit_batch_size(config: RunConfig, train: Callable[[RunConfig], None]) -> None:
    """
    Train with the largest batch that memory holds, at the same effective batch.

    What does not fit shows at the first step, as the longest rows come first.

    Parameters
    ----------
    config : RunConfig
        The settings wished for.
    train : callable
        Given settings of a smaller batch and more accumulation, trains.

    Raises
    ------
    MemoryError
        When not even one row at a time fits, naming what to set.
    """
    first = config.per_device_train_batch_size
    n_rows = config.rows_per_step
    smaller = iter(
        [size for size in range(first - 1, -1, -1) if not n_rows % (size or 1)]
    )

    @find_executable_batch_size(
        starting_batch_size=first, reduce_batch_size_fn=lambda: next(smaller)
    )
    def _try_size(batch_size: int) -> None:
        sizes = {"per_device_train_batch_size": batch_size}
        train(config.change(gradient_accumulation_steps=n_rows // batch_size, **sizes))

    try:
        _try_size()
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        single = config.change(per_device_train_batch_size=1)
        raise MemoryError(
            f"one row at a time does not fit in memory: {name_knobs(single)}"
        ) from error


def _refuse(name: str, remedy: str) -> None:
    raise PreflightError([Problem(name, "first step", remedy)])


def make_arguments(
    config: RunConfig,
    n_steps: int,
    folder: Path,
    device_type: str,
    has_validation: bool = False,
) -> TrainingArguments:
    """
    Give transformers' arguments for a run whose rows are planned already.

    Parameters
    ----------
    config : RunConfig
        The settings of the run.
    n_steps : int
        Its optimizer steps.
    folder : Path
        Where checkpoints go.
    device_type : {"cpu", "cuda"}
        Where the model is.
    has_validation : bool
        Whether there are rows to measure the validation loss on.

    Returns
    -------
    transformers.TrainingArguments
        One pass over the plan, in its order.
    """
    dtype = pick_dtype()
    stops_early = has_validation and config.early_stopping_patience > 0
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # the plan holds all epochs already
        train_sampling_strategy="sequential",
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=min(config.warmup_steps, n_steps // 10),
        weight_decay=config.weight_decay,
        seed=config.seed,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device_type == "cpu",
        dataloader_pin_memory=device_type != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_validation else "no",
        eval_steps=config.eval_steps,
        save_steps=config.save_steps,
        save_total_limit=2,
        save_strategy="best" if stops_early else "steps",
        load_best_model_at_end=stops_early,
        restore_callback_states_from_checkpoint=stops_early,
        report_to="none",
        disable_tqdm=True,
    )
    # With more in sight, Trainer would multiply the batch by them, and halve the run.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
