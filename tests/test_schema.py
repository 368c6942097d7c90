"""Run alone: ``python -m pytest tests/test_schema.py``."""

import dataclasses

import pytest

from ftlib.schema import (
    IGNORE_INDEX,
    BadRow,
    Span,
    find_fault,
    make_example,
    split_prompt,
)


def say(role, content="x"):
    return {"role": role, "content": content}


def test_an_example_has_system_then_shots_then_prompt_then_response():
    example = make_example(
        "2 + 2?", "4", system="Be brief.", shots=[("1 + 1?", "2"), ("0 + 1?", "1")]
    )
    assert example == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "0 + 1?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "4"},
        ]
    }


@pytest.mark.parametrize("system", [None, ""])
def test_without_a_system_message_the_user_speaks_first(system):
    messages = make_example("Hi", "Hello", system=system)["messages"]
    assert messages == [say("user", "Hi"), say("assistant", "Hello")]


def test_a_prompt_is_all_but_the_last_message():
    example = make_example("b?", "c", shots=[("a?", "b")])
    prompt, reference = split_prompt(example)
    assert prompt == [say("user", "a?"), say("assistant", "b"), say("user", "b?")]
    assert reference == "c"
    assert len(example["messages"]) == 4  # and the example is as it was


GOOD = [
    [say("user"), say("assistant")],
    [say("system"), say("user"), say("assistant")],
    [say("user"), say("assistant"), say("tool"), say("assistant")],
    [say("user", ""), say("assistant", "an answer to nothing")],
]


@pytest.mark.parametrize("messages", GOOD)
def test_a_sound_example_has_no_fault(messages):
    assert find_fault({"messages": messages, "id": 7}) is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (None, "no list of messages"),
        ("Hi", "no list of messages"),
        ([say("user"), say("assistant")], "no list of messages"),
        ({}, "no list of messages"),
        ({"messages": "Hi"}, "no list of messages"),
        ({"messages": {"role": "user"}}, "no list of messages"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["Hi", say("assistant")]}, "message 1 has no known role"),
        ({"messages": [say("user"), say("bot")]}, "message 2 has no known role"),
        ({"messages": [say(None), say("assistant")]}, "message 1 has no known role"),
        (
            {"messages": [say(["user"]), say("assistant")]},
            "message 1 has no known role",
        ),
        ({"messages": [{"role": "user"}, say("assistant")]}, "message 1 has no text"),
        ({"messages": [say("user"), say("assistant", 4)]}, "message 2 has no text"),
        ({"messages": [say("user"), say("assistant", None)]}, "message 2 has no text"),
        ({"messages": [say("user")]}, "last message must be the assistant's"),
        ({"messages": [say("user"), say("assistant", " \n")]}, "and not empty"),
    ],
)
def test_a_faulty_row_is_refused_with_the_reason(row, words):
    assert words in find_fault(row)


@pytest.mark.parametrize("before", [[], [say("system")]])
def test_a_response_that_answers_no_one_is_refused(before):
    # Without a prompt there is nothing to encode it after.
    assert find_fault({"messages": [*before, say("assistant")]}) is not None


def test_ignore_index_is_what_pytorch_skips():
    import torch

    loss = torch.nn.functional.cross_entropy(
        torch.zeros(2, 4), torch.tensor([IGNORE_INDEX, 1])
    )
    assert loss.item() == pytest.approx(1.386294)  # ln 4: of the second row alone


@pytest.mark.parametrize("noun", [Span(0, 3, "PERSON"), BadRow(1, "cut off")])
def test_a_found_span_or_bad_row_cannot_be_changed(noun):
    field = dataclasses.fields(noun)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(noun, field, 5)
