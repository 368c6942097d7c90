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
    pairs = zip(rows, examples, strict=True)
    seen = [_Row(row, example, tokenizer) for row, example in pairs]
    for name, is_faulty, remedy in _row_checks(max_length, held_out):
        where = [i for i, row in enumerate(seen, 1) if is_faulty(row)]
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


class _Row:
    """A row beside its example: all that the checks ask, encoded once."""

    def __init__(self, row: dict, example: Example, tokenizer: Any) -> None:
        self.ids, self.labels = row["input_ids"], row["labels"]
        self.messages, self.end = example["messages"], tokenizer.eos_token_id
        self.supervised = _list_supervised(row)
        whole, n = encode_example(example, tokenizer), len(self.ids)
        is_start = self.ids == whole["input_ids"][:n]
        # Cut where more is to be learned; what is cut after that does no harm.
        self.is_cut = is_start and any(i >= n for i in _list_supervised(whole))

        prompt = encode_prompt(self.messages[:-1], tokenizer)
        n_bos, wanted = (_count_bos(x, tokenizer) for x in (self.ids, prompt))
        # A template that writes none is as its model's makers want it.
        self.lacks_bos = n_bos == 0 < wanted
        self.doubles_bos = n_bos > 1 and n_bos > wanted
        extra = n_bos - wanted if self.lacks_bos or self.doubles_bos else 0
        begin = self.ids[max(extra, 0) :][: len(prompt) + min(extra, 0)]
        self.differs = begin != prompt[max(-extra, 0) :] and not self.is_cut
        roles = [message["role"] for message in self.messages]
        if "assistant" in roles[:-1]:  # the loss may be on earlier turns, too
            first = roles.index("assistant")
            # Nothing comes before an assistant that speaks first.
            prompt = encode_prompt(self.messages[:first], tokenizer) if first else []
        self.n_prompt = len(prompt) + extra

    def never_ends(self) -> bool:
        """Say whether a supervised turn lacks its end token in the loss."""
        if not self.supervised or self.is_cut:
            return False
        after = [i + 1 for i in self.supervised if i + 1 < len(self.ids)]
        ends = [self.supervised[-1], *(i for i in after if self.ids[i] == self.end)]
        return any(self.labels[i] != self.end for i in ends)

    def learns_prompt(self) -> bool:
        """Say whether the loss is on the prompt; unknown where the prompt differs."""
        return not self.differs and any(i < self.n_prompt for i in self.supervised)


def _list_supervised(row: dict) -> list[int]:
    """List the places that the loss is taken on."""
    return [i for i, label in enumerate(row["labels"]) if label != IGNORE_INDEX]


def _count_bos(ids: Sequence[int], tokenizer: Any) -> int:
    """Count the BOS tokens that a row begins with."""
    bos = tokenizer.bos_token_id
    return next((i for i, token in enumerate(ids) if token != bos), len(ids))


def _row_checks(
    max_length: int, held_out: Sequence[Example]
) -> list[tuple[str, Callable[[_Row], bool], str]]:
    """List the checks of one row: the fault's name, its test, its remedy."""
    tested = {fold_messages(example["messages"]) for example in held_out}
    return [
        (
            "nothing to learn",
            lambda row: not row.supervised and not row.is_cut,
            "no token is supervised, so the loss is not a number; end each example "
            "with an assistant message",
        ),
        (
            "truncated response",
            lambda row: row.is_cut,
            "it breaks off and never ends; raise max_length, or shorten or split the "
            "example, and do not cut",
        ),
        (
            "end token unsupervised",
            _Row.never_ends,
            "the model would never stop; supervise the end token of each response",
        ),
        (
            "too long",
            lambda row: len(row.ids) > max_length,
            f"over max_length {max_length}, where the response would be cut; shorten "
            "or split the example, or raise max_length",
        ),
        (
            "no BOS",
            lambda row: row.lacks_bos,
            "the model has always seen its first token; encode with the chat template",
        ),
        (
            "double BOS",
            lambda row: row.doubles_bos,
            "the template writes it already; encode with add_special_tokens=False",
        ),
        (
            "template differs",
            lambda row: row.differs,
            "training rows do not begin as generation prompts do; use one template for "
            "both",
        ),
        (
            "loss on the prompt",
            _Row.learns_prompt,
            "tokens of the prompt are supervised; mask them with IGNORE_INDEX",
        ),
        (
            "test row in training",
            lambda row: fold_messages(row.messages) in tested,
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
