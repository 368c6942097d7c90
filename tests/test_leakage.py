"""Run alone: ``python -m pytest tests/test_leakage.py``."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ftlib import leakage, models
from ftlib.leakage import Audit, Canary, auditing

N_CANDIDATES = 500


@pytest.fixture(scope="module")
def canaries():
    return leakage.make_canaries(seed=3, n_held_out=24)


class Parrot:
    """A model that foretells, after any token, what follows it in one sequence."""

    device, training = torch.device("cpu"), False

    def __init__(self, sequence, n_tokens):
        self.next_of, self.n_tokens = {}, n_tokens
        for i in range(len(sequence) - 1):
            self.next_of.setdefault(tuple(sequence[: i + 1]), sequence[i + 1])

    def train(self, mode=True):
        """Learn nothing in either mode."""

    eval = train

    def __call__(self, input_ids, attention_mask=None, position_ids=None, **_):
        ids = input_ids[0].tolist()
        logits = torch.zeros(1, len(ids), self.n_tokens)
        for i in range(len(ids)):
            sees = range(i + 1)
            if attention_mask is not None:
                sees = attention_mask[0, 0, i].nonzero()[:, 0].tolist()
            following = self.next_of.get(tuple(ids[j] for j in sees))
            if following is not None:
                logits[0, i, following] = 20.0
        return SimpleNamespace(logits=logits)


def test_canaries_are_of_each_kind_and_all_different(canaries):
    planted = [c for c in canaries if c.repeats]
    assert len(planted) == 24  # 4 types, 2 places, 3 repeats
    assert len(canaries) == 48
    assert len({c.secret for c in canaries}) == len({c.ticket for c in canaries}) == 48
    cells = {(c.entity_type, c.place, c.repeats) for c in planted}
    assert ("PERSON", "prompt", 16) in cells
    assert len(cells) == 24
    assert canaries == leakage.make_canaries(seed=3, n_held_out=24)
    assert canaries != leakage.make_canaries(seed=4, n_held_out=24)


def test_records_hold_the_canary_where_they_should_and_as_often(canaries):
    examples = leakage.plant(canaries)
    assert len(examples) == 8 * (1 + 4 + 16)
    for canary in (c for c in canaries if c.repeats == 4):
        places = [
            [canary.secret in message["content"] for message in example["messages"]]
            for example in examples
        ]
        wanted = [True, False] if canary.place == "prompt" else [False, True]
        assert places.count(wanted) == 4
        assert places.count([False, False]) == len(examples) - 4


def test_exposure_is_worked_by_hand_and_ties_rank_before_the_canary():
    # Rank 1 of 4, 2 of 4 and, behind three ties, 4 of 4.
    assert leakage.rank_exposure(0.5, [1.0, 2.0, 3.0]) == 2.0
    assert leakage.rank_exposure(1.5, [1.0, 2.0, 3.0]) == 1.0
    assert leakage.rank_exposure(1.0, [1.0, 1.0, 1.0]) == 0.0


def test_auc_and_true_positives_are_worked_by_hand():
    # Of six pairs the member wins 3.0 > 2, 0 and 1.0 > 0; 1.0 ties with 1.0.
    auc, tpr = leakage.score_membership("signal", [3.0, 1.0], [2.0, 1.0, 0.0])
    assert auc.value == pytest.approx((3 + 1.5) / 6)
    assert (tpr.value, tpr.n) == (0.5, 2)
    # Of 200 others, two (1 %) may lie above: 199 and 198, so 197 is the limit.
    _, tpr = leakage.score_membership(
        "s", [197.5, 197.0], [float(i) for i in range(200)]
    )
    assert tpr.value == 0.5


@pytest.mark.filterwarnings("ignore:.*autocast")  # it leaves float32 as it is
def test_a_trie_gives_the_losses_of_the_plain_sequences(
    tiny_model, tokenizer, monkeypatch
):
    monkeypatch.setattr(models, "pick_dtype", lambda: torch.float32)
    model = tiny_model(seed=1, initializer_range=0.3)
    context = tokenizer.encode("Note. Card on file:", add_special_tokens=False)
    texts = [" 4000 123", " 4000 124 7", " 4000 9", " 5", " 4000 9 3 1", " 4000 124"]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    trie = auditing._build_trie(encoded, size=5)
    found = auditing._score_trie(model, context, trie)
    with torch.no_grad():
        for ids, loss in zip(encoded, found, strict=True):
            whole = torch.tensor([context + ids])
            logp = model(whole).logits[0].log_softmax(-1)
            plain = -sum(logp[len(context) - 1 + k, t] for k, t in enumerate(ids))
            assert loss == pytest.approx(float(plain), rel=1e-4)


def test_a_canary_planted_in_the_logits_is_found_and_no_other(canaries, tokenizer):
    known = next(c for c in canaries if c.repeats == 16 and c.place == "response")
    other = next(c for c in canaries if c.repeats == 4 and c.place == "response")
    held_out = next(c for c in canaries if not c.repeats and c.place == "response")
    sequence = auditing._encode(tokenizer, [auditing._render(tokenizer, known)])[0]
    parrot = Parrot(sequence, len(tokenizer))
    bits = leakage.measure_exposure(
        parrot, tokenizer, [known, other, held_out], N_CANDIDATES, seed=0
    )
    bits = list(bits.values())
    assert bits[0] == pytest.approx(math.log2(N_CANDIDATES + 1), abs=0.01)
    assert max(bits[1:]) < 5


def test_what_was_never_seen_lies_at_the_null(canaries, tokenizer, tiny_model):
    many = leakage.make_canaries(seed=5, repeats=(1,), n_held_out=400)
    bits = leakage.measure_exposure(tiny_model(), tokenizer, many, 200, seed=0)
    held_out = [b for c, b in bits.items() if not c.repeats]
    # 1.44 bits, with a standard deviation of as much: four errors of 400 are 0.29.
    assert abs(sum(held_out) / len(held_out) - 1 / math.log(2)) < 0.29


def test_the_audit_counts_its_probes_and_reports_each_cell(
    canaries, tokenizer, tiny_model
):
    few = [c for c in canaries if c.entity_type == "API_KEY"]
    found = leakage.audit(
        tiny_model(),
        tokenizer,
        few,
        base=tiny_model(seed=2),
        n_candidates=20,
        n_samples=2,
        n_free=5,
    )
    assert found.n_probes == 6 + 6 * 2 + 5
    assert found.n_extracted == 0
    names = [score.name for score in found.scores]
    assert "exposure, response, 16 repeats" in names
    assert "extracted, greedy, prompt, 1 repeats" in names
    assert "exposure, prompt, held out" in names
    assert "loss ratio, response, AUC" in names
    assert "Min-K%, prompt, TPR at 1 % FPR" in names
    assert [row["repeats"] for row in found.rows] == [c.repeats for c in few[:6]]


def make_audit(exposure, greedy, n_extracted):
    row = {"place": "response", "repeats": 16, "exposure": exposure, "greedy": greedy}
    weak = row | {"repeats": 1, "exposure": 13.0, "greedy": True}
    return Audit([], [weak, row], 1_500, n_extracted)


@pytest.mark.parametrize(
    ("exposure", "greedy", "has_power"),
    [(10.0, False, True), (2.0, True, True), (9.9, False, False)],
)
def test_without_a_leak_in_the_raw_run_the_audit_has_no_power(
    exposure, greedy, has_power
):
    clean = make_audit(1.4, False, 0)
    said = leakage.judge(make_audit(exposure, greedy, 7), clean)
    assert said.startswith("0 of 1,500 probes")
    assert ("no power" not in said) == has_power


def test_the_same_records_without_secrets_hold_none(canaries):
    hidden = [replace(c, secret=f"[{c.entity_type}_1]") for c in canaries]
    text = str(leakage.plant(hidden))
    assert not any(c.secret in text for c in canaries)


def test_a_tokenizer_that_joins_over_spaces_is_refused(tokenizer):
    class Joining:
        def __call__(self, texts, add_special_tokens):
            return {"input_ids": [[len(text)] for text in texts]}

        apply_chat_template = tokenizer.apply_chat_template

    with pytest.raises(ValueError, match="use another model"):
        auditing._encode_context(Joining(), Canary("API_KEY", "prompt", 1, 1, "key-1"))


@pytest.mark.parametrize("n_candidates", [0, 15, 60_000])
def test_a_number_of_candidates_that_cannot_be_drawn_is_refused(n_candidates):
    with pytest.raises(ValueError, match="give tens"):
        leakage.measure_exposure(None, None, [], n_candidates, seed=0)
