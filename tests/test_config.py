"""Run alone: ``python -m pytest tests/test_config.py``."""

import ast
import dataclasses
import inspect
import json
import math
from pathlib import Path

import pytest

from ftlib import config
from ftlib.config import PROFILES, WREN, RunConfig, default_profile

FIELDS = [field.name for field in dataclasses.fields(RunConfig)]


def test_the_laptop_profile_is_the_default_and_needs_no_network(monkeypatch):
    monkeypatch.delenv("FTLIB_PROFILE", raising=False)
    assert default_profile() == "laptop"
    settings = RunConfig.for_profile()
    assert settings.model == WREN
    assert (Path(settings.model) / "model.safetensors").is_file()


def test_the_environment_chooses_the_profile_and_an_argument_overrules_it(monkeypatch):
    monkeypatch.setenv("FTLIB_PROFILE", "gpu")
    assert RunConfig.for_profile().model == "Qwen/Qwen3-8B"
    assert RunConfig.for_profile("colab").model == "Qwen/Qwen3-0.6B"


def test_an_unknown_profile_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'cray'.*laptop, colab, gpu"):
        RunConfig.for_profile("cray")


def test_changes_come_on_top_of_the_profile():
    settings = RunConfig.for_profile("laptop", r=3, learning_rate=1e-3)
    assert (settings.r, settings.learning_rate) == (3, 1e-3)
    assert settings.num_train_epochs == PROFILES["laptop"]["num_train_epochs"]


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().r = 8


def test_a_changed_copy_leaves_the_first_as_it_was():
    first = RunConfig(r=4)
    second = first.change(r=8)
    assert (first.r, second.r) == (4, 8)


CONTRADICTIONS = [
    ("r", 0),
    ("r", -4),
    ("lora_alpha", 0),
    ("lora_dropout", 1.0),
    ("lora_dropout", -0.1),
    ("lora_dropout", math.nan),
    ("learning_rate", 0.0),
    ("learning_rate", -1e-3),
    ("learning_rate", 0.2),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("num_train_epochs", 0),
    ("max_steps", 0),
    ("max_steps", -2),
    ("per_device_train_batch_size", 0),
    ("gradient_accumulation_steps", 0),
    ("max_length", 0),
    ("max_new_tokens", 0),
    ("eval_steps", 0),
    ("save_steps", 0),
    ("warmup_steps", -1),
    ("weight_decay", -0.1),
    ("kl_weight", -1.0),
    ("gradient_checkpointing", -1),
    ("early_stopping_patience", -1),
    ("speed", "ludicrous"),
]


@pytest.mark.parametrize(("field", "value"), CONTRADICTIONS)
def test_a_contradiction_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=rf"^{field} "):
        RunConfig(**{field: value})
    with pytest.raises(ValueError, match=rf"^{field} "):
        RunConfig().change(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_dropout", 0.0),
        ("lora_dropout", 0.99),
        ("learning_rate", 0.1),
        ("max_steps", -1),
        ("max_steps", 1),
        ("num_train_epochs", 0.5),
        ("warmup_steps", 0),
        ("target_modules", ("q_proj", "v_proj")),
    ],
)
def test_what_lies_on_the_right_side_of_a_limit_is_taken(field, value):
    assert getattr(RunConfig(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "magic"}, "no method 'magic': use one of lora, "),
        ({"method": "full"}, "set load_in_4bit=False"),
        ({"method": "last_layers"}, "set load_in_4bit=False"),
        (
            {"method": "full", "load_in_4bit": False, "kl_weight": 1.0},
            "set kl_weight=0",
        ),
        ({"method": "lora", "learning_rate": 0.5}, "lora never trains above 0.1"),
        (
            {"method": "prefix", "gradient_checkpointing": 2},
            "set gradient_checkpointing=0, or choose another method",
        ),
        ({"speed": "fast", "kl_weight": 1.0}, "^kl_weight needs rows .* speed='safe'"),
        ({"speed": "fast", "method": "prompt"}, "^method prompt needs rows"),
        ({"speed": "fast", "method": "prefix"}, "^method prefix needs rows"),
        ({"speed": "fast", "method": "shadow"}, "^method shadow needs rows"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        RunConfig(**changes)


def test_a_rate_is_judged_by_the_method():
    assert RunConfig(method="prompt", learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"), [(1.0, -1, 4), (1.5, -1, 5), (9.0, 7, 7)]
)
def test_steps_are_counted_by_the_effective_batch(epochs, max_steps, steps):
    config = RunConfig(
        num_train_epochs=epochs,
        max_steps=max_steps,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
    )
    # Twenty rows, six a step: 3.3 steps an epoch.
    assert config.rows_per_step == 6
    assert config.count_steps(20) == steps


def test_layer_names_may_come_as_a_list_as_peft_has_them():
    settings = RunConfig(target_modules=["q_proj", "v_proj"])
    assert settings == RunConfig(target_modules=("q_proj", "v_proj"))
    assert hash(settings)


def test_a_field_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="lora_rank"):
        RunConfig(lora_rank=4)


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_survive_json(profile):
    settings = RunConfig.for_profile(profile)
    assert RunConfig(**json.loads(json.dumps(settings.to_dict()))) == settings


def test_each_field_has_a_sentence_under_it():
    tree = ast.parse(inspect.getsource(config))
    body = next(
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "RunConfig"
    )
    told = []
    for node, below in zip(body, body[1:], strict=False):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(below, ast.Expr), node.target.id
            assert below.value.value.endswith("."), node.target.id
            told.append(node.target.id)
    assert told == FIELDS


def test_fields_bear_the_names_that_the_libraries_give_them():
    from peft import LoraConfig
    from transformers import (
        BitsAndBytesConfig,
        EarlyStoppingCallback,
        GenerationConfig,
        TrainingArguments,
    )

    theirs = {field.name for field in dataclasses.fields(LoraConfig)}
    theirs |= {field.name for field in dataclasses.fields(TrainingArguments)}
    theirs |= vars(GenerationConfig()).keys()
    theirs |= inspect.signature(BitsAndBytesConfig).parameters.keys()
    theirs |= {"revision"}  # of from_pretrained
    theirs |= inspect.signature(EarlyStoppingCallback).parameters.keys()
    ours = ["model", "method", "kl_weight", "speed"]
    assert [name for name in FIELDS if name not in theirs] == ours
