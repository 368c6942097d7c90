"""Run alone: pytest tests/test_lesson.py. Begin, check and show what they say."""

import json
import os

import pytest
from safetensors.torch import load_file

from ftlib import exercises, lesson, schema, scoring, store
from ftlib.config import RunConfig
from ftlib.decision import Needs
from ftlib.progress import Progress
from ftlib.records import load_reviewed
from ftlib.retrieval import Answer

ROW = {"input_ids": [5, 6, 7], "labels": [schema.IGNORE_INDEX, 6, 7]}
FIELDS = [
    scoring.Score("severity", 0.5, 4, 0.2, 0.8),
    scoring.Score("host", 0.9, 4, 0.6, 1.0),
]
FLOW = ["records", "examples", "tokens", "adapter", "predictions", "scores"]
MENDED = {
    "messages": [
        {"role": "user", "content": "Where is my lamp?"},
        {"role": "assistant", "content": "Here."},
    ]
}
# 75 groups of two records; a cut after 119 goes through one.
GROUPED = [{"group": str(i // 2)} for i in range(150)]
SOURCED, UNSOURCED = Answer("Ada", (), "mail"), Answer("Eve")
KEPT = {
    alpha: scoring.Score("retention", value, 240, value, value)
    for alpha, value in ((0.0, 1.0), (0.25, 0.95), (0.5, 0.6))
}
CURVES = {"A": "trained too long", "B": "rate too high", "C": "adapter idle"}
LOW_RULE = {
    "name": "low_is_noted",
    "when": {"properties": {"severity": {"const": "low"}}},
    "schema": {"properties": {"action": {"const": "note"}}},
}
LOSSES = [
    {"step": 10, "validation_loss": 0.6},
    {"step": 20, "validation_loss": 0.4},
    {"step": 25, "loss": 0.1},
    {"step": 30, "validation_loss": 0.5},
]
MERGING = [
    {"method": "least", "file kB": 1, "merges": "no"},
    {"method": "small", "file kB": 2, "merges": "yes"},
    {"method": "large", "file kB": 3, "merges": "yes"},
]
# int8 loses one of 32, which may be luck; NF4 half of them.
HELD = {
    "bf16": [True] * 32,
    "int8": [True] * 31 + [False],
    "NF4": [True] * 16 + [False] * 16,
}
GAINS = {
    "base": scoring.Score("chrf over base", 0.3, 40, 0.2, 0.4),
    "nearest": scoring.Score("chrf over nearest", 0.1, 40, -0.1, 0.3),
}
TERMS = {
    "owner": "support",
    "approver": "legal",
    "purpose": "Answer customers.",
    "allowed_uses": ["drafting"],
    "forbidden_uses": ["promising a refund"],
    "data_rights": "free",
    "retention": "400 days",
    "review_date": "2027-11-22",
    "licence": "MIT",
}
RIGHT_AND_WRONG = {
    "00.1": (FLOW, FLOW[::-1]),
    "00.2": ("Lisbon", "Madrid"),
    "00.3": (12, 1),
    "01.1": (
        {"row": ROW, "n_supervised": 2},
        {"row": ROW, "n_supervised": 3},
    ),
    "01.2": ((0.699, 0.972), (0.769, 1.031)),
    "01.3": (
        {"scores": FIELDS, "weakest": "severity"},
        {"scores": FIELDS, "weakest": "host"},
    ),
    "02.1": (MENDED, {"messages": [MENDED["messages"][0]]}),
    "02.2": (
        {"train": GROUPED[:120], "test": GROUPED[120:]},
        {"train": GROUPED[:119], "test": GROUPED[119:]},
    ),
    "02.3": ((1088, 30), (1200, 30)),
    "03.1": (
        [schema.Span(4, 13, "TICKET_ID", 0.8), schema.Span(18, 27, "TICKET_ID", 0.8)],
        [schema.Span(4, 13, "TICKET_ID", 0.8)],
    ),
    "03.2": (299, 100),
    "03.3": (10.966, 11.288),
    "04.1": (
        {"ranks": [1, 3, 1, 2], "recall": 0.5},
        {"ranks": [1, 3, 1, 2], "recall": 0.75},
    ),
    "04.2": (
        {"answers": [SOURCED, UNSOURCED, UNSOURCED], "n_unsourced": 2},
        {"answers": [SOURCED, UNSOURCED, UNSOURCED], "n_unsourced": 1},
    ),
    "04.3": (
        Needs(facts_change="hardly", must_cite="no", latency="at once"),
        Needs(facts_change="each day"),
    ),
    # Ten times the alerts, half the loss.
    "05.1": (CURVES, CURVES | {"B": "adapter idle", "C": "rate too high"}),
    "05.2": (
        {"step_before": 3, "progress": Progress("finished", 9, 3, 9)},
        {"step_before": 3, "progress": Progress("finished", 9, 0, 9)},
    ),
    "05.3": (8, 9),
    "06.1": (
        {"losses": {"r1": 0.4, "r4": 0.2, "own": 0.3}, "best": "r4"},
        {"losses": {"r1": 0.4, "r4": 0.2, "own": 0.3}, "best": "own"},
    ),
    "06.2": (32_768, 3_145_728),
    "06.3": (
        {"table": MERGING, "method": "small"},
        {"table": MERGING, "method": "least"},
    ),
    "07.1": (
        {"losses": {10: 0.8, 100: 0.4}, "at_1000": 0.2},
        {"losses": {10: 0.8, 100: 0.4}, "at_1000": 0.1},
    ),
    "07.2": ({"history": LOSSES, "step": 20}, {"history": LOSSES, "step": 30}),
    "07.3": (
        {"clean": [0.1, 0.2, 0.3], "noisy": [0.2, 0.2, 0.5], "cost": 0.1},
        {"clean": [0.1, 0.2, 0.3], "noisy": [0.2, 0.2, 0.5], "cost": 0.3},
    ),
    "08.1": (0.975, 0.9),
    "08.2": (
        {"sweep": KEPT, "alpha": 0.25},
        {"sweep": KEPT, "alpha": 0.5},
    ),
    "08.3": (3, 2),
    "09.1": (0.0768, 0.0384),
    "09.2": (650, 100),
    "09.3": (LOW_RULE, LOW_RULE | {"when": True}),
    "10.1": ((16.96, 192.0), (17.92, 192.0)),
    "10.2": (
        '{"tool": "open_ticket", "arguments": {"room": "G355"}}',
        '{"tool": "open_ticket", "arguments": {"queue": "HQ-15"}}',
    ),
    "10.3": (
        {"exact": HELD, "megabytes": {"bf16": 9, "int8": 6, "NF4": 4}, "name": "int8"},
        {"exact": HELD, "megabytes": {"bf16": 9, "int8": 6, "NF4": 4}, "name": "NF4"},
    ),
    "11.1": (TERMS, TERMS | {"approver": "support"}),
    "11.2": (3, 4),
    "11.3": (12_500, 12.5),
    "12.1": (
        [("Open?", "Yes."), ("open? ", "Yes."), ("Open?", "No.")],
        [("Open?", "Yes."), ("Open?", "No."), ("Shut?", "Yes.")],
    ),
    "12.2": (
        {"gains": GAINS, "names": ["nearest"]},
        {"gains": GAINS, "names": ["nearest", "base"]},
    ),
    "12.3": (94, 92),
}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    return tmp_path


def test_every_exercise_is_tried_here():
    assert list(RIGHT_AND_WRONG) == list(exercises.CHECKS)


@pytest.mark.parametrize("exercise", exercises.CHECKS)
def test_blank_wrong_and_right_answers_are_told_apart(exercise, capsys, runs):
    right, wrong = RIGHT_AND_WRONG[exercise]
    for answer, said, verdict in [
        (..., "not attempted yet", "blank"),
        (wrong, "not yet. ", "wrong"),
        (right, "right.", "passed"),
    ]:
        lesson.check(exercise, answer)
        assert said in capsys.readouterr().out
        kept = store.read_json(runs / "lessons" / f"{exercise[:2]}.json")
        assert kept["checks"][exercise] == verdict


@pytest.mark.parametrize("exercise", exercises.CHECKS)
@pytest.mark.parametrize("answer", [None, "", 3.5, [], {}, object()])
def test_a_strange_answer_gets_a_hint_and_no_traceback(exercise, answer, capsys):
    lesson.check(exercise, answer)
    assert "not yet. " in capsys.readouterr().out


FREE = {("09.3", "name"), ("09.3", "says")}  # any words will do


@pytest.mark.parametrize("exercise", exercises.CHECKS)
def test_a_half_filled_answer_gets_a_hint_and_no_traceback(exercise, capsys):
    right, _ = RIGHT_AND_WRONG[exercise]
    for key in right if isinstance(right, dict) else ():
        lesson.check(exercise, right | {key: ...})
        said = capsys.readouterr().out
        assert "not yet. " in said or (exercise, key) in FREE, key


def test_a_missing_input_names_the_notebook_that_makes_it(monkeypatch):
    late = lesson.Lesson("02_later", reads=("runs/01_first_fine_tune/absent",))
    maker = lesson.Lesson("01_maker", writes=("runs/01_first_fine_tune/absent",))
    monkeypatch.setattr(lesson, "LESSONS", {"01": maker, "02": late})
    with pytest.raises(lesson.MissingInput, match="run notebook 01 first"):
        lesson.begin("02")


def test_a_lesson_begins_with_the_profile_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert lesson.begin("00").model.endswith("wren")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert lesson.begin("00", "colab").model == "Qwen/Qwen3-0.6B"
    assert "HF_HUB_OFFLINE" not in os.environ


def test_what_the_imports_made_is_set_aside_from_garbage_once(monkeypatch):
    frozen = [0]
    monkeypatch.setattr(lesson.gc, "get_freeze_count", lambda: frozen[0])
    monkeypatch.setattr(lesson.gc, "freeze", lambda: frozen.append(frozen.pop() + 1))
    lesson.begin("00")
    lesson.begin("00")  # a model made since can still be freed
    assert frozen == [1]


def test_the_headline_is_printed_and_kept(capsys, runs):
    lesson.keep_headline("00", "it runs")
    assert capsys.readouterr().out == "it runs\n"
    assert store.read_json(runs / "lessons" / "00.json")["headline"] == "it runs"


def test_triage_examples_are_redacted_but_for_hosts_and_end_in_the_triage():
    examples = lesson.make_triage_examples("train", 20)
    records = load_reviewed("train")[:20]
    n_hidden = 0
    for example, record in zip(examples, records, strict=True):
        prompt, triage = (message["content"] for message in example["messages"])
        assert prompt.startswith("Triage as JSON.\n")
        assert json.loads(triage) == record["triage"]
        for span in record["spans"]:
            said = record["text"][span.start : span.end]
            assert (said in prompt) == (span.entity_type == "HOSTNAME")
            n_hidden += span.entity_type != "HOSTNAME"
    assert n_hidden > 10


def test_a_shorter_triage_has_the_fields_asked_for_and_names_them():
    [example] = lesson.make_triage_examples("train", 1, ("severity", "owner"))
    prompt, triage = (message["content"] for message in example["messages"])
    whole = load_reviewed("train")[0]["triage"]
    assert prompt.startswith("Give severity, owner as JSON.\n")
    assert list(json.loads(triage)) == ["severity", "owner"]
    assert json.loads(triage)["owner"] == whole["owner"]


def test_tuning_makes_a_run_and_goes_on_from_its_adapter(runs):
    config = RunConfig.for_profile("laptop", max_steps=1, load_in_4bit=False)
    examples = [schema.make_example("Who owns the door?", "Ada")] * 8
    model, progress = lesson.tune("04", "first", examples, config)
    assert progress.status == "finished"
    saved = runs / "04_rag_or_fine_tune" / "first" / "adapter"
    weights = load_file(saved / "adapter_model.safetensors")
    # Another seed, or a fresh adapter would begin with the very same weights.
    other = config.change(seed=1)
    again, _ = lesson.tune("04", "second", examples, other, saved)
    start = {name: w for name, w in weights.items() if "lora_A" in name}
    moved = again.state_dict()
    for name, weight in start.items():
        new = moved[name.replace(".weight", ".default.weight")]
        # Not from fresh random weights: one step moves these little.
        assert (new - weight).abs().max() < 3 * config.learning_rate
