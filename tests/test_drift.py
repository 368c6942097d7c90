"""Run alone: ``python -m pytest tests/test_drift.py``."""

import random

import numpy as np
import pytest
from sklearn import model_selection

from ftlib import drift, records, redaction, store
from ftlib.config import ROOT
from ftlib.drift import _score_ranks, measure_drift


@pytest.fixture(scope="module")
def alerts():
    """Give texts of reviewed alerts, and which incident each belongs to."""
    rows = records.load_reviewed("train")[:300]
    hide, keep = redaction.replace_spans, {"HOSTNAME"}
    return [(hide(r["text"], r["spans"], keep), r["incident_id"]) for r in rows]


@pytest.fixture(scope="module")
def foreign():
    rows, _ = store.read_jsonl(ROOT / "data" / "soc" / "benchmark.jsonl")
    return [row["text"] for row in rows if row["slice"] == "out_of_scope"]


def split_incidents(alerts, seed):
    """Give old texts, new texts and all groups; no incident is in both."""
    incidents = sorted({incident for _, incident in alerts})
    early = set(random.Random(seed).sample(incidents, len(incidents) // 2))
    old = [alert for alert in alerts if alert[1] in early]
    new = [alert for alert in alerts if alert[1] not in early]
    texts = [[text for text, _ in part] for part in (old, new)]
    return *texts, [incident for _, incident in old + new]


def test_new_incidents_of_the_same_kind_are_no_drift():
    """Runs of like texts give themselves away, unless they are kept in one fold."""
    rows = records.load_reviewed("train")
    hide, keep = redaction.replace_spans, {"HOSTNAME"}
    alerts = [(hide(r["text"], r["spans"], keep), r["incident_id"]) for r in rows]
    careless, careful = [], []
    for seed in range(3):
        old, new, groups = split_incidents(alerts, seed)
        careless.append(measure_drift(old, new, seed=seed))
        careful.append(measure_drift(old, new, groups=groups, seed=seed))
    assert sum(drift.should_retrain for drift in careless) >= 2
    assert sum(drift.should_retrain for drift in careful) == 0
    assert abs(np.mean([drift.auc.value for drift in careful]) - 0.5) < 0.05


def test_random_halves_are_no_drift(alerts):
    drifts = []
    for seed in range(4):
        drawn = [text for text, _ in random.Random(seed).sample(alerts, len(alerts))]
        drifts.append(measure_drift(drawn[:150], drawn[150:], seed=seed))
    assert sum(drift.should_retrain for drift in drifts) == 0
    assert sum(drift.auc.low > 0.5 for drift in drifts) <= 1


def test_texts_of_another_kind_are_told_apart_and_their_words_named(alerts, foreign):
    drift = measure_drift([text for text, _ in alerts], foreign)
    assert drift.auc.low > 0.95
    assert drift.should_retrain
    assert "review some, retrain" in drift.reason
    assert "person_1" not in drift.words_of_new
    assert "allowed" in drift.words_of_old


@pytest.mark.parametrize(("n_foreign", "wanted"), [(0, False), (3, False), (60, True)])
def test_a_few_other_texts_are_no_reason_yet_and_many_are(
    alerts, foreign, n_foreign, wanted
):
    old, new, groups = split_incidents(alerts, 0)
    groups = groups[: len(old) + 60] + [f"foreign {i}" for i in range(n_foreign)]
    drift = measure_drift(old, new[:60] + foreign[:n_foreign], groups=groups)
    assert drift.should_retrain == wanted
    assert wanted or "to retrain it must surely be above 0.6" in drift.reason


def test_too_few_texts_advise_nothing_and_hardly_any_are_refused(foreign):
    drift = measure_drift(["disk full"] * 40, foreign[:29])
    assert drift.auc.value == 1.0
    assert not drift.should_retrain
    with pytest.raises(ValueError, match="too few texts: give 5 or more"):
        measure_drift(["disk full"] * 40, foreign[:4])


def list_groups(*sizes):
    """Give texts and their groups, for the sizes of the groups, old and new."""
    old, new = ([i for i, n in enumerate(s) for _ in range(n)] for s in sizes)
    return ["disk full"] * len(old), ["login ok"] * len(new), old + new


@pytest.mark.parametrize("n_each", [(4, 9), (9, 1)])
def test_too_few_groups_on_one_side_are_refused(n_each):
    n_old, n_new = n_each
    old, new, groups = list_groups([10] * n_old, [0] * n_old + [10] * n_new)
    with pytest.raises(ValueError, match="too few groups: give texts of 5 or more on"):
        measure_drift(old, new, groups=groups)
    assert measure_drift(*list_groups([10] * 5, [10] * 5)[:2]).auc.n == 100


def test_a_fold_of_one_kind_ranks_nothing():
    sizes = [40, 0, 40, 3, 1, 0, 40], [40, 40, 0, 3, 1, 40, 0]
    old, new, groups = list_groups(*sizes)
    auc = measure_drift(old, new, groups=groups).auc
    assert (auc.low, auc.value, auc.high) == (1.0, 1.0, 1.0)
    assert 0 < auc.n < len(groups)


def test_folds_of_one_kind_alone_are_refused(monkeypatch):
    in_order = model_selection.KFold  # old texts first: only the middle fold has both
    monkeypatch.setattr(drift, "StratifiedGroupKFold", lambda n, **_: in_order(n))
    with pytest.raises(ValueError, match="groups so uneven cannot be folded"):
        measure_drift(["disk full"] * 25, ["login ok"] * 25)


def test_ranks_are_counted_within_a_fold_and_ties_count_half():
    guesses = np.array([1.0, 2.0, 2.0, 3.0, 10.0, 10.0, 11.0, 9.0])
    is_new = np.array([False, True, False, True, False, True, False, True])
    folds = [np.arange(4), np.arange(4, 8)]
    # First fold: new 2 and 3 against old 1 and 2: 1, 0.5, 1, 1. Second: new 10 and 9
    # against old 10 and 11: 0.5, 0, 0, 0. Each new text: 0.75, 1, 0.25, 0; each old
    # one: 1, 0.75, 0.25, 0: variances 0.2083 both; so 0.5 +- 1.96 * sqrt(2 * 0.05208).
    score = _score_ranks(guesses, is_new, folds)
    assert score.value == 0.5
    assert score.low == 0.0  # -0.1326, which no share can be
    assert score.high == 1.0


def test_the_interval_is_delongs():
    guesses = np.array([0.0, 1.0, 2.0, 3.0, 1.5, 2.5, 3.5, 4.5])
    is_new = np.arange(8) >= 4
    # Old texts below each new one: 2, 3, 4, 4 of 4: mean 0.8125, variance 0.05729.
    # New texts above each old one: 4, 4, 3, 2 of 4: the same. Half the width is
    # 1.96 * sqrt(2 * 0.05729 / 4) = 0.3317.
    score = _score_ranks(guesses, is_new, [np.arange(8)])
    assert score.value == 0.8125
    assert score.low == pytest.approx(0.8125 - 0.3317, abs=1e-4)
    assert score.high == 1.0


def test_shares_of_labels_stand_side_by_side():
    texts = ["disk full"] * 6
    drift = measure_drift(texts, texts, ["low"] * 3 + ["high"], ["low", "new"])
    assert drift.label_shares == {
        "high": (0.25, 0),
        "low": (0.75, 0.5),
        "new": (0, 0.5),
    }
    assert measure_drift(texts, texts, ["low"], []).label_shares == {}


def test_the_same_texts_give_the_same_drift(foreign):
    old, new = foreign[::2], foreign[1::2]
    assert measure_drift(old, new) == measure_drift(old, new)
