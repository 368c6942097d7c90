"""Run alone: ``python -m pytest tests/test_trainer.py``."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ftlib import models, trainer
from ftlib.batches import make_collator
from ftlib.schema import IGNORE_INDEX, PreflightError
from ftlib.speed import fit_in_memory
from ftlib.trainer import CheckedTrainer, make_arguments


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
    monkeypatch.setattr(trainer, "TrainingArguments", partial(SimpleNamespace, n_gpu=2))
    monkeypatch.setattr(trainer, "pick_dtype", lambda: torch.float16)
    given = make_arguments(wren_config, 4, tmp_path, "cuda")
    assert (given.bf16, given.fp16, given.use_cpu) == (False, True, False)
    assert given._n_gpu == 1  # or a run would end after half of its steps


@pytest.mark.parametrize(("length", "attention"), [(512, "eager"), (513, "sdpa")])
def test_short_rows_are_trained_with_attention_written_out_and_answered_without(
    length, attention, wren_config, tmp_path
):
    model = models.attach_adapter(models.load_base(wren_config), wren_config)
    assert model.config._attn_implementation == "sdpa"
    seen = []
    model.register_forward_pre_hook(
        lambda *_: seen.append(model.config._attn_implementation)
    )
    row = {"input_ids": [7] * length, "labels": [7] * length}
    made = CheckedTrainer(
        model=model,
        args=make_arguments(wren_config, 1, tmp_path, "cpu").set_save("no"),
        train_dataset=[row],
        data_collator=make_collator(models.load_tokenizer(wren_config)),
    )
    made.train()
    assert seen == [attention]
    assert model.config._attn_implementation == "sdpa"


# --- the first step, tried ---------------------------------------------------------


@pytest.fixture
def make_trainer(tiny_model, tokenizer, five_rows, wren_config, tmp_path):
    def make(model=None, rows=five_rows, **changes):
        config = wren_config.change(**({"load_in_4bit": False} | changes))
        made = CheckedTrainer(
            model=model or models.make_trainable(tiny_model(), config),
            args=make_arguments(config, 4, tmp_path, "cpu"),
            train_dataset=rows,
            data_collator=make_collator(tokenizer),
        )
        made.bad_batch_file = tmp_path / "bad_batch.json"
        return made

    return make


def test_a_first_step_that_was_tried_leaves_nothing_behind(make_trainer):
    made = make_trainer(lora_dropout=0.5)
    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    made.model.eval()
    drawn = torch.random.get_rng_state()
    made.try_first_step()
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert not made.model.training
    for name, parameter in made.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None, name


def refuse(made):
    with pytest.raises(PreflightError) as caught:
        made.try_first_step()
    [problem] = caught.value.problems
    return problem.name


def test_a_model_with_nothing_to_train_is_refused_before_the_first_step(
    make_trainer, tiny_model
):
    model = tiny_model().requires_grad_(False)
    assert refuse(make_trainer(model)) == "nothing is trained"


def test_an_adapter_that_no_gradient_reaches_is_refused(make_trainer):
    made = make_trainer()
    # Trainable, but what it computes is cut off from the loss.
    for module in made.model.modules():
        if hasattr(module, "lora_B"):
            module.scaling["default"] = 0.0
    assert refuse(made) == "no gradients"


def test_a_rate_that_ruins_the_first_batch_is_refused_and_a_usual_one_is_not(
    make_trainer, wren_config, five_rows
):
    changes = {"method": "full", "load_in_4bit": False}
    for rate, is_refused in ((1e-3, False), (0.1, True)):
        config = wren_config.change(learning_rate=rate, **changes)
        wren = models.make_trainable(models.load_base(config), config)
        made = make_trainer(wren, rows=five_rows, learning_rate=rate, **changes)
        if is_refused:
            assert refuse(made) == "learning rate too high"
        else:
            made.try_first_step()


# --- the base model's pull ---------------------------------------------------------


def reckon_divergence(model, rows):
    """By hand: one row and one place at a time, in probabilities, the last places."""
    divergences = []
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            # A soft prompt's own guesses come before those at the row's places.
            ours = model(ids).logits[0].double().softmax(-1)[-ids.shape[1] :]
            with model.disable_adapter():
                base = model(ids).logits[0].double().softmax(-1)
        for place, label in enumerate(row["labels"][1:]):
            if label == IGNORE_INDEX:
                ratio = (base[place] / ours[place]).log()
                divergences.append(float((base[place] * ratio).sum()))
    return sum(divergences) / len(divergences)


def test_the_pull_to_the_base_is_the_divergence_on_the_prompts(
    make_trainer, five_rows, tokenizer
):
    made = make_trainer()
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    batch = make_collator(tokenizer)(five_rows[:2])
    made.model.eval()
    plain = float(made.compute_loss(made.model, dict(batch)))
    made.kl_weight = 3.0
    pulled = float(made.compute_loss(made.model, dict(batch)))
    wanted = 3.0 * reckon_divergence(made.model, five_rows[:2])
    assert wanted > 0.01
    assert pulled - plain == pytest.approx(wanted, rel=1e-3)


def test_the_pull_leaves_a_soft_prompts_own_tokens_out(
    make_trainer, five_rows, tokenizer
):
    made = make_trainer(method="prompt", kl_weight=1.0)
    with torch.no_grad():  # so that what comes before is heard
        for weight in made.model.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)
    batch = make_collator(tokenizer, is_soft=True)(five_rows[:2])
    made.model.eval()
    plain, pulled = (
        float(made.compute_loss(made.model, dict(batch)))
        for made.kl_weight in (0.0, 1.0)
    )
    wanted = reckon_divergence(made.model, five_rows[:2])
    assert wanted > 0.01
    assert pulled - plain == pytest.approx(wanted, rel=1e-3)


def test_a_step_asks_for_the_supervised_alone_unless_the_pull_needs_all(
    make_trainer, five_rows, tokenizer
):
    made, batch = make_trainer(), make_collator(tokenizer)(five_rows[:2])
    assert "logits_to_keep" in made._prepare_inputs(batch)
    made.kl_weight = 1.0
    assert "logits_to_keep" not in made._prepare_inputs(batch)
    soft = make_trainer(method="prompt")
    assert "logits_to_keep" not in soft._prepare_inputs(batch)


def test_the_pull_counts_once_a_step_however_many_passes_it_has(
    make_trainer, five_rows, tokenizer
):
    made = make_trainer(gradient_accumulation_steps=4)
    for module in made.model.modules():
        if hasattr(module, "lora_B"):
            torch.nn.init.normal_(module.lora_B["default"].weight)
    batch = make_collator(tokenizer)(five_rows[:2])
    made.model.eval()
    plain, pulled = (
        float(made.compute_loss(made.model, dict(batch)))
        for made.kl_weight in (0.0, 4.0)
    )
    made.args.gradient_accumulation_steps = 1
    alone = float(made.compute_loss(made.model, dict(batch)))
    assert alone - plain == pytest.approx(4 * (pulled - plain), rel=1e-4)


# --- what does not fit -------------------------------------------------------------


def fit(config, largest):
    tried = []

    def train(fitting):
        tried.append(
            (fitting.per_device_train_batch_size, fitting.gradient_accumulation_steps)
        )
        if fitting.per_device_train_batch_size > largest:
            raise RuntimeError("CUDA out of memory.")

    fit_in_memory(config, train)
    return tried


def test_what_does_not_fit_is_tried_smaller_with_the_same_rows_in_a_step(wren_config):
    config = wren_config.change(
        per_device_train_batch_size=6, gradient_accumulation_steps=2
    )
    # Twelve rows a step: 6 x 2, 4 x 3, 3 x 4; five would leave rows over.
    assert fit(config, largest=3) == [(6, 2), (4, 3), (3, 4)]
    assert fit(config, largest=6) == [(6, 2)]


def test_where_not_one_row_fits_it_says_what_to_set(wren_config):
    with pytest.raises(MemoryError, match="gradient_checkpointing=1"):
        fit(wren_config, largest=0)


def test_another_error_is_not_taken_for_one_of_memory(wren_config):
    def train(fitting):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        fit_in_memory(wren_config, train)
