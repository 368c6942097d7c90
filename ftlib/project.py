"""A project of one's own: the whole flow, from a file to an exported adapter."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ftlib import cleaning, forgetting, models, redaction
from ftlib.config import RunConfig
from ftlib.deployment import export_adapter
from ftlib.formats import Loaded, load_examples
from ftlib.generation import generate
from ftlib.records import split_by_group
from ftlib.redaction.spans import settle_overlaps
from ftlib.reporting import list_results
from ftlib.schema import BadRow, Example, Message, Span, make_safe, split_prompt
from ftlib.scoring import Score, compare_paired, load_metric, parse_json, score_values
from ftlib.scoring.score import Values
from ftlib.store import ADAPTER_FOLDER
from ftlib.tokens import check_rows, encode_example
from ftlib.training import Run

Record = dict[str, Any]
"""A row on its way: ``id``, its row in the file; ``group``; ``messages``."""
Records = Sequence[Record]
Parts = Mapping[str, Records]
"""``train``, ``validation`` and ``test``."""
Items = dict[str, dict[str, Values]]
"""By arm and metric, one value a test row."""

MAX_MB = 50
"""A larger file is refused: a few thousand rows show what there is to see."""
MIN_ROWS = 20
"""Fewer rows are refused: they cannot be trained on, validated and tested."""
KEPT = ("response in prompt", "chat marks", "wrong letters", "not English")
"""The problems whose rows are kept unless told: they are mended, or may be right."""
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""How rows are split unless told: shares of the groups."""
FOREIGN = "Wren and the name finder know English alone: take a fit model, review more"
"""What is said of each row where most have no common English word."""
_NO_TEXT = (b"%PDF", b"PK\3\4", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"\x89PNG")
_KINDS = "a PDF, an Office file, an archive or a picture"
_ENGLISH = re.compile(r"(?i)\b(the|and|of|are|with|you|my|our|this|from|have|for|to)\b")


def load(path: str | os.PathLike) -> Loaded:
    """
    Load a file of training data, or say in one sentence why it cannot be used.

    Parameters
    ----------
    path : path
        As for `formats.load_examples`.

    Returns
    -------
    Loaded
        With at least one example.

    Raises
    ------
    ValueError
        When the file is too large, of another kind, or has no row that can be used.

    Examples
    --------
    >>> load("data/samples/finance_reports.jsonl").convention
    'prompt-completion'
    """
    path = Path(path)
    if path.is_file():  # one that is not there, `load_examples` names
        if path.stat().st_size > MAX_MB * 1e6:
            raise ValueError(
                f"{path.name} is too large: give {MAX_MB} MB of it at most"
            )
        with path.open("rb") as file:
            if file.read(8).startswith(_NO_TEXT):
                raise ValueError(
                    f"{path.name} is {_KINDS}: save its rows as CSV or JSONL"
                )
    loaded = load_examples(path)
    if not loaded.examples:
        bad = (loaded.bad_rows or [BadRow(1, "is missing")])[0]
        raise ValueError(f"{path.name} has no usable row; row {bad.row}: {bad.reason}")
    return loaded


def find_problems(loaded: Loaded, config: RunConfig) -> dict[str, list[BadRow]]:
    """
    Find what is wrong with the rows of a file, by the kind of problem.

    Parameters
    ----------
    loaded : Loaded
        As `load` gives it.
    config : RunConfig
        Whose model says what is too long, and which marks its chat template has.

    Returns
    -------
    dict of str to list of BadRow
        Each kind, those with no row too; rows are numbered as in the file.
    """
    examples, tokenizer = loaded.examples, models.load_tokenizer(config)
    texts = dict(enumerate((_join(example["messages"]) for example in examples), 1))
    groups = cleaning.find_exact_duplicates(examples)
    copies = [i + 1 for group in groups for i in group[1:]]
    twofold = [bad.row for bad in cleaning.find_contradictions(examples)]
    repaired = [_repair(example) for example in examples]
    mended = [i for i, one in enumerate(repaired, 1) if one != examples[i - 1]]
    foreign = [i for i, text in texts.items() if not _ENGLISH.search(text)]
    found = {
        "duplicate": _tell(copies, "the same as an earlier row: one is enough"),
        "faulty prompt": cleaning.find_faulty_prompts(examples),
        "faulty response": cleaning.find_faulty_responses(examples),
        "contradiction": _tell(twofold, "another row answers this prompt otherwise"),
        "too long": cleaning.find_long_examples(examples, tokenizer, config.max_length),
        "response in prompt": cleaning.find_leaked_responses(examples),
        "chat marks": cleaning.find_template_tokens(repaired, tokenizer),
        "wrong letters": _tell(mended, "read in a wrong encoding once: mended"),
        # One such row is short; when most are, it is the language.
        "not English": _tell(foreign if 2 * len(foreign) > len(texts) else [], FOREIGN),
    }
    return {"not read": loaded.bad_rows} | {
        kind: [BadRow(loaded.row_numbers[bad.row - 1], bad.reason) for bad in rows]
        for kind, rows in found.items()
    }


def _repair(example: Example) -> Example:
    """Mend the letters of a conversation: what else is done to it comes after."""
    said = example["messages"]
    mended = [m | {"content": cleaning.repair_text(m["content"])} for m in said]
    return Example(messages=mended)


def _tell(rows: Sequence[int], reason: str) -> list[BadRow]:
    """Give one reason for each of some rows."""
    return [BadRow(row, reason) for row in sorted(rows)]


def take_rows(
    loaded: Loaded,
    problems: Mapping[str, Sequence[BadRow]],
    config: RunConfig,
    keep: Collection[str] = KEPT,
    n_rows: int | None = None,
) -> list[Record]:
    """
    Take the rows without a problem, their letters and chat marks mended.

    Parameters
    ----------
    loaded : Loaded
        As `load` gives it.
    problems : mapping of str to sequence of BadRow
        As `find_problems` gives them.
    config : RunConfig
        Whose model's chat marks are made plain text.
    keep : collection of str
        The kinds of problem whose rows are taken all the same.
    n_rows : int, optional
        How many to take at most, from the first.

    Returns
    -------
    list of Record
        In the order of the file. A column ``group`` says which rows belong together.

    Raises
    ------
    ValueError
        When too few rows are left, or all have one response.
    """
    tokenizer = models.load_tokenizer(config)
    out = {bad.row for kind in problems if kind not in keep for bad in problems[kind]}
    rows = zip(loaded.row_numbers, loaded.rows, loaded.examples, strict=True)
    taken: list[Record] = []
    for number, raw, example in [row for row in rows if row[0] not in out][:n_rows]:
        # In this order: a repair can make a mark of what was none.
        mended = cleaning.escape_template_tokens(_repair(example), tokenizer)
        group = "" if raw.get("group") is None else str(raw["group"])
        taken.append({"id": number, "group": group or f"row {number}"})
        taken[-1]["messages"] = mended["messages"]
    if len(taken) < MIN_ROWS:
        raise ValueError(f"{len(taken)} rows can be used: give at least {MIN_ROWS}")
    if len({row["messages"][-1]["content"] for row in taken}) == 1:
        raise ValueError("every response is the same: give rows with others, too")
    return taken


def _join(messages: Sequence[Message]) -> str:
    """Give all that is said as one text."""
    return "\n\n".join(message["content"] for message in messages)


def find_spans(rows: Records) -> list[Record]:
    """
    Find what names a person or holds a secret, for a person to review.

    Parameters
    ----------
    rows : sequence of Record
        As `take_rows` gives them.

    Returns
    -------
    list of dict
        One a message: ``id``, such as ``"7.1"`` for the first of row 7, ``text`` and
        ``spans``, as `panels.ReviewPanel` takes them. What is found in one message of
        a row is marked wherever it stands in the row: half of it would teach to guess.
    """
    found = []
    for row in rows:
        said = _name_messages(row)
        spans = {name: redaction.find_spans(text) for name, text in said.items()}
        known = {said[name][s.start : s.end]: s for name in said for s in spans[name]}
        for name, text in said.items():
            again = [
                replace(span, start=match.start(), end=match.end())
                for original, span in known.items()
                for match in re.finditer(rf"(?<!\w){re.escape(original)}(?!\w)", text)
            ]
            settled = settle_overlaps(text, [*spans[name], *again])
            found.append({"id": name, "text": text, "spans": settled})
    return found


def _name_messages(row: Record) -> dict[str, str]:
    """Give what each message of a row says, by row and place."""
    said = [message["content"] for message in row["messages"]]
    return {f"{row['id']}.{i}": text for i, text in enumerate(said, 1)}


def redact(rows: Records, found: Records, decisions: Records = ()) -> list[Record]:
    """
    Put placeholders where rows hold a name or a secret.

    Parameters
    ----------
    rows : sequence of Record
        As `take_rows` gives them.
    found : sequence of dict
        As `find_spans` gives them for these rows.
    decisions : sequence of dict
        A reviewer's, as `panels.ReviewPanel` gives them: the last on a message counts.

    Returns
    -------
    list of Record
        Copies; equal originals share a number over all messages of a row.
    """
    spans = {one["id"]: one["spans"] for one in found}
    spans |= {d["id"]: [Span(**span) for span in d["spans"]] for d in decisions}
    redacted = []
    for row in rows:
        said = _name_messages(row)
        texts = redaction.redact(said, list(said), spans=spans).values()
        pairs = zip(row["messages"], texts, strict=True)
        redacted.append(row | {"messages": [m | {"content": t} for m, t in pairs]})
    return redacted


def split(
    rows: Records, shares: Mapping[str, float] = SHARES, seed: int = 0
) -> dict[str, list[Record]]:
    """
    Split rows so that neither a group nor near-duplicates fall into two parts.

    Parameters
    ----------
    rows : sequence of Record
        As `redact` gives them, for placeholders make prompts alike.
    shares : mapping of str to float
        Of ``train``, ``validation`` and ``test``; they add up to 1.
    seed : int
        Of the shuffle.

    Returns
    -------
    dict of str to list of Record
        The parts.

    Raises
    ------
    ValueError
        When so many rows belong together that a part stays empty.

    Examples
    --------
    >>> said = ["Where is my lamp?", "where is my  lamp?", "Is it open?", "No!"]
    >>> rows = [{"group": s, "messages": [{"content": s}, {}]} for s in said]
    >>> parts = split(rows, {"train": 0.67, "test": 0.33})
    >>> sorted(len(part) for part in parts.values())
    [1, 3]
    """
    prompts = [_join(row["messages"][:-1]) for row in rows]
    begin = len(os.path.commonprefix(prompts))  # an instruction makes no duplicates
    near = cleaning.find_near_duplicates([prompt[begin:] for prompt in prompts])
    groups = [row["group"] for row in rows]
    for i, j, _ in near:
        groups = [groups[i] if group == groups[j] else group for group in groups]
    grouped = [row | {"group": group} for row, group in zip(rows, groups, strict=True)]
    return split_by_group(grouped, "group", shares, seed)


@dataclass(frozen=True)
class Baseline:
    """What stands beside a tuned model: others' answers, and the base's on probes."""

    answers: dict[str, list[str]]
    probes: forgetting.Probes
    before: forgetting.Right


def measure_baseline(parts: Parts, config: RunConfig, n_probes: int = 30) -> Baseline:
    """
    Answer the test prompts without training: by the base model, and by plain look-up.

    Parameters
    ----------
    parts : mapping of str to sequence of Record
        As `split` gives them.
    config : RunConfig
        Which model.
    n_probes : int
        How many probes of each ability the base answers, too.

    Returns
    -------
    Baseline
        Answers of the base, the response to the ``nearest`` training prompt, and the
        ``most common`` training response.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import

    asked, said = _split_pairs(parts["train"])
    prompts, _ = _split_pairs(parts["test"])
    index = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5))
    known = index.fit_transform(map(_join, asked))
    likeness = (index.transform(map(_join, prompts)) @ known.T).toarray()
    ask = _make_ask(models.load_base(config), parts, config)
    answers = {
        "base": ask(prompts),
        "nearest": [said[i] for i in likeness.argmax(axis=1)],
        "most common": [Counter(said).most_common(1)[0][0]] * len(prompts),
    }
    probes = forgetting.load_probes(n_probes)
    return Baseline(answers, probes, forgetting.answer_probes(ask, probes))


def _split_pairs(rows: Records) -> tuple[tuple, tuple]:
    """Give the prompts of rows, and their references."""
    prompts, references = zip(*map(split_prompt, rows), strict=True)
    return prompts, references


def _make_ask(model: Any, parts: Parts, config: RunConfig) -> Callable:
    """Make what answers, in no more tokens than the longest training response has."""
    tokenizer = models.load_tokenizer(config)
    said = tokenizer(list(_split_pairs(parts["train"])[1]))["input_ids"]
    return partial(generate, model, tokenizer, max_new_tokens=max(map(len, said)) + 8)


def make_run(parts: Parts, config: RunConfig, folder: str | Path) -> Run:
    """
    Make the run that trains on a project's rows, which are checked first.

    Parameters
    ----------
    parts : mapping of str to sequence of Record
        As `split` gives them.
    config : RunConfig
        The settings.
    folder : path
        The run's own folder.

    Returns
    -------
    training.Run
        To be started, and waited for.

    Raises
    ------
    PreflightError
        Naming each fault that makes training fail in silence.
    """
    tokenizer = models.load_tokenizer(config)
    train, validation = (
        [encode_example(row, tokenizer) for row in parts[name]]
        for name in ("train", "validation")
    )
    held_out = [*parts["validation"], *parts["test"]]
    check_rows(train, parts["train"], tokenizer, config.max_length, held_out)
    model = models.make_trainable(models.load_base(config), config)
    return Run(model, tokenizer, train, validation, config, folder)


def choose_metrics(references: Sequence[str]) -> tuple[str, ...]:
    """
    Choose the metrics that suit some references; the first is the one that counts.

    Parameters
    ----------
    references : sequence of str
        Of the training rows, so that it is chosen before anything is answered.

    Returns
    -------
    tuple of str
        Names for `scoring.load_metric`: exact match where most references are JSON or
        have five words at most, else chrF.

    Examples
    --------
    >>> choose_metrics(['{"owner": "mail"}', "spam"])
    ('exact_match', 'chrf')
    """
    is_short = [parse_json(t) is not None or len(t.split()) <= 5 for t in references]
    if 2 * sum(is_short) > len(references):
        return "exact_match", "chrf"
    return "chrf", "rouge_l", "exact_match"


def score_answers(parts: Parts, answers: Mapping[str, Sequence[str]]) -> Items:
    """
    Score each answer of several arms to the test prompts.

    Parameters
    ----------
    parts : mapping of str to sequence of Record
        As `split` gives them.
    answers : mapping of str to sequence of str
        By arm, one a test row.

    Returns
    -------
    dict of str to dict of str to list of float
        By arm and metric, one a test row; the first metric counts.
    """
    _, wanted = _split_pairs(parts["test"])
    names = choose_metrics(_split_pairs(parts["train"])[1])
    scorers = {name: load_metric(name) for name in names}
    return {
        arm: {name: m.score_items(said, wanted)[name] for name, m in scorers.items()}
        for arm, said in answers.items()
    }


def list_scores(items: Items) -> list[dict[str, str]]:
    """
    Give the scores of several arms as rows for `reporting.show_table`.

    Parameters
    ----------
    items : dict of str to dict of str to list of float
        As `score_answers` gives them.

    Returns
    -------
    list of dict of str to str
        One an arm, each score with its interval.

    Examples
    --------
    >>> list_scores({"base": {"chrf": [0.5, 0.5]}})
    [{'system': 'base', 'chrf': '0.50 [0.50, 0.50], n=2 (too few)'}]
    """
    return list_results(
        {arm: [score_values(*one) for one in m.items()] for arm, m in items.items()}
    )


@dataclass(frozen=True)
class Evaluation:
    """What a tuned model does on the test rows and probes, and whether it may ship."""

    answers: dict[str, list[str]]
    items: Items
    gains: dict[str, Score]
    after: forgetting.Right
    verdict: forgetting.Verdict


def evaluate(run: Run, parts: Parts, baseline: Baseline) -> Evaluation:
    """
    Have a tuned model answer what the baselines did, and judge it.

    Parameters
    ----------
    run : training.Run
        Finished.
    parts : mapping of str to sequence of Record
        As `split` gives them.
    baseline : Baseline
        As `measure_baseline` gives it.

    Returns
    -------
    Evaluation
        By arm, ``tuned`` the last: answers and scores; its gain over each other arm,
        paired, by the metric that counts. To ship it must pass `forgetting.check_gate`
        and be surely better than look-up.
    """
    ask = _make_ask(run.model, parts, run.config)
    answers = baseline.answers | {"tuned": ask(_split_pairs(parts["test"])[0])}
    after = forgetting.answer_probes(ask, baseline.probes)
    items, gains = score_answers(parts, answers), {}
    metric, tuned = next(iter(items["tuned"].items()))
    for arm in baseline.answers:
        gains[arm] = compare_paired(f"{metric} over {arm}", items[arm][metric], tuned)
    try:
        reasons = forgetting.check_gate(gains["base"], baseline.before, after).reasons
    except ValueError as error:  # of another model than Wren, none may be right before
        reasons = (f"forgetting: {error}",)
    looked_up = [gains[arm] for arm in gains if arm != "base"]
    reasons += tuple(f"{gain}: look-up will do" for gain in looked_up if gain.low <= 0)
    verdict = forgetting.Verdict(not reasons, reasons)
    return Evaluation(answers, items, gains, after, verdict)


def export(
    run: Run, evaluation: Evaluation, folder: str | Path, override: str = ""
) -> Path:
    """
    Export the adapter of a run that may ship, or whose refusal a person overrides.

    Parameters
    ----------
    run : training.Run
        Finished.
    evaluation : Evaluation
        Of its model.
    folder : path
        Where to.
    override : str
        Why it is exported all the same; it goes into the card.

    Returns
    -------
    Path
        The exported folder.

    Raises
    ------
    ValueError
        When the verdict is not to ship and no reason overrides it.
    """
    if not evaluation.verdict.ship and not override.strip():
        raise ValueError(
            "the verdict is not to ship: to export it, give a reason (override)"
        )
    lines = [str(evaluation.verdict)]
    if not evaluation.verdict.ship:
        lines.append(f"Exported all the same: {override.strip()}")
    for row in list_scores(evaluation.items):
        lines.append("; ".join(map(" ".join, row.items())))  # noqa: PERF401
    card = make_safe("\n\n".join(lines))
    return export_adapter(run.folder / ADAPTER_FOLDER, folder, run.config, card)
