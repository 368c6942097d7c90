"""The engine: Presidio with our patterns and our name finder, without a network."""

import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import spacy
import yaml
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider
from spacy.language import Language
from spacy.tokens import Doc

from ftlib.redaction import recognizers as _recognizers  # noqa: F401, Presidio finds them
from ftlib.redaction.spans import LEAST_SCORE

_FILE = Path(__file__).with_name("recognizers.yaml")
# What may stand between a label and its value.
_IS = (
    r"""["'\]\)*]{0,3}\.?[\s_]{0,3}(?:(?:numbers?|no|nr|num|n[°º]|id|code|is|was|are|of|to|"""
    r"""as|value|valid|reads?|issued|named|registered|held|given|here|still|now|ist|"""
    r"""lautet|est|es|é|era)(?!\w)[.:]?[\s_]{0,2}){0,3}(?:\([^()\n]{0,24}\) ?)?"""
    r"""(?:(?:[:=#>|,;-]|=>){0,2}|[._…-]{3,60}:?)[*]{0,2}\s{0,14}["'(\[<]{0,2}\K"""
)


@Language.component("lower_case_lemmas")
def _add_lemmas(doc: Doc) -> Doc:
    """Give each token its lower case as lemma: Presidio looks for context there."""
    for token in doc:
        token.lemma_ = token.lower_
    return doc


def _read(path: str | Path) -> list[dict[str, Any]]:
    """Read the recognizers of a YAML file."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: give the path of a YAML file")
    text = Path(path).read_text("utf-8").replace("<IS>", _IS.replace("'", "''"))
    try:
        rows = yaml.safe_load(text)["recognizers"]
        return [{"type": "custom", **row} for row in rows]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has no patterns: give a YAML file with a list `recognizers`, as "
            "ftlib/redaction/recognizers.yaml has"
        ) from error


@cache
def build_engine(patterns: str | None = None, names: bool = True) -> AnalyzerEngine:
    """
    Build Presidio's engine; it needs no network and keeps quiet.

    Parameters
    ----------
    patterns : str, optional
        Path of a YAML file with more patterns.
    names : bool
        Whether the model that finds names is in it; without it, only fixed formats.

    Returns
    -------
    AnalyzerEngine
        The engine, built once.
    """
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    nlp = SpacyNlpEngine([{"lang_code": "en", "model_name": "blank"}])
    blank = spacy.blank("en")
    blank.add_pipe("lower_case_lemmas")
    nlp.nlp = {"en": blank}
    rows = _read(_FILE) + (_read(patterns) if patterns else [])
    configuration = {
        "supported_languages": ["en"],
        "global_regex_flags": re.DOTALL | re.MULTILINE | re.IGNORECASE,
        "recognizers": rows,
    }
    try:
        registry = RecognizerRegistryProvider(
            registry_configuration=configuration
        ).create_recognizer_registry()
    except ValueError as error:
        raise ValueError(f"{patterns} is not in Presidio's form: {error}") from error
    for recognizer in registry.recognizers:
        if recognizer.name == "IbanRecognizer":
            # Ignoring case, it would take the next words for letters of the number.
            recognizer.global_regex_flags = re.DOTALL | re.MULTILINE
    if names:
        from transformers.utils import logging as transformers_logging

        from ftlib.redaction.ner import NameRecognizer

        transformers_logging.disable_progress_bar()
        registry.add_recognizer(NameRecognizer())
    return AnalyzerEngine(
        registry,
        nlp,
        default_score_threshold=LEAST_SCORE,
        context_aware_enhancer=LemmaContextAwareEnhancer(),
    )
