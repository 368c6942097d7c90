"""Run alone: ``python -m pytest tests/test_mask_panel.py``."""

import html
import re

import ipywidgets as widgets
import pytest

from ftlib.panels import MaskPanel
from ftlib.schema import IGNORE_INDEX, make_example
from ftlib.tokens import encode_example

# Fault: the name that the pre-flight gives it.
NAMES = {
    "pad = eos": "pad token",
    "end token unsupervised": "end token unsupervised",
    "double BOS": "double BOS",
    "no BOS": "no BOS",
    "loss on the prompt": "loss on the prompt",
    "all labels -100": "nothing to learn",
    "truncated responses": "truncated response",
    "wrong template at generation": "template differs",
}


@pytest.fixture
def panel(five_examples, tokenizer):
    return MaskPanel(five_examples, tokenizer)


def read(shown):
    """Give what is shown, as text without the marks."""
    return html.unescape(re.sub("<[^>]*>", "", shown))


def test_untouched_it_shows_the_first_row_and_finds_no_fault(panel, five_rows):
    assert panel.value == five_rows[0]
    assert "What is the capital of Italy?<|end|>" in read(panel.mask.value)
    assert read(panel.said.value) == "The pre-flight finds no fault."


def test_another_row_is_shown_when_it_is_chosen(panel, five_rows):
    panel.slider.value = 4
    assert panel.value == five_rows[3]
    assert "And 2 + 3?" in read(panel.mask.value)
    assert panel.slider.max == 5


@pytest.mark.parametrize("fault", NAMES)
def test_a_fault_is_planted_and_named_and_taken_out_again(fault, panel, five_rows):
    before = panel.mask.value, panel.said.value
    panel.fault.value = fault
    assert re.findall("<b>(.*?)</b>", panel.said.value) == [NAMES[fault]]
    # Two faults are in the tokenizer; the row is the same.
    in_tokenizer = fault in ("pad = eos", "wrong template at generation")
    assert (panel.value == five_rows[0]) is in_tokenizer
    panel.fault.value = "none"
    assert (panel.mask.value, panel.said.value) == before
    assert panel.value == five_rows[0]


def test_each_fault_that_lives_in_a_row_can_be_chosen(panel):
    assert list(panel.fault.options) == ["none", *NAMES]


def test_the_value_is_the_row_with_the_fault(panel, five_rows):
    panel.fault.value = "end token unsupervised"
    row = five_rows[0]
    assert panel.value["input_ids"] == row["input_ids"]
    # The end tokens of the user's turn and of the assistant's; both are ignored now.
    assert panel.value["labels"] == [*row["labels"][:-1], IGNORE_INDEX]
    panel.fault.value = "double BOS"
    assert panel.value["input_ids"] == [row["input_ids"][0], *row["input_ids"]]


def test_the_tokenizer_given_stays_as_it_is(panel, tokenizer):
    before = tokenizer.pad_token, tokenizer.chat_template
    for fault in panel.fault.options:
        panel.fault.value = fault
    assert (tokenizer.pad_token, tokenizer.chat_template) == before


def test_a_row_over_max_length_is_told(tokenizer, wren_config):
    example = make_example("Hi " * 20, "Hello")
    n = len(encode_example(example, tokenizer)["input_ids"])
    panel = MaskPanel([example], tokenizer, wren_config.change(max_length=n - 1))
    assert re.findall("<b>(.*?)</b>", panel.said.value) == ["too long"]
    panel = MaskPanel([example], tokenizer, wren_config.change(max_length=n))
    assert "no fault" in panel.said.value


def test_text_is_escaped(tokenizer):
    example = make_example("<img src=x onerror=y>", "<script>alert(1)</script>")
    panel = MaskPanel([example], tokenizer)
    assert "<img" not in panel.mask.value
    assert "<script" not in panel.mask.value
    assert "<script>alert(1)</script>" in read(panel.mask.value)


def test_without_a_row_there_is_no_panel(tokenizer):
    with pytest.raises(ValueError, match="give at least one example"):
        MaskPanel([], tokenizer)


def test_every_control_has_a_label_and_nothing_can_jump(panel):
    assert [panel.slider.description, panel.fault.description] == ["Row", "Fault"]
    assert isinstance(panel.fault, widgets.Dropdown)
    for shown, height in ((panel.mask, "240px"), (panel.said, "100px")):
        assert shown.layout.height == height
        assert "overflow:auto" in shown.value
        assert 'tabindex="0"' in shown.value
