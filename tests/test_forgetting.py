"""Run alone: ``python -m pytest tests/test_forgetting.py``."""

import pytest

from ftlib.forgetting import load_probes, measure_abilities
from ftlib.schema import make_example
from ftlib.store import write_jsonl


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


def test_each_ability_is_asked_and_scored_on_its_own():
    probes = {
        "facts": [make_example("Capital of Peru?", "Lima", system="Be brief.")],
        "words": [make_example("Upper: a", "A"), make_example("Upper: b", "B")],
    }
    asked = []

    def answer(prompts):
        asked.append([[m["role"] for m in prompt] for prompt in prompts])
        return ["Lima", "A"] if len(prompts) == 2 else ["Lima"]

    facts, words = measure_abilities(answer, probes)
    assert asked == [[["system", "user"]], [["user"], ["user"]]]
    assert (facts.name, facts.value, facts.n) == ("facts", 1.0, 1)
    assert (words.name, words.value, words.n) == ("words", 0.0, 2)


@pytest.mark.parametrize("answers", [["Lima"], ["Lima", "A", "B"]])
def test_an_answer_too_few_or_too_many_is_refused(answers):
    probes = {"words": [make_example("Upper: a", "A"), make_example("Upper: b", "B")]}
    with pytest.raises(ValueError, match="zip"):
        measure_abilities(lambda prompts: answers, probes)
