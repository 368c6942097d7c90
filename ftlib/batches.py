"""Batches: in which order rows are trained on, how they are joined, what they cost."""

import hashlib
import inspect
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch.nn import functional
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening

from ftlib.models import has_soft_prompt, hold_still
from ftlib.schema import IGNORE_INDEX

Row = dict[str, list[int]]
"""One example, tokenised: ``input_ids`` and ``labels``, of equal length."""


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
    rng, plan, left = random.Random(seed), [], []
    longest = max(range(len(lengths)), key=lambda i: lengths[i])
    while len(plan) < n_rows:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        if not plan and not left:
            order.sort(key=lambda i: i != longest)
        # What filled no batch of the last epoch comes first in this one.
        order = left + order
        n_first = batch_size if left and len(order) >= batch_size else 0
        n_whole = len(order) - len(order) % batch_size
        plan += order[:n_first]
        left = order[n_whole:]
        batches = []
        for begin in range(n_first, n_whole, 20 * batch_size):
            chunk = order[begin : min(begin + 20 * batch_size, n_whole)]
            chunk.sort(key=lambda i: -lengths[i])
            batches += [
                chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)
            ]
        rng.shuffle(batches)
        if not plan:
            batches.sort(key=lambda batch: longest not in batch)
        plan += [i for batch in batches for i in batch]
    return plan[:n_rows]


def make_collator(
    tokenizer: Any, attention: str | None = None, is_soft: bool = False
) -> Callable:
    """
    Give what joins rows to a batch: padding-free where attention allows it.

    Flash attention takes rows end to end, with position ids that keep them apart.
    Other kinds would pay for a mask as wide as the batch: rows are padded there,
    which costs little as rows of like length come together. Lengths are rounded up to
    32 tokens: a CPU is faster, and holds less, with few different shapes.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        For padding.
    attention : str, optional
        The model's attention: its config's ``_attn_implementation``.
    is_soft : bool
        Whether the model has a soft prompt, `models.has_soft_prompt`: padding is on the
        right then, for on the left it would part the prompt from the text.

    Returns
    -------
    callable
        Given rows, gives a batch of tensors.
    """
    if attention and attention.startswith("flash"):
        return DataCollatorWithFlattening()
    if is_soft:
        tokenizer = copy(tokenizer)
        tokenizer.padding_side = "right"
    return DataCollatorForSeq2Seq(
        tokenizer, label_pad_token_id=IGNORE_INDEX, pad_to_multiple_of=32
    )


def ask_supervised(model: Any, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Have a model give logits only where the next token of some row is supervised.

    The head and the loss are a fifth of Wren's step, and with a vocabulary of 150,000
    most of what a small model's step keeps; of a prompt's tokens nothing is learned.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to ask.
    batch : mapping
        ``labels`` of shape (n_rows, n_tokens), among others.

    Returns
    -------
    mapping
        The batch with ``logits_to_keep``, the places, and ``shift_labels``, what is to
        follow at each: the loss is the same. As it was, for a model that cannot choose
        or has a soft prompt, whose own places come before the text's.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    can_choose = "logits_to_keep" in inspect.signature(base.forward).parameters
    if not can_choose or has_soft_prompt(model):
        return batch
    labels = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE_INDEX)
    places = (labels != IGNORE_INDEX).any(0).nonzero()[:, 0]
    return {**batch, "logits_to_keep": places, "shift_labels": labels[:, places]}


def pack_rows(rows: Sequence[Row], n_packs: int) -> list[list[Row]]:
    """
    Share rows out to packs of nearly equally many tokens.

    Parameters
    ----------
    rows : sequence of dict
        At least as many as there are packs.
    n_packs : int
        How many packs.

    Returns
    -------
    list of list of dict, length n_packs
        The longest row first, each to the pack that has the fewest tokens so far.

    Examples
    --------
    >>> rows = [{"input_ids": [0] * n} for n in (2, 5, 3, 4)]
    >>> [count_tokens(pack) for pack in pack_rows(rows, 2)]
    [7, 7]
    """
    packs: list[list[Row]] = [[] for _ in range(n_packs)]
    sizes = [0] * n_packs
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        place = sizes.index(min(sizes))
        packs[place].append(row)
        sizes[place] += len(row["input_ids"])
    return packs


def pack_steps(rows: Sequence[Row], n_rows: int, n_packs: int) -> list[list[Row]]:
    """
    Pack planned rows, each optimizer step's by themselves.

    Parameters
    ----------
    rows : sequence of dict
        In the order of the plan.
    n_rows, n_packs : int
        Rows and packs of a step: a pack for each pass of each process.

    Returns
    -------
    list of list of dict
        Packs, the first step's first.
    """
    steps = (rows[i : i + n_rows] for i in range(0, len(rows), n_rows))
    return [pack for step in steps for pack in pack_rows(step, n_packs)]


def join_packs(packs: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """
    Join the rows of packs end to end, as a collator for `Trainer`.

    Parameters
    ----------
    packs : sequence of sequence of dict
        Packs of rows.

    Returns
    -------
    dict
        One batch: ``position_ids`` begin anew at each row, ``cu_seq_lens_q`` marks
        where rows end, and no row's first token is a label.
    """
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    return collate([row for pack in packs for row in pack])


def count_tokens(item: Row | Sequence[Row]) -> int:
    """
    Count the tokens of a row, or of a pack of rows.

    Parameters
    ----------
    item : dict or sequence of dict
        What a training set has in one place.

    Returns
    -------
    int
        How many.
    """
    rows = [item] if isinstance(item, dict) else item
    return sum(len(row["input_ids"]) for row in rows)


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

    Raises
    ------
    ValueError
        When no row has a supervised token.
    """
    if not any(label != IGNORE_INDEX for row in rows for label in row["labels"][1:]):
        raise ValueError(
            "there is nothing to measure the loss on: give a row with supervised tokens"
        )
    total, n_tokens = 0.0, 0
    with hold_still(model):
        for batch in cut_batches(model, tokenizer, rows, batch_size):
            if should_stop():
                return math.nan
            n = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
            if not n:
                continue  # its mean would be no number
            asked = ask_supervised(model, batch.to(model.device))
            total += float(model(**asked, use_cache=False).loss) * n
            n_tokens += n
    return total / n_tokens


def measure_losses(
    model: Any, tokenizer: Any, rows: Sequence[Row], batch_size: int = 16
) -> list[float]:
    """
    Give the mean loss per supervised token of each row, to compare row by row.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to measure. Its train or eval mode is as before afterwards.
    tokenizer : transformers tokenizer
        For padding.
    rows : sequence of dict, length n_rows
        ``input_ids`` and ``labels`` of each example.
    batch_size : int
        Rows measured at once.

    Returns
    -------
    list of float, length n_rows
        In nats, in the order of `rows`; NaN where nothing is supervised.
    """
    losses: list[float] = []
    with hold_still(model):
        for batch in cut_batches(model, tokenizer, rows, batch_size):
            labels = batch["labels"][:, 1:].to(model.device)
            asked = {
                k: batch[k].to(model.device) for k in ("input_ids", "attention_mask")
            }
            logits = model(**asked, use_cache=False).logits
            # Of a soft prompt's own places there are no labels.
            logits = logits[:, -labels.shape[1] - 1 : -1].float().transpose(1, 2)
            costs = functional.cross_entropy(logits, labels, reduction="none")
            losses += (costs.sum(1) / (labels != IGNORE_INDEX).sum(1)).tolist()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    return [loss for _, loss in sorted(zip(order, losses, strict=True))]


def cut_batches(
    model: Any, tokenizer: Any, rows: Sequence[Row], batch_size: int
) -> Iterator[Any]:
    """
    Cut rows into batches of like length, to measure on and not to train.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to measure.
    tokenizer : transformers tokenizer
        For padding.
    rows : sequence of dict
        ``input_ids`` and ``labels`` of each example.
    batch_size : int
        Rows in a batch.

    Yields
    ------
    transformers.BatchEncoding
        Tensors on the CPU, the shortest rows first.
    """
    collate = make_collator(tokenizer, is_soft=has_soft_prompt(model))
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    for begin in range(0, len(rows), batch_size):
        yield collate(rows[begin : begin + batch_size])


def sum_kl(
    logits: torch.Tensor, base_logits: torch.Tensor, batch: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, int]:
    """
    Sum how far a model's guesses are from its base's, over the tokens of the prompts.

    Parameters
    ----------
    logits, base_logits : tensor of shape (n_rows, n_before + n_tokens, n_words)
        Of the tuned model and of its base; those of a soft prompt's own ``n_before``
        places, which either may have, are left out.
    batch : mapping
        ``labels`` and ``attention_mask``, of shape (n_rows, n_tokens).

    Returns
    -------
    tuple of tensor and int
        The sum of the KL divergences from the base, in nats, and over how many tokens:
        those that are not supervised, but for the first.
    """
    labels, seen = batch["labels"], batch["attention_mask"].bool()
    # Padding may be on the left: the first token is guessed from nothing.
    is_free = (labels[:, 1:] == IGNORE_INDEX) & seen[:, 1:] & seen[:, :-1]
    ours, theirs = (
        one[:, -labels.shape[1] : -1][is_free].float().log_softmax(-1)
        for one in (logits, base_logits)
    )
    kl = functional.kl_div(ours, theirs, log_target=True, reduction="sum")
    return kl, int(is_free.sum())


def hash_rows(rows: Sequence[Row]) -> str:
    """
    Give the SHA-256 of rows, so that a run can say what it was trained on.

    Parameters
    ----------
    rows : sequence of dict
        ``input_ids`` and ``labels`` of each example.

    Returns
    -------
    str
        In hexadecimal.
    """
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
