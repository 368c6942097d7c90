"""Diagnosis: what the loss curves of a run say, in a sentence, and what to do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

REMEDIES = {
    "overfit": "keep the weights of step {step}: set early_stopping_patience; more or "
    "more varied examples move that step back",
    "still falling": "train longer: raise max_steps or num_train_epochs",
    "diverged": "divide learning_rate by 3 to 10, and look for faulty rows",
    "flat": "raise learning_rate by 10; see that the adapter is attached and gets "
    "gradients; or the base model knew this before",
    "settled": "nothing is wrong with the curve; what it is worth, a test set says",
    "too short": "log 9 steps or 3 validations at least: lower eval_steps, or train on",
}
"""What to do, by verdict."""
FAR = 0.1  # of the loss at the start: a rise of the training loss that matters
CLEAR = 0.05  # of the loss itself: a rise or fall of the validation loss that matters
IDLE = 0.02  # of the loss at the start: a fall that is none
LEAST = 3  # the values that a median takes to shrug off one batch
ENOUGH = 9  # training losses: three such medians


@dataclass(frozen=True)
class Diagnosis:
    """What a curve is, a key of `REMEDIES`, since which step, and what to do."""

    verdict: str
    sentence: str
    remedy: str
    step: int | None = None

    def __str__(self) -> str:
        """Write both as text, such as ``settled: ... Nothing is wrong ...``."""
        return f"{self.sentence}. {self.remedy[0].upper()}{self.remedy[1:]}."


def explain_curve(history: Sequence[Mapping[str, float]]) -> Diagnosis:
    """
    Say in a sentence what the loss curves of a run are, and what to do.

    Parameters
    ----------
    history : sequence of mapping
        Rows with ``step`` and ``loss`` or ``validation_loss``, as `training.Progress`
        keeps them; either loss may be missing throughout.

    Returns
    -------
    Diagnosis
        Its verdict, a key of `REMEDIES`, its sentence, its remedy, and the step where
        the validation loss was lowest or a loss was no number.

    Notes
    -----
    The first that holds, of:

    - diverged: a loss is no number; or the training loss ends above its lowest by half
      of what it had gained, by a tenth of its start and by three standard errors; or
      it was once above its start by half and by as many; or both losses climb;
    - flat: the training loss fell by less than a fiftieth, or three standard errors,
      both from its first steps and from its first sixth;
    - overfit: the last two validation losses are both above the lowest, which came
      before, by a twentieth of it, a hundredth of the first, and more than any rise
      that the curve recovered from;
    - still falling: over its last third the validation loss, or the training loss
      where there is none, fell by as much;
    - settled.

    Levels of the training loss are medians of at least three steps, so that no single
    batch decides; its error is worked out from how neighbours differ.

    Examples
    --------
    >>> losses = {10: 0.9, 20: 0.5, 30: 0.6, 40: 0.8}
    >>> rows = [{"step": s, "validation_loss": v} for s, v in losses.items()]
    >>> explain_curve(rows).sentence
    'overfit from step 20: the validation loss climbs from 0.500 to 0.800'
    """
    train, held = (
        [(row["step"], row[key]) for row in history if row.get(key) is not None]
        for key in ("loss", "validation_loss")
    )
    for step, loss in sorted(train + held):
        if not math.isfinite(loss):
            return _conclude("diverged", f"the loss of step {step} is no number", step)
    if len(train) < ENOUGH and len(held) < LEAST:
        counts = f"{len(train)} training and {len(held)} validation losses"
        return _conclude("too short", f"{counts} do not make a curve")
    if len(train) >= ENOUGH:
        found = _judge_training([loss for _, loss in train], is_alone=len(held) < LEAST)
        if found:
            return found
    steps, levels = zip(*held, strict=True)
    best = min(range(len(levels)), key=levels.__getitem__)
    low, last = levels[best], levels[-1]
    moves = [(after - before, after) for before, after in pairwise(levels)]
    # What happens high up, in warm-up, says nothing about the noise near the best.
    recovered = [move for move, after in moves[:best] if after < 2 * low]
    clear = max([CLEAR * low, levels[0] / 100, *recovered])
    if min(levels[-2:]) - low > clear:
        climb = f"the validation loss climbs from {low:.3f} to {last:.3f}"
        before, after = (
            [loss for step, loss in train if (step > steps[best]) == is_after][-LEAST:]
            for is_after in (False, True)
        )
        if before and after and median(after) > (1 + FAR) * median(before) + clear:
            return _conclude("diverged", f"{climb}, and the training loss climbs too")
        return _conclude("overfit", climb, steps[best])
    return _judge_end("validation", levels, clear)


def _judge_training(losses: Sequence[float], is_alone: bool) -> Diagnosis | None:
    """Say what the training losses alone show; None where validation must say it."""
    size = max(LEAST, len(losses) // 6)
    ends = range(len(losses) % size + size, len(losses) + 1, size)
    bins = [median(losses[end - size : end]) for end in ends]
    # A straight line has no second differences, so they are noise, six times its
    # variance; 0.6745 is the median of a normal value's size.
    slopes = [after - before for before, after in pairwise(losses)]
    bends = [abs(after - before) for before, after in pairwise(slopes)]
    noise = median(bends) / 0.6745 / math.sqrt(6)
    # Three standard errors of a difference of two medians; one's is 1.25 of a mean's.
    error = 3 * 1.25 * noise * math.sqrt(2 / size)
    first, end = median(losses[:LEAST]), bins[-1]
    low = min(first, *bins)
    if end - low > max((first - low) / 2, FAR * first, error):
        rise = f"the training loss ends at {end:.3f}, after {low:.3f}"
        return _conclude("diverged", rise)
    rough = error * math.sqrt(size / LEAST)
    peak = max(map(median, zip(*(losses[i:] for i in range(LEAST)), strict=False)))
    if peak - first > max(first / 2, rough):
        rise = f"the training loss climbs from {first:.3f} to {peak:.3f}"
        return _conclude("diverged", f"{rise} on the way")
    falls = (first - end, rough), (bins[0] - end, error)
    if all(fall < max(IDLE * first, clear) for fall, clear in falls):
        return _conclude("flat", f"the training loss stays near {end:.3f}")
    return _judge_end("training", bins, max(CLEAR * end, error)) if is_alone else None


def _judge_end(name: str, levels: Sequence[float], clear: float) -> Diagnosis:
    """Say whether a curve that does not climb has come to rest."""
    fall = levels[-1 - len(levels) // 3] - levels[-1]
    verdict = "still falling" if fall > clear else "settled"
    return _conclude(verdict, f"the {name} loss is {levels[-1]:.3f} at the end")


def _conclude(verdict: str, reason: str, step: int | None = None) -> Diagnosis:
    since = "" if step is None else f" from step {step}"
    remedy = REMEDIES[verdict].format(step=step)
    return Diagnosis(verdict, f"{verdict}{since}: {reason}", remedy, step)
