"""Checks of the exercises in lessons 00 to 04."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftlib.schema import IGNORE_INDEX, Span, find_fault


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


def _check_mended_row(answer: Any) -> str | None:
    fault = find_fault(answer)
    if fault:
        return fault[0].upper() + fault[1:] + "."
    if answer["messages"][0]["content"] != "Where is my lamp?":
        return "Keep what was said; mend only what is wrong."
    return None


def _check_parts(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"train", "test"}:
        return "Give {'train': [...], 'test': [...]}: split_by_group does."
    train, test = ({row["group"] for row in answer[name]} for name in ("train", "test"))
    if train & test:
        return f"{len(train & test)} groups are in both parts."
    if sum(map(len, answer.values())) != 150:
        return "Each of the 150 records belongs in one part."
    if not 0.15 <= len(test) / len(train | test) <= 0.25:
        return "About a fifth of the groups should be in the test."
    return None


def _check_kept_rows(answer: Any) -> str | None:
    if not isinstance(answer, Sequence) or len(answer) != 2:
        return "Give (n_rows, n_wrong)."
    # Planted: 80 duplicates, 18 faulty prompts and 14 faulty responses; 1200 - 112.
    if answer[0] == 1200:
        return "Those are all. Drop the rows in `dropped`."
    if answer[0] != 1088:
        return "Count each dropped row once: some are found by two checks."
    if answer[1] != 30:
        return "Look for wrong_label in the faults of the rows that stay."
    return None


def _check_own_pattern(answer: Any) -> str | None:
    if not isinstance(answer, Sequence) or not all(isinstance(s, Span) for s in answer):
        return "Give the list of spans: find_spans(note, patterns=your_file)."
    tickets = [(s.start, s.end) for s in answer if s.entity_type == "TICKET_ID"]
    if tickets == [(4, 13), (18, 27)]:
        return None
    if not tickets:
        return "No span is a TICKET_ID: name it so under supported_entity."
    return "Both tickets should be found, whole: INC- and five digits."


def _check_review_size(answer: Any) -> str | None:
    # 0.99 to the power n is under 0.05 from n = 299 on; the rule of three says 300.
    if answer in (299, 300):
        return None
    if isinstance(answer, int) and answer > 300:
        return "That many will do; fewer do too. Look for the smallest."
    return "Try numbers in bound_leak_rate(n, 0) until it is at most 0.01."


def _check_exposure(answer: Any) -> str | None:
    if not isinstance(answer, int | float):
        return "Give a number of bits."
    # The fifth of 10,001: the logarithm of 2000.2 to base 2.
    if abs(answer - 10.966) < 0.01:
        return None
    if abs(answer - 11.288) < 0.01:
        return "Four are better, so its rank is five."
    return "Take log2 of the number of secrets over the rank; the canary counts too."


def _check_recall(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"ranks", "recall"} <= set(answer):
        return (
            "Give {'ranks': ranks, 'recall': ...}, with find_ranks of a dense search."
        )
    ranks = answer["ranks"]
    right = sum(rank == 1 for rank in ranks) / len(ranks)
    if abs(answer["recall"] - right) < 0.005:
        return None
    return "Count the ranks that are 1, and divide by all of them."


def _check_unsourced(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"answers", "n_unsourced"} <= set(answer):
        return "Give {'answers': answers, 'n_unsourced': ...}."
    if answer["n_unsourced"] == sum(one.cited is None for one in answer["answers"]):
        return None
    return "An answer's `cited` is None where no passage says it: count those."


def _check_needs(answer: Any) -> str | None:
    from ftlib.decision import Needs, recommend

    if not isinstance(answer, Needs):
        return "Give decision.Needs(...), with what you want changed."
    best = recommend(answer)[0].way
    if best == "fine-tuned":
        return None
    return f"For these it is {best}. What knocks fine-tuning out, and what is for it?"


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "00.1": _check_flow,
    "00.2": _check_question,
    "00.3": _check_prompt_length,
    "01.1": _check_supervised,
    "01.2": _check_interval,
    "01.3": _check_weakest_field,
    "02.1": _check_mended_row,
    "02.2": _check_parts,
    "02.3": _check_kept_rows,
    "03.1": _check_own_pattern,
    "03.2": _check_review_size,
    "03.3": _check_exposure,
    "04.1": _check_recall,
    "04.2": _check_unsourced,
    "04.3": _check_needs,
}
