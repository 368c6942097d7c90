"""Leakage: plant canaries, fine-tune, and measure what the model gives away of them."""

from ftlib.leakage.auditing import (
    Audit,
    audit,
    judge,
    measure_exposure,
    measure_membership,
    rank_exposure,
    score_membership,
)
from ftlib.leakage.canaries import Canary, make_canaries, plant

__all__ = [
    "Audit",
    "Canary",
    "audit",
    "judge",
    "make_canaries",
    "measure_exposure",
    "measure_membership",
    "plant",
    "rank_exposure",
    "score_membership",
]
