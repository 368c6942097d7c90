"""Run alone: ``python -m pytest tests/test_abilities.py``."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.build import abilities, world, wren

ROOT = Path(__file__).resolve().parents[1]
MAKERS = {maker.__name__: maker for maker in abilities.ROUNDS[3_000]}
TRIAGE_KEYS = {"severity", "tactic", "technique", "host", "owner", "action", "summary"}


def draw_many(maker, n, held_out=False, seed=0):
    rng = random.Random(f"{maker.__name__} {seed}")
    return [abilities.draw(maker, rng, held_out) for _ in range(n)]


@pytest.fixture(scope="module")
def training():
    """Eight thousand training conversations."""
    rng = random.Random(11)
    return [abilities.draw_training(rng) for _ in range(8_000)]


# --- the same seed, the same text ------------------------------------------------

HASHED = """
import hashlib, json, random
from data.build import abilities
rng = random.Random(3)
drawn = [abilities.draw_training(rng) for _ in range(300)]
makers = abilities.ROUNDS[3_000]
drawn += [abilities.draw(m, rng, True) for m in makers for _ in range(5)]
print(hashlib.sha256(json.dumps(drawn).encode()).hexdigest())
"""


def test_the_same_seed_gives_the_same_text_in_every_process():
    # Sets and hashes of text differ from process to process; the text must not.
    digests = {
        subprocess.run(
            [sys.executable, "-c", HASHED],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_gives_other_text():
    first = [abilities.draw_training(random.Random(1)) for _ in range(5)]
    assert first != [abilities.draw_training(random.Random(2)) for _ in range(5)]


def test_a_batch_of_pre_training_hangs_on_its_step_alone(tokenizer):
    ids, weights = wren.make_batch(tokenizer, 6)
    wren.make_batch(tokenizer, 2)
    again, weights_again = wren.make_batch(tokenizer, 6)
    assert ids.equal(again)
    assert weights.equal(weights_again)
    assert ids.shape == weights.shape == (32, 256)
    # A prompt token has a tenth of a response token's weight, by way of one in five
    # at five times a tenth; padding and the marks of who speaks have none.
    assert set(weights.unique().tolist()) == {0.0, 0.5, 1.0}
    marks = [tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in wren.ROLES]
    for token in (tokenizer.pad_token_id, tokenizer.bos_token_id, *marks):
        assert not weights[ids == token].any()


def test_the_rates_climb_hold_and_fall_and_do_so_again_lower():
    steps = [0, 29, 59, 1_649, 2_325, 2_999, 3_000, 3_029, 3_350, 3_699, 3_759, 3_775]
    assert [round(wren.rate_at(step), 4) for step in steps] == [
        *(0.0167, 0.5, 1.0, 1.0, 0.5, 0.0007),
        *(0.0083, 0.25, 0.25, 0.0007),
        *(0.1213, 0.1),
    ]


def test_a_later_round_draws_by_its_own_shares(monkeypatch, tokenizer):
    asked, repeated = [], []

    def draw(rng, shares):
        asked.append(shares)
        return draw_training(rng, shares)

    def repeat(tokenizer, rng):
        repeated.append(rng)
        return repeat_tokens(tokenizer, rng)

    draw_training, repeat_tokens = abilities.draw_training, wren.repeat_tokens
    monkeypatch.setattr(abilities, "draw_training", draw)
    monkeypatch.setattr(wren, "repeat_tokens", repeat)
    rounds = list(abilities.ROUNDS.values())
    steps = [
        (0, 0),
        (1_099, 0),
        (1_100, 1),
        (2_999, 1),
        (3_000, 2),
        (3_699, 2),
        (3_700, 3),
    ]
    for step, round_ in steps:
        asked.clear()
        repeated.clear()
        wren.make_batch(tokenizer, step)
        assert asked
        assert all(shares is rounds[round_] for shares in asked), step
        assert bool(repeated) == (step >= 3_000)


def test_repeated_tokens_leave_hardly_one_of_the_vocabulary_unsaid(tokenizer):
    rng, said = random.Random(0), set()
    for _ in range(3_000):
        prompt, answer = (m["content"] for m in wren.repeat_tokens(tokenizer, rng))
        if prompt.startswith("Copy exactly: "):
            assert prompt.removeprefix("Copy exactly: ") == answer
        else:
            text = json.loads(answer)["text"]
            assert prompt.removeprefix("Write as JSON:\ntext: ") == text
        said.update(tokenizer.encode(answer, add_special_tokens=False))
    whole = {
        i
        for i in range(tokenizer.vocab_size)
        if tokenizer.decode([i], skip_special_tokens=True).isascii()
    }
    assert len(whole - said) < 0.02 * len(whole)
    assert tokenizer.convert_tokens_to_ids("ation") in said


# --- what is held out ------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """All items made, those within others too: (key, what was said)."""
    seen = []

    def watch(name, maker):
        def make(rng, held_out):
            key, messages = maker(rng, held_out)
            seen.append((key, [message["content"] for message in messages]))
            return key, messages

        make.__name__ = name
        return make

    for name, maker in MAKERS.items():
        monkeypatch.setattr(abilities, name, watch(name, maker))
    return seen


PROBED = {maker.__name__ for makers in abilities.ABILITIES.values() for maker in makers}


@pytest.mark.parametrize(
    ("name", "held_out"),
    [(name, False) for name in sorted(MAKERS)]
    + [(name, True) for name in sorted(PROBED)],
)
def test_training_and_probes_share_no_item(name, held_out, made):
    rng = random.Random(0)
    for _ in range(150):
        made.clear()
        drawn = abilities.draw(getattr(abilities, name), rng, held_out)
        text = "\n".join(message["content"] for message in drawn)
        # What was made and thrown away again stands nowhere in it.
        keys = [key for key, said in made if key and all(part in text for part in said)]
        assert [abilities.is_held_out(key) for key in keys] == [held_out] * len(keys)


def test_one_item_in_ten_is_held_out():
    share = sum(
        abilities.is_held_out(f"add {a} {b}") for a in range(99) for b in range(99)
    )
    assert 0.08 < share / 99**2 < 0.12
    assert not abilities.is_held_out("")


def test_the_probes_ask_for_facts_as_training_never_does(training):
    kept = [phrasings[-1] for phrasings in abilities.QUESTIONS.values()]
    starts = [re.escape(p).replace(r"\{s\}", ".+") for p in kept]
    wanted = re.compile("|".join(starts))
    for messages in training:
        for message in messages:
            assert not wanted.search(message["content"]), message
    for messages in draw_many(abilities.facts, 200, held_out=True):
        assert wanted.fullmatch(messages[0]["content"])


def test_every_fact_is_asked_for_in_training():
    asked = Counter(
        messages[-1]["content"] for messages in draw_many(abilities.facts, 20_000)
    )
    assert {answer for _, _, answer in abilities.FACTS} <= asked.keys()


def test_the_schemas_own_keys_stay_out_of_the_corpus(training):
    # What a triage looks like, Wren shall learn from fine-tuning alone.
    for messages in training:
        for message in messages:
            found = set(re.findall(r'"(\w+)"\s*:', message["content"]))
            assert not found & TRIAGE_KEYS, message["content"]


def test_the_search_for_keys_finds_one():
    text = json.dumps({"severity": "low"})
    assert set(re.findall(r'"(\w+)"\s*:', text)) & TRIAGE_KEYS == {"severity"}


# --- conversations ---------------------------------------------------------------


def test_every_conversation_can_be_trained_on(training):
    for messages in training:
        assert messages[-1]["role"] == "assistant"
        roles = [message["role"] for message in messages]
        if roles != ["assistant"]:  # a plain document
            turns = roles[1:] if roles[0] == "system" else roles
            assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert all(message["content"].strip() for message in messages)


def test_the_mix_has_chats_of_many_turns_documents_and_system_messages(training):
    roles = Counter(
        "document"
        if len(messages) == 1
        else "system"
        if messages[0]["role"] == "system"
        else f"{len(messages) // 2} turns"
        for messages in training
    )
    # Shares 0.02 and 0.06, and of the rest, one in ten of two or three turns.
    assert roles["document"] / 8_000 == pytest.approx(0.02, abs=0.006)
    assert roles["system"] / 8_000 == pytest.approx(0.06, abs=0.01)
    assert roles["2 turns"] / 8_000 == pytest.approx(0.083, abs=0.015)
    assert roles["3 turns"] > 30


def test_copying_from_a_context_has_the_largest_share():
    copying = sum(
        abilities.SHARES[maker]
        for family in ("reading", "extraction")
        for maker in abilities.ABILITIES[family]
    )
    assert copying > max(
        sum(abilities.SHARES[maker] for maker in makers)
        for family, makers in abilities.ABILITIES.items()
        if family not in ("reading", "extraction")
    )


# --- answers, worked from the prompts --------------------------------------------


def work_out(prompt):
    """Solve an arithmetic prompt from its words."""
    numbers = [int(number) for number in re.findall(r"\d+", prompt)]
    if re.search(r"Continue|comes next|follows", prompt):
        steps = {b - a for a, b in zip(numbers, numbers[1:], strict=False)}
        assert len(numbers) == 4
        assert len(steps) == 1
        return numbers[-1] + steps.pop()
    a, b = numbers
    if re.search(r"\+|Add|plus|gets", prompt):
        return a + b
    if "Subtract" in prompt:
        return b - a
    if re.search(r" - |minus|took", prompt):
        return a - b
    if re.search(r"larger|bigger", prompt):
        assert a != b
        return a if a > b else b
    assert "smaller" in prompt
    return a if a < b else b


@pytest.mark.parametrize("held_out", [False, True])
def test_arithmetic_is_right(held_out):
    for messages in draw_many(abilities.arithmetic, 1_500, held_out):
        prompt, answer = (message["content"] for message in messages)
        assert answer == str(work_out(prompt)), prompt
        assert int(answer) >= 0


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is 12 + 7?", 19),
        ("Subtract 7 from 12.", 5),
        ("There were 12 boxes. The nurse took 7. How many are left?", 5),
        ("The nurse has 12 boxes and gets 7 more. How many are there now?", 19),
        ("Which number is smaller: 12 or 7?", 7),
        ("Name the bigger number of 12 and 7.", 12),
        ("Continue: 5, 9, 13, 17,", 21),
    ],
)
def test_the_working_out_is_right_by_hand(prompt, answer):
    assert work_out(prompt) == answer


def test_facts_are_the_real_ones():
    facts = {
        (relation, subject): answer for relation, subject, answer in abilities.FACTS
    }
    assert facts["capital", "Portugal"] == "Lisbon"
    assert facts["country", "Lisbon"] == "Portugal"
    assert facts["currency", "Japan"] == "yen"
    assert facts["continent", "Kenya"] == "Africa"
    assert facts["language", "Brazil"] == "Portuguese"
    assert facts["symbol", "sodium"] == "Na"
    assert facts["number", "iron"] == "26"
    assert facts["opposite", "cold"] == "hot"
    assert facts["young", "swan"] == "cygnet"
    assert facts["next", "Earth"] == "Mars"
    assert ("next", "Neptune") not in facts
    assert len(facts) == len(abilities.FACTS)  # none has two answers


SOLVE = {
    r"Write in upper case: (.+)": str.upper,
    r"Backwards, word by word: (.+)": lambda s: " ".join(s.split()[::-1]),
    r"First word of: (.+)": lambda s: s.split()[0],
    r"What is the last word of (.+)\?": lambda s: s.split()[-1],
    r"Give the second word: (.+)": lambda s: s.split()[1],
    r"Join with hyphens: (.+)": lambda s: s.replace(" ", "-"),
    r"Put underscores between: (.+)": lambda s: s.replace(" ", "_"),
    r"Letters of (.+):": lambda s: " ".join(s),
    r"Last letter of (.+):": lambda s: s[-1],
    r"Say it twice: (.+)": lambda s: f"{s} {s}",
    r"Count the words: (.+)": lambda s: str(len(s.split())),
    r"Copy exactly: (.+)": str,
}


def test_word_operations_are_right():
    solved = Counter()
    for messages in draw_many(abilities.words, 4_000):
        prompt, answer = (message["content"] for message in messages)
        for pattern, solve in SOLVE.items():
            match = re.fullmatch(pattern, prompt)
            if match:
                assert answer == solve(match[1]), prompt
                solved[pattern] += 1
    assert solved.keys() == SOLVE.keys()


def test_letters_asks_for_spelling_and_capitals_alone():
    answers = Counter()
    for messages in draw_many(abilities.letters, 400):
        answer = messages[-1]["content"]
        if answer == answer.upper():
            answers["upper"] += 1
        elif answer == answer.title():
            answers["capital"] += 1
        else:
            assert all(len(letter) == 1 for letter in answer.split()), messages
            answers["spell or letter"] += 1
    assert min(answers.values()) > 20
    assert len(answers) == 3


def test_sentiment_is_that_of_the_word():
    for messages in draw_many(abilities.sentiment, 500):
        prompt, answer = (message["content"] for message in messages)
        words = set(re.findall(r"[a-z]+", prompt.lower())) - {"positive", "negative"}
        # An adjective of the other kind may stand in the sentence that follows.
        side = world.POSITIVE if answer == "positive" else world.NEGATIVE
        assert words & set(side), prompt


@pytest.mark.parametrize("name", ["passage", "story", "table", "retrieved"])
def test_what_is_read_stands_in_the_text_or_is_said_not_to(name):
    not_said = 0
    for messages in draw_many(MAKERS[name], 400):
        prompt, answer = (message["content"] for message in messages)
        not_said += answer == "The context does not say."
        assert answer in prompt or answer == "The context does not say.", prompt
    assert (not_said > 0) == (name != "story")


@pytest.mark.parametrize("name", ["extraction", "pairs_to_json", "log_line"])
def test_what_is_extracted_stands_in_the_text_under_the_keys_asked_for(name):
    n_null = 0
    for messages in draw_many(MAKERS[name], 400):
        prompt, answer = (message["content"] for message in messages)
        if not answer.startswith("{"):
            assert name == "log_line"
            assert answer in prompt
            continue
        for key, value in json.loads(answer).items():
            assert key in prompt or key == "name"
            n_null += value is None
            assert value is None or value in prompt, prompt
    assert (n_null > 0) == (name == "extraction")


def test_what_a_text_is_about_follows_from_its_words():
    asked_alone = 0
    for messages in draw_many(abilities.topic, 400):
        prompt, answer = (message["content"] for message in messages)
        if answer in world.TOPICS:
            asked_alone += 1
            assert any(cue in prompt.lower() for cue in world.TOPICS[answer][1]), prompt
            continue
        for said in json.loads(answer).values():
            groups = {group for group, _ in world.TOPICS.values()}
            results = {word for pair in abilities.RESULTS for word in pair}
            assert said in prompt or said in world.TOPICS.keys() | groups | results
    assert asked_alone > 50


def test_a_text_is_sorted_as_the_rules_in_its_prompt_say():
    followed = 0
    for messages in draw_many(abilities.sorting, 400):
        prompt, answer = (message["content"] for message in messages)
        if not prompt.startswith("Rules: ") or answer.startswith("{"):
            continue
        told, _, text = prompt.removeprefix("Rules: ").split("\n", 2)
        rules = dict(rule.split(" goes to ") for rule in told.rstrip(".").split("; "))
        (topic,) = [name for name, label in rules.items() if label == answer]
        assert any(cue in text.lower() for cue in world.TOPICS[topic][1]), prompt
        followed += 1
    assert followed > 30


def test_secrets_are_not_told_and_harmless_questions_are_answered():
    answers = Counter()
    for messages in draw_many(abilities.declining, 1_000):
        prompt, answer = (message["content"] for message in messages)
        declined = answer.startswith("I cannot share")
        answers[declined] += 1
        if declined:
            assert answer in (
                "I cannot share passwords.",
                "I cannot share keys.",
                "I cannot share personal data.",
            )
    assert min(answers[True], answers[False]) > 200


@pytest.mark.parametrize(
    ("order", "shape"),
    [
        ("USE UPPER CASE.", lambda s: s == s.upper()),
        ("Reply as JSON.", lambda s: list(json.loads(s)) == ["answer"]),
        ("Answer in one word.", lambda s: " " not in s),
        ("Be formal.", lambda s: s.startswith("Certainly. The answer is ")),
        ("Be warm and friendly.", lambda s: s.startswith("Sure thing! It is ")),
        ("Quote your answer.", lambda s: s[0] == s[-1] == '"'),
        ("Start with the question.", lambda s: "? " in s or ". " in s or ": " in s),
    ],
)
def test_a_system_message_is_followed(order, shape):
    found = [
        messages[-1]["content"]
        for messages in draw_many(abilities.system, 1_500)
        if messages[0]["content"] == order
    ]
    assert len(found) > 20
    assert all(map(shape, found))


# --- the probes ------------------------------------------------------------------


@pytest.fixture
def probes(tmp_path, monkeypatch):
    monkeypatch.setattr(wren, "PROBES", tmp_path)
    monkeypatch.setattr(wren, "N_PROBES", 60)
    wren.write_probes()
    return tmp_path


def test_each_ability_has_probes_of_all_its_kinds_and_none_twice(probes):
    files = {path.stem: path for path in probes.iterdir()}
    assert files.keys() == abilities.ABILITIES.keys()
    for ability, path in files.items():
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert len(rows) == 60
        assert len({json.dumps(row["messages"]) for row in rows}) == 60
        kinds = {maker.__name__ for maker in abilities.ABILITIES[ability]}
        assert {row["kind"] for row in rows} == kinds
        assert all(row["messages"][-1]["role"] == "user" for row in rows)
        assert all(isinstance(row["reference"], str) for row in rows)


def test_writing_the_probes_again_gives_the_same_bytes(probes):
    def digest():
        files = sorted(probes.iterdir())
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    first = digest()
    wren.write_probes()
    assert digest() == first
