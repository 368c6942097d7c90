"""Run alone: ``python -m pytest tests/test_scale_panel.py``."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftlib import panels
from ftlib.panels import ScalePanel, answer_at_scale
from ftlib.panels import scale as scale_panel
from ftlib.schema import make_example, split_prompt

EXAMPLES = [
    make_example("Say it twice: lamp", "lamp lamp", system="Be brief."),
    make_example("<b>Capital</b> of Peru?", "Lima"),
]


class FakeModel(torch.nn.Module):
    """A layer with a LoRA adapter, whose scale is lora_alpha / r = 8 / 2."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)


@pytest.fixture
def model():
    return get_peft_model(
        FakeModel(), LoraConfig(r=2, lora_alpha=8, target_modules=["layer"])
    )


@pytest.fixture
def seen(monkeypatch):
    """What the model was asked, and at which scale: it answers with the scale."""
    asked = []

    def generate(model, tokenizer, prompts, max_new_tokens):
        asked.append(([p[-1]["content"] for p in prompts], read_scale(model)))
        return ["lamp lamp", "<i>Lima</i>"][: len(prompts)]

    monkeypatch.setattr(scale_panel, "generate", generate)
    return asked


def read_scale(model):
    return model.base_model.model.layer.scaling["default"]


def test_a_scale_of_a_half_halves_the_update_and_is_taken_back(model, seen):
    prompts = [split_prompt(example)[0] for example in EXAMPLES]
    answers = answer_at_scale(model, None, prompts, 0.5)
    assert answers == ["lamp lamp", "<i>Lima</i>"]
    assert seen == [(["Say it twice: lamp", "<b>Capital</b> of Peru?"], 2.0)]
    assert read_scale(model) == 4.0


def test_the_scale_is_taken_back_when_answering_fails(model, monkeypatch):
    monkeypatch.setattr(scale_panel, "generate", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer_at_scale(model, None, [], 0.5)
    assert read_scale(model) == 4.0


def test_an_untouched_panel_has_the_scale_that_it_was_given(model, seen):
    assert ScalePanel(model, None, EXAMPLES).value == 1.0
    assert ScalePanel(model, None, EXAMPLES, alpha=0.25).value == 0.25
    assert [scale for _, scale in seen] == [4.0, 1.0]


def test_moving_the_slider_answers_anew_at_that_scale(model, seen):
    panel = ScalePanel(model, None, EXAMPLES)
    panel.scale.value = 0.75
    assert panel.value == 0.75
    assert seen[-1][1] == 3.0
    assert "scale of 0.75" in panel.table.value
    assert read_scale(model) == 4.0


def test_a_right_answer_is_told_from_a_wrong_one_and_nothing_in_them_acts(model, seen):
    table = ScalePanel(model, None, EXAMPLES).table.value
    assert table.count(">right<") == 1
    assert "wrong, it is: Lima" in table
    assert "<b>Capital" not in table
    assert "<i>Lima" not in table
    assert "&lt;i&gt;Lima" in table


def test_the_slider_says_what_it_moves(model, seen):
    panel = ScalePanel(model, None, EXAMPLES)
    assert panel.scale.description == "Scale of the adapter"
    assert (panel.scale.min, panel.scale.max) == (0.0, 1.0)
    assert 'aria-label="Answers"' in panel.table.value
    assert panels.ScalePanel is ScalePanel


def test_a_panel_with_nothing_to_ask_is_refused(model):
    with pytest.raises(ValueError, match="give at least one example"):
        ScalePanel(model, None, [])
