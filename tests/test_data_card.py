"""Run alone: ``python -m pytest tests/test_data_card.py``."""

import json
import struct

import pytest

from ftlib.formats import load_examples
from ftlib.panels import data_card
from ftlib.panels.data_card import DataCardPanel, draw_lengths
from ftlib.schema import make_example
from ftlib.tokens import encode_example


@pytest.fixture(scope="module")
def tokenizer():
    from ftlib import models
    from ftlib.config import RunConfig

    return models.load_tokenizer(RunConfig.for_profile("laptop"))


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Leave the drawing, which takes most of the time, to its own test."""
    monkeypatch.setattr(data_card, "draw_lengths", lambda *args: b"")


@pytest.fixture
def folder(tmp_path):
    """Two files of data, one that cannot be read, one that is none."""
    rows = [make_example(f"Say {n}.", f"It is {n}.") for n in range(3)]
    lines = [json.dumps(row) for row in rows]
    lines.insert(1, "{broken")  # so the examples are rows 1, 3 and 4
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "b.csv").write_text("prompt,completion\nHi,Hello\n", encoding="utf-8")
    (tmp_path / "c.json").write_text('[{"colour": "red"}]', encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"")
    return tmp_path


@pytest.fixture
def panel(folder, tokenizer):
    return DataCardPanel(folder, tokenizer)


def choose(panel, name):
    panel.file.value = next(p for _, p in panel.file.options if p.name == name)


def test_untouched_its_value_is_the_first_file_of_the_folder(panel, folder):
    assert panel.value == load_examples(folder / "a.jsonl")
    names = [label for label, _ in panel.file.options]
    assert names == ["a.jsonl", "b.csv", "c.json"]


def test_paths_are_taken_in_the_order_given(folder, tokenizer):
    panel = DataCardPanel([folder / "b.csv", str(folder / "a.jsonl")], tokenizer)
    assert panel.value.path == folder / "b.csv"
    assert DataCardPanel(folder / "b.csv", tokenizer).value == panel.value


def test_a_folder_without_data_is_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="no data file there: give one of .jsonl"):
        DataCardPanel(tmp_path, tokenizer)


def test_what_was_detected_is_shown(panel):
    for fact in ("a.jsonl", "jsonl", "messages", "<td>4</td>", "<td>1</td>"):
        assert fact in panel.facts.value
    choose(panel, "b.csv")
    assert panel.value.convention == "prompt-completion"
    assert "prompt-completion" in panel.facts.value
    assert "Every row fits" in panel.problems.value


def test_a_row_that_does_not_fit_is_named_by_its_number(panel):
    assert "<td>2</td>" in panel.problems.value
    assert "not JSON" in panel.problems.value


def test_twenty_problems_are_listed_and_the_rest_counted(tmp_path, tokenizer):
    good = json.dumps(make_example("Hi", "Hello"))
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([good, *["{"] * 23]), encoding="utf-8")
    shown = DataCardPanel(path, tokenizer).problems.value
    assert "<td>21</td>" in shown
    assert "<td>22</td>" not in shown
    assert "... 3 more" in shown


def test_a_path_that_is_typed_is_opened_and_wiping_it_goes_back(panel, folder):
    panel.path.value = str(folder / "b.csv")
    assert panel.value.path.name == "b.csv"
    panel.path.value = ""
    assert panel.value.path.name == "a.jsonl"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("c.json", "columns are colour"), ("none.csv", "there is no file")],
)
def test_what_cannot_be_read_is_said_in_the_panel(panel, folder, name, sentence):
    panel.path.value = str(folder / name)
    assert sentence in panel.message.value
    assert "a.jsonl" not in panel.facts.value
    assert panel.buttons["Next"].disabled
    with pytest.raises((ValueError, OSError), match=sentence):
        _ = panel.value
    panel.path.value = str(folder / "b.csv")
    assert sentence not in panel.message.value
    assert panel.value.path.name == "b.csv"


def test_the_examples_are_shown_one_at_a_time_as_the_model_sees_them(panel):
    assert "Row 1 of the file" in panel.example.value
    assert panel.buttons["Previous"].disabled
    panel.buttons["Next"].click()
    assert panel.slider.value == 2
    assert "Row 3 of the file" in panel.example.value
    panel.slider.value = 3
    assert "Row 4 of the file" in panel.example.value
    assert "&lt;|assistant|&gt;" in panel.example.value
    assert "border-bottom:2px solid" in panel.example.value
    assert panel.buttons["Next"].disabled
    panel.buttons["Previous"].click()
    assert panel.slider.value == 2


def test_another_file_begins_at_its_first_example(panel):
    panel.slider.value = 3
    choose(panel, "b.csv")
    assert (panel.slider.value, panel.slider.max) == (1, 1)
    assert "Row 1 of the file" in panel.example.value


def test_an_example_is_cut_where_training_would_cut_it(folder, tokenizer):
    n = len(encode_example(make_example("Say 0.", "It is 0."), tokenizer)["labels"])
    panel = DataCardPanel(folder, tokenizer, max_length=n - 2)
    assert "Row 1 of the file, without its last 2 tokens" in panel.example.value
    assert f"{n - 2} tokens," in panel.example.value
    assert "3 of 3 measured" in panel.facts.value


def test_lengths_are_of_whole_encoded_examples(folder, tokenizer):
    rows = load_examples(folder / "b.csv").examples
    n = len(encode_example(rows[0], tokenizer)["input_ids"])
    panel = DataCardPanel(folder / "b.csv", tokenizer)
    assert panel.facts.value.count(f"<td>{n}</td>") == 2  # the median, and the longest
    assert "0 of 1 measured" in panel.facts.value


def test_of_a_large_file_an_even_sample_is_measured(folder, tokenizer, monkeypatch):
    monkeypatch.setattr(data_card, "N_MEASURED", 2)
    assert "0 of 2 measured" in DataCardPanel(folder, tokenizer).facts.value


def test_a_template_that_refuses_an_example_is_said_in_the_panel(panel, folder):
    class Tokenizer:
        chat_template = ""

        def apply_chat_template(self, *args, **kwargs):
            raise ValueError("no <system> role")

    refused = DataCardPanel(folder, Tokenizer())
    assert "no &lt;system&gt; role" in refused.message.value
    assert refused.value == panel.value


def test_what_comes_from_a_file_is_escaped_and_spelled_out(tmp_path, tokenizer):
    hostile = "<img src=x onerror=a>\u202e"
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(make_example(hostile, hostile)), encoding="utf-8")
    panel = DataCardPanel([path], tokenizer)
    assert "<img" not in panel.example.value
    panel.path.value = hostile
    assert "<img" not in panel.message.value
    assert "&lt;img" in panel.message.value
    assert "⟨U+202E⟩" in panel.message.value


@pytest.mark.parametrize("lengths", [[], [5], [100, 100_000], list(range(900))])
def test_every_histogram_has_one_size(lengths):
    png = draw_lengths(lengths, 512)
    assert png[:4] == b"\x89PNG"
    assert struct.unpack(">II", png[16:24])[0] == 720


def test_the_histogram_is_drawn_of_the_lengths_measured(folder, tokenizer, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        data_card, "draw_lengths", lambda *args: drawn.append(args) or b"png"
    )
    panel = DataCardPanel(folder, tokenizer, max_length=300)
    assert panel.image.value == b"png"
    row = encode_example(make_example("Say 0.", "It is 0."), tokenizer)
    assert drawn == [([len(row["labels"])] * 3, 300)]


def test_every_control_has_a_label(panel):
    controls = [panel.file, panel.path, panel.slider, *panel.buttons.values()]
    assert all(control.description.strip() for control in controls)
