"""The nouns that flow from stage to stage: messages, examples, spans, bad rows."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

IGNORE_INDEX = -100
"""The label that adds nothing to the loss; PyTorch's cross-entropy skips it."""

ROLES = ("system", "user", "assistant", "tool")


class Message(TypedDict):
    """One turn of a conversation: who speaks, and what."""

    role: str
    content: str


class Example(TypedDict):
    """One training conversation; its last message is the response to learn."""

    messages: list[Message]


@dataclass(frozen=True)
class Span:
    """A stretch of text, ``text[start:end]``, that holds an entity of one type."""

    start: int
    end: int
    entity_type: str
    score: float = 1.0


@dataclass(frozen=True)
class BadRow:
    """A row that was not taken: its number in the file, from 1, and the reason."""

    row: int
    reason: str


@dataclass(frozen=True)
class Problem:
    """A fault found before training: its name, where it is, and the remedy."""

    name: str
    where: str
    remedy: str


class PreflightError(ValueError):
    """
    Training was refused; the message names each fault and its remedy.

    Parameters
    ----------
    problems : sequence of Problem
        What was found.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [f"{p.name} ({p.where}): {p.remedy}" for p in problems]
        super().__init__("training refused.\n" + "\n".join(lines))
        self.problems = list(problems)


def make_example(
    prompt: str, response: str, system: str | None = None, shots: Sequence = ()
) -> Example:
    """
    Make the example of one exchange.

    Parameters
    ----------
    prompt : str
        What the user says.
    response : str
        What the model should answer: the reference.
    system : str, optional
        The standing instruction, if any.
    shots : sequence of (str, str)
        Prompt and response of worked exchanges to show first (few-shot).

    Returns
    -------
    Example
        Messages in order: system, shots, prompt, response.

    Examples
    --------
    >>> [m["role"] for m in make_example("Hi", "Hello", system="Be kind.")["messages"]]
    ['system', 'user', 'assistant']
    """
    messages = [Message(role="system", content=system)] if system else []
    for said, answered in [*shots, (prompt, response)]:
        messages.append(Message(role="user", content=said))
        messages.append(Message(role="assistant", content=answered))
    return Example(messages=messages)


def split_prompt(example: Example) -> tuple[list[Message], str]:
    """
    Split an example into the messages of its prompt and its reference.

    Parameters
    ----------
    example : Example
        A conversation that ends with its response.

    Returns
    -------
    tuple
        The messages before the last, and the content of the last.

    Examples
    --------
    >>> split_prompt(make_example("Hi", "Hello"))
    ([{'role': 'user', 'content': 'Hi'}], 'Hello')
    """
    *prompt, last = example["messages"]
    return prompt, last["content"]


def make_prompts(contents: Sequence[str], shots: Sequence = ()) -> list[list[Message]]:
    """
    Make a prompt of each content, after worked exchanges where there are any.

    Parameters
    ----------
    contents : sequence of str, length n_prompts
        What the user says in each.
    shots : sequence of (str, str)
        Prompt and response of worked exchanges to show first (few-shot).

    Returns
    -------
    list of list of Message, length n_prompts
        Conversations that wait for the assistant.

    Examples
    --------
    >>> make_prompts(["Hi"])
    [[{'role': 'user', 'content': 'Hi'}]]
    """
    return [split_prompt(make_example(c, "", shots=shots))[0] for c in contents]


def find_fault(row: Any) -> str | None:
    """
    Say why `row` is no example, or give None when it is one.

    Parameters
    ----------
    row : object
        Anything read from a file.

    Returns
    -------
    str or None
        One sentence with the remedy, or None.

    Examples
    --------
    >>> find_fault({"messages": []})
    'messages is empty: give at least a user and an assistant message'
    """
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        return "no list of messages: give {'messages': [{'role', 'content'}, ...]}"
    if not row["messages"]:
        return "messages is empty: give at least a user and an assistant message"
    for i, message in enumerate(row["messages"], start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"message {i} has no known role: use one of {', '.join(ROLES)}"
        if not isinstance(message.get("content"), str):
            return f"message {i} has no text: its content must be a string"
    last = row["messages"][-1]
    if last["role"] != "assistant" or not last["content"].strip():
        return "the last message must be the assistant's, and not empty"
    if all(message["role"] == "system" for message in row["messages"][:-1]):
        return "the response answers no one: give a user's message before it"
    return None


def spell_controls(text: str) -> str:
    r"""
    Spell out what cannot be seen: control, bidi and zero-width characters.

    Parameters
    ----------
    text : str
        Any text, or HTML.

    Returns
    -------
    str
        The same, with the code point of each such character in angle brackets; line
        ends and tabs stay.

    Examples
    --------
    >>> spell_controls("sa\u202efe")
    'sa⟨U+202E⟩fe'
    """
    return "".join(
        char if char in "\n\t" or char.isprintable() else f"⟨U+{ord(char):04X}⟩"
        for char in text
    )


def make_safe(text: str) -> str:
    """
    Give text as HTML in which nothing acts.

    Parameters
    ----------
    text : str
        Of a record, a file or an error.

    Returns
    -------
    str
        Escaped, and spelled out as `spell_controls` does.

    Examples
    --------
    >>> make_safe("<b>")
    '&lt;b&gt;'
    """
    return html.escape(spell_controls(text))


def fold_text(text: str) -> str:
    """
    Give a text without differences of case and white space, to tell equal ones.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        On one line.

    Examples
    --------
    >>> fold_text(" The  Cat ")
    'the cat'
    """
    return " ".join(text.split()).casefold()


def fold_messages(messages: Sequence[Message]) -> str:
    """
    Give one text for conversations that are equal but for case and white space.

    Parameters
    ----------
    messages : sequence of Message
        The turns.

    Returns
    -------
    str
        A line a message, for no folded text holds a line's end.

    Examples
    --------
    >>> fold_messages([Message(role="user", content="Hi  there")])
    'user: hi there'
    """
    return "\n".join(f"{m['role']}: {fold_text(m['content'])}" for m in messages)
