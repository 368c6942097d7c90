"""Run alone: ``python -m pytest tests/test_replay_data.py``."""

import json
from collections import Counter

from data.build import replay
from ftlib import schema
from ftlib.forgetting import load_neutral, load_probes, load_replay


def test_same_seed_same_bytes(tmp_path, monkeypatch):
    shipped = replay.FOLDER
    monkeypatch.setattr(replay, "FOLDER", tmp_path / "made")
    replay.main()
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert sorted(made) == ["conversations.jsonl", "neutral.jsonl"]
    for name, content in made.items():
        assert (shipped / name).read_bytes() == content, name
    monkeypatch.setattr(replay, "SEED", 1)
    replay.main()
    for name, content in made.items():
        assert (tmp_path / "made" / name).read_bytes() != content, name


def test_replay_is_800_different_conversations_to_learn_from():
    conversations = load_replay(800)
    assert len({json.dumps(c["messages"]) for c in conversations}) == 800
    assert not [c for c in conversations if schema.find_fault(c)]


def test_no_probe_is_in_the_replay_nor_any_question_of_one():
    asked = {
        message["content"]
        for conversation in load_replay(800)
        for message in conversation["messages"]
        if message["role"] == "user"
    }
    assert len(asked) > 800  # some conversations have more than one question
    for ability, probes in load_probes().items():
        if ability != "system":  # its questions are plain ones, put under an order
            for probe in probes:
                assert probe["messages"][-2]["content"] not in asked


def test_every_ability_is_replayed_and_counting_and_words_most():
    path = replay.FOLDER / "conversations.jsonl"
    lines = path.read_text("utf-8").splitlines()
    kinds = Counter(json.loads(line)["kind"] for line in lines)
    assert set(kinds) == {maker.__name__ for maker in replay.abilities.SHARES} - {
        "document"
    }
    assert [kind for kind, _ in kinds.most_common(2)] == ["words", "arithmetic"]


def test_neutral_text_is_documents_of_several_sentences_each_another():
    texts = [example["messages"][1]["content"] for example in load_neutral()]
    assert len(set(texts)) == 120
    assert all(text.count(".") >= 4 for text in texts)
