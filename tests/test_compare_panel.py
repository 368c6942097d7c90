"""Run alone: ``python -m pytest tests/test_compare_panel.py``."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from ftlib.panels import ComparePanel
from ftlib.panels.compare import compare


class Passage(NamedTuple):
    """Has the fields of `retrieval.Passage`, whose module loads an encoder."""

    passage_id: str
    title: str
    text: str


class Answer(NamedTuple):
    """Has the fields of `retrieval.Answer`."""

    text: str
    passages: Sequence[Passage] = ()
    cited: str | None = None


OWNERS = Passage("owners", "Who owns what", "Identity owns password alerts.")
LIMITS = Passage("limits", "Limits", "At most five hosts.")
PROMPTS = ["Who owns password alerts?", "How many hosts?"]


def ask_late(prompt):
    raise TimeoutError("the server is <b>late</b>")


def ask_rag(prompt):
    cited = "owners" if "password" in prompt else "limits"
    return Answer("Identity.", [LIMITS, OWNERS], cited)


@pytest.fixture
def panel():
    arms = {"prompt": lambda prompt: Answer(prompt.upper()), "RAG": ask_rag}
    return ComparePanel({**arms, "late": ask_late}, PROMPTS)


def find_column(panel, name):
    """Give one arm's part of what is shown."""
    columns = panel.answers.value.split('<div tabindex="0"')[1:]
    return next(column for column in columns if f'aria-label="{name}"' in column)


# --- the headless twin -------------------------------------------------------------


def test_each_arm_answers_the_same_prompt():
    arms = {"loud": lambda prompt: Answer(prompt.upper()), "RAG": ask_rag}
    assert compare(arms, "password?") == {
        "loud": Answer("PASSWORD?", (), None),
        "RAG": Answer("Identity.", [LIMITS, OWNERS], "owners"),
    }


def test_an_arm_that_fails_says_why_and_the_others_still_answer():
    answers = compare({"late": ask_late, "RAG": ask_rag}, "password?")
    assert answers["late"] == "No answer, TimeoutError: the server is <b>late</b>"
    assert answers["RAG"].cited == "owners"


def test_an_arm_that_gives_plain_text_is_shown_as_it_is():
    assert compare({"plain": str.upper}, "who?") == {"plain": "WHO?"}
    assert compare({"nothing": lambda prompt: None}, "who?") == {"nothing": "None"}


def test_a_growing_answer_is_joined_and_each_piece_reported():
    grown = []
    answers = compare(
        {"slow": lambda prompt: iter(["Iden", "tity."]), "RAG": ask_rag},
        "password?",
        lambda answers: grown.append(dict(answers)),
    )
    assert answers["slow"] == "Identity."
    assert [shown.get("slow") for shown in grown[:2]] == ["Iden", "Identity."]
    assert "RAG" not in grown[1]
    assert grown[-1] == answers


def test_an_answer_that_breaks_off_keeps_what_came_and_says_why():
    def break_off(prompt):
        yield "Iden"
        raise TimeoutError("late")

    answers = compare({"slow": break_off, "RAG": ask_rag}, "password?")
    assert answers["slow"] == "Iden, TimeoutError: late"
    assert answers["RAG"].cited == "owners"


# --- the panel ---------------------------------------------------------------------


def test_the_panel_shows_an_answer_while_it_grows():
    seen = []

    def grow(prompt):
        for piece in ("<b>", "Identity"):
            yield piece
            seen.append(panel.answers.value)

    panel = ComparePanel({"fast": str.upper, "slow": grow}, PROMPTS)
    panel.button.click()
    assert all("WHO OWNS PASSWORD ALERTS?" in shown for shown in seen)
    assert "&lt;b&gt;</div>" in seen[0]
    assert "&lt;b&gt;Identity</div>" in seen[1]
    assert panel.answers.value == seen[1]
    assert panel.value["slow"] == "<b>Identity"
    assert "Asked:" in panel.status.value


def test_untouched_it_shows_nothing_and_has_no_value(panel):
    assert panel.value is None
    assert panel.answers.value == panel.status.value == ""


def test_its_value_is_what_the_headless_twin_gives(panel):
    panel.button.click()
    arms = {"prompt": lambda prompt: Answer(prompt.upper()), "RAG": ask_rag}
    assert panel.value == compare({**arms, "late": ask_late}, PROMPTS[0])
    assert list(panel.value) == ["prompt", "RAG", "late"]


def test_only_the_chosen_arms_are_asked(panel):
    panel.arms["late"].value = panel.arms["prompt"].value = False
    panel.button.click()
    assert list(panel.value) == ["RAG"]
    assert panel.answers.value.count('role="region"') == 1


def test_with_no_arm_chosen_it_says_so_and_keeps_the_last_comparison(panel):
    panel.button.click()
    last, shown = panel.value, panel.answers.value
    for box in panel.arms.values():
        box.value = False
    panel.button.click()
    assert "Choose at least one arm." in panel.status.value
    assert (panel.value, panel.answers.value) == (last, shown)


def test_a_typed_prompt_goes_before_the_chosen_one(panel):
    panel.prompt.value = PROMPTS[1]
    panel.button.click()
    assert panel.value["prompt"].text == "HOW MANY HOSTS?"
    panel.typed.value = " really? "
    panel.button.click()
    assert panel.value["prompt"].text == "REALLY?"
    assert "Asked: really?" in panel.status.value
    panel.typed.value = " "
    panel.button.click()
    assert panel.value["prompt"].text == "HOW MANY HOSTS?"


def test_answers_stand_side_by_side_with_the_cited_passage_marked(panel):
    panel.button.click()
    column = find_column(panel, "RAG")
    first, cited = column.split("<b>Limits</b>")
    assert "Identity." in first
    assert "<mark" not in first
    assert "[limits]<br>At most five hosts." in cited
    assert cited.index(">cited</mark>") < cited.index("<b>Who owns what</b> [owners]")
    assert column.count("<mark") == 1
    assert "<mark" not in find_column(panel, "prompt")
    error = find_column(panel, "late")
    assert "TimeoutError: the server is &lt;b&gt;late&lt;/b&gt;" in error


def test_a_citation_of_what_was_not_retrieved_is_called_that():
    arms = {"wrong": lambda prompt: Answer("So.", [LIMITS], "owners<")}
    panel = ComparePanel(arms, PROMPTS)
    panel.button.click()
    assert "Cites owners&lt;, which was not retrieved." in panel.answers.value
    assert "<mark" not in panel.answers.value


def test_an_empty_answer_is_shown_as_none():
    panel = ComparePanel({"mute": lambda prompt: Answer("")}, PROMPTS)
    panel.button.click()
    assert "(no answer)" in panel.answers.value


def test_all_text_is_escaped_and_what_is_unseen_spelled_out():
    evil = "<script>{0}</script>\u202e"
    safe = "&lt;script&gt;{0}&lt;/script&gt;⟨U+202E⟩"
    passage = Passage(evil + "i", evil + "t", evil + "x")
    arm = {evil: lambda prompt: Answer(evil + "a", [passage], evil + "i")}
    panel = ComparePanel(arm, [evil])
    assert "\u202e" not in panel.prompt.options[0][0]
    panel.button.click()
    assert "<script" not in panel.answers.value + panel.status.value
    for end in "aitx":
        assert safe + end in panel.answers.value
    assert f"Asked: {safe}" in panel.status.value
    assert f'aria-label="{safe}"' in panel.answers.value


def test_nothing_to_compare_is_refused():
    for arms, prompts in (({}, PROMPTS), ({"RAG": ask_rag}, [])):
        with pytest.raises(ValueError, match="give at least one arm and one prompt"):
            ComparePanel(arms, prompts)


def test_every_control_has_a_label_and_nothing_can_jump(panel):
    assert [box.description for box in panel.arms.values()] == list(panel.arms)
    controls = (panel.prompt, panel.typed, panel.button)
    labels = [control.description for control in controls]
    assert labels == ["Prompt", "Or type one", "Compare"]
    assert panel.status.layout.height == "44px"
    assert panel.answers.layout.height == "420px"
