"""Run alone: ``python -m pytest tests/test_forgetting.py``."""

import math
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
import torch

from ftlib.forgetting import (
    answer_probes,
    check_gate,
    compare_abilities,
    load_neutral,
    load_probes,
    load_replay,
    measure_abilities,
    measure_kl,
    summarise,
)
from ftlib.schema import IGNORE_INDEX, make_example
from ftlib.scoring import Score
from ftlib.store import write_jsonl

GAIN = Score("gain", 0.4, 200, 0.33, 0.47)


def mark(n_right, n=40):
    """Give the results of `n` probes, of which the first `n_right` are right."""
    return [True] * n_right + [False] * (n - n_right)


def test_probes_are_read_by_ability_and_the_first_ones_are_taken(tmp_path):
    for ability in ("words", "facts"):
        rows = [
            {
                "kind": ability,
                "messages": [{"role": "user", "content": f"{ability} {n}?"}],
                "reference": f"answer {n}",
            }
            for n in range(3)
        ]
        write_jsonl(tmp_path / f"{ability}.jsonl", rows)
    probes = load_probes(2, tmp_path)
    assert list(probes) == ["facts", "words"]
    assert probes["words"] == [
        make_example("words 0?", "answer 0"),
        make_example("words 1?", "answer 1"),
    ]
    assert [len(rows) for rows in load_probes(folder=tmp_path).values()] == [3, 3]


def test_all_abilities_are_asked_at_once_and_scored_each_on_its_own():
    probes = {
        "facts": [make_example("Capital of Peru?", "Lima", system="Be brief.")],
        "words": [make_example("Upper: a", "A"), make_example("Upper: b", "B")],
    }
    asked = []

    def answer(prompts):
        asked.append([[m["role"] for m in prompt] for prompt in prompts])
        return ["Lima", "B", "A"]

    facts, words = measure_abilities(answer, probes)
    assert asked == [[["system", "user"], ["user"], ["user"]]]  # in one batch
    assert (facts.name, facts.value, facts.n) == ("facts", 1.0, 1)
    assert (words.name, words.value, words.n) == ("words", 0.0, 2)


@pytest.mark.parametrize("answers", [["Lima"], ["Lima", "A", "B"]])
def test_an_answer_too_few_or_too_many_is_refused(answers):
    probes = {"words": [make_example("Upper: a", "A"), make_example("Upper: b", "B")]}
    with pytest.raises(ValueError, match="zip"):
        measure_abilities(lambda prompts: answers, probes)


def test_each_probe_is_right_or_wrong_under_its_ability():
    probes = {
        "words": [make_example("Upper: a", "A"), make_example("Upper: b", "B")],
        "facts": [make_example("Capital of Peru?", "Lima")],
    }
    said = {"Upper: a": "A", "Upper: b": "b", "Capital of Peru?": "Lima"}
    right = answer_probes(lambda ps: [said[p[0]["content"]] for p in ps], probes)
    assert right == {"words": [True, False], "facts": [True]}


def test_abilities_of_short_references_are_asked_for_few_tokens():
    # A word a token: 24 words are three quarters of 32, 25 are more.
    lengths = {"long": 25, "short": 24, "one": 1}
    probes = {n: [make_example(n, " ".join("a" * k))] for n, k in lengths.items()}
    asked = []

    def answer(prompts, **limit):
        names = [prompt[0]["content"] for prompt in prompts]
        asked.append((names, limit))
        return ["a" if name == "one" else "b" for name in names]

    right = answer_probes(answer, probes, lambda text: {"input_ids": text.split()})
    assert asked == [(["short", "one"], {"max_new_tokens": 32}), (["long"], {})]
    assert right == {"long": [False], "short": [False], "one": [True]}
    assert list(right) == ["long", "short", "one"]


# --- replay and neutral text -----------------------------------------------------


def test_replay_is_drawn_by_its_seed_and_never_twice_the_same():
    first = load_replay(50, seed=1)
    assert first == load_replay(50, seed=1)
    assert first != load_replay(50, seed=2)
    assert len({str(example) for example in first}) == 50
    assert load_replay(0) == []


@pytest.mark.parametrize("n", [-1, 801])
def test_more_replay_than_there_is_gets_refused(n):
    with pytest.raises(ValueError, match="there are 800, give 0 or more"):
        load_replay(n)


def test_neutral_text_is_a_response_to_nothing():
    first, second = load_neutral(2)
    assert [m["role"] for m in first["messages"]] == ["user", "assistant"]
    assert first["messages"][0]["content"] == ""
    assert first != second


# --- forgetting --------------------------------------------------------------------


def test_forgetting_is_what_was_right_before_minus_after():
    before = {"facts": mark(40), "words": mark(10)}
    after = {"facts": mark(30), "words": mark(20)}
    facts, words = compare_abilities(before, after)
    assert (facts.name, facts.value, facts.n) == ("facts", 0.25, 40)
    # 0.25 with a standard error of sqrt(0.25 * 0.75 / 40) = 0.068
    assert facts.low == pytest.approx(0.25 - 1.96 * 0.068, abs=0.03)
    assert facts.high == pytest.approx(0.25 + 1.96 * 0.068, abs=0.03)
    assert (words.name, words.value) == ("words", -0.25)


def test_the_interval_is_of_pairs_so_what_stays_wrong_is_no_doubt():
    half = {"facts": mark(20)}
    assert compare_abilities(half, half) == [Score("facts", 0.0, 40, 0.0, 0.0)]
    retention = summarise(half, half)["retention"]
    assert (retention.value, retention.low, retention.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "after", [{"facts": [True]}, {"words": [True, True]}, {}, {"facts": []}]
)
def test_results_of_other_probes_are_refused(after):
    for compare in (compare_abilities, summarise):
        with pytest.raises(ValueError, match="measure the same probes twice"):
            compare({"facts": [True, True]}, after)


@pytest.mark.parametrize("nothing", [{"facts": []}, {}])
def test_results_of_no_probe_are_refused(nothing):
    with pytest.raises(ValueError, match="at least one of each"):
        compare_abilities(nothing, nothing)


def test_the_summary_of_two_abilities_worked_by_hand():
    before = {"facts": [1, 1, 1, 1], "words": [1, 0, 0, 0, 0]}
    after = {"facts": [1, 0, 0, 0], "words": [0, 1, 1, 0, 0]}
    summary = summarise(before, after)
    # facts fall from 4/4 to 1/4, words rise from 1/5 to 2/5
    assert summary["retention"].value == pytest.approx((0.25 + 2.0) / 2)
    assert summary["mean forgetting"].value == pytest.approx((0.75 - 0.2) / 2)
    assert summary["backward transfer"].value == pytest.approx((-0.75 + 0.2) / 2)
    worst = summary["worst ability"]
    assert (worst.name, worst.value, worst.n) == ("worst ability (facts)", 0.75, 4)
    assert summary["retention"].n == 9
    assert summary == summarise(before, after)
    assert summary["retention"] != summarise(before, after, seed=1)["retention"]


def test_what_was_never_right_has_no_retention_but_counts_as_forgetting_nothing():
    before = {"facts": mark(40), "words": mark(0)}
    after = {"facts": mark(30), "words": mark(0)}
    summary = summarise(before, after)
    assert summary["retention"].value == 0.75
    assert summary["mean forgetting"].value == 0.125
    with pytest.raises(ValueError, match="nothing was right before"):
        summarise({"words": mark(0)}, {"words": mark(0)})


def test_an_ability_hardly_there_before_gives_a_summary_without_a_warning(recwarn):
    # In a third of the draws the one right probe is not among them.
    retention = summarise({"facts": mark(1, 30)}, {"facts": mark(1, 30)})["retention"]
    assert (retention.value, retention.low, retention.high) == (1.0, 1.0, 1.0)
    assert not recwarn.list


def test_the_intervals_of_the_summary_are_as_wide_as_theory_has_them():
    summary = summarise({"facts": mark(400, 400)}, {"facts": mark(200, 400)})
    # A share of a half among 400: 1.96 * sqrt(0.25 / 400) = 0.049 to each side.
    for name, value in [
        ("retention", 0.5),
        ("mean forgetting", 0.5),
        ("backward transfer", -0.5),
    ]:
        assert summary[name].low == pytest.approx(value - 0.049, abs=0.008)
        assert summary[name].high == pytest.approx(value + 0.049, abs=0.008)
    # The mean over four such abilities is twice as sure.
    names = ["facts", "reading", "system", "words"]
    four = summarise(
        {name: mark(400, 400) for name in names},
        {name: mark(200, 400) for name in names},
    )["retention"]
    assert four.low == pytest.approx(0.5 - 0.0245, abs=0.005)
    assert four.high == pytest.approx(0.5 + 0.0245, abs=0.005)


# --- KL -----------------------------------------------------------------------------


class TwoGuesses(torch.nn.Module):
    """
    A model of a vocabulary of ten that guesses by the last token alone.

    After 5 the base gives the tokens 0 and 1 the chances 1/4 and 3/4, and the adapter
    gives them 1/2 each; after 6, 9 and the padding the adapter is all but sure of 2.
    """

    def __init__(self, pad):
        super().__init__()
        self.pad, self.is_tuned, self.device = pad, True, torch.device("cpu")

    @contextmanager
    def disable_adapter(self):
        self.is_tuned = False
        yield
        self.is_tuned = True

    def forward(self, input_ids, attention_mask, use_cache):
        assert not self.training
        logits = torch.zeros(*input_ids.shape, 10)
        after = torch.full((10,), -math.inf)
        after[:2] = torch.tensor([0.5, 0.5] if self.is_tuned else [0.25, 0.75]).log()
        logits[input_ids == 5] = after.clamp(min=-1e4)
        if self.is_tuned:
            far = (input_ids == 6) | (input_ids == 9) | (input_ids == self.pad)
            logits[..., 2] += 50.0 * far
        return SimpleNamespace(logits=logits)


# 1/4 ln(1/4 : 1/2) + 3/4 ln(3/4 : 1/2), of base from tuned
ONE_TOKEN = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)


def make_row(prompt, response):
    labels = [IGNORE_INDEX] * len(prompt) + response
    return {"input_ids": prompt + response, "labels": labels}


def test_kl_is_the_mean_over_prompt_tokens_of_base_from_tuned(tokenizer):
    # Guessed are 5 (after 1, no difference) and 6 (after 5); what is guessed after 6
    # and 9 is supervised.
    rows = [make_row([1, 5, 6], [9, 9, 4])]
    model = TwoGuesses(tokenizer.pad_token_id)
    assert measure_kl(model, tokenizer, rows) == pytest.approx(ONE_TOKEN / 2, rel=1e-4)


def test_kl_is_over_all_tokens_whatever_the_batches_and_their_padding(tokenizer):
    rows = [make_row([1, 5, 6], [9, 4]), make_row([1, 5, 5, 5, 5, 6], [4])]
    model = TwoGuesses(tokenizer.pad_token_id).train()
    # One of two tokens, and four of five.
    for batch_size in (1, 2):
        kl = measure_kl(model, tokenizer, rows, batch_size)
        assert kl == pytest.approx(ONE_TOKEN * 5 / 7, rel=1e-4)
    assert model.training


def test_kl_of_a_new_adapter_is_0_and_of_a_changed_one_is_not(
    tiny_model, tokenizer, five_rows
):
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(), settings)
    assert measure_kl(model, tokenizer, five_rows) == 0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    kl = measure_kl(model, tokenizer, five_rows)
    assert kl > 0
    assert measure_kl(model, tokenizer, five_rows) == kl  # the adapter is on again


def test_kl_of_a_soft_prompt_is_over_the_rows_own_places(
    tiny_model, tokenizer, five_rows
):
    from peft import PromptTuningConfig, get_peft_model

    settings = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(), settings).eval()
    with torch.no_grad():  # so that what comes before is heard
        for weight in model.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)
    row = five_rows[0]
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        tuned = model(ids).logits[0, 3:].double().softmax(-1)  # after the three
        with model.disable_adapter():
            base = model(ids).logits[0].double().softmax(-1)
    places = [i for i, label in enumerate(row["labels"][1:]) if label == IGNORE_INDEX]
    found = [float((base[i] * (base[i] / tuned[i]).log()).sum()) for i in places]
    by_hand = sum(found) / len(found)
    assert by_hand > 0.01
    assert measure_kl(model, tokenizer, [row]) == pytest.approx(by_hand, rel=0.05)


def test_kl_without_an_adapter_or_without_a_prompt_is_refused(
    tiny_model, tokenizer, five_rows
):
    with pytest.raises(ValueError, match="has no adapter"):
        measure_kl(tiny_model(), tokenizer, five_rows)
    with pytest.raises(ValueError, match="no prompt"):
        measure_kl(TwoGuesses(0), tokenizer, [make_row([1], [5, 6])])


# --- the gate -----------------------------------------------------------------------


def test_a_gain_without_forgetting_ships():
    before = {"facts": mark(40), "words": mark(30)}
    verdict = check_gate(GAIN, before, before)
    assert verdict.ship
    assert (verdict.reasons, str(verdict)) == ((), "ship")
    with pytest.raises(FrozenInstanceError):
        verdict.ship = False


def test_each_failed_line_is_a_reason():
    before = {name: mark(40) for name in ("facts", "system", "words")}
    after = {"facts": mark(40), "system": mark(10), "words": mark(20)}
    verdict = check_gate(Score("gain", 0.1, 200, -0.1, 0.3), before, after)
    assert not verdict.ship
    first, second, third, fourth = verdict.reasons
    assert first == "gain 0.10 [-0.10, 0.30], n=200: its interval must lie above 0"
    assert second.startswith("retention is 0.58")  # (1 + 1/4 + 1/2) / 3
    assert third.startswith("system is down by 0.75 [")
    assert fourth.startswith("words is down by 0.50 [")
    assert str(verdict).splitlines()[0] == "do not ship"
    assert str(verdict).splitlines()[4] == f"- {fourth}"


@pytest.mark.parametrize(("low", "ships"), [(0.0, False), (0.001, True)])
def test_the_gain_must_be_surely_above_0(low, ships):
    before = {"facts": mark(40)}
    gain = Score("gain", 0.1, 200, low, 0.2)
    assert check_gate(gain, before, before).ship is ships


def test_a_retention_of_95_percent_is_enough_and_less_is_not():
    before = {name: mark(40) for name in "abcdefgh"}
    # Each down by just five points, from 40 to 38 of 40.
    after = {name: mark(38) for name in "abcdefgh"}
    assert check_gate(GAIN, before, after).ship
    # With 60 probes, 3 lost are surely lost, but still just five points.
    many, fewer = ({name: mark(n, 60) for name in "abcdefgh"} for n in (60, 57))
    assert compare_abilities(many, fewer)[0].low > 0
    assert check_gate(GAIN, many, fewer).ship
    # From 20 to 18 is five points too, but a tenth of what there was.
    half, less = ({name: mark(n) for name in "abcdefgh"} for n in (20, 18))
    [reason] = check_gate(GAIN, half, less).reasons
    assert reason.startswith("retention is 0.90")


def test_an_ability_down_by_more_than_five_points_must_be_surely_so():
    others = {name: mark(40) for name in "abcd"}
    before = others | {"words": mark(20)}
    surely = others | {"words": mark(15)}
    [reason] = check_gate(GAIN, before, surely).reasons
    assert reason.startswith("words is down by 0.12 [")
    # Down by 5 too, but 15 were lost and 10 won: that may be chance.
    maybe = others | {"words": mark(5, 20) + mark(10, 20)}
    assert check_gate(GAIN, before, maybe).ship


def test_29_items_are_too_few_to_ship_by_and_30_are_not():
    before = {"facts": mark(30, 30)}
    assert check_gate(GAIN, before, before).ship
    few = {"facts": mark(29, 29)}
    verdict = check_gate(Score("exact", 0.9, 20, 0.7, 1.0), few, few)
    assert verdict.reasons == ("fewer than 30 items to tell by: exact, facts",)


def test_results_of_other_probes_pass_no_gate():
    with pytest.raises(ValueError, match="measure the same probes twice"):
        check_gate(GAIN, {"facts": mark(40)}, {"facts": mark(39, 39)})
