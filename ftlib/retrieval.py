"""Retrieval: cut a handbook into passages, find those that answer, cite one."""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import bm25s
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from ftlib import schema
from ftlib.config import ROOT
from ftlib.models import find_encoder
from ftlib.schema import Example, Message, fold_text
from ftlib.scoring import Score, score_mean, score_share

NOT_SAID = "The context does not say."
"""How Wren was taught to decline when no passage has the answer."""
Way = Literal["lexical", "dense", "fused"]
RRF_K = 60  # what is added to a rank before its inverse is taken


@dataclass(frozen=True)
class Passage:
    """A piece of a document that is found and cited as a whole."""

    passage_id: str
    title: str
    text: str


class Answer(NamedTuple):
    """What was answered, from which passages, and the id of the one that says it."""

    text: str
    passages: Sequence[Passage] = ()
    cited: str | None = None


def cut_by_heading(markdown: str) -> list[Passage]:
    r"""
    Cut a Markdown document into one passage for each heading below the first level.

    Parameters
    ----------
    markdown : str
        The document.

    Returns
    -------
    list of Passage
        In their order. An id is the heading in small letters, words joined by ``-``.

    Raises
    ------
    ValueError
        When there is no such heading, or two that give one id.

    Examples
    --------
    >>> cut_by_heading("# House\n## Mail, lost\nAsk Ada.")[0].passage_id
    'mail-lost'
    """
    parts = re.split(r"^\ufeff?#{2,6} ", markdown, flags=re.MULTILINE)[1:]
    passages = []
    for part in parts:
        title, _, text = part.partition("\n")
        name = "-".join(re.findall(r"\w+", title.lower()))
        passages.append(Passage(name, title.strip(" #\r"), text.strip()))
    if len({p.passage_id for p in passages}) < max(1, len(passages)):
        raise ValueError(
            "no passages can be told apart: give each a heading of its own, as in "
            "'## Mail filter'"
        )
    return passages


def load_handbook(version: str) -> list[Passage]:
    """
    Load the passages of the security team's handbook.

    Parameters
    ----------
    version : {"v1", "v2"}
        Which of its two versions in ``data/handbook``.

    Returns
    -------
    list of Passage
        In their order.

    Raises
    ------
    ValueError
        When there is no such version.

    Examples
    --------
    >>> load_handbook("v1")[0].title
    'How to triage an alert'
    """
    path = ROOT / "data" / "handbook" / f"{version}.md"
    if not path.is_file():
        raise ValueError(f"there is no version {version!r}: use v1 or v2")
    return cut_by_heading(path.read_text("utf-8"))


class Index:
    """
    Find passages by their words (BM25), by their meaning (MiniLM), or by both.

    Parameters
    ----------
    passages : sequence of Passage, length n_passages
        What is searched, title and text.

    Raises
    ------
    ValueError
        When no passage holds a word to search for.

    Notes
    -----
    At this size the nearest vectors are found by one matrix product. The two rankings
    are joined by reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)
        texts = [f"{p.title}\n{p.text}" for p in self.passages]
        words = _split(texts)
        if not any(words):
            raise ValueError("there is nothing to search: give passages with words")
        self._bm25 = bm25s.BM25()
        self._bm25.index(words, show_progress=False)
        encoder = find_encoder()
        self._tokenizer = AutoTokenizer.from_pretrained(encoder)
        self._encoder = AutoModel.from_pretrained(encoder).eval()
        self.vectors = self.embed(texts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """
        Give the unit vectors whose product says how near two texts are in meaning.

        Parameters
        ----------
        texts : sequence of str, length n_texts
            Only the first 256 tokens of a text count.

        Returns
        -------
        ndarray of float32, shape (n_texts, 384)
            The mean of the last layer over the text's tokens, of length 1.
        """
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.empty((len(texts), self._encoder.config.hidden_size), np.float32)
        # Texts of like length together: all are padded to the longest.
        for chosen in np.array_split(order, math.ceil(len(order) / 32)):
            batch = self._tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            with torch.no_grad():
                states = self._encoder(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            means = (states * mask).sum(1) / mask.sum(1)
            vectors[chosen] = torch.nn.functional.normalize(means)
        return vectors

    def search(
        self,
        queries: Sequence[str],
        top_k: int = 3,
        by: Way = "fused",
    ) -> list[list[Passage]]:
        """
        Find the passages that are most likely to answer each query.

        Parameters
        ----------
        queries : sequence of str, length n_queries
            What is asked.
        top_k : int
            How many passages are wanted for each.
        by : {"lexical", "dense", "fused"}
            Shared words, nearness in meaning, or both.

        Returns
        -------
        list of list of Passage, length n_queries
            The best first; fewer where the index has fewer.

        Raises
        ------
        ValueError
            When `top_k` is below 1 or `by` is none of the three.
        """
        if top_k < 1 or by not in get_args(Way):
            raise ValueError(
                f"top_k={top_k}, by={by!r}: give 1 or more, and lexical, dense or fused"
            )
        if not queries:
            return []
        worded = np.zeros((len(queries), len(self.passages)))
        for row, words in zip(worded, _split(queries), strict=True):
            if words:
                row[:] = self._bm25.get_scores(words)
        worded[worded <= 0] = -np.inf  # no shared word: no rank by words at all
        near = self.embed(queries) @ self.vectors.T
        chosen = {"lexical": [worded], "dense": [near], "fused": [worded, near]}[by]
        fused = sum(1 / (RRF_K + _rank(scores)) for scores in chosen)
        best = np.argsort(-fused, axis=1, kind="stable")[:, :top_k]
        return [[self.passages[i] for i in row] for row in best]

    def make_prompts(
        self, questions: Sequence[str], top_k: int = 3
    ) -> list[list[Message]]:
        """
        Put before each question the passages that are found for it.

        Parameters
        ----------
        questions : sequence of str, length n_questions
            What is asked.
        top_k : int
            How many passages each gets.

        Returns
        -------
        list of list of Message, length n_questions
            As `make_prompt` writes them.
        """
        found = self.search(questions, top_k)
        return [make_prompt(q, p) for q, p in zip(questions, found, strict=True)]


def _split(texts: Sequence[str]) -> list[list[str]]:
    """Cut texts into the words that BM25 counts, without the commonest ones."""
    cut = bm25s.tokenize(list(texts), return_ids=False, show_progress=False)
    return [[word for word in words if word] for words in cut]


def _rank(scores: np.ndarray) -> np.ndarray:
    """Give the rank of each score in its row, 1 for the highest; none for -inf."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.where(np.isneginf(scores), np.inf, np.argsort(order, axis=1) + 1)


def find_ranks(
    found: Sequence[Sequence[Passage]], wanted: Sequence[str]
) -> list[float]:
    """
    Say at which rank the wanted passage of each query was found.

    The share of ranks up to k is recall@k; the mean of 1 / rank is the MRR.

    Parameters
    ----------
    found : sequence of sequence of Passage, length n_queries
        As `Index.search` gives them.
    wanted : sequence of str, length n_queries
        The id of the passage that answers each query.

    Returns
    -------
    list of float, length n_queries
        1 for the first; infinite where it was not found.

    Examples
    --------
    >>> mail, door = Passage("mail", "", ""), Passage("door", "", "")
    >>> find_ranks([[mail, door], [mail]], ["door", "door"])
    [2, inf]
    """
    ids = [[passage.passage_id for passage in passages] for passages in found]
    return [
        row.index(name) + 1 if name in row else math.inf
        for row, name in zip(ids, wanted, strict=True)
    ]


def score_ranks(ranks: Sequence[float]) -> list[Score]:
    """
    Score a search by the ranks at which it found what was wanted.

    Parameters
    ----------
    ranks : sequence of float, length n_queries
        As `find_ranks` gives them.

    Returns
    -------
    list of Score
        Recall@1, recall@3 and the mean reciprocal rank (MRR).

    Examples
    --------
    >>> [score.value for score in score_ranks([1, 2, 4, math.inf])]
    [0.25, 0.5, 0.4375]
    """
    return [
        score_share("recall@1", [rank <= 1 for rank in ranks]),
        score_share("recall@3", [rank <= 3 for rank in ranks]),
        score_mean("MRR", [1 / rank for rank in ranks]),
    ]


def compare_searches(
    index: Index, queries: Sequence[str], wanted: Sequence[str]
) -> dict[str, list[Score]]:
    """
    Score the three ways to search on the same labelled queries.

    Parameters
    ----------
    index : Index
        What is searched.
    queries : sequence of str, length n_queries
        What is asked.
    wanted : sequence of str, length n_queries
        The id of the passage that answers each.

    Returns
    -------
    dict of str to list of Score
        By way, as `score_ranks` gives them.
    """
    every = len(index.passages)
    return {
        way: score_ranks(find_ranks(index.search(queries, every, way), wanted))
        for way in get_args(Way)
    }


def make_reading_examples(
    index: Index,
    questions: Sequence[str],
    references: Sequence[str],
    golden: Sequence[str],
    top_k: int = 2,
    share_without: float = 0.15,
    seed: int = 0,
) -> list[Example]:
    """
    Make examples that teach to read: the golden passage stands among distractors.

    Parameters
    ----------
    index : Index
        Whose best passages for a question, but for the golden one, distract.
    questions : sequence of str, length n_questions
        What is asked.
    references : sequence of str, length n_questions
        The right answers.
    golden : sequence of str, length n_questions
        The id of the passage that has the answer.
    top_k : int
        Passages for each question.
    share_without : float
        The chance that the golden one is left out; the reference then is `NOT_SAID`.
    seed : int
        Of the draws and the order.

    Returns
    -------
    list of Example, length n_questions
        With prompts as `make_prompt` writes them.

    Raises
    ------
    ValueError
        When a golden passage is not in the index.

    Notes
    -----
    T. Zhang et al., RAFT: Adapting language model to domain specific RAG (2024). There
    the answer stays where the golden passage is left out, and is learned by heart.
    """
    rng = random.Random(seed)
    by_id = {passage.passage_id: passage for passage in index.passages}
    if missing := set(golden) - by_id.keys():
        raise ValueError(
            f"the index has no passage {min(missing)!r}: add it, or drop it"
        )
    examples = []
    for question, reference, name, found in zip(
        questions, references, golden, index.search(questions, 6), strict=True
    ):
        others = [passage for passage in found if passage.passage_id != name]
        chosen = rng.sample(others, min(top_k, len(others)))
        said = NOT_SAID
        if rng.random() >= share_without:
            chosen, said = [by_id[name], *chosen[: top_k - 1]], reference
        prompt = make_prompt(question, rng.sample(chosen, len(chosen)))
        examples.append(schema.make_example(prompt[0]["content"], said))
    return examples


def make_prompt(question: str, passages: Sequence[Passage]) -> list[Message]:
    """
    Put passages before a question.

    Parameters
    ----------
    question : str
        What is asked.
    passages : sequence of Passage
        Where the answer is to be looked for; none leaves the question alone.

    Returns
    -------
    list of Message
        One message of the user.

    Examples
    --------
    >>> print(make_prompt("Who?", [Passage("mail", "Mail", "Ask Ada.")])[0]["content"])
    Context:
    [1] Mail
    Ask Ada.
    <BLANKLINE>
    Answer from the context: Who?
    """
    parts = [f"[{i}] {p.title}\n{p.text}" for i, p in enumerate(passages, start=1)]
    if parts:
        context = "\n\n".join(parts)
        question = f"Context:\n{context}\n\nAnswer from the context: {question}"
    return [{"role": "user", "content": question}]


def cite(text: str, passages: Sequence[Passage]) -> str | None:
    """
    Name the first passage that says an answer, word for word.

    Parameters
    ----------
    text : str
        The answer.
    passages : sequence of Passage
        What it was given.

    Returns
    -------
    str or None
        The passage's id; None where none says it, and the answer has no source.

    Examples
    --------
    >>> cite("ada", [Passage("mail", "Mail", "Ask Ada.")])
    'mail'
    """
    wanted = rf"(?<!\w){re.escape(fold_text(text))}(?!\w)"
    for passage in passages if text.strip() else ():
        if re.search(wanted, fold_text(f"{passage.title}\n{passage.text}")):
            return passage.passage_id
    return None


def answer(
    generate: Callable[[list[list[Message]]], list[str]],
    questions: Sequence[str],
    index: Index | None = None,
    top_k: int = 3,
) -> list[Answer]:
    """
    Answer questions from the passages that are found for them, and cite.

    Parameters
    ----------
    generate : callable
        What gives the responses to prompts, such as `generation.generate` with its
        model and tokenizer filled in.
    questions : sequence of str, length n_questions
        What is asked.
    index : Index, optional
        Where to look; without one the model answers by itself.
    top_k : int
        How many passages each question gets.

    Returns
    -------
    list of Answer, length n_questions
        With the passages, and the id of the one that says the answer word for word.

    Examples
    --------
    >>> answer(lambda prompts: ["Ada"] * len(prompts), ["Who?"])
    [Answer(text='Ada', passages=(), cited=None)]
    """
    found = index.search(questions, top_k) if index else [()] * len(questions)
    prompts = [make_prompt(q, p) for q, p in zip(questions, found, strict=True)]
    texts = generate(prompts)
    return [Answer(t, p, cite(t, p)) for t, p in zip(texts, found, strict=True)]
