"""The exercises' checks: each gives a hint for a wrong answer, None for a right one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftlib.schema import IGNORE_INDEX


def _check_flow(answer: Any) -> str | None:
    wanted = ["records", "examples", "tokens", "adapter", "predictions", "scores"]
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        return "Give a list of words, such as ['records', ...]."
    if sorted(answer) != sorted(wanted):
        return f"Use each of these once: {', '.join(sorted(wanted))}."
    if list(answer) != wanted:
        return "Raw rows come first, the numbers last. What is trained on what?"
    return None


def _check_question(answer: Any) -> str | None:
    if not isinstance(answer, str) or not answer.strip():
        return "Give Wren's answer as text."
    if "lisbon" not in answer.lower():
        return "Ask for the capital of Portugal, with generate, and give its answer."
    return None


def _check_prompt_length(answer: Any) -> str | None:
    if not isinstance(answer, int) or isinstance(answer, bool):
        return "Give a whole number of tokens: len(...) of a list of ids."
    if answer < 5:
        return "Count the marks of the chat template too: encode_prompt writes them."
    if answer > 40:
        return "That is long for one short question: encode one user message."
    return None


def _check_supervised(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"row", "n_supervised"}:
        return "Give {'row': row, 'n_supervised': your count}."
    labels = answer["row"]["labels"]
    n_right = sum(label != IGNORE_INDEX for label in labels)
    if answer["n_supervised"] == len(labels):
        return "Those are all its tokens. Which labels are IGNORE_INDEX?"
    if answer["n_supervised"] != n_right:
        return "Count the labels that are not IGNORE_INDEX."
    return None


def _check_interval(answer: Any) -> str | None:
    if not isinstance(answer, Sequence) or len(answer) != 2:
        return "Give the two ends: (low, high)."
    low, high = answer
    # Wilson's interval of 18 right of 20, worked by hand: 0.699 to 0.972.
    if abs(low - 0.699) < 0.002 and abs(high - 0.972) < 0.002:
        return None
    if high > 1:
        return "A share cannot pass 1: use wilson_interval, not value +/- 2 errors."
    return "Call scoring.wilson_interval with 18 right of 20."


def _check_weakest_field(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"scores", "weakest"}:
        return "Give {'scores': the list of field scores, 'weakest': a field's name}."
    lowest = min(score.value for score in answer["scores"])
    names = [score.name for score in answer["scores"] if score.value == lowest]
    if answer["weakest"] not in names:
        return "Look for the lowest value among the field scores."
    return None


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "00.1": _check_flow,
    "00.2": _check_question,
    "00.3": _check_prompt_length,
    "01.1": _check_supervised,
    "01.2": _check_interval,
    "01.3": _check_weakest_field,
}
