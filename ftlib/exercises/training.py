"""Checks of the exercises in lessons 05 to 09."""

import json
import math
from collections.abc import Callable, Mapping
from statistics import linear_regression
from typing import Any


def _check_curves(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"A", "B", "C"}:
        return "Give {'A': ..., 'B': ..., 'C': ...}, each one of the three faults."
    if answer["A"] != "trained too long":
        return "In A the training loss is near 0. What does the validation loss do?"
    if (answer["B"], answer["C"]) != ("rate too high", "adapter idle"):
        return "One of B and C learns and then loses it; the other learns nothing."
    return None


def _check_resumed(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"step_before", "progress"}:
        return "Give {'step_before': ..., 'progress': ...}, of the run once resumed."
    step, progress = answer["step_before"], answer["progress"]
    if not 0 < step < progress.n_steps:
        return "Stop it in the middle: after a step, and before its last."
    if progress.status != "finished" or progress.first_step != step:
        return f"It should go on after step {step} to the end: panel.resume() and wait."
    return None


def _check_batch(answer: Any) -> str | None:
    if not isinstance(answer, int) or isinstance(answer, bool) or answer < 1:
        return "Give a whole number of rows."
    from ftlib import memory
    from ftlib.config import RunConfig

    shape, fits = memory.load_architecture("Qwen/Qwen3-8B"), []
    for n in (answer, answer + 1):
        config = RunConfig(
            max_length=1024, gradient_checkpointing=1, per_device_train_batch_size=n
        )
        needed = sum(memory.estimate_memory(shape, config).values())
        fits.append(needed <= memory.CARDS["4090"])
    if fits == [True, False]:
        return None
    return "One row more fits too." if fits[1] else "So many do not fit: sum the parts."


def _check_ablation(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"losses", "best"} <= set(answer):
        return "Give {'losses': {'r1': ..., 'own': ...}, 'best': the name of one}."
    losses = answer["losses"]
    if not isinstance(losses, Mapping) or "own" not in losses or len(losses) < 3:
        return "Put your own run, as 'own', beside at least two that are recorded."
    if answer["best"] != min(losses, key=losses.get):
        return "The best has the lowest validation loss."
    return None


def _check_lora_size(answer: Any) -> str | None:
    # A is 8 x 1,024 and B is 3,072 x 8.
    if answer == 32_768:
        return None
    if answer == 1_024 * 3_072:
        return "That is the layer itself. LoRA puts two thin matrices beside it."
    if answer in (8_192, 24_576):
        return "That is one of the two matrices: A and B are both trained."
    return "A has r rows of what comes in; B has r columns of what goes out."


def _check_method(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"table", "method"} <= set(answer):
        return "Give {'table': table, 'method': the name of one}."
    merging = [row for row in answer["table"] if row["merges"] == "yes"]
    named = [row for row in merging if row["method"] == answer["method"]]
    if not named:
        return "That one does not merge: only a row whose `merges` says yes will do."
    if named[0]["file kB"] > min(row["file kB"] for row in merging):
        return "Among those that merge, one has a smaller file."
    return None


def _check_extrapolation(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"losses", "at_1000"} <= set(answer):
        return "Give {'losses': {30: ..., 100: ..., 300: ...}, 'at_1000': ...}."
    logs = [(math.log(n), math.log(loss)) for n, loss in answer["losses"].items()]
    if len(logs) < 2:
        return "A line needs two points at least."
    slope, start = linear_regression(*zip(*logs, strict=True))
    expected = math.exp(start + slope * math.log(1000))
    if abs(answer["at_1000"] / expected - 1) < 0.02:
        return None
    return "Fit a line to the logarithms of both, and take exp of it at log(1000)."


def _check_best_step(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or set(answer) != {"history", "step"}:
        return "Give {'history': history, 'step': ...}."
    rows = [row for row in answer["history"] if "validation_loss" in row]
    lowest = min(rows, key=lambda row: row["validation_loss"])
    if answer["step"] == lowest["step"]:
        return None
    if answer["step"] == rows[-1]["step"]:
        return "That is the last step. Where is the validation loss lowest?"
    return "Look at the rows that have a validation_loss, for the lowest of them."


def _check_noise_cost(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"clean", "noisy", "cost"} <= set(answer):
        return "Give {'clean': three losses, 'noisy': three losses, 'cost': ...}."
    clean, noisy = list(answer["clean"]), list(answer["noisy"])
    if len(clean) != 3 or len(noisy) != 3:
        return "There is a loss for each of the three seeds."
    cost = (sum(noisy) - sum(clean)) / 3
    if abs(answer["cost"] - cost) < 0.005:
        return None
    return "Subtract seed by seed, noisy minus clean, and take the mean."


def _check_retention(answer: Any) -> str | None:
    if not isinstance(answer, int | float):
        return "Give one number: the mean over both abilities of after / before."
    # 15 of 20 is 0.75 of 20 of 20, 12 of 20 is 1.2 of 10 of 20; their mean, 0.975.
    if abs(answer - 0.975) < 0.003:
        return None
    if abs(answer - 0.9) < 0.003:
        return "That is all probes in one pot: divide for each ability, then average."
    return "Divide the share after by the share before, for each ability, and average."


def _check_scale(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"sweep", "alpha"} <= set(answer):
        return "Give {'sweep': sweep, 'alpha': ...}."
    kept = [alpha for alpha, one in answer["sweep"].items() if one.value >= 0.95]
    if answer["alpha"] == max(kept):
        return None
    return "Of the scales with a retention of 0.95 or more, give the largest."


def _check_alarm(answer: Any) -> str | None:
    if isinstance(answer, bool) or not isinstance(answer, int):
        return "Give a whole number of lost probes."
    if answer == 3:
        return None
    if answer == 2:
        return "2 of 30 is more than five points, but does the interval lie above 0?"
    return "Try 1, 2, 3, ... lost probes of one ability until check_gate has a reason."


def _check_mcnemar(answer: Any) -> str | None:
    if not isinstance(answer, int | float):
        return "Give a p value, between 0 and 1."
    # Of 16 fair coins, at most 4 heads: 2,517 of 65,536; twice that, for both sides.
    if abs(answer - 0.0768) < 0.001:
        return None
    if abs(answer - 0.0384) < 0.001:
        return "That is one side: a loss would have surprised as much as a gain."
    return "Only the 16 alerts count on which just one is right: 12 gained, 4 lost."


def _check_sample_size(answer: Any) -> str | None:
    if not isinstance(answer, int):
        return "Give a whole number of items."
    # Connor's formula gives 624; the exact test needs a few more.
    if 600 <= answer <= 700:
        return None
    if answer > 700:
        return "Fewer will do: look for the smallest."
    return "Try sizes in find_detectable_effect(n, 0.2) until it is at most 0.05."


def _check_own_rule(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"name", "schema"} <= set(answer):
        return "Give {'name': ..., 'says': ..., 'when': ..., 'schema': ...}."
    from ftlib.scoring import load_metric

    triages = [("low", "note"), ("low", "page"), ("high", "isolate")]
    texts = [json.dumps({"severity": s, "action": a}) for s, a in triages]
    judged = load_metric("rule_compliance").score_items(texts, texts, [answer], {})
    if judged[answer["name"]] == [1.0, 0.0, None]:
        return None
    if judged[answer["name"]][2] is not None:
        return "It is about what is low alone: select that with 'when'."
    return "It should keep low with note and break low with page."


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "05.1": _check_curves,
    "05.2": _check_resumed,
    "05.3": _check_batch,
    "06.1": _check_ablation,
    "06.2": _check_lora_size,
    "06.3": _check_method,
    "07.1": _check_extrapolation,
    "07.2": _check_best_step,
    "07.3": _check_noise_cost,
    "08.1": _check_retention,
    "08.2": _check_scale,
    "08.3": _check_alarm,
    "09.1": _check_mcnemar,
    "09.2": _check_sample_size,
    "09.3": _check_own_rule,
}
