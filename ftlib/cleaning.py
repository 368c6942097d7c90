"""Cleaning: faults that a set of examples has, each found by row, with its remedy."""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ftfy
from datasketch import MinHash, MinHashLSH

from ftlib.schema import (
    BadRow,
    Example,
    Message,
    fold_messages,
    fold_text,
    split_prompt,
)

NEAR = 0.8
"""The similarity from which two texts count as near-duplicates."""

_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
    explain=False,
)
_BARE_END = re.compile(r"\s[^\W\d_]+-?\s*$")  # a word, and no mark after it
_DANGLING = re.compile(r"(,|\b(a|an|and|the|of|or))\s*$", re.IGNORECASE)
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]])')
_FOREIGN = r"<\|[A-Za-z0-9_]{2,24}\|>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"


def repair_text(text: str) -> str:
    """
    Repair text whose encoding was mistaken on its way here.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        The text as it was meant; right text, code and JSON come back as they are.

    Examples
    --------
    >>> repair_text("CafÃ© â€“ “open”"), repair_text('{"a": "&lt;ﬁ＠"}')
    ('Café – “open”', '{"a": "&lt;ﬁ＠"}')
    """
    return ftfy.fix_text(text, _REPAIR)


def find_exact_duplicates(examples: Sequence[Example]) -> list[list[int]]:
    """
    Find the examples that are equal but for case and white space.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations.

    Returns
    -------
    list of list of int
        Groups of two or more indices, from 0, each in order: keep the first.
    """
    groups = defaultdict(list)
    for i, example in enumerate(examples):
        text = fold_messages(example["messages"]).encode("utf-8", "surrogatepass")
        # 16 bytes a row in place of its text, and no two that differ agree in them.
        groups[hashlib.blake2b(text, digest_size=16).digest()].append(i)
    return [group for group in groups.values() if len(group) > 1]


def find_near_duplicates(
    texts: Sequence[str], threshold: float = NEAR, seed: int = 0
) -> list[tuple[int, int, float]]:
    """
    Find the pairs of texts that share most of their runs of five characters.

    Parameters
    ----------
    texts : sequence of str, length n
        What to compare, without what all have in common, such as an instruction.
    threshold : float
        The least similarity of a pair, over 0 and up to 1.
    seed : int
        Of MinHash.

    Returns
    -------
    list of (int, int, float)
        Indices, the smaller first, and the Jaccard similarity of the two sets of runs,
        case and white space folded; sorted. Of equal texts, each is paired with the
        first alone.

    Notes
    -----
    A. Broder, On the resemblance and containment of documents (1997). MinHash proposes
    the pairs, in time linear in `n`, and their exact similarity decides. One word
    changed in 25 leaves about 0.9, a template filled anew 0.7 and less.
    """
    return sorted(_pair_up(texts, threshold, seed))


def find_faulty_prompts(examples: Sequence[Example]) -> list[BadRow]:
    """
    Find the prompts that are empty, or seem cut off.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations; the last message of each prompt is looked at.

    Returns
    -------
    list of BadRow
        Rows from 1. A prompt with no end mark is reported where most have one.
    """
    texts = [example["messages"][-2]["content"] for example in examples]
    order = os.path.commonprefix([text.strip() for text in texts]).strip()
    found = {row.row: row for row in _find_cuts(texts, "prompt")}
    bare = [i for i, text in enumerate(texts, start=1) if text.strip() == order]
    if order and 2 * len(bare) < len(texts):
        reason = "the prompt is the instruction alone: add the text, or drop the row"
        found |= {i: BadRow(i, reason) for i in bare}
    return [found[i] for i in sorted(found)]


def find_faulty_responses(examples: Sequence[Example]) -> list[BadRow]:
    """
    Find the responses that are empty, or seem cut off.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations; the last message of each is looked at.

    Returns
    -------
    list of BadRow
        Rows from 1: broken JSON, an open code block, a dangling word; text among JSON,
        and no end mark, where most responses are otherwise.
    """
    return _find_cuts([e["messages"][-1]["content"] for e in examples], "response")


def find_contradictions(examples: Sequence[Example]) -> list[BadRow]:
    """
    Find the examples that give different responses to one prompt.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations.

    Returns
    -------
    list of BadRow
        Rows from 1, each with the others of its prompt. Case, white space and the
        order of JSON keys make no difference.
    """
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, example in enumerate(examples, start=1):
        prompt, response = split_prompt(example)
        value = _parse_json(response)
        said = json.dumps(value, sort_keys=True) if value is not None else response
        groups[fold_messages(prompt)][fold_text(said)].append(row)
    found = []
    for answers in groups.values():
        rows = sorted(row for same in answers.values() for row in same)
        shown = ", ".join(map(str, rows[:5])) + (", ..." if rows[5:] else "")
        reason = (
            f"rows {shown} answer one prompt in {len(answers)} ways: keep the right"
        )
        found += [BadRow(row, reason) for row in rows if len(answers) > 1]
    return sorted(found, key=lambda bad: bad.row)


def find_leaked_responses(examples: Sequence[Example]) -> list[BadRow]:
    """
    Find the responses that stand word for word in their own prompt.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations; the last message of each prompt is looked at.

    Returns
    -------
    list of BadRow
        Rows from 1. A response that stands in most prompts, as the labels to choose
        from do, is not reported. Where the task is to copy, all are, and rightly.
    """
    prompts = [fold_text(example["messages"][-2]["content"]) for example in examples]
    responses = [fold_text(example["messages"][-1]["content"]) for example in examples]
    found = []
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if not response or not _stands_in(response, prompt):
            continue
        later = [j % len(prompts) for j in range(i + 1, i + 100)]
        others = [prompts[j] for j in later if responses[j] != response][:20]
        if 2 * sum(_stands_in(response, p) for p in others) <= len(others):
            reason = (
                "the prompt holds its response: cut it out, unless copying is asked"
            )
            found.append(BadRow(i + 1, reason))
    return found


def find_template_tokens(examples: Sequence[Example], tokenizer: Any) -> list[BadRow]:
    """
    Find the messages whose content holds marks of a chat template.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations.
    tokenizer : transformers tokenizer
        Whose special tokens would end or begin a turn; other models' are found too.

    Returns
    -------
    list of BadRow
        Rows from 1.
    """
    marks = _match_marks(tokenizer)
    found = []
    for row, example in enumerate(examples, start=1):
        text = "\n".join(message["content"] for message in example["messages"])
        held = list(dict.fromkeys(mark[0] for mark in marks.finditer(text)))
        if held:
            reason = f"holds {' '.join(held)}: escape_template_tokens makes it text"
            found.append(BadRow(row, reason))
    return found


def escape_template_tokens(example: Example, tokenizer: Any) -> Example:
    """
    Make plain text of the marks of a chat template inside messages.

    Parameters
    ----------
    example : Example
        A conversation.
    tokenizer : transformers tokenizer
        Whose special tokens must not stand in a content.

    Returns
    -------
    Example
        A copy; each mark has a space after its first character.
    """
    marks = _match_marks(tokenizer)
    return Example(
        messages=[
            Message(
                role=message["role"],
                content=marks.sub(
                    lambda m: f"{m[0][0]} {m[0][1:]}", message["content"]
                ),
            )
            for message in example["messages"]
        ]
    )


@dataclass(frozen=True)
class LongRow(BadRow):
    """A row over the limit: its length, and the text that would be cut off its end."""

    n_tokens: int
    cut_text: str


def find_long_examples(
    examples: Sequence[Example], tokenizer: Any, max_length: int
) -> list[LongRow]:
    """
    Find the examples longer than the model is trained on, and what they would lose.

    Parameters
    ----------
    examples : sequence of Example, length n
        The conversations.
    tokenizer : transformers tokenizer
        One with a chat template.
    max_length : int
        The longest row allowed, in tokens, those of the template included.

    Returns
    -------
    list of LongRow
        Rows from 1, with ``n_tokens`` and ``cut_text``.
    """
    found = []
    for row, example in enumerate(examples, start=1):
        ids = tokenizer.apply_chat_template(
            example["messages"], return_dict=False, enable_thinking=False
        )
        if len(ids) > max_length:
            cut = tokenizer.decode(ids[max_length:])
            shown = cut if len(cut) < 60 else f"{cut[:40]} ... {cut[-15:]}"
            reason = f"{len(ids)} tokens, {max_length} allowed, would lose {shown!r}: "
            reason += "shorten it, split it, or raise max_length"
            found.append(LongRow(row, reason, len(ids), cut))
    return found


@dataclass(frozen=True)
class Overlap:
    """What test texts share with training texts: pairs of indices, training first."""

    exact: list[tuple[int, int]]
    shared_ngrams: list[tuple[int, int]]
    near_duplicates: list[tuple[int, int, float]]
    ngram_share: float


def measure_overlap(
    train_texts: Sequence[str],
    test_texts: Sequence[str],
    n: int = 13,
    threshold: float = NEAR,
) -> Overlap:
    """
    Measure how much of a test set training has already shown.

    Parameters
    ----------
    train_texts, test_texts : sequence of str
        What to compare, without what all have in common, such as an instruction.
    n : int
        The words in a row that count as shared; a text of fewer can only be exact.
    threshold : float
        The least similarity of a near-duplicate; see `find_near_duplicates`.

    Returns
    -------
    Overlap
        ``exact`` and ``shared_ngrams`` name the first training text for each test text
        concerned, ``near_duplicates`` all, with similarity; ``ngram_share`` is the
        share of test texts with a shared n-gram. Case and white space are folded.

    Notes
    -----
    T. Brown et al., Language models are few-shot learners (2020), appendix C, has n=13.

    Examples
    --------
    >>> measure_overlap(["The  cat sat."], ["the cat sat.", "A dog ran."]).exact
    [(0, 0)]
    """
    if not test_texts:
        raise ValueError("there is no test text: give at least one")
    firsts: dict[str, int] = {}
    grams: dict[str, int] = {}
    for i, text in enumerate(train_texts):
        firsts.setdefault(fold_text(text), i)
        for gram in _cut_ngrams(text, n):
            grams.setdefault(gram, i)
    exact, shared = [], []
    for j, text in enumerate(test_texts):
        if fold_text(text) in firsts:
            exact.append((firsts[fold_text(text)], j))
        if hits := [grams[gram] for gram in _cut_ngrams(text, n) if gram in grams]:
            shared.append((min(hits), j))
    n_train, texts = len(train_texts), [*train_texts, *test_texts]
    pairs = _pair_up(texts, threshold, 0, n_train)
    near = sorted((i, j - n_train, alike) for i, j, alike in pairs)
    return Overlap(exact, shared, near, len(shared) / len(test_texts))


def _cut_runs(text: str, length: int = 5) -> frozenset[str]:
    """Give the runs of characters of a folded text."""
    text = fold_text(text)
    starts = range(max(1, len(text) - length + 1))
    return frozenset(text[i : i + length] for i in starts) - {""}


def _cut_ngrams(text: str, n: int) -> set[str]:
    """Give the runs of `n` words of a text; none where it has fewer."""
    words = re.findall(r"\w+", text.casefold())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def _pair_up(
    texts: Sequence[str], threshold: float, seed: int, n_olds: int | None = None
) -> Iterator[tuple[int, int, float]]:
    """Give the indices of texts that are alike; of equal texts the first alone counts.

    With `n_olds`, one is of the first so many texts and one of the others.
    """
    # Recall weighs more than precision: what is proposed wrongly is thrown out below.
    # Nearer 1 than 0.97, datasketch finds no bands for 128 permutations.
    index = MinHashLSH(min(threshold, 0.97), num_perm=128, weights=(0.3, 0.7))
    blank, firsts = MinHash(num_perm=128, seed=seed), dict[int, int]()
    for j, text in enumerate(texts):
        # No set is kept, it is many times its text: what is proposed is cut anew.
        if not (runs := _cut_runs(text)):
            continue
        hashed = blank.copy()
        hashed.update_batch([run.encode("utf-8", "replace") for run in runs])
        for i in index.query(hashed) if n_olds is None or j >= n_olds else ():
            old = _cut_runs(texts[i])
            n_shared = len(old & runs)
            similarity = n_shared / (len(old) + len(runs) - n_shared)
            if similarity >= threshold:
                yield i, j, similarity
        if n_olds is None or j < n_olds:
            first = firsts.setdefault(hash(runs), j)
            if first == j or _cut_runs(texts[first]) != runs:
                index.insert(j, hashed)


def _stands_in(part: str, text: str) -> bool:
    """Say whether `part` stands in `text` as words of its own."""
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _match_marks(tokenizer: Any) -> re.Pattern:
    """Give what matches the tokenizer's special tokens, and other models' marks."""
    own = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    parts = [re.escape(token) for token in own if len(token) > 1]
    return re.compile("|".join([*parts, _FOREIGN]))


def _parse_json(text: str) -> Any:
    """Give the object or list that a text is, or None."""
    try:
        return json.loads(text) if _JSON_START.match(text) else None
    except (ValueError, RecursionError):
        return None


def _is_unended(text: str) -> bool:
    """Say whether a last line of words lacks its mark; a label, a name needs none."""
    last_line = text.strip().splitlines()[-1]
    return len(last_line.split()) > 3 and _BARE_END.search(last_line) is not None


def _find_cuts(texts: Sequence[str], noun: str) -> list[BadRow]:
    """Find the texts that are empty or seem cut off, measured by the others."""
    full = [text for text in texts if text.strip()]
    n_json = sum(_parse_json(text) is not None for text in full)
    ended = [not _is_unended(text) for text in full if not _JSON_START.match(text)]
    mostly_ended = sum(ended) > 0.8 * len(ended)
    found = []
    for row, text in enumerate(texts, start=1):
        is_json, fault = _parse_json(text) is not None, None
        if not text.strip():
            fault = "is empty: write one"
        elif _JSON_START.match(text) and not is_json:
            fault = "is JSON that is cut or broken: complete it"
        elif noun == "response" and n_json > len(full) / 2 and not is_json:
            fault = "is not JSON, as most are: write it so"
        elif text.count("```") % 2:
            fault = "opens a code block and does not close it: complete it"
        elif _DANGLING.search(text):
            fault = f"ends in {text.split()[-1]!r}, as if cut: complete it"
        elif mostly_ended and not is_json and _is_unended(text):
            fault = f"ends in {text.split()[-1]!r} with no end mark: complete it if cut"
        if fault:
            found.append(BadRow(row, f"the {noun} {fault}, or drop the row"))
    return found
