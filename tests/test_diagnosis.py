"""Run alone: pytest tests/test_diagnosis.py. Each curve is named for what it is."""

import math

import pytest

from ftlib import diagnosis, store
from ftlib.config import ROOT

# Noise with no chance in it: no three in a row tell a trend, the sum is 0.
WIGGLE = [0.04, -0.05, 0.01, 0.05, -0.03, -0.02] * 20


def curve(losses=(), validation=()):
    """Make a history of one loss a step, and validations at even distances."""
    n_steps = max(len(losses), 10 * len(validation))
    rows = [{"step": i + 1} for i in range(n_steps)]
    for row, loss in zip(rows, losses, strict=False):
        row["loss"] = loss
    for i, loss in enumerate(validation, start=1):
        rows[i * n_steps // len(validation) - 1]["validation_loss"] = loss
    return rows


def fall(start, end, n_steps=60, settles=20):
    """Make training losses that fall straight for `settles` steps, with noise."""
    way = [min(1, i / settles) for i in range(n_steps)]
    return [start + (end - start) * w + WIGGLE[i] for i, w in enumerate(way)]


LEARNS = fall(1.5, 0.2)
CURVES = {
    # validation climbs by 0.2 from step 20 of 60, training falls
    "overfit, from step 20": curve(LEARNS, [0.6, 0.4, 0.45, 0.5, 0.55, 0.6]),
    "overfit, seen by validation alone": curve((), [0.9, 0.5, 0.6, 0.7]),
    "overfit, in spite of a jump in warm-up": curve((), [2, 3, 1, 0.5, 0.6, 0.7]),
    "still falling, says validation": curve(LEARNS, [0.9, 0.7, 0.5, 0.4]),
    "still falling, training alone": curve(fall(1.5, 0.2, settles=60)),
    "diverged, after it had learned": curve([*fall(1.5, 0.2)[:40], *[1.4] * 20]),
    "diverged, from the start": curve([0.5, 0.6, 5.0, *[8.0 + w for w in WIGGLE[:57]]]),
    # three steps near 9 after a start of 3.5, as a rate too high does, and down again
    "diverged, and came down again": curve(
        [3.5, 3.6, 3.4, 5.0, 9.0, 9.5, 8.5, *fall(5.0, 2.0)[:40]], [4.0, 3.0, 2.2]
    ),
    "still falling, one bad batch on the way": curve(
        [3.5, 3.6, 3.4, 3.2, 9.0, *fall(3.0, 2.0)[:40]], [4.0, 3.0, 2.2]
    ),
    "diverged, both climb": curve(
        [*fall(1.5, 0.4)[:30], *[0.4 + i / 60 for i in range(30)]],
        [0.9, 0.6, 0.5, 0.7, 0.8, 0.9],
    ),
    "diverged, no number": curve([1.0, 0.9, math.nan, 0.8]),
    "flat, nothing moves": curve([1.5 + w for w in WIGGLE[:60]], [1.5] * 6),
    "flat, two batches in turn": curve([2.0, 2.1] * 6),
    "settled, level": curve(LEARNS, [0.6, 0.4, 0.4, 0.4, 0.4, 0.4]),
    "settled, learned in its first steps": curve(fall(1.5, 0.2, 120, 4)),
    "settled, without validation": curve(LEARNS),
    # near misses
    "settled, one bad validation at the end": curve(LEARNS, [0.6, 0.4, 0.4, 0.4, 0.6]),
    "settled, climbs by less than a twentieth": curve(
        LEARNS, [0.6, 0.4, 0.405, 0.41, 0.415]
    ),
    "settled, climbs from next to nothing": curve(LEARNS, [0.6, 0.002, 0.003, 0.004]),
    "settled, climbs no more than it wiggled": curve(
        LEARNS, [0.6, 0.5, 0.58, 0.48, 0.53, 0.54]
    ),
    "settled, lost less than half of what it gained": curve(
        [*LEARNS[:40], *[0.5] * 20], [0.6, 0.4, 0.4, 0.4]
    ),
    "flat, creeps up by less than a tenth": curve([1.5 + i / 600 for i in range(60)]),
    "flat, falls by less than a fiftieth": curve([1.5 - i / 3000 for i in range(60)]),
    "flat, small and noisy": curve([0.3 + 4 * w for w in WIGGLE[:60]]),
    "flat, wild batches": curve([0.4, 1.6] * 27 + [1.6] * 6),
    "flat, three bad batches at the start": curve(
        [1.8] * 3 + [1.5 + 8 * w for w in WIGGLE[:57]]
    ),
    "settled, one bad batch at the end": curve([*LEARNS[:-1], 4.0]),
    "too short, nothing": [],
    "too short, two validations": curve(LEARNS[:8], [0.6, 0.4]),
}


@pytest.mark.parametrize("name", CURVES)
def test_each_curve_is_named(name):
    found = diagnosis.explain_curve(CURVES[name])
    assert found.verdict == name.split(",")[0]


def test_overfitting_has_its_step_its_figures_and_its_remedy():
    found = diagnosis.explain_curve(CURVES["overfit, from step 20"])
    assert found.step == 20
    assert str(found) == (
        "overfit from step 20: the validation loss climbs from 0.400 to 0.600. Keep "
        "the weights of step 20: set early_stopping_patience; more or more varied "
        "examples move that step back."
    )


def test_a_loss_that_is_no_number_names_its_step():
    assert diagnosis.explain_curve(CURVES["diverged, no number"]).step == 3


def test_slow_learning_is_not_called_flat():
    slow = curve(fall(1.5, 1.1, settles=60))
    assert diagnosis.explain_curve(slow).verdict == "still falling"


def test_a_missing_loss_is_left_out_and_not_taken_for_a_number():
    rows = curve(LEARNS, [0.6, 0.4, 0.4, 0.4])
    for row in rows[::5]:
        row["loss"] = None
    assert diagnosis.explain_curve(rows).verdict == "settled"


RECORDED = ROOT / "data" / "reference_runs" / "overfitting"
GOOD = {"settled", "still falling"}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("arm", "verdicts"),
    [
        ("steady_300", GOOD),
        ("curve_300", GOOD),
        ("curve_1000", GOOD),
        ("curve_10", {"overfit"}),
        ("rate_0.03", {"diverged"}),
        ("rate_0.0005", {"still falling"}),
    ],
)
def test_recorded_runs_are_named_for_what_they_are(arm, verdicts, seed):
    run = store.read_json(RECORDED / f"{arm}_seed{seed}.json")
    assert diagnosis.explain_curve(run["history"]).verdict in verdicts
