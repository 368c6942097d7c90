"""Generation: answer many prompts at once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from ftlib.models import pick_dtype, release_memory
from ftlib.schema import Message
from ftlib.tokens import encode_prompt

BATCH_TOKENS = 16_384
"""The most prompt tokens in one batch: attention to them is what takes the memory."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int = 128,
    batch_size: int = 128,
    report: Callable[[int, int], None] | None = None,
) -> list[str]:
    """
    Answer each prompt greedily, in batches of prompts of like length.

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
        Prompts answered at once, at most. On a CPU, 128 is ten times as fast as 1, or
        more. Long prompts go in smaller batches, of `BATCH_TOKENS` together.
    report : callable, optional
        Told after each batch how many are done, and of how many.

    Returns
    -------
    list of str, length n_prompts
        The responses, in the order of `prompts`, without special tokens.
    """
    encoded = [encode_prompt(messages, tokenizer) for messages in prompts]
    # The longest first: what does not fit in memory fails at once.
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    responses = [""] * len(encoded)
    was_training = model.training
    model.eval()
    try:
        done = 0
        while done < len(order):
            n_fit = max(1, BATCH_TOKENS // len(encoded[order[done]]))
            chosen = order[done : done + min(batch_size, n_fit)]
            batch = tokenizer.pad(
                {"input_ids": [encoded[i] for i in chosen]},
                padding_side="left",
                return_tensors="pt",
            ).to(model.device)
            device_type = model.device.type
            with torch.no_grad(), torch.autocast(device_type, dtype=pick_dtype()):
                output = model.generate(**batch, generation_config=settings)
            new_tokens = output[:, batch["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
            for i, text in zip(chosen, texts, strict=True):
                responses[i] = text
            done += len(chosen)
            if report:
                report(done, len(order))
    finally:
        model.train(was_training)
        release_memory()
    return responses
