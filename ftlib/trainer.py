"""The trainer: transformers' own, its arguments, and what it must not do in silence."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from accelerate.utils.memory import should_reduce_batch_size
from peft import PeftModel
from transformers import Trainer, TrainingArguments

from ftlib import models, speed
from ftlib.batches import ask_supervised, count_tokens, measure_loss, sum_kl
from ftlib.config import RunConfig
from ftlib.models import pick_dtype
from ftlib.scale import share_batch
from ftlib.schema import IGNORE_INDEX, PreflightError, Problem
from ftlib.store import write_json

ROUGH = 1.0
"""A first step at the full rate may raise its batch's loss by so much, in nats."""


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the batch that did it was saved."""


class OtherProcessError(RuntimeError):
    """Another process of this run has ended, so that this one cannot go on."""


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
            bare = self.accelerator.unwrap_model(model)
            with torch.no_grad(), bare.disable_adapter():
                base = bare(**asked, use_cache=False)
            kl, n_tokens = sum_kl(outputs.logits, base.logits, inputs)
            share = self.kl_weight / self.args.gradient_accumulation_steps
            # Gradients are averaged over the processes: so is what divides them.
            counts = gather_object([n_tokens])
            loss = loss + share * kl / max(sum(counts) / len(counts), 1)
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
            stopping is not told of. Of several processes each measures it whole, and
            none stops meanwhile.

        Raises
        ------
        NonFiniteLossError
            When the loss is no number.
        """
        # Of several processes none may stop alone, where others wait: bool() is False.
        should_stop = self.should_stop if self.args.world_size == 1 else bool
        loss = measure_loss(
            self.model,
            self.processing_class,
            self.eval_dataset,
            self.args.per_device_eval_batch_size,
            should_stop,
        )
        if math.isnan(loss) and should_stop():
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
        if not isinstance(rows[0], dict):  # of packs no plan puts the largest first
            rows = [max(self.train_dataset, key=count_tokens)]
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
        OtherProcessError
            When another process of the run has ended.
        """
        longest = max(map(count_tokens, self.train_dataset))
        try:
            with models.attend_to_train(self.model, longest):
                return super().train(*args, **kwargs)
        except RuntimeError as error:
            if self.args.world_size > 1 and "Connection" in str(error):
                raise OtherProcessError(
                    "another process of this run has ended: its own error, in the same "
                    "log, says why; remove the cause and start again to resume"
                ) from error
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
        with models.share_inputs(self.model):
            loss = super().training_step(model, inputs, *args)
        self._check_loss(float(loss), inputs)
        return loss

    def gather_weights(self) -> dict[str, Any] | None:
        """
        Give the trained model's weights whole, where they are shared out in pieces.

        Returns
        -------
        dict of str to tensor, or None
            None where each process holds the whole model. Every process must ask; the
            first alone is sure to be given all weights.
        """
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        return self.accelerator.get_state_dict(self.model_wrapped)

    def _prepare_inputs(self, inputs: Any) -> Any:
        if not self.kl_weight:  # the pull to the base is on the prompts' tokens, too
            inputs = ask_supervised(self.model, inputs)
        return super()._prepare_inputs(inputs)

    def _check_loss(self, loss: float, inputs: Any) -> None:
        if not math.isfinite(loss):
            batch = {
                k: v.tolist() if torch.is_tensor(v) else v for k, v in inputs.items()
            }
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


def save_model(
    model: Any,
    folder: Path,
    example: dict[str, list[int]],
    shared: dict[str, Any] | None = None,
) -> float:
    """
    Write a trained model whole, by one process, and prove that an adapter has effect.

    Parameters
    ----------
    model : peft.PeftModel or transformers.PreTrainedModel
        What was trained.
    folder : Path
        Where to; what it held is replaced.
    example : dict
        ``input_ids`` to compare the written adapter with the trained one on.
    shared : dict, optional
        The weights, where `CheckedTrainer.gather_weights` had to gather them.

    Returns
    -------
    float
        What `models.prove_adapter` gives; NaN where there is no adapter, or where the
        model in memory is still shared out, which takes no second adapter.
    """
    if PartialState().is_main_process:
        draft = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        model.save_pretrained(draft, state_dict=shared)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    PartialState().wait_for_everyone()
    if shared is not None or not isinstance(model, PeftModel):
        return math.nan
    return models.prove_adapter(model, folder, example)


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
        One pass over the plan, in its order; of each pass's rows, every process of the
        run takes an equal share.
    """
    dtype = pick_dtype()
    stops_early = has_validation and config.early_stopping_patience > 0
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # the plan holds all epochs already
        train_sampling_strategy="sequential",
        per_device_train_batch_size=share_batch(config, PartialState().num_processes),
        ddp_find_unused_parameters=False,  # each step uses all that is trained
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
    arguments.per_device_eval_batch_size = arguments.per_device_train_batch_size
    levels = speed.list_levels(config)
    for name, value in speed.choose_arguments(levels, device_type).items():
        setattr(arguments, name, value)
    return arguments
