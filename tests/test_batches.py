"""Run alone: ``python -m pytest tests/test_batches.py``."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import DataCollatorWithFlattening

from ftlib.batches import (
    ask_supervised,
    hash_rows,
    make_collator,
    measure_loss,
    measure_losses,
    plan_rows,
)
from ftlib.schema import IGNORE_INDEX

# --- the plan --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_each_row_comes_once_an_epoch(seed):
    plan = plan_rows([5, 9, 3, 7, 1, 2], batch_size=2, n_rows=15, seed=seed)
    assert len(plan) == 15
    assert sorted(plan[:6]) == sorted(plan[6:12]) == [0, 1, 2, 3, 4, 5]
    assert len(set(plan[12:])) == 3


@pytest.mark.parametrize("seed", range(10))
def test_rows_that_fill_no_batch_open_the_next_epoch_and_shift_nothing(seed):
    # Five rows in steps of two: one is left over. Lengths 1 to 5, so a step of like
    # length holds neighbours, or the row left over and whatever comes first.
    plan = plan_rows([1, 2, 3, 4, 5], batch_size=2, n_rows=10, seed=seed)
    assert sorted(plan[:5]) == sorted(plan[5:]) == [0, 1, 2, 3, 4]
    assert plan[0] == 4
    for begin in (6, 8):
        first, second = plan[begin : begin + 2]
        assert first > second
    assert {*plan[6:8]} != {*plan[8:10]}


@pytest.mark.parametrize("seed", range(10))
def test_the_longest_row_comes_first(seed):
    lengths = [4, 8, 15, 16, 23, 42, 11, 30]
    assert plan_rows(lengths, batch_size=2, n_rows=8, seed=seed)[:2] == [5, 7]


@pytest.mark.parametrize("seed", range(10))
def test_rows_of_like_length_share_a_step(seed):
    # Forty lengths in steps of four: sorted, a step's lengths lie within three.
    lengths = [7 * i % 40 for i in range(40)]
    plan = plan_rows(lengths, batch_size=4, n_rows=80, seed=seed)
    for begin in range(0, 80, 4):
        step = [lengths[i] for i in plan[begin : begin + 4]]
        assert max(step) - min(step) == 3


def test_a_plan_hangs_on_its_seed():
    def plan(seed):
        return plan_rows(list(range(1, 31)), 3, 60, seed)

    assert plan(4) == plan(4)
    assert plan(4) != plan(5)


def test_epochs_differ_in_order():
    plan = plan_rows(list(range(1, 31)), batch_size=3, n_rows=60, seed=0)
    assert plan[:30] != plan[30:]


def test_fewer_rows_than_a_batch_are_taken_again():
    assert plan_rows([5], batch_size=4, n_rows=4, seed=0) == [0, 0, 0, 0]


# --- joining rows ----------------------------------------------------------------

TWO_ROWS = [
    {"input_ids": [1, 4, 50], "labels": [-100, 4, 50]},
    {"input_ids": [1, 60], "labels": [-100, 60]},
]


@pytest.mark.parametrize("attention", [None, "sdpa", "eager"])
def test_rows_are_padded_on_the_left_and_padding_is_out_of_the_loss(
    attention, tokenizer
):
    batch = make_collator(tokenizer, attention)([dict(row) for row in TWO_ROWS])
    pad = tokenizer.pad_token_id
    # 3 and 2 tokens, in rows of 32: the next multiple.
    assert batch["input_ids"].tolist() == [
        [pad] * 29 + [1, 4, 50],
        [pad] * 30 + [1, 60],
    ]
    assert batch["labels"].tolist() == [[-100] * 30 + [4, 50], [-100] * 31 + [60]]
    assert batch["attention_mask"].tolist() == [
        [0] * 29 + [1] * 3,
        [0] * 30 + [1] * 2,
    ]


def test_a_soft_prompt_is_not_parted_from_the_text_by_padding(tokenizer):
    side = tokenizer.padding_side
    collate = make_collator(tokenizer, is_soft=True)
    batch = collate([dict(row) for row in TWO_ROWS])
    pad = tokenizer.pad_token_id
    assert batch["input_ids"][1].tolist() == [1, 60] + [pad] * 30
    assert batch["labels"][1].tolist() == [-100, 60] + [-100] * 30
    assert tokenizer.padding_side == side


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3"])
def test_rows_are_joined_end_to_end_where_attention_keeps_them_apart(
    attention, tokenizer
):
    collate = make_collator(tokenizer, attention)
    assert isinstance(collate, DataCollatorWithFlattening)
    batch = collate([dict(row) for row in TWO_ROWS])
    assert batch["input_ids"].tolist() == [[1, 4, 50, 1, 60]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 4, 50, -100, 60]]


# --- the loss --------------------------------------------------------------------


def test_logits_are_asked_for_where_the_next_token_of_some_row_is_supervised(
    tiny_model,
):
    labels = [[-100, -100, -100, 4, 50, 2], [-100, -100, 60, -100, -100, -100]]
    asked = ask_supervised(tiny_model(), {"labels": torch.tensor(labels)})
    # Token 2 of the second row is foretold at place 1, those of the first at 2 to 4.
    assert asked["logits_to_keep"].tolist() == [1, 2, 3, 4]
    assert asked["shift_labels"].tolist() == [
        [-100, 4, 50, 2],
        [60, -100, -100, -100],
    ]
    assert asked["labels"].tolist() == labels


def test_a_loss_on_fewer_logits_is_the_same_and_so_are_its_gradients(
    tiny_model, tokenizer, five_rows
):
    model = tiny_model(seed=2, initializer_range=0.3)
    batch = make_collator(tokenizer)([dict(row) for row in five_rows])
    found = []
    for given in (dict(batch), ask_supervised(model, batch)):
        output = model(**given, use_cache=False)
        model.zero_grad()
        output.loss.backward()
        weights = [weight.grad.clone() for weight in model.parameters()]
        found.append((output.logits.shape[1], output.loss, weights))
    (n_all, loss, weights), (n_few, loss_few, weights_few) = found
    assert n_few < n_all
    assert float(loss_few) == pytest.approx(float(loss), rel=1e-6)
    torch.testing.assert_close(weights_few, weights, rtol=1e-4, atol=1e-6)


def test_a_model_that_cannot_choose_is_asked_for_all():
    model = SimpleNamespace(forward=lambda input_ids, labels: None)
    batch = {"labels": torch.tensor([[-100, 4]])}
    assert ask_supervised(model, batch) is batch


def test_a_model_that_knows_nothing_costs_ln_of_its_vocabulary(
    tiny_model, tokenizer, five_rows
):
    model = tiny_model(tie_word_embeddings=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    n_entries = model.lm_head.out_features
    for batch_size in (1, 2, 16):
        loss = measure_loss(model, tokenizer, five_rows, batch_size)
        assert loss == pytest.approx(math.log(n_entries), abs=1e-5)


class Biased(torch.nn.Module):
    """Of eight tokens it gives token 5 a half, and each other a fourteenth."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(8))
        self.logits.data[5] = math.log(7)
        self.device = torch.device("cpu")

    def forward(self, input_ids, labels, attention_mask=None, use_cache=None):
        assert not self.training
        wanted = labels[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(
            self.logits.float().expand(len(wanted), 8),
            wanted,
            ignore_index=IGNORE_INDEX,
        )
        return SimpleNamespace(loss=loss)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_loss_is_a_mean_over_tokens_not_over_batches(batch_size, tokenizer):
    # Three tokens that cost ln 2 = 0.693147, one that costs ln 14 = 2.639057:
    # (3 * 0.693147 + 2.639057) / 4. A mean of the two rows' means would be 1.666102.
    rows = [
        {"input_ids": [1, 5, 5, 5], "labels": [-100, 5, 5, 5]},
        {"input_ids": [1, 3, 6], "labels": [-100, -100, 6]},
    ]
    model = Biased().train()
    loss = measure_loss(model, tokenizer, rows, batch_size)
    assert loss == pytest.approx(1.179625, abs=1e-5)
    assert model.training


def test_the_losses_of_rows_are_those_of_each_alone_in_the_order_given(
    tiny_model, tokenizer, five_rows
):
    model = tiny_model()
    alone = [measure_loss(model, tokenizer, [row]) for row in five_rows]
    losses = measure_losses(model, tokenizer, five_rows, batch_size=2)
    # bfloat16 rounds otherwise beside padding.
    assert losses == pytest.approx(alone, abs=0.02)
    assert len({round(loss, 1) for loss in alone}) > 1


def test_measuring_can_be_broken_off(tokenizer, five_rows):
    model = Biased()
    model.forward = None  # it must not be asked
    assert math.isnan(measure_loss(model, tokenizer, five_rows, 1, lambda: True))


def test_measuring_the_loss_of_no_rows_is_refused_with_a_reason(tokenizer):
    with pytest.raises(ValueError, match="row"):
        measure_loss(Biased(), tokenizer, [])
    prompt = {"input_ids": [1, 5, 6], "labels": [IGNORE_INDEX] * 3}
    with pytest.raises(ValueError, match="supervised tokens"):
        measure_loss(Biased(), tokenizer, [prompt])


def test_a_batch_with_nothing_supervised_adds_nothing_to_the_loss(tokenizer):
    rows = [
        {"input_ids": [1, 5, 6], "labels": [IGNORE_INDEX] * 3},
        {"input_ids": [1, 5, 6, 7], "labels": [IGNORE_INDEX, 5, 6, 7]},
    ]
    alone = measure_loss(Biased(), tokenizer, rows[1:], 1)
    assert measure_loss(Biased(), tokenizer, rows, 1) == alone > 0


# --- what a run was trained on ---------------------------------------------------


def test_rows_are_known_again_by_their_hash(five_rows):
    again = [{name: list(ids) for name, ids in row.items()} for row in five_rows]
    assert hash_rows(again) == hash_rows(five_rows)
    again[3]["labels"][-1] = IGNORE_INDEX
    assert hash_rows(again) != hash_rows(five_rows)
    assert hash_rows(five_rows[::-1]) != hash_rows(five_rows)
