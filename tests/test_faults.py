"""Run alone: ``python -m pytest tests/test_faults.py``. 12 of 12, and 0 of 10."""

import copy
import gc

import pytest
import torch
from test_tokens import UNMARKED, with_template

from ftlib import faults, models
from ftlib.schema import make_example

EXAMPLES = [
    make_example("What is the capital of Italy?", "Rome"),
    make_example("Who owns door 7?", "Ada Lowe", system="Be brief."),
    make_example("And 2 + 3?", "It is 5.", shots=[("What is 1 + 1?", "It is 2.")]),
    make_example("user=ana port=22\nWrite as JSON: user", '{"user": "ana"}'),
]
CALL = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "call weather"},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny."},
]
# Fault: when it is caught, the names, and words of the first remedy.
CAUGHT = {
    "pad = eos": ("before training", "pad token", "a token of its own"),
    "end token unsupervised": (
        "before training",
        "end token unsupervised",
        "supervise the end token",
    ),
    "double BOS": ("before training", "double BOS", "add_special_tokens=False"),
    "no BOS": ("before training", "no BOS", "encode with the chat template"),
    "loss on the prompt": ("before training", "loss on the prompt", "mask them"),
    "all labels -100": ("before training", "nothing to learn", "end each example"),
    "truncated responses": ("before training", "truncated response", "raise max_len"),
    "wrong template at generation": (
        "before training",
        "template differs",
        "one template for both",
    ),
    "learning rate x100": ("settings", "learning_rate is 0.8", "never trains above"),
    "fp16 overflow": ("first step", "float16 overflow", "compute in bfloat16"),
    "adapter not loaded": ("on reload", "adapter not loaded", "save the bare model"),
    "adapter never given gradients": (
        "first step",
        "nothing is trained",
        "is_trainable=True",
    ),
}


@pytest.fixture(scope="module")
def config(tiny_model, tokenizer, wren_config, tmp_path_factory):
    """Settings of a run on a tiny model, which is read from a folder as Wren is."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model(hidden_size=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    gc.freeze()  # training collects garbage; what was loaded before is none
    yield wren_config.change(model=str(folder))
    gc.unfreeze()


def hub_like(tokenizer):
    """Give a tokenizer as Qwen's is: no BOS, and ChatML with a newline at the end."""
    other = with_template(tokenizer, UNMARKED.replace("{{- bos_token }}", ""))
    other.bos_token = None
    return other


def test_the_classic_faults_are_twelve():
    assert list(faults.FAULTS) == list(CAUGHT)
    assert len(CAUGHT) == 12


@pytest.mark.parametrize("fault", CAUGHT)
def test_each_classic_fault_is_caught_by_name_with_the_remedy(fault, config, tokenizer):
    setup = faults.Setup(config, tokenizer, EXAMPLES)
    faults.FAULTS[fault](setup)
    when, problems = setup.check()
    wanted, name, remedy = CAUGHT[fault]
    assert (when, [problem.name for problem in problems]) == (wanted, [name])
    assert remedy in problems[0].remedy


def test_planting_leaves_the_tokenizer_and_the_settings_given_alone(config, tokenizer):
    before = copy.deepcopy((config, tokenizer.pad_token, tokenizer.chat_template))
    for plant in faults.FAULTS.values():
        plant(faults.Setup(config, tokenizer, EXAMPLES))
    assert before == (config, tokenizer.pad_token, tokenizer.chat_template)


@pytest.mark.parametrize(
    ("changes", "template", "examples"),
    [
        ({}, None, EXAMPLES),  # QLoRA, a template with generation marks
        ({"load_in_4bit": False}, UNMARKED, EXAMPLES),
        ({}, "hub", EXAMPLES[:2]),
        ({}, UNMARKED.replace("{{- bos_token }}", ""), EXAMPLES),  # though there is one
        ({"load_in_4bit": False, "lora_dropout": 0.1}, None, [{"messages": CALL}] * 3),
        ({"method": "ia3", "learning_rate": 5e-2}, None, EXAMPLES),
        ({"method": "prompt", "learning_rate": 5e-2}, None, EXAMPLES),
        (
            {"method": "full", "load_in_4bit": False, "learning_rate": 1e-3},
            None,
            EXAMPLES,
        ),
        (
            {"gradient_accumulation_steps": 3, "learning_rate": 1e-5},
            None,
            [*EXAMPLES, make_example("Hi " * 160, "Hello")],
        ),
        ({"method": "dora", "gradient_checkpointing": 1, "r": 8}, UNMARKED, EXAMPLES),
    ],
)
def test_a_good_set_up_raises_no_alarm(changes, template, examples, config, tokenizer):
    if template == "hub":
        tokenizer = hub_like(tokenizer)
    elif template:
        tokenizer = with_template(tokenizer, template)
    setup = faults.Setup(config.change(**changes), tokenizer, examples)
    assert setup.check() == ("never", [])


def test_a_rate_that_settings_allow_but_the_first_step_does_not(wren_config, tokenizer):
    # On Wren, which has something to lose.
    changes = {"method": "full", "load_in_4bit": False, "learning_rate": 1e-3}
    setup = faults.Setup(wren_config.change(**changes), tokenizer, EXAMPLES)
    faults.FAULTS["learning rate x100"](setup)
    when, [problem] = setup.check()
    assert (when, problem.name) == ("first step", "learning rate too high")
    assert "one step at 0.1 takes the loss from" in problem.remedy
    assert "divide it by 10" in problem.remedy


def test_the_overflow_is_float16s_alone(config, tokenizer):
    setup = faults.Setup(config, tokenizer, EXAMPLES)
    faults.FAULTS["fp16 overflow"](setup)
    plant = setup.change_model

    def change(model):
        plant(model)
        for module in model.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = torch.bfloat16

    setup.change_model = change
    assert setup.check()[0] != "first step"


def test_an_adapter_file_that_lacks_one_weight_is_refused(config, tmp_path):
    from safetensors.torch import load_file, save_file

    model = models.attach_adapter(models.load_base(config), config)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight")
    save_file(weights, path)
    # Of 2 layers with 7 linear ones each, of which each has two weights.
    with pytest.raises(models.NoEffectError, match=r"1 of its 28 .* has nothing inst"):
        models.load_adapter(config, tmp_path)
    with pytest.raises(models.NoEffectError, match="not loaded"):
        models.prove_adapter(model, tmp_path, {"input_ids": [1, 2, 3]})
    assert list(model.peft_config) == ["default"]
