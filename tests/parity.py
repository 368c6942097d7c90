"""
Parity: whether a way to train gives the loss and the gradients that it should.

A speed is worth nothing where the step is another one. `tests.bench.gpu` asks these
gates before it times anything, and ``tests/test_gpu_bench.py`` breaks each on purpose.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from ftlib.batches import Row
from ftlib.schema import IGNORE_INDEX

LOSS = 0.01
"""The loss may differ by so much, in nats."""
COSINE = 0.999
"""The cosine of all LoRA gradients together is above this."""
LOWEST = 0.95
"""And that of each matrix above this, so that one wrong layer is not outvoted."""
NORM = 0.03
"""The gradients' length may differ by this share, which a cosine does not see."""
Step = tuple[float, dict[str, torch.Tensor]]
"""The loss of one step, and the gradient of each LoRA matrix by name, in float32."""


class ParityError(RuntimeError):
    """A contender computes another step; `findings` has the figures of each gate."""

    def __init__(self, findings: dict[str, dict[str, Any]]) -> None:
        super().__init__(f"parity failed: {findings}")
        self.findings = findings


def _give_cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(functional.cosine_similarity(one.flatten(), other.flatten(), 0))


def compare(
    loss: float, gradients: Mapping[str, torch.Tensor], reference: Step
) -> dict[str, Any]:
    """Give how far a step is from the reference's, and whether that ``passed``."""
    wanted_loss, wanted = reference
    if gradients.keys() != wanted.keys() or not wanted:
        missing = sorted(wanted.keys() ^ gradients.keys())
        return {"passed": False, "unmatched": missing[:4], "n_unmatched": len(missing)}
    cosines = {
        name: _give_cosine(gradient, wanted[name])
        for name, gradient in gradients.items()
    }
    dot = sum(float((g * wanted[name]).sum()) for name, g in gradients.items())
    ours, theirs = (
        math.sqrt(sum(float(g.square().sum()) for g in one.values()))
        for one in (gradients, wanted)
    )
    cosine = dot / (ours * theirs) if ours and theirs else 0.0
    lowest = min(cosines, key=lambda name: cosines[name])
    found = {
        "loss": loss,
        "loss_difference": loss - wanted_loss,
        "cosine": cosine,
        "lowest_cosine": cosines[lowest],
        "lowest_name": lowest,
        "norm_ratio": ours / theirs if theirs else math.nan,
    }
    # Written so that a NaN fails.
    found["passed"] = bool(
        abs(found["loss_difference"]) <= LOSS
        and cosine > COSINE
        and cosines[lowest] > LOWEST
        and abs(found["norm_ratio"] - 1) <= NORM
    )
    return found


def seed_adapter(model: torch.nn.Module) -> None:
    """Set LoRA's weights by their names alone, B other than zero, alike everywhere."""
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            continue
        draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(weight.shape, generator=draw) / math.sqrt(weight.shape[1])
        if "lora_B" in name:
            values *= 0.05
        with torch.no_grad():  # what bfloat16 holds, whatever type the adapter has
            weight.copy_(values.bfloat16())


def collect_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Take the gradients of LoRA's weights off a model, on the CPU."""
    found = {}
    for name, weight in model.named_parameters():
        if "lora_" in name and weight.requires_grad:
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            found[name.removeprefix("module.")] = gradient.detach().float().cpu()
    model.zero_grad(set_to_none=True)
    return found


def take_step(trainer: Any, batches: Sequence[Mapping[str, Any]]) -> Step:
    """Take a trainer's own passes over `batches`, as one optimizer step without it."""
    model = trainer.model_wrapped
    model.train()
    model.zero_grad(set_to_none=True)
    given = [trainer._prepare_inputs(dict(batch)) for batch in batches]
    n_tokens = sum((one["labels"][..., 1:] != IGNORE_INDEX).sum() for one in given)
    loss = sum(float(trainer.training_step(model, one, n_tokens)) for one in given)
    return loss, collect_gradients(trainer.model)


def take_reference(model: Any, batch: Mapping[str, torch.Tensor]) -> Step:
    """Take the plainest step there is: one padded batch through a bf16 model."""
    model.train()
    model.zero_grad(set_to_none=True)
    moved = {name: value.to(model.device) for name, value in batch.items()}
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = model(**moved, use_cache=False).loss
    loss.backward()
    return float(loss.detach()), collect_gradients(model)


def check(
    trainer: Any, rows: Sequence[Row], join: Callable, reference: Step
) -> dict[str, dict[str, Any]]:
    """
    Ask all gates of a trainer that is about to begin.

    Parameters
    ----------
    trainer : transformers.Trainer
        With its model wrapped: within ``train``, as a callback is.
    rows : sequence of dict
        The fixed rows.
    join : callable
        Given rows, gives the one batch that this way to train makes of them.
    reference : tuple of float and dict
        The step it should take.

    Returns
    -------
    dict of str to dict
        What `compare` found: against the reference; of all rows in one batch against
        each alone; and of a step after an answer in eval mode against the one before.

    Raises
    ------
    ParityError
        When one of them failed.
    """
    was_training = trainer.model.training
    whole = take_step(trainer, [join(rows)])
    alone = take_step(trainer, [join([row]) for row in rows])
    trainer.model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        trainer.compute_loss(
            trainer.model_wrapped, trainer._prepare_inputs(dict(join(rows)))
        )
    after = take_step(trainer, [join(rows)])
    trainer.model.train(was_training)
    findings = {
        "reference": compare(*whole, reference),
        "packed = unpacked": compare(*whole, alone),
        "eval, then train = train": compare(*after, whole),
    }
    if not all(found["passed"] for found in findings.values()):
        raise ParityError(findings)
    return findings
