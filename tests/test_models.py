"""Run alone: ``python -m pytest tests/test_models.py``."""

import copy
import platform
import subprocess
import sys

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from peft.tuners.lora import LoraLayer

from ftlib import models
from ftlib.config import ROOT
from ftlib.tokens import encode_example


def load_quietly(config):
    """Load Wren in 4 bits and attach a seeded adapter that already does something."""
    model = models.attach_adapter(models.load_base(config), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def logits(model, row):
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return model(ids, use_cache=False).logits.float()


# --- the base --------------------------------------------------------------------


def test_wren_loads_in_4_bits_and_frozen_layers_weigh_half_a_byte(wren_config):
    model = models.load_base(wren_config)
    assert not model.training
    layer = model.model.layers[0].mlp.down_proj
    assert type(layer).__name__ == "Linear4bit"
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.numel() * 2 == layer.in_features * layer.out_features


def test_wren_loads_whole_when_4_bits_are_not_asked_for(wren_config):
    model = models.load_base(wren_config.change(load_in_4bit=False))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_model_of_random_weights_has_the_same_shape_and_knows_nothing(
    wren_config, five_rows
):
    base = models.load_base(wren_config.change(load_in_4bit=False))
    other = models.load_random(wren_config)
    shapes = {name: p.shape for name, p in base.named_parameters()}
    assert {name: p.shape for name, p in other.named_parameters()} == shapes
    assert all(p.requires_grad for p in other.parameters())
    ids = torch.tensor([five_rows[0]["input_ids"]])
    with torch.no_grad():
        loss = other(ids, labels=ids).loss.item()
    # Knowing nothing costs about ln(vocabulary) a token: ln 3072 is 8.03.
    assert abs(loss - torch.tensor(float(base.config.vocab_size)).log().item()) < 1


def test_the_same_seed_gives_the_same_random_model(wren_config):
    first, again = models.load_random(wren_config), models.load_random(wren_config)
    other = models.load_random(wren_config.change(seed=1))
    name = "model.layers.0.mlp.up_proj.weight"
    weights = [m.state_dict()[name] for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_tokenizer_without_a_chat_template_is_refused(
    tokenizer, wren_config, tmp_path
):
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    plain.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        models.load_tokenizer(wren_config.change(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        (None, torch.bfloat16),  # a CPU
        ((7, 5), torch.float16),  # T4
        ((8, 0), torch.bfloat16),  # A100
        ((9, 0), torch.bfloat16),  # H100
    ],
)
def test_the_dtype_goes_by_what_the_machine_does_fast(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert models.pick_dtype() == dtype


# --- the adapter -----------------------------------------------------------------


def test_an_untrained_adapter_changes_nothing(wren_config, five_rows):
    base = models.load_base(wren_config)
    before = [logits(base, row) for row in five_rows]
    model = models.attach_adapter(base, wren_config).eval()
    for row, wanted in zip(five_rows, before, strict=True):
        assert torch.equal(logits(model, row), wanted)


def test_only_the_adapter_is_trained_and_in_float32(tiny_model, wren_config):
    model = models.attach_adapter(tiny_model().to(torch.bfloat16), wren_config)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    # r = 4 times (inputs + outputs): q 32+32, k and v 32+16, o 32+32, gate, up and down
    # 32+64 each, 512 in all; in two layers.
    assert sum(p.numel() for p in trained.values()) == 4 * 512 * 2


def test_layers_are_chosen_by_name(tiny_model, wren_config):
    config = wren_config.change(target_modules=("q_proj", "v_proj"))
    model = models.attach_adapter(tiny_model(), config)
    names = {
        n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, LoraLayer)
    }
    assert names == {"q_proj", "v_proj"}


def test_rank_strength_and_dropout_are_those_of_the_settings(tiny_model, wren_config):
    config = wren_config.change(r=2, lora_alpha=6, lora_dropout=0.25)
    model = models.attach_adapter(tiny_model(), config)
    layer = next(m for m in model.modules() if isinstance(m, LoraLayer))
    assert layer.lora_A["default"].weight.shape[0] == 2
    assert layer.scaling["default"] == 3.0  # lora_alpha / r
    assert layer.lora_dropout["default"].p == 0.25


def test_the_seed_decides_the_adapters_first_weights(tiny_model, wren_config):
    def first_weights(seed):
        torch.rand(seed + 3)  # whatever was drawn before
        config = wren_config.change(seed=seed)
        model = models.attach_adapter(tiny_model(), config)
        return {n: p for n, p in model.named_parameters() if "lora_A" in n}

    first, again, other = first_weights(0), first_weights(0), first_weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_second_adapter_is_refused(tiny_model, wren_config):
    model = models.attach_adapter(tiny_model(), wren_config)
    for carrier in (model, model.get_base_model()):
        with pytest.raises(ValueError, match="has an adapter already"):
            models.attach_adapter(carrier, wren_config)


def test_a_saved_adapter_answers_as_the_trained_one(wren_config, five_rows, tmp_path):
    model = load_quietly(wren_config).eval()
    model.save_pretrained(tmp_path)
    again = models.load_adapter(wren_config, tmp_path)
    assert not again.training
    for row in five_rows:
        assert torch.equal(logits(again, row), logits(model, row))


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("load_in_4bit", [True, False])
def test_a_saved_adapter_is_trained_on_and_the_base_stays(
    load_in_4bit, wren_config, five_rows, tmp_path
):
    config = wren_config.change(load_in_4bit=load_in_4bit)
    load_quietly(config).save_pretrained(tmp_path)
    model = models.load_adapter(config, tmp_path, is_trainable=True)
    before = snapshot(model)
    gradients = find_gradients(model, five_rows[0])
    assert {name for name in before if "lora_" in name} == gradients.keys()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    for name, weight in snapshot(model).items():
        assert torch.equal(weight, before[name]) is ("lora_" not in name), name


def test_a_saved_adapter_is_frozen_unless_training_is_to_go_on(wren_config, tmp_path):
    load_quietly(wren_config).save_pretrained(tmp_path)
    model = models.load_adapter(wren_config, tmp_path)
    assert not any(p.requires_grad for p in model.parameters())


# --- the trap of 4 bits on a CPU -------------------------------------------------


def find_gradients(model, row):
    """Give the adapter's gradients from one example."""
    model.train()
    model.zero_grad()
    ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(ids, labels=labels, use_cache=False).loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def worst_difference(model, row):
    """Give how far the gradients move when the model has answered once in between."""
    before = find_gradients(model, row)
    model.eval()
    logits(model, row)
    after = find_gradients(model, row)
    assert before.keys() == after.keys()
    assert len(before) == sum(p.requires_grad for p in model.parameters())
    assert all(gradient.abs().max() > 0 for gradient in before.values())
    return max(
        ((after[name] - before[name]).norm() / before[name].norm()).item()
        for name in before
    )


def test_answering_in_eval_mode_leaves_the_gradients_right(
    wren_config, tokenizer, five_examples
):
    row = encode_example(five_examples[2], tokenizer)
    assert worst_difference(load_quietly(wren_config), row) < 1e-3


@pytest.mark.skipif(
    not has_avx512bf16(), reason="the trap is in CPUs with AVX512-BF16; this has none"
)
def test_without_the_guard_the_gradients_are_wrong(
    wren_config, tokenizer, five_examples, monkeypatch
):
    # When this fails, bitsandbytes has mended it: then take the guard out.
    monkeypatch.setattr(models, "keep_gradients_right", lambda model: None)
    row = encode_example(five_examples[2], tokenizer)
    assert worst_difference(load_quietly(wren_config), row) > 0.5


def test_training_sets_the_guard_on_a_model_loaded_elsewhere(
    wren_config, monkeypatch, five_rows, tokenizer, tmp_path
):
    from ftlib import training

    with monkeypatch.context() as patch:
        patch.setattr(models, "keep_gradients_right", lambda model: None)
        model = load_quietly(wren_config)
    training.fine_tune(
        model,
        tokenizer,
        five_rows,
        [],
        wren_config.change(max_steps=1),
        tmp_path / "run",
    )
    guarded = [
        module.support_avx512bf16_for_cpu
        for module in model.modules()
        if hasattr(module, "support_avx512bf16_for_cpu")
    ]
    assert guarded
    assert not any(guarded)


# --- threads ---------------------------------------------------------------------


@pytest.mark.skipif(
    sys.platform != "linux", reason="counts threads as Linux lists them"
)
def test_a_thread_lets_go_of_its_workers():
    # Alone in its process: what other tests left running would count too.
    program = """
import os, torch
from ftlib.machine import release_threads
torch.set_num_threads(2)
torch.rand(400, 400) @ torch.rand(400, 400) + torch.rand(400, 400)
torch.rand(10**6).exp()
before = len(os.listdir("/proc/self/task"))
release_threads()
print(before - len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True
    )
    assert int(done.stdout) >= 1


# --- memory ----------------------------------------------------------------------


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="what freed tensors took is kept by glibc",
)
def test_what_freed_tensors_took_goes_back_to_the_system():
    # Alone in its process: what other tests left behind would count too.
    program = """
import psutil, torch
from ftlib.machine import release_memory
process = psutil.Process()
torch.ones(7_000_000)  # once 28 MB were freed, less comes from the heap
freed, held = [], []
for _ in range(100):
    freed.append(torch.ones(1_000_000))
    held.append(torch.ones(50_000))  # too large for a hole: lies between them
before = process.memory_info().rss
freed.clear()
kept = before - process.memory_info().rss
release_memory()
print(kept // 10**6, (before - process.memory_info().rss) // 10**6)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True
    )
    kept, released = map(int, done.stdout.split())
    assert kept < 100  # else there was nothing to release
    assert released > 350
