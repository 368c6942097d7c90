"""The trainer: transformers' own, its arguments, and an end at the first bad loss."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ftlib.config import RunConfig
from ftlib.models import pick_dtype
from ftlib.store import write_json


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the batch that did it was saved."""


class CheckedTrainer(Trainer):
    """A `Trainer` that ends at the first loss that is not a number."""

    bad_batch_file: Path

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
        """
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


def make_arguments(
    config: RunConfig, n_steps: int, folder: Path, device_type: str
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

    Returns
    -------
    transformers.TrainingArguments
        One pass over the plan, in its order.
    """
    dtype = pick_dtype()
    return TrainingArguments(
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
        save_steps=config.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
