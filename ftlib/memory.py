"""Memory: what one training run will take, by part, and what it takes when it runs."""

import gc
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PrinterCallback,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from ftlib import models
from ftlib.batches import make_collator
from ftlib.config import ROOT, WHOLE, RunConfig, name_knobs
from ftlib.methods import make_peft_config
from ftlib.trainer import CheckedTrainer, make_arguments

MIB = 2**20
CARDS: dict[str, int] = {
    "T4": 15_360 * MIB,
    "4090": 24_564 * MIB,
    "A100": 81_920 * MIB,
    "H100": 81_559 * MIB,
    "H200": 143_771 * MIB,
    "my laptop": psutil.virtual_memory().total,
}
"""Bytes of each card, as ``nvidia-smi`` gives them (A100 and H100: those of 80 GB)."""
CUDA_CONTEXT = 400 * 10**6
"""Bytes that CUDA's own kernels take: about 400 MB (pytorch issue 109888)."""
ARCHITECTURES: dict[str, dict[str, Any]] = json.loads(
    (ROOT / "data" / "architectures.json").read_text("utf-8")
)
"""By hub id, the ``config`` of models that need no network, and its ``source``."""


def load_architecture(model: str) -> PretrainedConfig:
    """
    Give a model's architecture, from what ships where it does, and else its config.

    Parameters
    ----------
    model : str
        A folder, or a hub id. Those in ``data/architectures.json`` need no network.

    Returns
    -------
    transformers.PretrainedConfig
        For `estimate_memory`; no weights are loaded.

    Examples
    --------
    >>> load_architecture("Qwen/Qwen3-8B").num_hidden_layers
    36
    """
    if model in ARCHITECTURES:
        return AutoConfig.for_model(**ARCHITECTURES[model]["config"])
    return AutoConfig.from_pretrained(model, trust_remote_code=False)


def estimate_memory(
    architecture: PretrainedConfig, config: RunConfig, device_type: str = "cuda"
) -> dict[str, int]:
    """
    Estimate what a training run takes at its peak, by part, before it is loaded.

    Parameters
    ----------
    architecture : transformers.PretrainedConfig
        As `load_architecture` gives it, of any causal model.
    config : RunConfig
        The settings; all rows are taken to be ``max_length`` tokens long, and every
        token to be learned: of a prompt, no logits are kept.
    device_type : {"cuda", "cpu"}
        Where it is to run.

    Returns
    -------
    dict of str to int
        Bytes by part, as they are at the moment of the peak: their sum is the peak. At
        the start of a backward pass there are no gradients yet, unless passes are
        accumulated; at the optimizer's step there are no activations any more.

    Notes
    -----
    Nothing is reckoned from a formula that can be looked up. The model is built on the
    meta device, the method's adapter attached, and a forward pass of two and of three
    layers rehearsed on tensors without data: what autograd keeps is counted, and the
    other layers are like the third.

    Not counted: what a ``kl_weight`` adds; what a kernel needs for itself; and, for IA3
    in 4 bits on a CPU, PEFT's copies in float32, about a sixth of the whole. What
    ``speed="fast"`` changes is not counted either: it is "safe" that is estimated.

    Examples
    --------
    >>> parts = estimate_memory(load_architecture("Qwen/Qwen3-8B"), RunConfig())
    >>> 5e9 < parts["weights"] < 7e9
    True
    """
    text = architecture.to_json_string(use_diff=False)
    # The fields that a rehearsal does not look at: one less reason to repeat it.
    plain = config.change(
        gradient_checkpointing=0, gradient_accumulation_steps=1, learning_rate=1e-5
    )
    attention = models.pick_attention(device_type, config.max_length)
    two, three = (
        _rehearse(type(architecture), text, plain, attention, n) for n in (2, 3)
    )
    n_layers, every = architecture.num_hidden_layers, config.gradient_checkpointing
    whole = {p: two[p] + (n_layers - 2) * (three[p] - two[p]) for p in two}
    layer, inputs, wide = three["kept"] - two["kept"], three["input"], three["wide"]
    n_again = n_layers // every if every else 0
    # Of a layer that is computed again only its input is kept.
    kept = whole["kept"] - wide - n_again * (layer - inputs)
    gradients = whole["gradients"]
    before = gradients if config.gradient_accumulation_steps > 1 else 0
    # Three times the logits in float32 when the loss is taken back: its log-softmax,
    # and the gradients after and before it. The model's own logits are gone by then.
    moments = [(before, kept, 3 * wide), (gradients, 0, 0)]
    if every:
        # The last layer to be computed again is whole, those after it are gone.
        moments.append((before, kept + (1 - n_layers % every) * layer - inputs, 0))
    gradients_at_peak, activations, logits = max(moments, key=sum)
    return {
        **{part: whole[part] for part in ("weights", "constants", "adapter")},
        "gradients": gradients_at_peak,
        # AdamW keeps two means of a trained weight: of its gradients and their squares.
        "optimizer": 2 * gradients,
        "activations": activations,
        "logits": logits,
        "CUDA context": CUDA_CONTEXT if device_type == "cuda" else 0,
    }


@lru_cache(maxsize=512)
def _rehearse(
    kind: type[PretrainedConfig],
    text: str,
    config: RunConfig,
    attention: str | None,
    n_layers: int,
) -> dict[str, int]:
    """Count the bytes of a model of `n_layers`, and what its forward pass keeps."""
    settings = json.loads(text) | {"num_hidden_layers": n_layers}
    if settings.get("layer_types"):
        kinds = settings["layer_types"]  # a model may have but two layers
        settings["layer_types"] = (kinds + kinds[-1:])[:n_layers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what matters only to a real run
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                kind.from_dict(settings),
                dtype=torch.bfloat16,
                attn_implementation=attention,
            )
            head = model.get_output_embeddings()
            linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
            packed = [m.weight.numel() for m in linear if m is not head]
            if config.method in WHOLE:
                model = models.make_trainable(model, config)
            base = _count_bytes(model)
            if config.method not in WHOLE:
                # As `models.attach_adapter` does, which also sets all seeds.
                model.enable_input_require_grads()
                model = get_peft_model(model, make_peft_config(config))
        counts = {
            "weights": base,
            "constants": 0,
            "adapter": _count_bytes(model) - base,
            "gradients": sum(p.nbytes for p in model.parameters() if p.requires_grad),
        }
        if config.load_in_4bit:
            # Two weights a byte. Each block of 64 has a byte for its scale, each 256
            # scales four bytes for theirs; each matrix a table of the 16 values, one
            # of the 256 scales' steps, and their mean. The embeddings, the norms and
            # the head stay as they are.
            counts["weights"] -= sum(2 * n - (n + 1) // 2 for n in packed)
            blocks = [math.ceil(n / 64) for n in packed]
            numbers = sum(math.ceil(n / 256) + 16 + 256 + 1 for n in blocks)
            counts["constants"] = sum(blocks) + 4 * numbers
        with (
            FakeTensorMode(allow_non_fake_inputs=True),
            models.share_inputs(model),  # as `trainer.CheckedTrainer` does
        ):
            return counts | _count_kept(model.to_empty(device="cpu").train(), config)


def _count_bytes(model: Any) -> int:
    """Give the bytes of a model's weights and buffers, 4-bit constants included."""
    held = [*model.parameters(), *model.buffers()]
    for q in filter(None, [getattr(weight, "quant_state", None) for weight in held]):
        held += [q.absmax, q.code, q.offset, q.state2.absmax, q.state2.code]
    return sum(tensor.nbytes for tensor in held)


def _count_kept(model: Any, config: RunConfig) -> dict[str, int]:
    """Count what autograd keeps of a forward pass, each storage once."""
    held = [*model.parameters(), *model.buffers()]
    known = {t.untyped_storage()._cdata for t in held}
    kept: dict[int, torch.Tensor] = {}
    inputs: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in known:  # the weights are counted already
            kept[place] = tensor
        return tensor

    layer = next(
        m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)
    )
    layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0].nbytes))
    n_tokens = math.ceil(config.max_length / 32) * 32  # as `make_collator` pads
    shape = (config.per_device_train_batch_size, n_tokens)
    ids = torch.ones(shape, dtype=torch.long)
    with saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        model(ids, attention_mask=ids, labels=ids, use_cache=False)
    shape = (model.config.vocab_size,)
    wide = [t for t in kept.values() if t.shape[-1:] == shape and t.itemsize == 4]
    total = sum(t.untyped_storage().nbytes() for t in kept.values())
    return {"kept": total, "wide": sum(t.nbytes for t in wide), "input": inputs[0]}


def measure_memory(config: RunConfig) -> int:
    """
    Measure the peak of a training run on this machine: its model, and two steps.

    With ``speed="fast"`` it is what "safe" takes that is measured.

    Parameters
    ----------
    config : RunConfig
        The settings. The rows are random tokens, all supervised, all but one of a
        batch ``max_length`` long.

    Returns
    -------
    int
        Bytes of weights, adapter, gradients, optimizer, activations and all else that
        PyTorch allocates: on a GPU without CUDA's own, on a CPU without Python's.
    """
    config = config.change(speed="safe")
    n_before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    model = models.make_trainable(models.load_base(config), config)
    models.keep_layers(model, config.gradient_checkpointing)
    models.keep_gradients_right(model)
    tokenizer = models.load_tokenizer(config)
    ids = torch.randint(5, model.config.vocab_size, (config.max_length,)).tolist()
    row = {"input_ids": ids, "labels": ids}
    # One row of each batch is shorter, so that there is padding as in a real one.
    shorter = {name: values[:-1] for name, values in row.items()}
    size = config.per_device_train_batch_size
    batch = [row] * (size - 1) + [shorter]
    with tempfile.TemporaryDirectory() as folder:
        arguments = make_arguments(config, 2, Path(folder), model.device.type)
        trainer = CheckedTrainer(
            model=model,
            args=arguments.set_save("no"),
            train_dataset=batch * (2 * config.gradient_accumulation_steps),
            processing_class=tokenizer,
            data_collator=make_collator(tokenizer, model.config._attn_implementation),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.kl_weight = config.kl_weight
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            trainer.train()
            return torch.cuda.max_memory_allocated() - n_before
        # The second step is the peak: the optimizer has its means only after the first.
        return _count_bytes(model) + _trace_peak(trainer.train)


def _trace_peak(run: Callable[[], object]) -> int:
    """Give the largest sum of what is allocated on the CPU while `run` goes on."""
    gc.collect()  # what is freed meanwhile would count as room gained
    with _hush(), profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as p:
        run()
    events = [e for e in p.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


@contextmanager
def _hush() -> Iterator[None]:
    """Keep what the profiler's C++ says to itself out of the notebook."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def fit_batch(
    architecture: PretrainedConfig,
    config: RunConfig,
    n_bytes: int,
    device_type: str = "cuda",
) -> RunConfig:
    """
    Choose the largest micro-batch that fits, and keep the effective batch.

    Parameters
    ----------
    architecture : transformers.PretrainedConfig
        As `load_architecture` gives it.
    config : RunConfig
        The settings. Micro-batch times passes, the effective batch, stays as it is.
    n_bytes : int
        Memory there is, such as one of `CARDS`.
    device_type : {"cuda", "cpu"}
        Where it is to run.

    Returns
    -------
    RunConfig
        With the batch size and the passes that go with it.

    Raises
    ------
    ValueError
        When not even one row fits; it names what to change, the cheapest first.

    Examples
    --------
    >>> config = RunConfig(per_device_train_batch_size=16, max_length=1024)
    >>> small = fit_batch(load_architecture("Qwen/Qwen3-8B"), config, CARDS["4090"])
    >>> small.per_device_train_batch_size * small.gradient_accumulation_steps
    16
    """
    n_rows = config.rows_per_step
    for size in range(n_rows, 0, -1):
        if n_rows % size:
            continue
        smaller = config.change(
            per_device_train_batch_size=size, gradient_accumulation_steps=n_rows // size
        )
        needed = sum(estimate_memory(architecture, smaller, device_type).values())
        if needed <= n_bytes:
            return smaller
    raise ValueError(
        f"one row takes {needed / 1e9:.1f} GB of {n_bytes / 1e9:.1f} GB: "
        f"{name_knobs(smaller)}"
    )
