"""Drift: whether what comes in still looks like what a model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from ftlib.scoring import Score
from ftlib.scoring.score import TOO_FEW

LIMIT = 0.6
"""To retrain, a classifier must surely order more than this share of pairs rightly."""
N_WORDS = 8
N_FOLDS = 5


@dataclass(frozen=True)
class Drift:
    """How far new texts are from old ones, and what tells them apart."""

    auc: Score
    words_of_new: tuple[str, ...]
    words_of_old: tuple[str, ...]
    label_shares: dict[str, tuple[float, ...]]
    should_retrain: bool
    reason: str


def measure_drift(
    old_texts: Sequence[str],
    new_texts: Sequence[str],
    old_labels: Sequence[str] = (),
    new_labels: Sequence[str] = (),
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Drift:
    """
    Measure how well a classifier tells new texts from those a model was trained on.

    Parameters
    ----------
    old_texts : sequence of str, length n_old
        What the model was trained on.
    new_texts : sequence of str, length n_new
        What comes in now, prepared in the same way: redacted, with the same order.
    old_labels, new_labels : sequence of str
        A field of the reviewed answers then and now, to compare their shares.
    groups : sequence of str, length n_old + n_new, optional
        What each text belongs to, such as its incident. Texts of one group look alike:
        where they come in runs, new ones are told apart by that alone.
    seed : int
        Of the folds.

    Returns
    -------
    Drift
        The area under the ROC curve of guesses at texts that the classifier has not
        seen: 0.5 where old and new cannot be told apart, 1 where they always can.
        To retrain is advised where its interval lies above `LIMIT`.

    Raises
    ------
    ValueError
        When there are fewer than `N_FOLDS` texts or groups of a kind, when hardly a
        fold has both kinds, or when the texts hold no words.

    Notes
    -----
    A classifier two-sample test: Lopez-Paz & Oquab, ICLR 2017, arXiv:1610.06545. The
    interval is that of DeLong et al., Biometrics 44 (1988), each text ranked among the
    others of its fold; a fold of one kind alone ranks nothing. It takes
    texts to be independent: with groups it is somewhat too narrow, which `LIMIT` leaves
    room for.

    Examples
    --------
    >>> old, new = ["disk full", "disk slow"] * 30, ["login denied", "login ok"] * 30
    >>> drift = measure_drift(old, new)
    >>> drift.auc.value, drift.should_retrain, drift.words_of_new[0]
    (1.0, True, 'login')
    """
    if min(len(old_texts), len(new_texts)) < N_FOLDS:
        raise ValueError(f"too few texts: give {N_FOLDS} or more, old and new")
    texts, n_old = [*old_texts, *new_texts], len(old_texts)
    groups = range(len(texts)) if groups is None else groups
    if min(len(set(groups[:n_old])), len(set(groups[n_old:]))) < N_FOLDS:
        raise ValueError(
            f"too few groups: give texts of {N_FOLDS} or more on each side"
        )
    is_new = np.arange(len(texts)) >= n_old
    words = TfidfVectorizer(sublinear_tf=True)
    regression = LogisticRegression(max_iter=1_000, class_weight="balanced")
    classifier = make_pipeline(words, regression)
    splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(texts, is_new, groups))
    ranked_in = [test for _, test in folds if 0 < is_new[test].sum() < len(test)]
    if len(ranked_in) < 2:  # from two on, each fold is guessed at from both kinds
        raise ValueError(
            "groups so uneven cannot be folded: give more, or smaller ones"
        )
    how = {"cv": folds, "method": "decision_function"}
    guesses = cross_val_predict(classifier, texts, is_new, **how)
    auc = _score_ranks(guesses, is_new, ranked_in)
    weights = classifier.fit(texts, is_new)[-1].coef_[0]
    ranked = [str(word) for word in words.get_feature_names_out()[np.argsort(weights)]]
    kinds = (list(old_labels), list(new_labels))
    shares = {
        label: tuple(kind.count(label) / len(kind) for kind in kinds)
        for label in sorted({*old_labels, *new_labels} if all(kinds) else ())
    }
    n_new = is_new[np.concatenate(ranked_in)].sum()
    should = bool(auc.low > LIMIT and min(n_new, auc.n - n_new) >= TOO_FEW)
    done = "read the new texts, review some, retrain"
    reason = (
        f"{auc}: {done if should else f'to retrain it must surely be above {LIMIT}'}"
    )
    new, old = tuple(ranked[::-1][:N_WORDS]), tuple(ranked[:N_WORDS])
    return Drift(auc, new, old, shares, should, reason)


def _score_ranks(
    guesses: np.ndarray, is_new: np.ndarray, folds: Sequence[np.ndarray]
) -> Score:
    """Give the AUC within folds, with DeLong's interval."""
    above: dict[bool, list[float]] = {True: [], False: []}
    for fold in folds:
        new, old = guesses[fold][is_new[fold]], guesses[fold][~is_new[fold]]
        wins = (new[:, None] > old) + (new[:, None] == old) / 2
        above[True] += wins.mean(axis=1).tolist()
        above[False] += wins.mean(axis=0).tolist()
    value = float(np.mean(above[True]))
    half = 1.96 * float(sum(np.var(v, ddof=1) / len(v) for v in above.values())) ** 0.5
    n = sum(map(len, folds))
    return Score("drift, AUC", value, n, max(0.0, value - half), min(1.0, value + half))
