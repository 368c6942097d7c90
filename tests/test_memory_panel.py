"""Run alone: ``python -m pytest tests/test_memory_panel.py``."""

import io
import re
import struct

import ipywidgets as widgets
import pytest
from matplotlib.image import imread

from ftlib import memory
from ftlib.config import RunConfig
from ftlib.panels import MemoryPanel
from ftlib.panels.memory import draw_memory

CONFIG = RunConfig.for_profile(
    "laptop", per_device_train_batch_size=2, max_length=64, learning_rate=3e-3
)
BLUE = (31, 119, 180)  # the first colour of matplotlib's tab10
PARTS = {"weights": 2_000_000, "logits": 1_000_000}


def read_table(panel):
    """Give the numbers of the panel's table by part."""
    return {
        part: float(number.replace(",", ""))
        for part, number in re.findall(
            r"<td>([^<]*)</td>\s*<td>([^<]*)</td>", panel.table.value
        )
    }


@pytest.fixture
def estimates(monkeypatch):
    """Let each estimate be `PARTS`, and give the settings it was asked for."""
    asked = []

    def estimate(architecture, config, device_type="cuda"):
        asked.append((config, device_type))
        return PARTS

    monkeypatch.setattr(memory, "estimate_memory", estimate)
    return asked


def test_untouched_its_value_is_what_it_was_given(estimates):
    assert MemoryPanel(CONFIG).value == CONFIG
    other = RunConfig(model="Qwen/Qwen3-8B", target_modules=("q_proj",))
    assert MemoryPanel(other).value == other


def test_each_control_changes_the_value_and_asks_again(estimates):
    panel = MemoryPanel(CONFIG)
    changes = {
        "model": "Qwen/Qwen3-0.6B",
        "method": "dora",
        "load_in_4bit": False,
        "r": 4,
        "max_length": 128,
        "per_device_train_batch_size": 16,
        "gradient_checkpointing": 2,
    }
    for name, value in changes.items():
        panel.knobs[name].value = value
    assert panel.value == CONFIG.change(**changes)
    assert estimates[-1] == (panel.value, "cpu")
    panel.card.value = "T4"
    assert estimates[-1] == (panel.value, "cuda")


def test_it_says_whether_the_run_fits_the_card(estimates, monkeypatch):
    monkeypatch.setitem(memory.CARDS, "T4", 3_000_000)
    monkeypatch.setitem(memory.CARDS, "4090", 2_999_999)
    panel = MemoryPanel(CONFIG)
    panel.card.value = "T4"
    assert "Fits T4" in panel.message.value
    panel.card.value = "4090"
    assert "Does not fit 4090: choose a smaller batch, grad" in panel.message.value


def test_its_table_is_the_estimate_of_its_headless_twin():
    panel = MemoryPanel(CONFIG)
    shown = read_table(panel)
    parts = memory.estimate_memory(
        memory.load_architecture(CONFIG.model), CONFIG, "cpu"
    )
    assert list(shown)[: len(parts)] == list(parts)
    for part, n_bytes in parts.items():
        assert shown[part] == pytest.approx(n_bytes / 1e6, abs=0.051)
    assert shown["all"] == pytest.approx(sum(parts.values()) / 1e6, abs=0.051)


def test_a_contradiction_is_a_sentence_in_the_panel(estimates):
    panel = MemoryPanel(CONFIG)
    panel.knobs["method"].value = "full"
    assert "set load_in_4bit=False" in panel.message.value
    assert panel.table.value == ""
    with pytest.raises(ValueError, match="4-bit"):
        _ = panel.value
    panel.knobs["load_in_4bit"].value = False
    assert "Fits" in panel.message.value
    panel.knobs["r"].value = 0
    assert "r is 0" in panel.message.value


def test_a_model_that_is_not_there_is_a_sentence_in_the_panel(estimates, tmp_path):
    panel = MemoryPanel(CONFIG.change(model=str(tmp_path / "<b>none")))
    assert panel.table.value == ""
    assert "none" in panel.message.value
    assert "<b>none" not in panel.message.value


def test_the_picture_is_always_of_one_size():
    for parts, n_bytes in (({}, 1), (PARTS, 10), (PARTS, 10**12)):
        png = draw_memory(parts, n_bytes)
        assert struct.unpack(">II", png[16:24]) == (960, 300)


def test_a_part_is_drawn_as_long_as_it_is():
    n_blue = []
    for n_bytes in (10, 90):
        picture = imread(io.BytesIO(draw_memory({"weights": n_bytes}, 100)))
        row = (picture[80, :, :3] * 255).round()
        n_blue.append(int((row == BLUE).all(axis=1).sum()))
    # 0.94 of 960 pixels are 105 bytes wide, so 10 bytes are 86 pixels.
    assert n_blue[0] == pytest.approx(86, abs=2)
    assert n_blue[1] == pytest.approx(9 * 86, abs=4)


def test_every_control_has_a_label_and_nothing_can_jump(estimates):
    panel = MemoryPanel(CONFIG)
    controls = [*panel.knobs.values(), panel.card]
    assert all(isinstance(c, widgets.Dropdown | widgets.IntText) for c in controls)
    assert len({control.description for control in controls}) == 8
    assert all(control.layout.height for control in controls)
    assert (panel.image.width, panel.image.height) == ("640", "200")
    assert panel.message.layout.height == "64px"
    assert panel.table.layout.height == "410px"
