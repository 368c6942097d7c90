"""Run alone: ``python -m pytest tests/test_methods.py``."""

import importlib
import warnings

import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ftlib import generation, methods, models, schema
from ftlib.config import METHODS, WHOLE
from ftlib.methods import make_peft_config
from ftlib.schema import IGNORE_INDEX

# By hand, of two layers 32 wide, with 2 heads and 1 key-value head of 16, an MLP of 64
# and r=4. LoRA: 4 x (64 + 48 + 48 + 64 + 3 x 96) a layer. DoRA: and a magnitude for
# each of 256 outputs. IA3: 16 keys, 16 values, 64 in the MLP. Norms: 2 x 32 + 2 x 16 a
# layer, and the last one. Prefix: 4 tokens x 2 layers x a key and a value of 16.
# Prompt: 4 x 32. Last layers: 9,216 in the linear ones, 96 in the norms, a layer.
TRAINED = {
    "lora": 4_096,
    "rslora": 4_096,
    "dora": 4_608,
    "ia3": 192,
    "ln_tuning": 224,
    "prefix": 256,
    "prompt": 128,
    "last_layers": 18_656,
}
ADAPTERS = [name for name in METHODS if name not in WHOLE]
has_shadow = hasattr(peft, "ShadowConfig")


@pytest.fixture
def make_tuned(tiny_model, wren_config):
    """What makes a tiny model ready by a method, its trained weights shifted."""

    def make(method, shift=0.0, base=None, **changes):
        if method == "shadow" and not has_shadow:
            pytest.skip("this PEFT has no ShadowConfig")
        config = wren_config.change(method=method, load_in_4bit=False, **changes)
        model = models.make_trainable(base or tiny_model(), config)
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad and shift:
                    weight += shift * torch.randn_like(weight)
        return model.eval()

    return make


def count_trained(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", TRAINED)
def test_each_method_trains_as_many_parameters_as_counted_by_hand(method, make_tuned):
    assert count_trained(make_tuned(method)) == TRAINED[method]


def test_the_last_layers_of_a_model_of_another_shape_are_refused_by_name(wren_config):
    shape = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=50)
    config = wren_config.change(method="last_layers", load_in_4bit=False)
    with pytest.raises(ValueError, match="of GPT2LMHeadModel are the last .* choose"):
        models.make_trainable(GPT2LMHeadModel(shape), config)
    whole = models.make_trainable(GPT2LMHeadModel(shape), config.change(method="full"))
    assert all(weight.requires_grad for weight in whole.parameters())


def test_float16_norms_are_refused_for_they_cannot_be_trained(make_tuned, monkeypatch):
    monkeypatch.setattr(models, "pick_dtype", lambda: torch.float16)
    with pytest.raises(ValueError, match="ln_tuning .* choose another method"):
        make_tuned("ln_tuning")


def test_full_fine_tuning_trains_the_embeddings_too(make_tuned, tokenizer):
    assert count_trained(make_tuned("full")) == 18_656 + 32 * len(tokenizer)


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_method_that_attaches_leaves_every_weight_of_the_base_frozen(
    method, make_tuned, tiny_model
):
    base = tiny_model()
    weights = {id(weight) for weight in base.parameters()}
    tuned = make_tuned(method, base=base)
    trained = {id(weight) for weight in tuned.parameters() if weight.requires_grad}
    assert trained
    assert not trained & weights


@pytest.mark.parametrize("method", METHODS)
def test_no_method_answers_otherwise_for_the_other_prompts_beside_it(
    method, make_tuned, tokenizer
):
    model = make_tuned(method, shift=1.0 if method == "prompt" else 0.05)
    seen = []  # the logits, for the words would hide much

    def look(ids, scores):
        seen.append(scores)
        return scores

    texts = ["Where is the lamp that I ordered a week ago, and who has it?", "Why?"]
    prompts = schema.make_prompts(texts)

    def answer(chosen):
        seen.clear()
        generation.generate(model, tokenizer, chosen, 1, logits_processor=[look])
        return seen[-1][-1]

    assert torch.allclose(answer(prompts), answer(prompts[1:]), atol=1e-2)


@pytest.mark.parametrize("method", ADAPTERS)
def test_each_saved_adapter_can_be_loaded_again_and_does_the_same(
    method, make_tuned, tmp_path
):
    model = make_tuned(method, shift=0.05)
    model.save_pretrained(tmp_path)
    assert models.prove_adapter(model, tmp_path, {"input_ids": [5, 6, 7, 8]}) > 0


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_loss_is_that_of_the_task_alone(method, make_tuned):
    model = make_tuned(method, shift=0.05)
    ids, labels = torch.tensor([[5, 6, 7, 8, 9], [IGNORE_INDEX, 6, 7, 8, 9]])[:, None]
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels, use_cache=False)
    logits = output.logits[:, -5:-1]
    alone = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])
    assert float(output.loss) == pytest.approx(float(alone), abs=1e-5)


def test_training_the_norms_prints_no_warning(make_tuned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        make_tuned("ln_tuning")
        assert any("Unsupported layer" in str(warning.message) for warning in caught)
        caught.clear()
        importlib.reload(methods)  # pytest has its own filters: set ours again
        make_tuned("ln_tuning")
    assert not any("Unsupported layer" in str(warning.message) for warning in caught)


def test_a_method_that_attaches_nothing_has_no_configuration(wren_config):
    config = wren_config.change(method="full", load_in_4bit=False)
    with pytest.raises(ValueError, match="full attaches nothing: use make_trainable"):
        make_peft_config(config)


def test_rank_strength_dropout_and_layers_arrive_in_a_lora(wren_config):
    config = wren_config.change(
        r=2, lora_alpha=6, lora_dropout=0.25, target_modules=("q_proj", "v_proj")
    )
    made = make_peft_config(config)
    assert (made.r, made.lora_alpha, made.lora_dropout) == (2, 6, 0.25)
    assert made.target_modules == {"q_proj", "v_proj"}
    assert (made.use_rslora, made.use_dora) == (False, False)


def test_rank_stabilised_lora_divides_by_the_root_of_the_rank(make_tuned):
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    scales = [
        make_tuned(method, lora_alpha=8).get_submodule(name).scaling["default"]
        for method in ("lora", "rslora")
    ]
    assert scales == [2.0, 4.0]  # 8 / 4, and 8 over the root of 4


def test_an_old_peft_is_told_apart(wren_config, monkeypatch):
    monkeypatch.delattr(peft, "ShadowConfig", raising=False)
    with pytest.raises(ValueError, match="needs a newer PEFT"):
        make_peft_config(wren_config.change(method="shadow"))
