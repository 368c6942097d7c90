"""Agents: a model proposes calls of tools; code checks each one, and disposes."""

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from ftlib.schema import Message
from ftlib.store import parse_row

RESULT_CHARS = 600
"""The longest result that is fed back; the rest is cut, and that is said."""
MALFORMED = ("not JSON", "no call", "unknown tool", "wrong arguments")
"""Verdicts on an answer that is no valid call; any other is about a valid one."""
ALLOWED = {
    "low": (),
    "medium": ("open_ticket",),
    "high": ("isolate_host",),
    "critical": ("open_ticket", "isolate_host"),
}
"""The policy: what may be done about an alert of each severity, each thing once."""


@dataclass(frozen=True)
class Tool:
    """What a model may ask for: its name, its JSON Schema, and what carries it out."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[..., Any]
    is_last: bool = False  # whether the agent ends with it


class NotAllowedError(ValueError):
    """A call that is valid but that nothing gives the authority for."""


class Step(NamedTuple):
    """One answer of the model, the verdict on it, and what was fed back."""

    call: str
    verdict: str
    result: str


@dataclass(frozen=True)
class Trace:
    """All that an agent did, and how it ended: finished, or over the limit."""

    request: str
    steps: tuple[Step, ...]
    end: str


def run_agents(
    ask: Callable[[list[list[Message]]], Sequence[str]],
    jobs: Sequence[tuple[Sequence[Tool], str]],
    max_calls: int = 4,
    marks: Iterable[str] = (),
) -> list[Trace]:
    """
    Let a model act on many requests at once, so that it answers them in batches.

    An answer is carried out only when it is one JSON object with ``tool`` and
    ``arguments``, names a tool, keeps to its JSON Schema (which is closed unless it
    says otherwise), was not given before, and is allowed by the tool itself. Otherwise
    it is refused by name, and the refusal is fed back. Text, whoever wrote it, gives
    no authority: what a tool may do lies in the code that made it.

    Parameters
    ----------
    ask : callable
        Given conversations, gives the model's next answer to each:
        `generation.generate` with its model and tokenizer filled in.
    jobs : sequence of (sequence of Tool, str), length n_jobs
        The tools of each agent, and what it is asked.
    max_calls : int
        How many answers an agent may give, refused ones included, before its last
        tool; one more call ends it.
    marks : iterable of str
        The special tokens, as ``tokenizer.get_added_vocab()`` gives them. They are
        taken out of every text, or an alert could end its turn and forge another.

    Returns
    -------
    list of Trace, length n_jobs
        In the order of `jobs`.

    Raises
    ------
    ValueError
        When two tools of an agent have one name, or `max_calls` is below 1.
    """
    if max_calls < 1 or any(len({t.name for t in ts}) < len(ts) for ts, _ in jobs):
        raise ValueError(
            f"max_calls={max_calls}, or two tools with one name: allow at least one "
            "call, and give each tool its own name"
        )
    found = sorted(filter(str.strip, marks), key=len, reverse=True)
    mark = re.compile("|".join(map(re.escape, found)) or "(?!)")
    runs = [_follow(tools, request, max_calls, mark) for tools, request in jobs]
    waiting = {i: next(run) for i, run in enumerate(runs)}
    traces: dict[int, Trace] = {}
    while waiting:
        answers = ask(list(waiting.values()))
        for i, answer in zip(list(waiting), answers, strict=True):
            try:
                waiting[i] = runs[i].send(answer)
            except StopIteration as stop:
                traces[i] = stop.value
                del waiting[i]
    return [traces[i] for i in range(len(runs))]


def run_agent(
    ask: Callable[[list[Message]], str],
    tools: Sequence[Tool],
    request: str,
    max_calls: int = 4,
    marks: Iterable[str] = (),
) -> Trace:
    """
    Let a model act on one request, as `run_agents` does on many.

    Parameters
    ----------
    ask : callable
        Given a conversation, gives the model's next answer.
    tools : sequence of Tool
        What the model may ask for.
    request : str
        What it is asked.
    max_calls : int
        How many answers it may give before its last tool.
    marks : iterable of str
        The special tokens to take out of every text.

    Returns
    -------
    Trace
        Its steps and its end.

    Examples
    --------
    >>> tools = [Tool("finish", "End.", {}, lambda: "ended", is_last=True)]
    >>> answers = iter(['{"tool": "rm", "arguments": {}}',
    ...                 '{"tool": "finish", "arguments": {}}'])
    >>> trace = run_agent(lambda messages: next(answers), tools, "Act.")
    >>> [step.verdict for step in trace.steps], trace.end
    (['unknown tool', 'finished'], 'finished')
    """
    jobs = [(tools, request)]
    return run_agents(lambda m: [ask(m[0])], jobs, max_calls, marks)[0]


def make_soc_tools(
    search: Callable[[str], str],
    alert: Mapping[str, Any],
    journal: list[dict[str, Any]],
) -> list[Tool]:
    """
    Make the tools of the security team for one alert; none reaches out of Python.

    Parameters
    ----------
    search : callable
        Given a query, gives the text of the passage it finds.
    alert : mapping
        The alert's own record: ``alert_id``, ``host`` and ``severity``. The authority
        to act comes from it and from `ALLOWED` alone.
    journal : list of dict
        Where each action that was carried out is written, with its ``alert_id``.

    Returns
    -------
    list of Tool
        ``look_up``, ``open_ticket``, ``isolate_host`` and ``finish``.

    Raises
    ------
    ValueError
        When the record lacks one of its fields.

    Examples
    --------
    >>> alert = {"alert_id": "A1", "host": "ws-ana-01", "severity": "high"}
    >>> [tool.name for tool in make_soc_tools(str.upper, alert, [])]
    ['look_up', 'open_ticket', 'isolate_host', 'finish']
    """
    missing = {"alert_id", "host", "severity"} - set(alert)
    if missing:
        raise ValueError(f"the alert's record has no {', '.join(sorted(missing))}")

    def _act(name: str, **arguments: str) -> None:
        entry = {"alert_id": alert["alert_id"], "tool": name}
        if name not in ALLOWED.get(alert["severity"], ()):
            raise NotAllowedError(f"severity {alert['severity']} allows no {name}")
        if any(entry.items() <= done.items() for done in journal):
            raise NotAllowedError(f"{name} was done for this alert")
        journal.append(entry | arguments)

    def _open_ticket(queue: str) -> str:
        _act("open_ticket", queue=queue)
        return f"opened in {queue}, severity {alert['severity']}"

    def _isolate_host(host: str) -> str:
        if host != alert["host"]:
            raise NotAllowedError(f"{host} is not the host of this alert")
        _act("isolate_host", host=host)
        return f"{host} isolated, severity {alert['severity']}"

    def _look_up(query: str) -> str:
        return search(query)

    def _finish(summary: str) -> str:
        return summary

    return [
        Tool("look_up", "Search the handbook.", _take("query"), _look_up),
        Tool("open_ticket", "Open a ticket in a queue.", _take("queue"), _open_ticket),
        Tool("isolate_host", "Cut a host off.", _take("host"), _isolate_host),
        Tool("finish", "End, and say what happened.", _take("summary"), _finish, True),
    ]


def _take(name: str) -> dict[str, Any]:
    """Give the schema of a tool that takes one short text."""
    text = {"type": "string", "minLength": 1, "maxLength": 100}
    return {"type": "object", "properties": {name: text}, "required": [name]}


def _follow(
    tools: Sequence[Tool], request: str, max_calls: int, mark: re.Pattern
) -> Generator[list[Message], str, Trace]:
    """Yield the conversation so far, take the next answer, and so on to the end."""
    by_name = {tool.name: tool for tool in tools}
    messages = [Message(role="user", content=mark.sub(" ", request))]
    steps: list[Step] = []
    seen: set[str] = set()
    while True:
        answer = yield list(messages)
        is_over = len(steps) >= max_calls
        steps.append(_carry_out(answer, by_name, seen, is_over))
        verdict, result = steps[-1].verdict, steps[-1].result
        if verdict == "finished" or is_over:
            end = "finished" if verdict == "finished" else "over the limit"
            return Trace(request, tuple(steps), end)
        if verdict != "done":
            result = f"refused, {verdict}: {result}"
        for role, content in (("assistant", answer), ("tool", result)):
            messages.append(Message(role=role, content=mark.sub(" ", content)))


def _carry_out(
    answer: str, tools: Mapping[str, Tool], seen: set[str], is_over: bool
) -> Step:
    """Judge one answer, and carry it out where it is a call that may be."""
    try:
        call = parse_row(answer.strip().encode())
    except ValueError as error:  # half of a surrogate pair among them
        return Step(answer, "not JSON", str(error))
    if set(call) != {"tool", "arguments"} or not isinstance(call["arguments"], dict):
        return Step(answer, "no call", 'write {"tool": ..., "arguments": {...}} alone')
    tool = tools.get(str(call["tool"]))
    if tool is None:
        return Step(answer, "unknown tool", f"use one of {', '.join(tools)}")
    arguments = call["arguments"]
    closed = {"additionalProperties": False} | dict(tool.parameters)
    error = best_match(Draft202012Validator(closed).iter_errors(arguments))
    if error:
        return Step(answer, "wrong arguments", f"{error.message:.120}")
    key = json.dumps(call, sort_keys=True)
    if key in seen:
        return Step(answer, "repeated", "this very call was made before")
    seen.add(key)
    if is_over and not tool.is_last:
        return Step(answer, "over the limit", "no more calls: the agent is ended")
    try:
        result = str(tool.run(**arguments))
    except NotAllowedError as error:
        return Step(answer, "not allowed", str(error))
    except Exception as error:  # a tool's fault must not end the others' runs
        return Step(answer, "tool failed", f"{type(error).__name__}: {error}"[:200])
    if len(result) > RESULT_CHARS:
        result = f"{result[:RESULT_CHARS]} [cut after {RESULT_CHARS} characters]"
    return Step(answer, "finished" if tool.is_last else "done", result)
