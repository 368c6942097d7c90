"""Checks of the exercises in lessons 10 to 12."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any


def _check_adapter_memory(answer: Any) -> str | None:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "Give two numbers of GB: (beside one base, merged)."
    beside, merged = answer
    if abs(merged - 192) > 0.5:
        return "Merged, each customer has a whole model: 8 billion times 2 bytes."
    # 8,000 + 12 * 40 million parameters, of 2 bytes each.
    if abs(beside - 16.96) > 0.05:
        return "Beside one base: the base once, and 12 adapters, at 2 bytes each."
    return None


def _check_wrong_call(answer: Any) -> str | None:
    if not isinstance(answer, str):
        return "Give a text: what the model would answer."
    from ftlib import agents

    alert = {"alert_id": "A1", "host": "ws-ana-01", "severity": "medium"}
    tools = agents.make_soc_tools(str, alert, [])
    answers = iter([answer, '{"tool": "finish", "arguments": {"summary": "-"}}'])
    trace = agents.run_agent(lambda messages: next(answers), tools, "Act.")
    verdict = trace.steps[0].verdict
    if verdict == "wrong arguments":
        return None if '"open_ticket"' in answer else "It should name open_ticket."
    if verdict in ("not JSON", "no call", "unknown tool"):
        return f"The loop says {verdict}: {trace.steps[0].result}."
    return f"The loop says {verdict}: the tool takes one text, queue. Break that."


def _check_format(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"exact", "megabytes", "name"}:
        return "Give {'exact': exact, 'megabytes': megabytes, 'name': ...}."
    from ftlib.scoring import compare_paired

    exact, megabytes = answer["exact"], answer["megabytes"]
    fit = [
        name
        for name in exact
        if compare_paired(name, exact["bf16"], exact[name]).high >= 0
    ]
    if answer["name"] not in exact:
        return f"Name one of {', '.join(exact)}."
    if answer["name"] not in fit:
        return "That one is worse, by an interval wholly below 0."
    if answer["name"] != min(fit, key=lambda name: megabytes[name]):
        return "Another one that is not shown to be worse takes fewer megabytes."
    return None


def _check_terms(answer: Any) -> str | None:
    if not isinstance(answer, Mapping):
        return "Give the terms as a dict, by field."
    from ftlib.release import find_term_faults

    if faults := find_term_faults(answer, date(2026, 11, 22)):
        return f"{faults[0]}."
    forbidden = " ".join(answer["forbidden_uses"]).casefold()
    return None if "refund" in forbidden else "Forbid to promise refunds."


def _check_out_of_form(answer: Any) -> str | None:
    if not isinstance(answer, int) or isinstance(answer, bool):
        return "Give a whole number of answers."
    from ftlib.release.gates import MIN_KEPT
    from ftlib.scoring import wilson_interval

    if not 0 <= answer <= 200 or wilson_interval(200 - answer, 200)[0] < MIN_KEPT:
        return f"With {answer} of 200 the interval begins below {MIN_KEPT}."
    if wilson_interval(199 - answer, 200)[0] >= MIN_KEPT:
        return "One more would still pass."
    return None


def _check_break_even(answer: Any) -> str | None:
    if not isinstance(answer, int | float):
        return "Give a number of answers a month."
    # 50 USD a month are 0.004 USD an answer, 12,500 times.
    if abs(answer - 12_500) < 1:
        return None
    if abs(answer - 12.5) < 0.01:
        return "That is in thousands: the hosted model costs 4 USD for 1,000."
    return "Divide what the machine costs a month by what a hosted answer costs."


def _check_faulty_rows(answer: Any) -> str | None:
    if not isinstance(answer, list | tuple) or len(answer) != 3:
        return "Give a list of three pairs, (prompt, response)."
    from ftlib import cleaning
    from ftlib.schema import make_example

    if not all(isinstance(text, str) for pair in answer for text in pair):
        return "Each row is a pair of texts: (prompt, response)."
    examples = [make_example(prompt, response) for prompt, response in answer]
    if not cleaning.find_exact_duplicates(examples):
        return "No two rows are the same, prompt and response."
    if not cleaning.find_contradictions(examples):
        return "No prompt has two responses: let the third row say otherwise."
    return None


def _check_not_better(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"gains", "names"}:
        return "Give {'gains': evaluation.gains, 'names': [...]}."
    gains = answer["gains"]
    unsure = {name for name in gains if not gains[name].low > 0}
    if set(answer["names"]) == unsure:
        return None
    return "Surely better means that the gain's interval lies wholly above 0."


def _check_n_rows(answer: Any) -> str | None:
    if not isinstance(answer, int) or isinstance(answer, bool) or answer % 2:
        return "Give an even whole number of test rows."
    if answer < 2:
        return "Give at least two test rows."
    from ftlib.scoring import wilson_interval

    def is_narrow(n: int) -> bool:
        low, high = wilson_interval(n // 2, n)
        return high - low <= 0.2

    if not is_narrow(answer):
        return "With so many it is wider than 0.2."
    return "Fewer will do." if answer > 2 and is_narrow(answer - 2) else None


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "10.1": _check_adapter_memory,
    "10.2": _check_wrong_call,
    "10.3": _check_format,
    "11.1": _check_terms,
    "11.2": _check_out_of_form,
    "11.3": _check_break_even,
    "12.1": _check_faulty_rows,
    "12.2": _check_not_better,
    "12.3": _check_n_rows,
}
