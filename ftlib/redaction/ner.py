"""Names, places and the like, found by a small model: no fixed format gives them away.

The model is all-MiniLM-L6-v2 with an adapter of ours, `data/redactor/`. The base is
uncased; so the form of each word (Title, UPPER, ...) and the gap before it are added to
its embedding.
"""

import functools
import itertools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from presidio_analyzer import EntityRecognizer, RecognizerResult
from safetensors.torch import load_file
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ftlib.config import ROOT
from ftlib.models import find_encoder
from ftlib.redaction.spans import LEAST_SCORE
from ftlib.schema import Span

FOLDER = ROOT / "data" / "redactor"
WINDOW = 256
OVERLAP = 64
BATCH = 32
FORMS = 11
"""Rows of the form embedding: seven for a word's letters, four for the gap before."""
_HYPHENS = "-‐‑–'’ʼ`"


class Window(NamedTuple):
    """The tokens of one stretch of a text; special tokens are left out of `words`."""

    ids: list[int]
    forms: list[tuple[int, int]]
    words: list[tuple[int, int, int, int]]  # first token, last + 1, start, end in text


class Redactor(NamedTuple):
    """The model and what belongs to it."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    form_embedding: torch.Tensor
    labels: tuple[str, ...]
    thresholds: torch.Tensor


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """
    Load the base model's tokenizer; its own file pads and cuts all texts to 128.

    Parameters
    ----------
    base : str
        As `models.find_encoder` gives it.

    Returns
    -------
    PreTrainedTokenizerBase
        A fast one that leaves the length of a text as it is.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


@functools.cache
def load_redactor(folder: Path = FOLDER) -> Redactor:
    """
    Load the base model with the adapter merged into it; once a folder.

    Parameters
    ----------
    folder : path
        Where the adapter is.

    Returns
    -------
    Redactor
        In evaluation mode, on the CPU.

    Raises
    ------
    FileNotFoundError
        When the folder holds no adapter.
    """
    if not (folder / "redactor.json").is_file():
        raise FileNotFoundError(
            f"there is no redactor in {folder}: run python -m data.build redactor"
        )
    config = json.loads((folder / "redactor.json").read_text("utf-8"))
    base, verbosity = find_encoder(), logging.get_verbosity()
    # The report that the classifier is missing would only alarm: the adapter has it.
    logging.set_verbosity_error()
    try:
        model = AutoModelForTokenClassification.from_pretrained(
            base, num_labels=len(config["labels"])
        )
    finally:
        logging.set_verbosity(verbosity)
    model = PeftModel.from_pretrained(model, folder).merge_and_unload().float().eval()
    return Redactor(
        model.requires_grad_(False),
        load_tokenizer(base),
        load_file(folder / "form_embedding.safetensors")["weight"].float(),
        tuple(config["labels"]),
        torch.tensor([config["thresholds"][x] for x in config["labels"][1:]]),
    )


def _describe_form(word: str, gap: str) -> tuple[int, int]:
    """Give the rows of the form embedding for a word and the gap before it."""
    if not word.isalnum():
        form = 0
    elif not word.isalpha():
        form = 1 if word.isdecimal() else 2
    elif word.islower():
        form = 3
    elif word.isupper() and len(word) > 1:
        form = 4
    else:
        form = 5 if word[1:].islower() or len(word) == 1 else 6
    if not gap:
        return form, 7
    return form, 10 if "\n" in gap else 9 if "\t" in gap or "  " in gap else 8


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Window]:
    """
    Cut a text into tokens, in overlapping windows when it is long.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast one: it knows where in the text each token stands.
    text : str
        Any text.

    Returns
    -------
    list of Window
        At least one, each of `WINDOW` tokens at most.
    """
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    offsets, words, forms = encoding.offsets, [], []
    position = 0
    for _, group in itertools.groupby(enumerate(encoding.word_ids), lambda x: x[1]):
        tokens = [i for i, _ in group]
        start, end = offsets[tokens[0]][0], offsets[tokens[-1]][1]
        form = _describe_form(text[start:end], text[position:start])
        while end < len(text) and unicodedata.category(text[end]) in ("Mn", "Cf"):
            end += 1  # marks and joiners, which the tokenizer drops, belong to the word
        words += [(tokens[0], tokens[-1] + 1, start, end)]
        forms += [form] * len(tokens)
        position = end
    size = WINDOW - 2
    windows = []
    for first in range(0, max(1, len(forms) - OVERLAP), size - OVERLAP):
        last = first + size
        inside = [
            (max(a, first) - first + 1, min(b, last) - first + 1, start, end)
            for a, b, start, end in words
            if a < last and b > first
        ]
        ids = [
            tokenizer.cls_token_id,
            *encoding.ids[first:last],
            tokenizer.sep_token_id,
        ]
        windows.append(Window(ids, [(0, 7), *forms[first:last], (0, 7)], inside))
    return windows


def collate(windows: Sequence[Window]) -> dict[str, torch.Tensor]:
    """
    Pad windows to one batch.

    Parameters
    ----------
    windows : sequence of Window, length n
        Of similar length, to waste little.

    Returns
    -------
    dict of str to torch.Tensor
        ``input_ids`` and ``attention_mask`` of n x length, ``forms`` of n x length x 2.
    """
    length = max(len(w.ids) for w in windows)
    pads = [length - len(w.ids) for w in windows]
    ids = [w.ids + [0] * pad for w, pad in zip(windows, pads, strict=True)]
    forms = [w.forms + [(0, 7)] * pad for w, pad in zip(windows, pads, strict=True)]
    mask = [[1] * len(w.ids) + [0] * p for w, p in zip(windows, pads, strict=True)]
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "forms": torch.tensor(forms),
    }


def score_tokens(
    model: torch.nn.Module, form_embedding: torch.Tensor, batch: dict[str, torch.Tensor]
) -> torch.Tensor:
    """
    Run the model on a batch.

    Parameters
    ----------
    model : torch.nn.Module
        A token classifier, with or without its adapter merged.
    form_embedding : torch.Tensor
        `FORMS` rows of the model's width.
    batch : dict
        As `collate` gives it.

    Returns
    -------
    torch.Tensor
        Logits, n x length x labels.
    """
    embedded = model.get_input_embeddings()(batch["input_ids"])
    embedded = embedded + form_embedding[batch["forms"]].sum(dim=2)
    return model(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits


@torch.inference_mode()
def score_words(
    texts: Sequence[str], redactor: Redactor
) -> list[list[tuple[int, int, torch.Tensor]]]:
    """
    Give the probability of each label for each word of each text.

    Parameters
    ----------
    texts : sequence of str, length n
        Any texts.
    redactor : Redactor
        As `load_redactor` gives it.

    Returns
    -------
    list of list, length n
        A word's start, end and probabilities; a mark of punctuation is a word too.
    """
    cut = [encode(redactor.tokenizer, text) for text in texts]
    order = [(i, k) for i, windows in enumerate(cut) for k in range(len(windows))]
    order.sort(key=lambda at: len(cut[at[0]][at[1]].ids))
    scored: list[dict[tuple[int, int], tuple[int, torch.Tensor]]] = [{} for _ in texts]
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        batch = collate([cut[i][k] for i, k in chosen])
        logits = score_tokens(redactor.model, redactor.form_embedding, batch)
        for (i, k), rows in zip(chosen, logits.softmax(dim=-1), strict=True):
            n = len(cut[i][k].ids)
            for a, b, start, end in cut[i][k].words:
                # Where windows overlap, the one with more context on both sides counts.
                room = min(a, n - b)
                if room > scored[i].get((start, end), (-1,))[0]:
                    scored[i][start, end] = room, rows[a:b].mean(dim=0)
    return [[(*at, p) for at, (_, p) in sorted(words.items())] for words in scored]


def _join(text: str, words: list[tuple[int, int, str | None, float]]) -> Iterator[Span]:
    """Join neighbouring words of one type to spans."""
    for i in range(1, len(words) - 1):  # one half of Smith-Jones is never left behind
        (_, a, left, p), (b, c, _, _), (d, e, right, q) = words[i - 1 : i + 2]
        if (a, c) == (b, d) and text[b:c] in _HYPHENS and "PERSON" in (left, right):
            if left is None and text[words[i - 1][0] : a].isalpha():
                words[i - 1] = (*words[i - 1][:2], right, q)
            elif right is None and text[d:e].isalpha() and e - d > 1:
                words[i + 1] = (d, e, left, p)
    start = end = 0
    kind: str | None = None
    scores: list[float] = []
    for a, b, found, p in [*words, (0, 0, "", 0.0)]:
        gap = text[end:a]
        near = kind == "STREET_ADDRESS" or not set(gap) & set("\n\t")
        if kind and found == kind and near and gap.strip() in ("", *_HYPHENS, ".", "_"):
            end = b
            scores.append(p)
            continue
        if found is None and kind and b - a == 1 and a >= end and not text[a].isalnum():
            continue  # perhaps the mark between two parts of one name
        if kind and any(c.isalnum() for c in text[start:end]):
            yield Span(start, end, kind, round(sum(scores) / len(scores), 4))
        start, end, kind, scores = a, b, found, [p]


def find_names(
    texts: Sequence[str], redactor: Redactor | None = None
) -> list[list[Span]]:
    """
    Find the persons, places, organisations and the like in texts.

    Parameters
    ----------
    texts : sequence of str, length n
        Any texts; a long one is read in overlapping windows.
    redactor : Redactor, optional
        Default: the one in `data/redactor/`.

    Returns
    -------
    list of list of Span, length n
        In order, whole words, no two overlapping.

    Examples
    --------
    >>> [span] = find_names(["Invoice for Ngozi Okafor attached."])[0]
    >>> span.start, span.end, span.entity_type
    (12, 24, 'PERSON')
    """
    redactor = redactor or load_redactor()
    found = []
    for text, words in zip(texts, score_words(texts, redactor), strict=True):
        if not words:
            found.append([])
            continue
        shares = torch.stack([p for *_, p in words])[:, 1:]
        best, kinds = (shares / redactor.thresholds).max(dim=1)
        sure = shares.gather(1, kinds[:, None])[:, 0].tolist()
        labelled = [
            (start, end, redactor.labels[kind + 1] if ratio >= 1 else None, p)
            for (start, end, _), kind, ratio, p in zip(
                words, kinds.tolist(), best.tolist(), sure, strict=True
            )
        ]
        found.append(list(_join(text, labelled)))
    return found


class NameRecognizer(EntityRecognizer):
    """Presidio's door to the model: finds what no fixed format gives away."""

    def __init__(self) -> None:
        labels = json.loads((FOLDER / "redactor.json").read_text("utf-8"))["labels"]
        super().__init__(supported_entities=labels[1:], name="NameRecognizer")

    def load(self) -> None:
        """Load nothing yet: `find_names` does so at its first call."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: Any = None
    ) -> list[RecognizerResult]:
        """
        Find the entities asked for.

        Parameters
        ----------
        text : str
            Any text.
        entities : list of str
            Types to look for.
        nlp_artifacts : object, optional
            Not used: the model needs no other's tokens.

        Returns
        -------
        list of RecognizerResult
            One a span.
        """
        # The model has thresholds of its own: Presidio's must drop none of these.
        least, room = LEAST_SCORE, 1 - LEAST_SCORE
        return [
            RecognizerResult(s.entity_type, s.start, s.end, least + room * s.score)
            for s in find_names([text])[0]
            if s.entity_type in entities
        ]
