"""Run alone: ``python -m pytest tests/test_speed.py``."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.bnb import Linear4bit
from transformers import MistralConfig, MistralForCausalLM

from ftlib import models, speed
from ftlib.batches import join_packs, make_collator, pack_rows, pack_steps
from ftlib.schema import IGNORE_INDEX
from ftlib.store import read_json
from ftlib.trainer import NonFiniteLossError
from ftlib.training import Run, fine_tune
from tests.test_training import adapter_bytes, stop_after


def make_row(*ids):
    return {"input_ids": list(ids), "labels": list(ids)}


def count_lengths(packs):
    return [[len(row["input_ids"]) for row in pack] for pack in packs]


def give_logits(model, batch):
    with torch.no_grad():
        return model(**batch, use_cache=False).logits[0]


# --- rows without padding ----------------------------------------------------------


def test_the_longest_row_goes_first_and_each_to_the_emptiest_pack():
    rows = [make_row(*range(n)) for n in (2, 9, 5, 7, 6)]
    # 9 | 7, then 6 to the 7, 5 to the 9, and 2 to the 13: 14 and 15 tokens.
    assert count_lengths(pack_rows(rows, 2)) == [[9, 5], [7, 6, 2]]


def test_a_steps_rows_stay_in_it():
    rows = [make_row(*range(n)) for n in (1, 8, 3, 2, 9, 4)]
    packs = pack_steps(rows, n_rows=3, n_packs=2)
    assert count_lengths(packs) == [[8], [3, 1], [9], [4, 2]]


def test_a_pack_restarts_positions_and_no_row_is_guessed_from_another():
    batch = join_packs([[make_row(5, 6, 7), make_row(8, 9)]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 6, 7, IGNORE_INDEX, 9]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert batch["max_length_q"] == 3


# --- attention within a row --------------------------------------------------------


@pytest.fixture
def mistral():
    """A tiny model in which a token sees four tokens, itself included."""
    torch.manual_seed(0)
    settings = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
    )
    return MistralForCausalLM(settings).eval()


@pytest.mark.parametrize("eager_tokens", [0, 512])
def test_each_row_of_a_pack_is_answered_as_alone(eager_tokens, tiny_model, monkeypatch):
    # On a CPU short rows are written out, long ones go to SDPA: here each by turns.
    monkeypatch.setattr(models, "EAGER_TOKENS", eager_tokens)
    model = tiny_model()
    rows = [make_row(*range(20, 31)), make_row(*range(40, 47)), make_row(9)]
    alone = [
        give_logits(model, {"input_ids": torch.tensor([r["input_ids"]])}) for r in rows
    ]
    with speed.keep_rows_apart(model):
        packed = give_logits(model, join_packs([rows]))
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("eager_tokens", [0, 512])
def test_a_sliding_window_slides_within_a_row(eager_tokens, mistral, monkeypatch):
    monkeypatch.setattr(models, "EAGER_TOKENS", eager_tokens)
    rows = [make_row(*range(20, 31)), make_row(*range(40, 47))]
    alone = [
        give_logits(mistral, {"input_ids": torch.tensor([r["input_ids"]])})
        for r in rows
    ]
    with speed.keep_rows_apart(mistral):
        packed = give_logits(mistral, join_packs([rows]))
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)


def test_padded_rows_are_answered_as_before_meanwhile(tiny_model, tokenizer, five_rows):
    model, batch = tiny_model(), make_collator(tokenizer)(five_rows)
    seen = batch["attention_mask"].bool()
    with torch.no_grad():
        before = model(**batch, use_cache=False).logits[seen]
        with speed.keep_rows_apart(model):
            meanwhile = model(**batch, use_cache=False).logits[seen]
    assert torch.allclose(before, meanwhile, atol=1e-5)


def test_no_mask_as_wide_as_the_pack_is_made(tiny_model, monkeypatch):
    seen, attend = [], speed.attend_by_row
    monkeypatch.setattr(
        speed, "attend_by_row", lambda *a, **k: seen.append(a[4]) or attend(*a, **k)
    )
    with speed.keep_rows_apart(tiny_model()):
        pass
    assert seen
    assert all(mask is None for mask in seen)


def test_a_model_in_which_rows_see_each_other_is_refused(tiny_model, monkeypatch):
    attend, model = speed.attend_by_row, tiny_model()

    def forget_cuts(*args, cu_seq_lens_q=None, **kwargs):
        return attend(*args, **kwargs)

    monkeypatch.setattr(speed, "attend_by_row", forget_cuts)
    with (
        pytest.raises(ValueError, match="see each other in a qwen3 model"),
        speed.keep_rows_apart(model),
    ):
        pass
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_attention_that_no_kernel_here_does_is_refused_by_name(name):
    one = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match=f"attends with {name}: set speed='safe'"):
        speed.attend_by_row(SimpleNamespace(), one, one, one, None, **{name: 50.0})


@pytest.mark.gpu
def test_on_a_gpu_each_row_of_a_pack_is_answered_as_alone(tiny_model):
    model = tiny_model().to("cuda", torch.bfloat16)
    rows = [make_row(*range(20, 31)), make_row(*range(40, 47))]
    alone = [
        give_logits(model, {"input_ids": torch.tensor([r["input_ids"]]).cuda()})
        for r in rows
    ]
    batch = {
        name: value.cuda() if torch.is_tensor(value) else value
        for name, value in join_packs([rows]).items()
    }
    with speed.keep_rows_apart(model):
        packed = give_logits(model, batch)
    wanted = torch.cat(alone)
    assert (packed - wanted).abs().max() < 0.05 * wanted.std()


# --- whole runs --------------------------------------------------------------------


@pytest.fixture
def make_run(tiny_model, tokenizer, five_rows, wren_config, tmp_path):
    def make(folder="run", **changes):
        settings = {
            "max_steps": 3,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "speed": "fast",
        }
        config = wren_config.change(**(settings | changes))
        model = models.attach_adapter(tiny_model(), config)
        rows = [
            # As in the field, no row's first token is supervised.
            row | {"labels": [IGNORE_INDEX, *row["labels"][1:]]}
            for row in five_rows
        ]
        return Run(model, tokenizer, rows, rows[:2], config, tmp_path / folder)

    return make


@pytest.mark.parametrize(("size", "passes"), [(4, 1), (2, 2), (1, 4)])
def test_a_fast_step_learns_what_a_safe_one_does(size, passes, make_run):
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": passes}
    safe, fast = make_run("safe", speed="safe", **sizes), make_run("fast", **sizes)
    for run in (safe, fast):
        assert run.start().wait().status == "finished"
    assert safe.progress.n_tokens == fast.progress.n_tokens
    for key in ("loss", "validation_loss"):
        ours, theirs = (
            [row[key] for row in run.progress.history if key in row]
            for run in (fast, safe)
        )
        assert ours == pytest.approx(theirs, rel=2e-3)
    assert fast.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("step", [1, 2])
def test_a_fast_run_that_was_stopped_ends_with_the_same_bytes(step, make_run):
    whole, broken = make_run("whole"), make_run("broken")
    whole.start().wait()
    stop_after(broken, step)
    assert broken.start(resume=True).wait().status == "finished"
    assert adapter_bytes(broken) == adapter_bytes(whole)


def test_a_run_begun_safe_is_not_resumed_fast(make_run):
    stop_after(make_run(speed="safe"), 1)
    with pytest.raises(ValueError, match="cannot resume: speed differs"):
        make_run().start(resume=True)


def test_the_first_step_is_tried_on_the_largest_pack(make_run, monkeypatch):
    seen = []
    forward = speed.attend_by_row

    def note(module, query, *args, **kwargs):
        seen.append(query.shape[2])
        return forward(module, query, *args, **kwargs)

    monkeypatch.setattr(speed, "attend_by_row", note)
    make_run(max_steps=2).start().wait()
    n_proof = 8  # the two rows that prove that they do not see each other
    assert next(n for n in seen if n != n_proof) == max(seen)


def test_a_pack_whose_loss_is_no_number_is_written_down(make_run):
    run = make_run()
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 1"):
        run.start().wait()
    batch = read_json(run.folder / "bad_batch.json")
    assert batch["max_length_q"] == max(map(len, [r["input_ids"] for r in run.train]))


# --- LoRA before the base product --------------------------------------------------


@pytest.fixture
def quantized(wren_config):
    """What makes Wren in 4 bits, with a LoRA that is not nothing."""

    def make(**changes):
        config = wren_config.change(gradient_checkpointing=1)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
        base = models.load_base(config)
        base.enable_input_require_grads()
        model = get_peft_model(
            base, LoraConfig(task_type="CAUSAL_LM", **(settings | changes))
        )
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        return model

    return make


def pick_layer(model):
    return next(m for m in model.modules() if isinstance(m, Linear4bit))


def pass_through(layer, x, is_autocast):
    layer.zero_grad()
    taken = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        given = layer(taken)
    given.float().square().sum().backward()
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    return [given.detach(), taken.grad, *(g.clone() for g in gradients)]


@pytest.mark.parametrize("is_autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lora_first_gives_pefts_own_numbers(is_autocast, dtype, quantized):
    layer = pick_layer(quantized()).train()
    x = torch.randn(3, layer.in_features, dtype=dtype)
    theirs = pass_through(layer, x, is_autocast)
    with speed.put_lora_first(layer):
        ours = pass_through(layer, x, is_autocast)
    assert len(ours) == len(theirs) == 4  # what it gave, and gradients of x, A and B
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def count_products(model, row):
    """Count the base products of a forward and backward pass."""
    counted = []
    hooks = [
        m.base_layer.register_forward_pre_hook(lambda *_: counted.append(1))
        for m in model.modules()
        if isinstance(m, Linear4bit)
    ]
    models.keep_layers(model.train(), 1)
    ids = torch.tensor([row["input_ids"]])
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, labels=ids, use_cache=False).loss.backward()
    for hook in hooks:
        hook.remove()
    return len(counted)


def test_a_layer_computed_again_takes_one_base_product_fewer(quantized, five_rows):
    model = quantized()
    n_layers = model.config.num_hidden_layers
    # Seven products a layer forward; computed again seven, and without the last six.
    assert count_products(model, five_rows[0]) == 14 * n_layers
    with speed.put_lora_first(model):
        assert count_products(model, five_rows[0]) == 13 * n_layers
    assert count_products(model, five_rows[0]) == 14 * n_layers


@pytest.mark.parametrize(
    "case", ["disabled", "merged", "two adapters", "dropout", "dora", "a keyword"]
)
def test_what_is_not_plain_lora_is_left_to_peft(case, quantized, monkeypatch):
    changes = {"dropout": {"lora_dropout": 0.5}, "dora": {"use_dora": True}}
    model = quantized(**changes.get(case, {}))
    layer = pick_layer(model).train()
    keywords = {}
    if case == "disabled":
        layer.enable_adapters(False)
    elif case == "merged":
        monkeypatch.setattr(layer, "merged_adapters", ["default"])
    elif case == "two adapters":
        model.add_adapter("second", LoraConfig(r=2, target_modules="all-linear"))
        model.base_model.set_adapter(["default", "second"])
    elif case == "a keyword":
        keywords = {"alora_offsets": None}
    x, asked = torch.randn(3, layer.in_features), []
    forward = Linear4bit.forward

    def note(self, *args, **kwargs):
        asked.append(self)
        return forward(self, *args, **kwargs)

    torch.manual_seed(5)
    theirs = layer(x, **keywords)
    monkeypatch.setattr(Linear4bit, "forward", note)
    with speed.put_lora_first(layer):
        torch.manual_seed(5)
        ours = layer(x, **keywords)
    assert asked == [layer]
    assert torch.equal(ours, theirs)


def test_plain_lora_is_not_left_to_peft_and_all_is_undone(quantized, monkeypatch):
    layer = pick_layer(quantized())
    with monkeypatch.context() as patch:
        patch.setattr(Linear4bit, "forward", None)  # to call it is an error
        with speed.put_lora_first(layer):
            layer(torch.randn(3, layer.in_features))
    assert "forward" not in vars(layer)


def test_a_fast_run_leaves_a_4_bit_model_as_peft_has_it(
    wren_config, tokenizer, five_rows, tmp_path
):
    config = wren_config.change(max_steps=1, speed="fast", gradient_checkpointing=1)
    model = models.attach_adapter(models.load_base(config), config)
    fine_tune(model, tokenizer, five_rows, [], config, tmp_path / "run")
    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert layers
    assert not any("forward" in vars(layer) for layer in layers)


# --- what is kept, as far as memory forces -----------------------------------------


def fit(config, fits):
    tried = []

    def train(trial):
        setting = (trial.per_device_train_batch_size, trial.gradient_checkpointing)
        tried.append(setting)
        assert trial.rows_per_step == config.rows_per_step
        if setting != fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    speed.fit_in_memory(config, train)
    return tried


def test_fast_computes_more_layers_again_before_the_batch_gets_smaller(wren_config):
    config = wren_config.change(speed="fast", per_device_train_batch_size=4)
    assert fit(config, (4, 2)) == [(4, 0), (4, 4), (4, 2)]
    assert fit(config, (1, 1)) == [(4, 0), (4, 4), (4, 2), (4, 1), (2, 1), (1, 1)]
    chosen = config.change(gradient_checkpointing=3)
    assert fit(chosen, (2, 3)) == [(4, 3), (2, 3)]


def test_safe_keeps_to_its_layers(wren_config):
    config = wren_config.change(per_device_train_batch_size=4)
    assert fit(config, (1, 0)) == [(4, 0), (2, 0), (1, 0)]


def test_where_fast_does_not_fit_checkpointing_is_not_advised(wren_config):
    with pytest.raises(MemoryError) as caught:
        fit(wren_config.change(speed="fast"), fits=None)
    assert "gradient_checkpointing" not in str(caught.value)


def test_layers_are_chosen_anew_each_time_and_let_go(tiny_model):
    model, chosen = tiny_model(num_hidden_layers=4), []
    for every in (4, 2, 1, 3, 0):
        models.keep_layers(model, every)
        chosen.append([layer.gradient_checkpointing for layer in model.model.layers])
    no, yes = False, True
    assert chosen == [
        [no, no, no, yes],
        [no, yes, no, yes],
        [yes, yes, yes, yes],
        [no, no, yes, no],
        [no, no, no, no],
    ]


# --- Liger -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_liger", "device_type", "levels", "is_used"),
    [
        (True, "cuda", speed.LEVELS, True),
        (False, "cuda", speed.LEVELS, False),
        (True, "cpu", speed.LEVELS, False),
        (True, "cuda", (), False),
    ],
)
def test_liger_is_used_where_it_is_and_on_a_gpu_and_leaves_the_loss_alone(
    has_liger, device_type, levels, is_used, monkeypatch
):
    find = importlib.util.find_spec

    def find_spec(name, *args):
        return (has_liger or None) if name == "liger_kernel" else find(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    chosen = speed.choose_arguments(levels, device_type)
    assert chosen.get("use_liger_kernel", False) is is_used
    if is_used:
        used = {name for name, is_on in chosen["liger_kernel_config"].items() if is_on}
        assert used == {"rope", "rms_norm", "swiglu"}
