"""Run alone: ``python -m pytest tests/test_project.py``."""

import json
from types import SimpleNamespace

import pytest

from ftlib import models, project, redaction
from ftlib.config import RunConfig
from ftlib.forgetting import Verdict
from ftlib.schema import PreflightError, Span, make_example

CONFIG = RunConfig.for_profile("laptop")
NOUNS = """
anchor basket candle donkey engine fiddle garden hammer island jacket kettle
ladder magnet needle orange pocket quarry ribbon saddle tunnel umpire velvet
"""
WORDS = NOUNS.split()


def say(n):
    """Give a prompt that is like no other and sounds English."""
    return f"Tell me of {WORDS[n]} with {WORDS[-n - 1]}, {n * n} and {n + 100}."


def record(n, prompt, response="Yes.", group=None):
    messages = make_example(prompt, response)["messages"]
    return {"id": n, "group": group or f"row {n}", "messages": messages}


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def load(tmp_path):
    """Give what loads pairs of prompt and response, with more columns as told."""

    def make(pairs, **more):
        rows = [{"prompt": p, "completion": r} | more for p, r in pairs]
        return project.load(write_rows(tmp_path / "rows.jsonl", rows))

    return make


# --- load --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"%PDF-1.7\n1 0 obj", "a.csv is a PDF, .*save its rows as CSV"),
        ("a.csv", b"PK\x03\x04 sheet", "a.csv is a PDF, an Office file, an archive"),
        ("a.xlsx", b"PK\x03\x04 sheet", "save its rows as CSV"),
        ("a.docx", b"\xd0\xcf\x11\xe0 old", "save its rows as CSV"),
        ("a.jsonl", b"", "it is empty: give at least one row"),
        ("a.exe", b"hello", "no type of file it may be: use .jsonl"),
        ("a.csv", b"colour,size\nred,4\n", "its columns are colour, size; rename"),
        ("a.csv", b"prompt,completion\n", "has no usable row"),
        (
            "a.jsonl",
            b'{"prompt": "Hi", "completion": ""}',
            "row 1: completion is empty",
        ),
        ("a.csv", b"prompt,prompt\na,b\n", "two columns have one name"),
        ("a.json", b"[1, 2", "not JSON"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told) as caught:
        project.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="check its name and folder"):
        project.load(tmp_path / "absent.csv")


def test_a_file_over_the_limit_is_not_read(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "Hi", "completion": "Ho"}])
    monkeypatch.setattr(project, "MAX_MB", 35e-6)  # the file has 36 bytes
    with pytest.raises(ValueError, match="a.jsonl is too large: give"):
        project.load(path)
    monkeypatch.setattr(project, "MAX_MB", 36e-6)
    assert len(project.load(path).examples) == 1


# --- problems and rows -------------------------------------------------------------


def test_each_problem_is_named_by_its_row_in_the_file(tmp_path):
    rows = [
        {"prompt": "What is this and that?"},  # row 1 has no response
        {"prompt": say(0), "completion": "Yes."},
        {"prompt": say(0) + " ", "completion": "yes."},
        {"prompt": "", "completion": "Yes."},
        {"prompt": say(1), "completion": "No."},
        {"prompt": say(1), "completion": "Surely."},
        {"prompt": say(2), "completion": "The lamp is in the,"},
        {"prompt": "lamp " * 600 + ".", "completion": "Yes."},
        {"prompt": "Is this of the kind blue jacket?", "completion": "blue jacket"},
        {"prompt": "Say <|im_end|> to me.", "completion": "No."},
        {"prompt": "Is the cafÃ© open?", "completion": "Yes."},
    ]
    loaded = project.load(write_rows(tmp_path / "a.jsonl", rows))
    found = project.find_problems(loaded, CONFIG)
    numbers = {kind: [bad.row for bad in rows] for kind, rows in found.items()}
    assert numbers == {
        "not read": [1, 4],
        "duplicate": [3],
        "faulty prompt": [],
        "faulty response": [7],
        "contradiction": [5, 6],
        "too long": [8],
        "response in prompt": [9],
        "chat marks": [10],
        "wrong letters": [11],
        "not English": [],
    }
    assert "same as an earlier row" in found["duplicate"][0].reason


def test_text_that_is_not_english_is_told_where_most_rows_are(load):
    german = [(f"Wo ist meine Lampe Nummer {n}?", "Hier.") for n in range(3)]
    english = [(say(n), "Here.") for n in range(2)]
    found = project.find_problems(load(german + english), CONFIG)["not English"]
    assert [bad.row for bad in found] == [1, 2, 3]
    found = project.find_problems(load(german[:2] + english), CONFIG)
    assert found["not English"] == []


PAIRS = [(say(n), f"It is {n}.") for n in range(22)]


def test_rows_with_problems_are_left_out_unless_kept(load):
    loaded = load([*PAIRS, PAIRS[3]])
    problems = project.find_problems(loaded, CONFIG)
    taken = project.take_rows(loaded, problems, CONFIG)
    assert [row["id"] for row in taken] == list(range(1, 23))
    kept = project.take_rows(loaded, problems, CONFIG, keep={"duplicate"})
    assert [row["id"] for row in kept] == list(range(1, 24))
    assert len(project.take_rows(loaded, problems, CONFIG, n_rows=21)) == 21


def test_letters_and_chat_marks_are_mended(load):
    loaded = load([*PAIRS, ("Is the cafÃ© <|im_end|> open?", "Of course.")])
    problems = project.find_problems(loaded, CONFIG)
    taken = project.take_rows(loaded, problems, CONFIG)
    assert taken[-1]["messages"][0]["content"] == "Is the café < |im_end|> open?"


@pytest.mark.parametrize(
    "mark",
    ["<\x01|im_end|>", "<|im_\ufeffend|>", "<\x1b[31m|im_end|>"],
    ids=["control", "byte-order mark", "colour"],
)
def test_a_repair_makes_no_chat_mark(load, tokenizer, mark):
    loaded = load([*PAIRS, ("Is the lamp here?", f"{mark} Do it.")])
    problems = project.find_problems(loaded, CONFIG)
    assert [bad.row for bad in problems["chat marks"]] == [23]
    said = project.take_rows(loaded, problems, CONFIG)[-1]["messages"][1]["content"]
    assert said == "< |im_end|> Do it."
    ids = tokenizer(said)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids


@pytest.mark.parametrize(
    ("value", "group"), [("a", "a"), (0, "0"), (None, "row 1"), ("", "row 1")]
)
def test_the_group_column_is_kept_and_an_empty_one_is_none(load, value, group):
    loaded = load(PAIRS, group=value)
    taken = project.take_rows(loaded, project.find_problems(loaded, CONFIG), CONFIG)
    assert taken[0]["group"] == group


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (PAIRS[:1], "1 rows can be used: give at least 20"),
        (PAIRS[:1] * 40, "1 rows can be used: give at least 20"),
        ([(prompt, "Yes.") for prompt, _ in PAIRS], "every response is the same"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused(load, pairs, told):
    loaded = load(pairs)
    problems = project.find_problems(loaded, CONFIG)
    with pytest.raises(ValueError, match=told):
        project.take_rows(loaded, problems, CONFIG)


# --- redaction ---------------------------------------------------------------------


@pytest.fixture
def finder(monkeypatch):
    """Find Ana where a text begins with her, and nothing else."""

    def find(text):
        return [Span(0, 3, "PERSON", 0.9)] if text.startswith("Ana") else []

    monkeypatch.setattr(redaction, "find_spans", find)


ROWS = [
    record(7, "Ana asks. Anatomy, Ana!", "Hi Ana."),
    record(8, "Bo asks.", "Hi Bo."),
]


def test_what_is_found_once_in_a_row_is_marked_wherever_it_stands(finder):
    found = project.find_spans(ROWS)
    assert [one["id"] for one in found] == ["7.1", "7.2", "8.1", "8.2"]
    places = [[(s.start, s.end) for s in one["spans"]] for one in found]
    assert places == [[(0, 3), (19, 22)], [(3, 6)], [], []]


def test_one_name_has_one_placeholder_in_all_messages_of_a_row(finder):
    first, second = project.redact(ROWS, project.find_spans(ROWS))
    said = [message["content"] for message in first["messages"]]
    assert said == ["[PERSON_1] asks. Anatomy, [PERSON_1]!", "Hi [PERSON_1]."]
    assert second == ROWS[1]
    assert first["messages"][0]["role"] == "user"


def test_a_reviewers_last_decision_counts(finder):
    span = {"start": 0, "end": 2, "entity_type": "PERSON", "score": 1.0}
    decisions = [
        {"id": "8.1", "decision": "redact more", "spans": [span]},
        {"id": "7.1", "decision": "not PII", "spans": [span]},
        {"id": "7.1", "decision": "accept", "spans": []},
    ]
    first, second = project.redact(ROWS, project.find_spans(ROWS), decisions)
    assert first["messages"][0]["content"] == "Ana asks. Anatomy, Ana!"
    assert first["messages"][1]["content"] == "Hi [PERSON_1]."
    assert second["messages"][0]["content"] == "[PERSON_1] asks."


# --- split -------------------------------------------------------------------------


def find_part(parts, number):
    return [name for name, rows in parts.items() for r in rows if r["id"] == number]


def test_neither_groups_nor_near_duplicates_are_parted():
    long = "The blue lamp of my order came without its screws and I would like them "
    rows = [
        record(n, say(n), group="g" if n in (3, 9, 15) else None) for n in range(20)
    ]
    rows += [record(20, f"{long} now."), record(21, f"{long} soon.", group="x")]
    rows += [record(22, "Something of another kind for you.", group="x")]
    for seed in range(8):
        parts = project.split(rows, seed=seed)
        assert sorted(r["id"] for part in parts.values() for r in part) == [*range(23)]
        assert all(parts[name] for name in ("train", "validation", "test"))
        assert find_part(parts, 3) == find_part(parts, 9) == find_part(parts, 15)
        assert find_part(parts, 20) == find_part(parts, 21) == find_part(parts, 22)


def test_an_instruction_before_all_prompts_makes_no_near_duplicates():
    rules = [f"{n}: never the {WORDS[n]} before a {WORDS[n - 7]}" for n in range(22)]
    order = f"Say yes or no by these rules. {'; '.join(rules)}. "
    parts = project.split([record(n, order + say(n)) for n in range(20)])
    assert {name: len(rows) for name, rows in parts.items()} == {
        "train": 14,
        "validation": 2,
        "test": 4,
    }


def test_rows_that_all_belong_together_cannot_be_split():
    rows = [record(n, say(n), group="one") for n in range(20)]
    with pytest.raises(ValueError, match="would be empty: there are 1 groups"):
        project.split(rows)


# --- baseline, training, evaluation ------------------------------------------------

PARTS = {
    "train": [
        record(1, "Is my lamp broken?", "no"),
        record(2, "Where is the parcel now?", "on its way"),
        record(3, "Can I pay by card, please?", "no"),
    ],
    "validation": [record(4, "Are you open on Sunday?", "yes")],
    "test": [
        record(5, "Where is my parcel?", "on its way"),
        record(6, "Is the lamp broken?", "yes"),
    ],
}


@pytest.fixture
def answer(monkeypatch):
    """Have prompts answered by a function of their text, the model of these tests."""
    probes = {"facts": [make_example("Capital of Italy?", "Rome")] * 2}
    monkeypatch.setattr(project.forgetting, "load_probes", lambda n: probes)
    monkeypatch.setattr(models, "load_base", lambda config: lambda text: "Rome")

    def generate(model, tokenizer, prompts, max_new_tokens):
        assert max_new_tokens == 8 + len(tokenizer("on its way")["input_ids"])
        return [model(prompt[-1]["content"]) for prompt in prompts]

    monkeypatch.setattr(project, "generate", generate)


def test_the_baselines_are_the_base_the_nearest_and_the_most_common(answer):
    baseline = project.measure_baseline(PARTS, CONFIG, 2)
    assert baseline.answers == {
        "base": ["Rome", "Rome"],
        "nearest": ["on its way", "no"],
        "most common": ["no", "no"],
    }
    assert baseline.before == {"facts": [True, True]}


@pytest.mark.parametrize(
    ("references", "first"),
    [
        (["yes", "no", "a response of more than five words"], "exact_match"),
        (['{"a": 1}', '{"a": 2, "b": "c d e f g h i"}'], "exact_match"),
        (["yes", "a response of more than five words"], "chrf"),
        (["one two three four five"], "exact_match"),
        (["one two three four five six"], "chrf"),
    ],
)
def test_short_responses_and_json_are_right_as_a_whole(references, first):
    assert project.choose_metrics(references)[0] == first


def make_finished(tuned, folder=None):
    return SimpleNamespace(model=tuned, config=CONFIG, folder=folder)


def test_the_tuned_model_is_scored_beside_its_baselines_and_judged(answer):
    baseline = project.measure_baseline(PARTS, CONFIG, 2)
    said = {"Where is my parcel?": "on its way", "Is the lamp broken?": "yes"}
    run = make_finished(lambda text: said.get(text, "Paris"))
    done = project.evaluate(run, PARTS, baseline)
    assert done.answers["tuned"] == ["on its way", "yes"]
    right = {arm: by_metric["exact_match"] for arm, by_metric in done.items.items()}
    assert right == {
        "base": [0, 0],
        "nearest": [1, 0],
        "most common": [0, 0],
        "tuned": [1, 1],
    }
    gains = {arm: gain.value for arm, gain in done.gains.items()}
    assert gains == {"base": 1.0, "nearest": 0.5, "most common": 1.0}
    assert done.after == {"facts": [False, False]}
    reasons = "\n".join(done.verdict.reasons)
    assert not done.verdict.ship
    assert "retention is 0.00" in reasons
    assert "exact_match over nearest 0.50" in reasons
    assert "over most common" not in reasons.replace("fewer", "")


def test_with_no_probe_right_before_it_may_not_ship_and_says_why(answer, monkeypatch):
    monkeypatch.setattr(models, "load_base", lambda config: lambda text: "Bonn")
    baseline = project.measure_baseline(PARTS, CONFIG, 2)
    done = project.evaluate(make_finished(lambda text: "no"), PARTS, baseline)
    assert not done.verdict.ship
    assert done.verdict.reasons[0].startswith("forgetting: nothing was right before")


def test_scores_are_listed_with_their_intervals():
    items = project.score_answers(PARTS, {"base": ["on its way", "no"]})
    assert items == {"base": {"exact_match": [1, 0], "chrf": [1, pytest.approx(0.0)]}}
    row = project.list_scores(items)[0]
    assert row["system"] == "base"
    assert row["exact_match"] == "0.50 [0.09, 0.91], n=2 (too few)"


def test_a_run_is_made_of_checked_rows(monkeypatch, tiny_model, tmp_path):
    monkeypatch.setattr(models, "load_base", lambda config: tiny_model())
    run = project.make_run(PARTS, CONFIG, tmp_path / "run")
    assert (len(run.train), len(run.validation)) == (3, 1)
    assert not (tmp_path / "run").exists()
    with pytest.raises(PreflightError, match="test row in training"):
        project.make_run(PARTS | {"train": PARTS["test"]}, CONFIG, tmp_path)
    with pytest.raises(PreflightError, match="too long"):
        project.make_run(PARTS, CONFIG.change(max_length=8), tmp_path)


# --- export ------------------------------------------------------------------------


@pytest.fixture
def exported(monkeypatch):
    calls = []
    monkeypatch.setattr(
        project, "export_adapter", lambda *a: calls.append(a) or "the folder"
    )
    return calls


def judge(ship, reasons=()):
    items = {"tuned": {"exact_match": [1, 0]}}
    return project.Evaluation({}, items, {}, {}, Verdict(ship, reasons))


def test_a_refused_adapter_is_exported_only_for_a_reason(exported, tmp_path):
    run = make_finished(None, tmp_path / "run")
    refused = judge(False, ("words is down",))
    for reason in ("", "  "):
        with pytest.raises(
            ValueError, match="not to ship: to export it, give a reason"
        ):
            project.export(run, refused, tmp_path / "out", reason)
    assert exported == []
    project.export(run, refused, tmp_path / "out", " <i>a trial</i> ")
    adapter, folder, config, card = exported[0]
    assert (adapter, folder) == (tmp_path / "run" / "adapter", tmp_path / "out")
    assert config == CONFIG
    assert "- words is down" in card
    assert "Exported all the same: &lt;i&gt;a trial&lt;/i&gt;" in card
    assert "system tuned; exact_match 0.50 [0.09, 0.91], n=2" in card


def test_one_that_may_ship_needs_no_reason(exported, tmp_path):
    run = make_finished(None, tmp_path / "run")
    assert project.export(run, judge(True), tmp_path / "out") == "the folder"
    assert "all the same" not in exported[0][3]
