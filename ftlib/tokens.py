"""Tokens: from conversations to input_ids and labels, checked before training."""

from collections.abc import Callable, Sequence
from typing import Any

from IPython.display import HTML

from ftlib.schema import (
    IGNORE_INDEX,
    Example,
    Message,
    PreflightError,
    Problem,
    fold_messages,
    make_safe,
)


def encode_prompt(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """
    Give the token ids that ask the model to answer `messages`.

    Parameters
    ----------
    messages : sequence of Message
        The conversation so far; the last message is not the assistant's.
    tokenizer : transformers tokenizer
        One with a chat template.

    Returns
    -------
    list of int
        The ids up to and with the mark that opens the assistant's turn.
    """
    return tokenizer.apply_chat_template(
        list(messages),
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,  # templates without such a switch ignore it
    )


def encode_example(example: Example, tokenizer: Any) -> dict[str, list[int]]:
    """
    Give the token ids of a conversation, and the labels that the loss is taken on.

    Parameters
    ----------
    example : Example
        A conversation that ends with the assistant's response.
    tokenizer : transformers tokenizer
        One with a chat template.

    Returns
    -------
    dict
        ``input_ids`` and ``labels``, both of length n_tokens. A label is the token's
        own id where the assistant speaks, its end token included, and
        ``IGNORE_INDEX`` elsewhere. Not shifted: the model does that.

    Notes
    -----
    Where the template marks the assistant's turns with ``{% generation %}``, every
    turn is supervised. Where it does not, the last turn alone is: its first token is
    where the prompt, encoded as for generation, ends.
    """
    if "generation %}" in tokenizer.chat_template:
        encoded = tokenizer.apply_chat_template(
            example["messages"],
            return_dict=True,
            return_assistant_tokens_mask=True,
            enable_thinking=False,
        )
        input_ids = encoded["input_ids"]
        supervised = [bool(flag) for flag in encoded["assistant_masks"]]
    else:
        input_ids = tokenizer.apply_chat_template(
            example["messages"], return_dict=False, enable_thinking=False
        )
        n_prompt = len(encode_prompt(example["messages"][:-1], tokenizer))
        # Some templates write a newline after the end token; it is never generated.
        ends = [i for i, t in enumerate(input_ids) if t == tokenizer.eos_token_id]
        last = ends[-1] if ends else len(input_ids)
        supervised = [n_prompt <= i <= last for i in range(len(input_ids))]
    return {"input_ids": input_ids, "labels": mask_labels(input_ids, supervised)}


def mask_labels(input_ids: Sequence[int], supervised: Sequence[bool]) -> list[int]:
    """
    Give the labels: the token's own id where supervised, else ``IGNORE_INDEX``.

    Parameters
    ----------
    input_ids : sequence of int, length n_tokens
        The conversation's token ids.
    supervised : sequence of bool, length n_tokens
        Whether the model should learn to produce the token.

    Returns
    -------
    list of int, length n_tokens
        The labels.

    Examples
    --------
    >>> mask_labels([1, 52, 90, 2], [False, False, True, True])
    [-100, -100, 90, 2]
    """
    return [
        token if flag else IGNORE_INDEX
        for token, flag in zip(input_ids, supervised, strict=True)
    ]


def find_problems(
    rows: Sequence[dict[str, list[int]]],
    examples: Sequence[Example],
    tokenizer: Any,
    max_length: int,
    held_out: Sequence[Example] = (),
) -> list[Problem]:
    """
    Find the faults that make a fine-tune fail in silence.

    Parameters
    ----------
    rows : sequence of dict, length n_rows
        ``input_ids`` and ``labels`` of each example.
    examples : sequence of Example, length n_rows
        The conversations that the rows were made from.
    tokenizer : transformers tokenizer
        The tokenizer that will be used for generation.
    max_length : int
        The longest row allowed, in tokens.
    held_out : sequence of Example
        Conversations kept for validation and test, of which none may be among
        `examples`; case and white space make no difference.

    Returns
    -------
    list of Problem
        Empty when training may start.
    """
    problems = []
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        problems.append(
            Problem(
                "pad token",
                "tokenizer",
                "padding must not be the end token, or the end is never learned; set "
                "tokenizer.pad_token to a token of its own",
            )
        )
    if not rows:
        problems.append(Problem("no examples", "data", "give at least one example"))
    for name, is_faulty, remedy in _row_checks(tokenizer, max_length, held_out):
        where = [
            i
            for i, (row, example) in enumerate(zip(rows, examples, strict=True), 1)
            if is_faulty(row, example)
        ]
        if where:
            shown = ", ".join(map(str, where[:3])) + (", ..." if where[3:] else "")
            problems.append(Problem(name, f"{len(where)} rows: {shown}", remedy))
    return problems


def check_rows(
    rows: Sequence[dict[str, list[int]]],
    examples: Sequence[Example],
    tokenizer: Any,
    max_length: int,
    held_out: Sequence[Example] = (),
) -> None:
    """
    Raise `PreflightError` when `find_problems` finds one; same parameters.

    Parameters
    ----------
    rows : sequence of dict
        As for `find_problems`.
    examples : sequence of Example
        As for `find_problems`.
    tokenizer : transformers tokenizer
        As for `find_problems`.
    max_length : int
        As for `find_problems`.
    held_out : sequence of Example
        As for `find_problems`.
    """
    problems = find_problems(rows, examples, tokenizer, max_length, held_out)
    if problems:
        raise PreflightError(problems)


def _row_checks(
    tokenizer: Any, max_length: int, held_out: Sequence[Example]
) -> list[tuple[str, Callable[[dict, Example], bool], str]]:
    """List the checks of one row: the fault's name, its test, its remedy."""
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tested = {fold_messages(example["messages"]) for example in held_out}

    def n_bos(ids: Sequence[int]) -> int:
        return next((i for i, token in enumerate(ids) if token != bos), len(ids))

    def supervised(row: dict) -> list[int]:
        return [i for i, label in enumerate(row["labels"]) if label != IGNORE_INDEX]

    def encode_turns(example: Example, n_messages: int) -> list[int]:
        return encode_prompt(example["messages"][:n_messages], tokenizer)

    def lacks_bos(row: dict, example: Example) -> bool:
        # A template that writes none is as its model's makers want it.
        return n_bos(row["input_ids"]) == 0 < n_bos(encode_turns(example, -1))

    def doubles_bos(row: dict, example: Example) -> bool:
        n = n_bos(row["input_ids"])
        return n > 1 and n > n_bos(encode_turns(example, -1))

    def is_cut(row: dict, example: Example) -> bool:
        """Say whether the row breaks off where more is to be learned."""
        whole, n = encode_example(example, tokenizer), len(row["input_ids"])
        is_start = row["input_ids"] == whole["input_ids"][:n]
        return is_start and any(i >= n for i in supervised(whole))

    def never_ends(row: dict, example: Example) -> bool:
        """Say whether a supervised turn lacks its end token in the loss."""
        ids, labels, told = row["input_ids"], row["labels"], supervised(row)
        skipped = [i + 1 for i in told if i + 1 < len(ids) and ids[i + 1] == end]
        ends = (
            told and labels[told[-1]] == end and all(labels[i] == end for i in skipped)
        )
        return bool(told) and not ends and not is_cut(row, example)

    def n_shifted(row: dict, example: Example) -> int:
        """Give how many tokens the row has more at its start, where BOS is at fault."""
        if not (lacks_bos(row, example) or doubles_bos(row, example)):
            return 0
        return n_bos(row["input_ids"]) - n_bos(encode_turns(example, -1))

    def differs(row: dict, example: Example) -> bool:
        prompt, extra = encode_turns(example, -1), n_shifted(row, example)
        ids = row["input_ids"][max(extra, 0) :][: len(prompt) + min(extra, 0)]
        return ids != prompt[max(-extra, 0) :] and not is_cut(row, example)

    def learns_prompt(row: dict, example: Example) -> bool:
        if differs(row, example):
            return False  # where the prompt ends is not known then
        roles = [message["role"] for message in example["messages"]]
        n_prompt = len(encode_turns(example, roles.index("assistant")))
        return any(i < n_prompt + n_shifted(row, example) for i in supervised(row))

    return [
        (
            "nothing to learn",
            lambda row, example: not supervised(row) and not is_cut(row, example),
            "no token is supervised, so the loss is not a number; end each example "
            "with an assistant message",
        ),
        (
            "truncated response",
            is_cut,
            "it breaks off and never ends; raise max_length, or shorten or split the "
            "example, and do not cut",
        ),
        (
            "end token unsupervised",
            never_ends,
            "the model would never stop; supervise the end token of each response",
        ),
        (
            "too long",
            lambda row, _: len(row["input_ids"]) > max_length,
            f"over max_length {max_length}, where the response would be cut; shorten "
            "or split the example, or raise max_length",
        ),
        (
            "no BOS",
            lacks_bos,
            "the model has always seen its first token; encode with the chat template",
        ),
        (
            "double BOS",
            doubles_bos,
            "the template writes it already; encode with add_special_tokens=False",
        ),
        (
            "template differs",
            differs,
            "training rows do not begin as generation prompts do; use one template for "
            "both",
        ),
        (
            "loss on the prompt",
            learns_prompt,
            "tokens of the prompt are supervised; mask them with IGNORE_INDEX",
        ),
        (
            "test row in training",
            lambda _, example: fold_messages(example["messages"]) in tested,
            "what was trained on can be recited, so its score says nothing; take the "
            "row out of training",
        ),
    ]


def show_mask(row: dict[str, list[int]], tokenizer: Any) -> HTML:
    """
    Show a row as the model sees it, its supervised tokens on green, for a notebook.

    Parameters
    ----------
    row : dict
        ``input_ids`` and ``labels`` of one example.
    tokenizer : transformers tokenizer
        To turn ids into text, which is escaped.

    Returns
    -------
    IPython.display.HTML
        One block that wraps. Supervised tokens are underlined too, not only coloured.
    """
    pieces = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        text = make_safe(tokenizer.decode([token])).replace("\n", "↵<br>")
        style = (
            "background:#c8e6c9;color:#000;border-bottom:2px solid #2e7d32"
            if label != IGNORE_INDEX
            else "background:#eeeeee;color:#444"
        )
        pieces.append(
            f'<span style="{style};margin-right:1px;white-space:pre-wrap">{text}</span>'
        )
    n_supervised = sum(label != IGNORE_INDEX for label in row["labels"])
    caption = (
        f"{len(row['labels'])} tokens, {n_supervised} supervised (green, underlined)"
    )
    return HTML(
        f'<div style="font-family:monospace;line-height:1.7">{"".join(pieces)}</div>'
        f"<p>{caption}</p>"
    )
