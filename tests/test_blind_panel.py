"""Run alone: ``python -m pytest tests/test_blind_panel.py``."""

import json

import pytest

from ftlib import scoring, store
from ftlib.panels import BlindPanel

PROMPTS = [f"Question {i}?" for i in range(8)]
ANSWERS = {
    "base": [f"plain {i}" for i in range(8)],
    "tuned": [f"house {i}" for i in range(8)],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "votes" / "blind.jsonl"


@pytest.fixture
def panel(path):
    return BlindPanel(ANSWERS, PROMPTS, path)


def read_shown(panel):
    """Give the arm that each side shows now, told by its words."""
    words = {"plain": "base", "house": "tuned"}
    return {
        side: next(words[word] for word in words if word in box.value)
        for side, box in panel.shown.items()
    }


def vote_for(panel, arm):
    """Click the button of the side that shows an arm."""
    [side] = [side for side, shown in read_shown(panel).items() if shown == arm]
    panel.buttons[side].click()


def test_untouched_it_has_no_votes_and_writes_nothing(panel, path):
    assert panel.value == []
    assert not path.exists()
    assert "0 of 8 voted on" in panel.status.value
    assert "Question 0?" in panel.prompt.value


def test_no_name_of_an_arm_is_shown(panel):
    for _ in PROMPTS:
        texts = [panel.status, panel.prompt, *panel.shown.values()]
        shown = "".join(box.value for box in texts)
        assert "base" not in shown
        assert "tuned" not in shown
        panel.buttons["skip"].click()


def test_a_vote_names_the_arm_that_stood_on_the_chosen_side(panel):
    for i, arm in enumerate(["base", "tuned", "tuned", "base"]):
        sides = read_shown(panel)
        assert f"plain {i}" in "".join(box.value for box in panel.shown.values())
        vote_for(panel, arm)
        assert panel.value[i]["winner"] == arm
        assert {side: panel.value[i][side] for side in "AB"} == sides
    panel.buttons["tie"].click()
    panel.buttons["skip"].click()
    assert [v["choice"] for v in panel.value[4:]] == ["tie", "skip"]
    assert [v["winner"] for v in panel.value[4:]] == [None, None]
    assert "6 of 8 voted on" in panel.status.value


def test_each_arm_stands_on_either_side_and_the_seed_fixes_where(tmp_path):
    def list_sides(seed, name):
        panel = BlindPanel(ANSWERS, PROMPTS, tmp_path / name, seed)
        for _ in PROMPTS:
            panel.vote("skip")
        return [vote["A"] for vote in panel.value]

    first = list_sides(0, "one")
    assert set(first) == {"base", "tuned"}
    assert list_sides(0, "two") == first
    assert list_sides(1, "three") != first


def test_each_vote_is_in_the_file_at_once_and_the_next_sitting_goes_on(panel, path):
    for i in range(3):
        vote_for(panel, "tuned")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == i + 1
    again = BlindPanel(ANSWERS, PROMPTS, path)
    assert again.value == panel.value
    assert "Question 3?" in again.prompt.value
    assert read_shown(again) == read_shown(panel)
    vote_for(again, "base")
    winners = [row["winner"] for row in store.read_jsonl(path)[0]]
    assert winners == ["tuned", "tuned", "tuned", "base"]


@pytest.mark.parametrize(
    "change",
    [
        {"answers": ANSWERS | {"tuned": ["other", *ANSWERS["tuned"][1:]]}},
        {"answers": {"base": ANSWERS["base"], "new": ANSWERS["tuned"]}},
        {"prompts": ["Another?", *PROMPTS[1:]]},
    ],
)
def test_votes_on_other_answers_are_refused_and_kept(panel, path, change):
    panel.vote("A")
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="votes on other answers"):
        BlindPanel(**({"answers": ANSWERS, "prompts": PROMPTS, "path": path} | change))
    assert path.read_bytes() == kept


def test_votes_under_another_seed_and_broken_files_are_refused(path):
    seeds = [
        seed
        for seed in range(9)
        if BlindPanel(ANSWERS, PROMPTS, path, seed)._items[0][0]["A"] == "base"
    ]
    other = next(seed for seed in range(9) if seed not in seeds)
    BlindPanel(ANSWERS, PROMPTS, path, seeds[0]).vote("A")
    with pytest.raises(ValueError, match="in another order"):
        BlindPanel(ANSWERS, PROMPTS, path, other)
    sound = path.read_text()
    for text in (sound + "{", sound.replace('"choice": "A"', '"choice": "C"')):
        path.write_text(text)
        with pytest.raises(ValueError, match="give another path"):
            BlindPanel(ANSWERS, PROMPTS, path, seeds[0])


def test_when_all_are_voted_on_nothing_can_be_pressed(panel):
    for _ in PROMPTS:
        panel.buttons["A"].click()
    assert all(button.disabled for button in panel.buttons.values())
    assert "8 of 8 voted on" in panel.status.value
    assert "All done." in panel.prompt.value
    with pytest.raises(ValueError, match="nothing left"):
        panel.vote("A")
    with pytest.raises(ValueError, match="'C' is no vote"):
        panel.vote("C")


def test_a_vote_that_cannot_be_saved_is_not_counted(tmp_path):
    (tmp_path / "votes").write_text("a file where the folder should be")
    panel = BlindPanel(ANSWERS, PROMPTS, tmp_path / "votes" / "blind.jsonl")
    panel.buttons["A"].click()
    assert panel.value == []
    assert 'role="status"' in panel.status.value
    assert "votes" in panel.status.value
    assert "Question 0?" in panel.prompt.value


def test_the_sign_test_over_votes_that_are_no_ties_is_mcnemars(panel):
    for arm in ["tuned"] * 6:
        vote_for(panel, arm)
    panel.vote("tie")
    winners = [vote["winner"] for vote in panel.value]
    p_value = scoring.compare_mcnemar(
        [winner == "base" for winner in winners],
        [winner == "tuned" for winner in winners],
    )
    assert p_value == 0.03125  # 2 / 2 ** 6: six heads in a row, on either side


def test_all_text_is_escaped_and_what_is_unseen_spelled_out(path):
    evil = "<script>alert(1)</script>\u202e"
    panel = BlindPanel({"one": [evil], "two": [""]}, [evil], path)
    shown = [panel.prompt.value, *(box.value for box in panel.shown.values())]
    assert not any("<script" in text for text in shown)
    assert sum("&lt;script&gt;" in text for text in shown) == 2
    assert sum("⟨U+202E⟩" in text for text in shown) == 2
    assert sum("(no answer)" in text for text in shown) == 1


def test_every_control_has_a_label_that_can_be_read_aloud(panel):
    names = [button.description for button in panel.buttons.values()]
    assert names == ["A is better", "B is better", "Tie", "Skip"]
    for side, box in panel.shown.items():
        assert f'aria-label="Answer {side}"' in box.value
        assert 'role="region"' in box.value
    assert 'aria-label="Prompt"' in panel.prompt.value


def test_what_is_no_pair_of_answers_is_refused(path):
    for answers, prompts in (
        ({"base": ["a"]}, ["?"]),
        (ANSWERS | {"third": ANSWERS["base"]}, PROMPTS),
        ({"base": ["a"], "tuned": []}, ["?"]),
        ({"base": [], "tuned": []}, []),
        (ANSWERS, PROMPTS[:3]),
    ):
        with pytest.raises(ValueError, match="answers of two arms, one to each prompt"):
            BlindPanel(answers, prompts, path)
