"""Generation: answer many prompts at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TextIteratorStreamer,
)

from ftlib.machine import release_memory
from ftlib.models import has_soft_prompt, hold_still
from ftlib.schema import Message
from ftlib.tokens import encode_prompt

BATCH_TOKENS = 24_576
"""The most prompt tokens in one batch: attention to them is what takes the memory."""
LIKE = 3
"""Prompts go together whose lengths differ at most so many times: 240 probes of 8 to
250 tokens take a third less time than with all that fit, and less than with 2 or 4."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int = 128,
    batch_size: int = 256,
    report: Callable[[int, int], None] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    logits_processor: Sequence[Callable] = (),
    adapter_names: Sequence[str] | None = None,
    streamer: Any = None,
) -> list[str]:
    """
    Answer each prompt, greedily unless told, in batches of prompts of like length.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model that answers. Its train or eval mode is as before afterwards.
    tokenizer : transformers tokenizer
        One with a chat template, an end token and a pad token.
    prompts : sequence of sequence of Message, length n_prompts
        Each a conversation that waits for the assistant.
    max_new_tokens : int
        The longest response, in tokens; generation stops at the end token.
    batch_size : int
        Prompts answered at once, at most. On a CPU, 256 is ten times as fast as 1, or
        more. Long prompts go in smaller batches, of `BATCH_TOKENS` together.
    report : callable, optional
        Told after each batch how many are done, and of how many.
    temperature : float
        0 takes the likeliest token each time; above it, tokens are drawn, at 1 as
        likely as the model has them, and a lower temperature sharpens.
    seed : int
        Of the draws, where there are any.
    logits_processor : sequence of callable
        What may forbid tokens, such as a JSON Schema's, as transformers takes them.
    adapter_names : sequence of str, length n_prompts, optional
        Which of the model's LoRA adapters answers each prompt, mixed in one batch;
        ``"__base__"`` is for none. By default the active one answers all.
    streamer : transformers streamer, optional
        Given the tokens of a single prompt's response as they come.

    Returns
    -------
    list of str, length n_prompts
        The responses, in the order of `prompts`, without special tokens.

    Raises
    ------
    ValueError
        When there is not one adapter a prompt, or one that the model has not, or that
        cannot be mixed with others.
    """
    if adapter_names is not None:
        _check_adapters(model, adapter_names, len(prompts))
    encoded = [encode_prompt(messages, tokenizer) for messages in prompts]
    # The longest first: what does not fit in memory fails at once.
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature else None,  # all tokens, not the fifty likeliest
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    responses = [""] * len(encoded)
    # PEFT puts a soft prompt before the padding, which would part it from the text.
    is_soft = has_soft_prompt(model)
    # Eager, for outlines would have a C++ compiler make its mask, in a minute.
    eager = torch.compiler.set_stance("force_eager")
    # A training that stops to answer draws on afterwards as if it had not.
    with hold_still(model), torch.random.fork_rng(), eager:
        torch.manual_seed(seed)
        done = 0
        while done < len(order):
            n_fit = max(1, BATCH_TOKENS // len(encoded[order[done]]))
            chosen = order[done : done + min(batch_size, n_fit)]
            # All are padded to the longest, and attended to as such at every step.
            longest = len(encoded[chosen[0]])
            chosen = [i for i in chosen if LIKE * len(encoded[i]) >= longest]
            if is_soft:
                chosen = [i for i in chosen if len(encoded[i]) == longest]
            batch = tokenizer.pad(
                {"input_ids": [encoded[i] for i in chosen]},
                padding_side="left",
                return_tensors="pt",
            ).to(model.device)
            # A copy each, for one that follows a schema keeps its batch's state.
            processors = LogitsProcessorList(map(copy, logits_processor))
            if adapter_names is not None:
                batch["adapter_names"] = [adapter_names[i] for i in chosen]
            output = model.generate(
                **batch,
                generation_config=settings,
                logits_processor=processors,
                streamer=streamer,
            )
            new_tokens = output[:, batch["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
            for i, text in zip(chosen, texts, strict=True):
                responses[i] = text
            done += len(chosen)
            if report:
                report(done, len(order))
    release_memory()
    return responses


def stream(
    model: Any, tokenizer: Any, messages: Sequence[Message], max_new_tokens: int = 128
) -> Iterator[str]:
    """
    Answer one prompt greedily, piece by piece as the response grows.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model that answers.
    tokenizer : transformers tokenizer
        Its tokenizer.
    messages : sequence of Message
        A conversation that waits for the assistant.
    max_new_tokens : int
        The longest response, in tokens.

    Yields
    ------
    str
        A piece; together they are what `generate` gives.
    """
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    with ThreadPoolExecutor(1) as pool:
        asked = model, tokenizer, [messages], max_new_tokens
        answer = pool.submit(generate, *asked, streamer=pieces)
        answer.add_done_callback(lambda done: pieces.end())  # after an error too
        yield from pieces
        answer.result()  # raises what went wrong


def _check_adapters(model: Any, names: Sequence[str], n_prompts: int) -> None:
    """Refuse names that the model has not, and adapters that PEFT cannot mix."""
    if len(names) != n_prompts:
        raise ValueError(
            f"{len(names)} adapter names for {n_prompts} prompts: give one each"
        )
    known = getattr(model, "peft_config", {})
    unknown = set(names) - set(known) - {"__base__"}
    if unknown:
        raise ValueError(
            f"the model has no adapter {', '.join(sorted(unknown))}: it has "
            f"{', '.join(known) or 'none'}"
        )
    for name in set(names) & set(known):
        if known[name].peft_type != "LORA" or known[name].use_dora:
            raise ValueError(
                f"{name} is no plain LoRA, which alone can be mixed: switch to it with "
                "set_adapter"
            )
