"""Run alone: ``python -m pytest tests/test_trainer.py``."""

import pytest
import torch

from ftlib import trainer
from ftlib.trainer import make_arguments


@pytest.mark.parametrize(
    ("n_steps", "warmup_steps"), [(1_000, 10), (100, 10), (50, 5), (9, 0)]
)
def test_warming_up_takes_a_tenth_of_the_run_at_most(
    n_steps, warmup_steps, wren_config, tmp_path
):
    config = wren_config.change(warmup_steps=10)
    arguments = make_arguments(config, n_steps, tmp_path, "cpu")
    assert arguments.warmup_steps == warmup_steps


def test_the_settings_arrive_under_the_same_names(wren_config, tmp_path):
    config = wren_config.change(
        learning_rate=2e-3,
        weight_decay=0.1,
        seed=5,
        save_steps=7,
        gradient_accumulation_steps=3,
        lr_scheduler_type="linear",
    )
    arguments = make_arguments(config, 40, tmp_path, "cpu")
    for name in (
        "learning_rate",
        "weight_decay",
        "seed",
        "save_steps",
        "gradient_accumulation_steps",
        "per_device_train_batch_size",
        "lr_scheduler_type",
    ):
        assert getattr(arguments, name) == getattr(config, name), name
    assert arguments.output_dir == str(tmp_path)


def test_nothing_is_reported_to_anyone(wren_config, tmp_path):
    arguments = make_arguments(wren_config, 4, tmp_path, "cpu")
    assert arguments.report_to == []
    assert not arguments.push_to_hub


def test_half_precision_is_what_the_machine_does_fast(
    wren_config, tmp_path, monkeypatch
):
    arguments = make_arguments(wren_config, 4, tmp_path, "cpu")
    assert (arguments.bf16, arguments.fp16) == (True, False)
    given = {}
    monkeypatch.setattr(
        trainer, "TrainingArguments", lambda **names: given.update(names)
    )
    monkeypatch.setattr(trainer, "pick_dtype", lambda: torch.float16)
    make_arguments(wren_config, 4, tmp_path, "cuda")
    assert (given["bf16"], given["fp16"], given["use_cpu"]) == (False, True, False)
