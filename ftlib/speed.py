"""
Speed: a step of the same rows, the same gradient up to rounding, cheaper arithmetic.

``RunConfig(speed="fast")`` turns on all of `LEVELS`; with "safe" none of this is used.
What each level gains was not measured on a GPU; `tests.bench.gpu` does that.
"""

import importlib.util
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import find_executable_batch_size
from peft.tuners.lora import bnb as lora_bnb
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from ftlib.batches import Row, join_packs, pack_steps
from ftlib.config import RunConfig, name_knobs
from ftlib.models import hold_still, keep_layers, pick_attention

LEVELS: tuple[str, ...] = ("packing", "lora_first", "kept_layers", "liger")
"""What "fast" changes: padding, 4-bit layers' order, what is kept, fused kernels."""
BY_ROW = "ftlib_by_row"
"""The name under which transformers knows `attend_by_row`."""
LIGER = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""Liger's kernels that are used: those that leave the loss as it is."""
LEAK = 0.02
"""How far one row may move another's logits, in their standard deviations."""


def list_levels(config: RunConfig) -> tuple[str, ...]:
    """
    Give the levels that a run uses.

    Parameters
    ----------
    config : RunConfig
        Whose ``speed`` is "safe" or "fast".

    Returns
    -------
    tuple of str
        All of `LEVELS`, or none.

    Examples
    --------
    >>> list_levels(RunConfig())
    ()
    """
    return LEVELS if config.speed == "fast" else ()


# --- attention that stays within a row ---------------------------------------------


@lru_cache
def find_varlen() -> Callable | None:
    """
    Give PyTorch's attention over rows of many lengths, where it takes what we need.

    Returns
    -------
    callable or None
        ``torch.nn.attention.varlen.varlen_attn``; None where this PyTorch has none, or
        an older one without windows and grouped heads.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    taken = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"window_size", "enable_gqa", "scale"} <= set(taken) else None


def attend_by_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """
    Attend within each row of a pack, as transformers calls its attention functions.

    Parameters
    ----------
    module : torch.nn.Module
        The attention layer.
    query, key, value : tensor of shape (n_rows, n_heads, n_tokens, width)
        Of a pack, ``n_rows`` is 1; keys and values may have fewer heads.
    attention_mask : tensor, optional
        Where rows are padded, as in validation: transformers' SDPA attention is used.
    dropout : float
        Share of attention weights zeroed.
    scaling : float, optional
        What the products are multiplied by.
    sliding_window : int, optional
        Tokens that each one sees, itself included.
    cu_seq_lens_q : tensor of shape (n_rows_in_pack + 1,), optional
        Where rows begin, and where the last one ends; by default it is one row.
    max_length_q : int
        Tokens in the longest row.
    **kwargs
        What else models pass on.

    Returns
    -------
    tuple of tensor of shape (n_rows, n_tokens, n_heads, width), and None
        What was attended to; the weights are not given.

    Raises
    ------
    ValueError
        When the model asks for what none of the kernels here does.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ValueError(
                f"{type(module).__name__} attends with {name}: set speed='safe'"
            )
    if attention_mask is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling
        )
    n_tokens, varlen = query.shape[2], find_varlen()
    window = sliding_window or 0
    if (
        varlen
        and cu_seq_lens_q is not None
        and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.dtype == key.dtype == value.dtype
        and query.shape[-1] == value.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device)[0] >= 8
        and not dropout
    ):
        attended = varlen(
            *(tensor[0].transpose(0, 1) for tensor in (query, key, value)),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(window - 1, 0),  # -1: all that came before
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return attended[None], None
    cuts = [0, n_tokens] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    parts = []
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        row = [tensor[:, :, begin:end] for tensor in (query, key, value)]
        eager = pick_attention(query.device.type, end - begin) == "eager"
        mask = _mask_row(end - begin, window, query) if eager or window else None
        if eager:
            zeros = torch.zeros_like(mask, dtype=query.dtype)
            mask = zeros.masked_fill_(~mask, torch.finfo(query.dtype).min)
        attend = eager_attention_forward if eager else sdpa_attention_forward
        parts.append(attend(module, *row, mask, scaling=scaling, dropout=dropout)[0])
    return torch.cat(parts, 1), None


def _mask_row(n_tokens: int, window: int, like: torch.Tensor) -> torch.Tensor:
    """Give which tokens of one row see which: True where they do."""
    size = (n_tokens, n_tokens)
    seen = torch.ones(size, dtype=torch.bool, device=like.device).tril_()
    return (seen.triu_(1 - window) if window else seen)[None, None]


def _make_mask(
    *args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> torch.Tensor | None:
    """Give a mask where rows are padded; `attend_by_row` needs none for a pack."""
    if attention_mask is None:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


@contextmanager
def keep_rows_apart(model: Any) -> Iterator[None]:
    """
    Have a model attend by `attend_by_row` while it trains, and prove that it does.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model; flash attention takes packs as they are, and is left.

    Yields
    ------
    None
        The model attends as before afterwards.

    Raises
    ------
    ValueError
        When one row of a pack moves what the model says of another: some layers mix
        tokens by other ways than attention.
    """
    AttentionInterface.register(BY_ROW, attend_by_row)
    AttentionMaskInterface.register(BY_ROW, _make_mask)
    before = model.config._attn_implementation
    if not before.startswith("flash"):
        model.set_attn_implementation(BY_ROW)
    try:
        _refuse_leaks(model)
        yield
    finally:
        model.set_attn_implementation(before)


def _refuse_leaks(model: Any) -> None:
    """Refuse a model in which a row's logits hang on another row of its pack."""
    with hold_still(model):
        one, other = (_ask_second(model, first) for first in (1, 2))
    if (one - other).abs().max() > LEAK * one.std():
        raise ValueError(
            f"rows of one pack see each other in a {model.config.model_type} model: "
            "set speed='safe'"
        )


def _ask_second(model: Any, first: int) -> torch.Tensor:
    """Give the logits of a pack's second row, beside a row of one token repeated."""
    ids = [[first] * 4, [3, 4, 5, 6]]
    batch = join_packs([[{"input_ids": row, "labels": row} for row in ids]])
    batch = {
        name: value.to(model.device) if torch.is_tensor(value) else value
        for name, value in batch.items()
    }
    return model(**batch, use_cache=False).logits[0, 4:].float()


# --- 4-bit layers ------------------------------------------------------------------


@contextmanager
def put_lora_first(model: Any) -> Iterator[None]:
    """
    Have PEFT's 4-bit layers compute LoRA's part before the base product.

    A layer that is computed again in the backward pass is only computed as far as
    autograd kept something. The base product keeps nothing, LoRA's part does: where it
    comes first, the layer's last base product is not repeated.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model; with no such layers nothing is changed.

    Yields
    ------
    None
        The layers compute as PEFT wrote them afterwards.
    """
    kind = getattr(lora_bnb, "Linear4bit", ())  # absent where bitsandbytes is
    layers = [m for m in model.modules() if isinstance(m, kind)]
    layers = [layer for layer in layers if "forward" not in vars(layer)]
    for layer in layers:
        layer.forward = MethodType(_forward_lora_first, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward_lora_first(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute a 4-bit layer with plain LoRA, or leave all other cases to PEFT."""
    names = list(layer.active_adapters)
    is_plain = (
        not (args or kwargs or layer.disable_adapters or layer.merged)
        and len(names) == 1
        and names[0] in layer.lora_A
        and names[0] not in layer.lora_variant
        and isinstance(layer.lora_dropout[names[0]], torch.nn.Identity)
    )
    if not is_plain:
        return type(layer).forward(layer, x, *args, **kwargs)
    lora_a, lora_b = layer.lora_A[names[0]], layer.lora_B[names[0]]
    taken = x
    if not torch.is_autocast_enabled():
        taken = layer._cast_input_dtype(x, lora_a.weight.dtype)
    update = lora_b(lora_a(taken)) * layer.scaling[names[0]]
    if not torch.is_autocast_enabled():
        update = update.to(x.dtype)  # which the base gives back
    return update + layer.base_layer(x)


# --- all of it ---------------------------------------------------------------------


def lay_out(
    rows: Sequence[Row], config: RunConfig, collate: Callable
) -> tuple[Sequence[Any], Callable]:
    """
    Give what `Trainer` goes through, and what makes a batch of it.

    Parameters
    ----------
    rows : sequence of dict
        In the order of the plan.
    config : RunConfig
        Whose ``rows_per_step`` make a step, of ``gradient_accumulation_steps`` passes
        in each process.
    collate : callable
        What joins rows where they are not packed.

    Returns
    -------
    tuple of sequence and callable
        The rows and `collate`, or packs of rows and `batches.join_packs`.
    """
    if "packing" not in list_levels(config):
        return rows, collate
    n_packs = config.gradient_accumulation_steps * PartialState().num_processes
    return pack_steps(rows, config.rows_per_step, n_packs), join_packs


@contextmanager
def hurry(model: Any, config: RunConfig) -> Iterator[None]:
    """
    Have a model compute by the levels that change its forward pass.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to train.
    config : RunConfig
        Whose ``speed`` says which levels, and ``gradient_checkpointing`` which layers
        are computed again.

    Yields
    ------
    None
        All is as before afterwards, but for Liger's kernels, which `Trainer` puts in
        for good.
    """
    levels = list_levels(config)
    # With "safe" and no setting, what else was done to the model is let be.
    if config.gradient_checkpointing or "kept_layers" in levels:
        keep_layers(model, config.gradient_checkpointing)
    with ExitStack() as stack:
        if "packing" in levels:
            stack.enter_context(keep_rows_apart(model))
        if "lora_first" in levels:
            stack.enter_context(put_lora_first(model))
        yield


def choose_arguments(levels: Sequence[str], device_type: str) -> dict[str, Any]:
    """
    Give what the levels set of transformers' `TrainingArguments`.

    Parameters
    ----------
    levels : sequence of str
        Some of `LEVELS`.
    device_type : {"cpu", "cuda"}
        Where the model is.

    Returns
    -------
    dict
        By argument.

    Examples
    --------
    >>> choose_arguments(["packing", "liger"], "cpu")
    {'per_device_train_batch_size': 1}
    """
    chosen: dict[str, Any] = {}
    if "packing" in levels:
        chosen["per_device_train_batch_size"] = 1  # one pack
    has_liger = importlib.util.find_spec("liger_kernel") is not None
    if "liger" in levels and device_type == "cuda" and has_liger:
        chosen |= {"use_liger_kernel": True, "liger_kernel_config": dict(LIGER)}
    return chosen


def list_trials(config: RunConfig, is_alone: bool = True) -> list[RunConfig]:
    """
    List the settings to try one after another until one fits in memory.

    Parameters
    ----------
    config : RunConfig
        The settings wished for.
    is_alone : bool
        Whether one process trains: of several, none can begin again alone.

    Returns
    -------
    list of RunConfig
        All with the same rows in a step. With the level ``kept_layers`` more and more
        layers are computed again before the batch gets smaller.

    Examples
    --------
    >>> trials = list_trials(RunConfig(speed="fast", per_device_train_batch_size=2))
    >>> [(t.per_device_train_batch_size, t.gradient_checkpointing) for t in trials]
    [(2, 0), (2, 4), (2, 2), (2, 1), (1, 1)]
    """
    trials, n_rows = [config], config.rows_per_step
    if not is_alone:
        return trials
    if "kept_layers" in list_levels(config) and not config.gradient_checkpointing:
        trials += [config.change(gradient_checkpointing=n) for n in (4, 2, 1)]
    for size in range(config.per_device_train_batch_size - 1, 0, -1):
        if not n_rows % size:
            passes = {"gradient_accumulation_steps": n_rows // size}
            changes = {"per_device_train_batch_size": size} | passes
            trials.append(trials[-1].change(**changes))
    return trials


def fit_in_memory(config: RunConfig, train: Callable[[RunConfig], None]) -> None:
    """
    Train with the first of `list_trials` that memory holds.

    What does not fit shows at the first step, as the longest rows come first. Of
    several processes none can begin again alone: there it ends the run.

    Parameters
    ----------
    config : RunConfig
        The settings wished for.
    train : callable
        Given settings to try, trains.

    Raises
    ------
    MemoryError
        When not even one row at a time fits, or what each of several processes takes,
        naming what to set.
    """
    is_alone = PartialState().num_processes == 1
    trials = list_trials(config, is_alone)
    n_left = iter(range(len(trials) - 1, -1, -1))

    @find_executable_batch_size(
        starting_batch_size=len(trials), reduce_batch_size_fn=lambda: next(n_left)
    )
    def _try(n_left: int) -> None:
        train(trials[-n_left])

    try:
        _try()
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        rows = "one row at a time" if is_alone else "what one process takes"
        raise MemoryError(
            f"{rows} does not fit in memory: {name_knobs(trials[-1])}"
        ) from error
