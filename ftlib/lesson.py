"""What every notebook calls: begin, train, check an answer."""

import gc
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlib import exercises, store
from ftlib.config import ROOT, RunConfig, default_profile
from ftlib.records import TRIAGE_ORDER, load_reviewed
from ftlib.schema import Example, make_example


@dataclass(frozen=True)
class Lesson:
    """A notebook's name, what it reads and what it writes, as paths from the root."""

    name: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


LESSONS = {
    "00": Lesson("00_start_here", ("data/wren", "data/soc"), ("runs/00_start_here",)),
    "01": Lesson(
        "01_first_fine_tune",
        ("data/wren", "data/soc", "data/probes"),
        ("runs/01_first_fine_tune",),
    ),
    "02": Lesson(
        "02_data_preparation",
        ("data/wren", "data/soc", "data/samples"),
        ("runs/02_data_preparation",),
    ),
    "03": Lesson(
        "03_redaction",
        (
            "data/wren",
            "data/soc",
            "data/pii",
            "data/redactor",
            "data/reference_runs/leakage_cpu.json",
        ),
        ("runs/03_redaction",),
    ),
    "04": Lesson(
        "04_rag_or_fine_tune",
        (
            "data/wren",
            "data/soc",
            "data/handbook",
            "data/prices.csv",
            "data/reference_runs/rag_or_fine_tune_cpu.json",
            "runs/01_first_fine_tune",
        ),
        ("runs/04_rag_or_fine_tune",),
    ),
    "05": Lesson(
        "05_qlora",
        (
            "data/wren",
            "data/soc",
            "data/architectures.json",
            "data/reference_runs/faulty_curves_cpu.json",
            "runs/01_first_fine_tune",
        ),
        ("runs/05_qlora",),
    ),
    "06": Lesson(
        "06_adapter_methods",
        ("data/wren", "data/soc", "data/samples", "data/reference_runs/methods"),
        ("runs/06_adapter_methods",),
    ),
    "07": Lesson(
        "07_overfitting",
        ("data/wren", "data/soc", "data/reference_runs/overfitting"),
        ("runs/07_overfitting",),
    ),
    "08": Lesson(
        "08_forgetting",
        (
            "data/wren",
            "data/soc",
            "data/probes",
            "data/replay",
            "data/samples",
            "data/reference_runs/forgetting",
            "runs/01_first_fine_tune",
        ),
        ("runs/08_forgetting",),
    ),
    "09": Lesson(
        "09_evaluation",
        (
            "data/wren",
            "data/soc",
            "data/reference_runs/first_fine_tune_cpu.json",
            "runs/01_first_fine_tune",
        ),
        ("runs/09_evaluation",),
    ),
    "10": Lesson(
        "10_deployment",
        (
            "data/wren",
            "data/soc",
            "data/handbook",
            "data/samples",
            "data/agent",
            "data/adapters",
            "runs/01_first_fine_tune",
        ),
        ("runs/10_deployment",),
    ),
    "11": Lesson(
        "11_release",
        (
            "data/wren",
            "data/soc",
            "data/probes",
            "data/adapters",
            "data/release.yaml",
            "data/prices.csv",
            "data/reference_runs/leakage_cpu.json",
            "runs/01_first_fine_tune",
        ),
        ("runs/11_release",),
    ),
    "12": Lesson(
        "12_your_own_project",
        ("data/wren", "data/samples", "data/probes", "data/redactor"),
        ("runs/12_your_own_project",),
    ),
}


class MissingInput(FileNotFoundError):  # noqa: N818 - run.py knows it by this name
    """A lesson's input is not there; the message names the notebook that makes it."""


def begin(number: str, profile: str | None = None) -> RunConfig:
    """
    Begin a lesson: check its inputs, fix the seeds, give the profile's settings.

    Parameters
    ----------
    number : str
        The notebook's number, such as ``"01"``.
    profile : {"laptop", "colab", "gpu"}, optional
        By default the environment's ``FTLIB_PROFILE``, or laptop.

    Returns
    -------
    RunConfig
        The settings of the profile.

    Raises
    ------
    MissingInput
        When a file that the lesson reads is missing, naming who makes it.
    """
    lesson = LESSONS[number]
    for path in lesson.reads:
        if not (ROOT / path).exists():
            makers = [n for n, other in LESSONS.items() if path in other.writes]
            remedy = f"run notebook {makers[0]} first" if makers else "clone again"
            raise MissingInput(f"{path} is missing: {remedy}")
    if (profile or default_profile()) == "laptop":
        # Everything this profile needs is in the clone: never wait for a network.
        os.environ["HF_HUB_OFFLINE"] = "1"
    elif profile:
        # Whoever names another profile in the notebook wants its model downloaded.
        os.environ.pop("HF_HUB_OFFLINE", None)
        os.environ.pop("TRANSFORMERS_OFFLINE", None)
    from transformers import set_seed
    from transformers.utils import logging

    from ftlib import figures

    # What the imports made stays: no need to look it through for garbage, which takes a
    # third of a second, before each run and in the midst of it.
    if not gc.get_freeze_count():  # once, before there is a model to be freed again
        gc.collect()
        gc.freeze()
    figures.keep_figure_data()
    logging.disable_progress_bar()
    # It warns of two checkpoints within a second, and sorts them rightly all the same.
    logging.get_logger("transformers.trainer_utils").setLevel(logging.ERROR)
    set_seed(0)
    store.write_json(_log_file(number), {"checks": {}, "headline": ""})
    return RunConfig.for_profile(profile)


def _log_file(number: str) -> Path:
    return store.RUNS / "lessons" / f"{number}.json"


def _log(number: str, **changes: Any) -> None:
    path = _log_file(number)
    found = store.read_json(path) if path.exists() else {"checks": {}, "headline": ""}
    for name, value in changes.items():
        found[name] = found[name] | value if isinstance(value, dict) else value
    store.write_json(path, found)


def run_folder(number: str, name: str) -> Path:
    """
    Give the folder ``runs/LESSON/NAME`` in which a lesson keeps one run.

    Parameters
    ----------
    number : str
        The notebook's number.
    name : str
        The run's name, such as ``"qlora"``.

    Returns
    -------
    Path
        It need not exist yet.
    """
    return store.RUNS / LESSONS[number].name / name


def keep_headline(number: str, text: str) -> None:
    """
    Print a lesson's main finding and keep it for the course's summary table.

    Parameters
    ----------
    number : str
        The notebook's number.
    text : str
        One line.
    """
    print(text)
    _log(number, headline=text)


def make_triage_examples(
    split: str, n_alerts: int, fields: Sequence[str] | None = None
) -> list[Example]:
    """
    Make examples of reviewed alerts, redacted but for host names, as in notebook 01.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which alerts.
    n_alerts : int
        How many, at most.
    fields : sequence of str, optional
        Of the triage, only these: a shorter task, in a third less time.

    Returns
    -------
    list of Example
        The alert with the order to triage it, and the triage as JSON.

    Examples
    --------
    >>> len(make_triage_examples("test", 3))
    3
    """
    from ftlib.redaction import replace_spans

    order = f"Give {', '.join(fields)} as JSON." if fields else TRIAGE_ORDER
    return [
        make_example(
            f"{order}\n" + replace_spans(alert["text"], alert["spans"], {"HOSTNAME"}),
            json.dumps({k: alert["triage"][k] for k in fields or alert["triage"]}),
        )
        for alert in load_reviewed(split)[:n_alerts]
    ]


def tune(
    number: str,
    name: str,
    examples: Sequence[Example],
    config: RunConfig,
    start: str | Path | None = None,
) -> tuple[Any, Any]:
    """
    Load the base model, train an adapter on examples, and keep the run.

    Parameters
    ----------
    number : str
        The notebook's number.
    name : str
        The run's name: its folder is ``runs/LESSON/NAME``.
    examples : sequence of Example, length n_examples
        What is learned.
    config : RunConfig
        The settings.
    start : path, optional
        A saved adapter to go on from; by default a new one.

    Returns
    -------
    tuple
        The model with its adapter, and the `Progress` of the finished run.
    """
    from ftlib import models, tokens, training

    tokenizer = models.load_tokenizer(config)
    if start:
        model = models.load_adapter(config, start, is_trainable=True)
    else:
        model = models.make_trainable(models.load_base(config), config)
    rows = [tokens.encode_example(example, tokenizer) for example in examples]
    tokens.check_rows(rows, examples, tokenizer, config.max_length)
    folder = run_folder(number, name)
    return model, training.fine_tune(model, tokenizer, rows, [], config, folder)


def check(exercise: str, answer: Any = ...) -> None:
    """
    Say whether an answer is right, and give a hint when it is not.

    Parameters
    ----------
    exercise : str
        The exercise's number, such as ``"01.1"``.
    answer : object
        The learner's answer; ``...`` when not attempted, which is no failure.
    """
    number = exercise.split(".", maxsplit=1)[0]
    if answer is ...:
        verdict, text = "blank", "not attempted yet"
    else:
        try:
            hint = exercises.CHECKS[exercise](answer)
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
            hint = "Some of it is missing or of another kind: look at what is asked."
        verdict = "wrong" if hint else "passed"
        text = f"not yet. {hint}" if hint else "right."
    print(f"{exercise}: {text}")
    _log(number, checks={exercise: verdict})
