"""Redaction: find what names a person or holds a secret, and replace it."""

from ftlib.redaction.measure import SpanScores, find_leaking_files, leaks, span_scores
from ftlib.redaction.replacement import redact, replace_spans
from ftlib.redaction.spans import find_spans
from ftlib.redaction.surrogates import Surrogates
from ftlib.redaction.vault import Vault

__all__ = [
    "SpanScores",
    "Surrogates",
    "Vault",
    "find_leaking_files",
    "find_spans",
    "leaks",
    "redact",
    "replace_spans",
    "span_scores",
]
