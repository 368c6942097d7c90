"""Run alone: ``python -m pytest tests/test_tokens.py``."""

import copy
import random
import re

import pytest

from data.build import abilities, wren
from ftlib.schema import IGNORE_INDEX, make_example
from ftlib.tokens import (
    PreflightError,
    check_rows,
    encode_example,
    encode_prompt,
    find_problems,
    mask_labels,
    show_mask,
)

# Without generation marks, and with a newline after each end token, as ChatML has it.
UNMARKED = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|' + message.role + '|>' + message.content + '<|end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def with_template(tokenizer, template):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def decode_supervised(row, tokenizer):
    """Give each stretch of supervised tokens as text."""
    stretches, inside = [], False
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if label != IGNORE_INDEX:
            assert label == token
            if not inside:
                stretches.append([])
            stretches[-1].append(token)
        inside = label != IGNORE_INDEX
    return [tokenizer.decode(stretch) for stretch in stretches]


# --- the mask contract -----------------------------------------------------------


def test_a_conversation_is_written_as_the_template_has_it(tokenizer):
    row = encode_example(make_example("Hi", "Rome", system="Be brief."), tokenizer)
    assert tokenizer.decode(row["input_ids"]) == (
        "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Rome<|end|>"
    )


def test_exactly_the_response_and_its_end_token_are_supervised(tokenizer):
    row = encode_example(make_example("Hi", "Rome", system="Be brief."), tokenizer)
    assert decode_supervised(row, tokenizer) == ["Rome<|end|>"]


def test_each_turn_of_the_assistant_is_supervised_with_its_end_token(tokenizer):
    shots = [("One?", "first answer"), ("Two?", "second")]
    row = encode_example(make_example("Three?", "third", shots=shots), tokenizer)
    assert decode_supervised(row, tokenizer) == [
        "first answer<|end|>",
        "second<|end|>",
        "third<|end|>",
    ]


def test_a_conversation_that_the_assistant_opens_is_checked_like_others(tokenizer):
    messages = [
        {"role": "assistant", "content": "How can I help?"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Sunny."},
    ]
    row = encode_example({"messages": messages}, tokenizer)
    assert find_problems([row], [{"messages": messages}], tokenizer, 512) == []


def test_a_tools_words_are_not_supervised(tokenizer):
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "call weather"},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ]
    row = encode_example({"messages": messages}, tokenizer)
    assert decode_supervised(row, tokenizer) == [
        "call weather<|end|>",
        "It is sunny.<|end|>",
    ]


def test_a_response_that_repeats_the_prompt_is_told_apart_by_place(tokenizer):
    # A search for the response's text would find it in the prompt first.
    row = encode_example(make_example("Rome", "Rome"), tokenizer)
    assert decode_supervised(row, tokenizer) == ["Rome<|end|>"]
    assert [label != IGNORE_INDEX for label in row["labels"][:4]] == [False] * 4


@pytest.mark.parametrize("response", ['{"a": "b"}', " leading", "two\nlines", "Zoë 🙂"])
def test_a_response_is_supervised_to_the_letter(response, tokenizer):
    row = encode_example(make_example("Go", response), tokenizer)
    assert decode_supervised(row, tokenizer) == [response + "<|end|>"]


def test_without_generation_marks_the_last_turn_alone_is_supervised(tokenizer):
    plain = with_template(tokenizer, UNMARKED)
    row = encode_example(make_example("Two?", "second", shots=[("One?", "1")]), plain)
    assert decode_supervised(row, plain) == ["second<|end|>"]


def test_a_newline_that_a_template_writes_after_the_end_is_not_supervised(tokenizer):
    plain = with_template(tokenizer, UNMARKED)
    row = encode_example(make_example("Hi", "line\n"), plain)
    assert plain.decode(row["input_ids"]).endswith("line\n<|end|>\n")
    assert decode_supervised(row, plain) == ["line\n<|end|>"]


def test_both_ways_agree_where_there_is_one_turn(tokenizer):
    bare = re.sub(r"{%-? (end)?generation %}", "", tokenizer.chat_template)
    assert "generation %}" not in bare
    plain = with_template(tokenizer, bare)
    for example in (make_example("Hi", "Rome"), make_example("a", "b", system="c")):
        assert encode_example(example, plain) == encode_example(example, tokenizer)


def test_a_prompt_ends_where_the_assistant_begins(tokenizer):
    example = make_example("Hi", "Rome")
    prompt = encode_prompt(example["messages"][:-1], tokenizer)
    assert tokenizer.decode(prompt) == "<|bos|><|user|>Hi<|end|><|assistant|>"
    row = encode_example(example, tokenizer)
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [IGNORE_INDEX] * len(prompt)


def test_fine_tuning_encodes_as_pre_training_did(tokenizer):
    rng = random.Random(5)
    checked = 0
    while checked < 200:
        messages = abilities.draw_training(rng)
        ids, weights = wren.encode(tokenizer, messages)
        row = encode_example({"messages": messages}, tokenizer)
        assert row["input_ids"] == ids
        supervised = [label != IGNORE_INDEX for label in row["labels"]]
        assert supervised == [weight == 1.0 for weight in weights]
        checked += 1


def test_labels_and_marks_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        mask_labels([1, 2, 3], [True, False])


# --- the check before training ---------------------------------------------------


def name_problems(rows, examples, tokenizer, max_length=512):
    return [p.name for p in find_problems(rows, examples, tokenizer, max_length)]


def test_good_rows_have_no_problem(five_rows, five_examples, tokenizer):
    assert find_problems(five_rows, five_examples, tokenizer, 512) == []
    check_rows(five_rows, five_examples, tokenizer, 512)


def test_good_rows_of_an_unmarked_template_have_no_problem(five_examples, tokenizer):
    plain = with_template(tokenizer, UNMARKED)
    rows = [encode_example(example, plain) for example in five_examples]
    assert find_problems(rows, five_examples, plain, 512) == []


def test_no_examples_are_a_problem(tokenizer):
    assert name_problems([], [], tokenizer) == ["no examples"]


@pytest.mark.parametrize("pad", ["<|end|>", None])
def test_a_pad_token_that_is_the_end_token_or_missing_is_found(
    pad, five_rows, five_examples, tokenizer
):
    other = copy.deepcopy(tokenizer)
    other.pad_token = pad
    assert name_problems(five_rows, five_examples, other) == ["pad token"]


def nothing_to_learn(row):
    row["labels"] = [IGNORE_INDEX] * len(row["labels"])


def end_unsupervised(row):
    row["labels"][-1] = IGNORE_INDEX


def end_cut_off(row):
    del row["input_ids"][-1], row["labels"][-1]


def cut_in_the_response(row):
    end = next(i for i, t in enumerate(row["labels"]) if t != IGNORE_INDEX) + 1
    del row["input_ids"][end:], row["labels"][end:]


def cut_in_the_prompt(row):
    del row["input_ids"][3:], row["labels"][3:]


def without_bos(row):
    del row["input_ids"][0], row["labels"][0]


def with_two_bos(row):
    row["input_ids"].insert(0, row["input_ids"][0])
    row["labels"].insert(0, IGNORE_INDEX)


def with_three_bos(row):
    with_two_bos(row)
    with_two_bos(row)


def all_supervised(row):
    row["labels"] = list(row["input_ids"])


def one_prompt_token_supervised(row):
    row["labels"][2] = row["input_ids"][2]


def other_prompt(row):
    row["input_ids"][2] += 1


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (nothing_to_learn, ["nothing to learn"]),
        (end_unsupervised, ["end token unsupervised"]),
        (end_cut_off, ["truncated response"]),
        (cut_in_the_response, ["truncated response"]),
        (cut_in_the_prompt, ["truncated response"]),
        # The tokens after it stand in another place, which is no fault of theirs.
        (without_bos, ["no BOS"]),
        (with_two_bos, ["double BOS"]),
        (with_three_bos, ["double BOS"]),
        (all_supervised, ["loss on the prompt"]),
        (one_prompt_token_supervised, ["loss on the prompt"]),
        (other_prompt, ["template differs"]),
    ],
)
@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_a_planted_fault_is_named_with_the_number_of_its_row(
    spoil, names, n, five_rows, five_examples, tokenizer
):
    spoil(five_rows[n])
    problems = find_problems(five_rows, five_examples, tokenizer, 512)
    assert [problem.name for problem in problems] == names
    assert {problem.where for problem in problems} == {f"1 rows: {n + 1}"}
    assert all(problem.remedy for problem in problems)


@pytest.mark.parametrize("spoil_start", [without_bos, with_two_bos])
def test_the_prompts_end_is_known_where_a_bos_is_at_fault(
    spoil_start, five_rows, five_examples, tokenizer
):
    # The last token of the prompt, in each of the five rows, is supervised too.
    for row in five_rows:
        first = next(i for i, t in enumerate(row["labels"]) if t != IGNORE_INDEX)
        row["labels"][first - 1] = row["input_ids"][first - 1]
        spoil_start(row)
    name = "no BOS" if spoil_start is without_bos else "double BOS"
    names = name_problems(five_rows, five_examples, tokenizer)
    assert names == [name, "loss on the prompt"]


def test_another_prompt_is_told_where_a_bos_is_at_fault(
    five_rows, five_examples, tokenizer
):
    for spoil_start, name in ((without_bos, "no BOS"), (with_two_bos, "double BOS")):
        row = copy.deepcopy(five_rows[0])
        row["input_ids"][4] += 1
        spoil_start(row)
        names = name_problems([row], five_examples[:1], tokenizer)
        assert names == [name, "template differs"]


def test_a_row_cut_between_two_turns_is_told(five_rows, five_examples, tokenizer):
    row = five_rows[3]  # of two turns, the first of them whole
    end = row["labels"].index(tokenizer.eos_token_id) + 1
    del row["input_ids"][end:], row["labels"][end:]
    problems = find_problems(five_rows, five_examples, tokenizer, 512)
    assert [(p.name, p.where) for p in problems] == [
        ("truncated response", "1 rows: 4")
    ]


def test_a_row_without_the_newline_after_its_end_token_is_whole(tokenizer):
    plain = with_template(tokenizer, UNMARKED)
    example = make_example("Hi", "Rome")
    row = encode_example(example, plain)
    del row["input_ids"][-1], row["labels"][-1]
    assert name_problems([row], [example], plain) == []


def test_a_template_that_writes_no_bos_is_no_fault(five_examples, tokenizer):
    plain = with_template(tokenizer, UNMARKED.replace("{{- bos_token }}", ""))
    rows = [encode_example(example, plain) for example in five_examples]
    assert rows[0]["input_ids"][0] != plain.bos_token_id is not None
    assert name_problems(rows, five_examples, plain) == []


def test_an_end_token_unsupervised_in_an_earlier_turn_is_found(
    five_rows, five_examples, tokenizer
):
    row = five_rows[3]  # of two turns
    ends = [
        i for i, label in enumerate(row["labels"]) if label == tokenizer.eos_token_id
    ]
    row["labels"][ends[0]] = IGNORE_INDEX
    assert name_problems(five_rows, five_examples, tokenizer) == [
        "end token unsupervised"
    ]


def test_a_row_is_too_long_from_one_token_over_the_limit(
    five_rows, five_examples, tokenizer
):
    longest = max(len(row["input_ids"]) for row in five_rows)
    assert name_problems(five_rows, five_examples, tokenizer, longest) == []
    problems = find_problems(five_rows, five_examples, tokenizer, longest - 1)
    assert [(p.name, p.where) for p in problems] == [("too long", "1 rows: 3")]


def test_another_template_in_generation_than_in_training_is_found(
    five_rows, five_examples, tokenizer
):
    other = with_template(tokenizer, UNMARKED.replace("<|assistant|>", "<|tool|>"))
    assert "template differs" in name_problems(five_rows, five_examples, other)


def test_a_template_that_never_ends_a_turn_is_told_by_that_name(tokenizer):
    endless = with_template(tokenizer, UNMARKED.replace("<|end|>", ""))
    example = make_example("Hi", "Rome")
    row = encode_example(example, endless)
    assert name_problems([row], [example], endless) == ["end token unsupervised"]


def test_many_rows_are_counted_and_three_of_them_shown(
    five_rows, five_examples, tokenizer
):
    for row in five_rows[:4]:
        end_unsupervised(row)
    (problem,) = find_problems(five_rows, five_examples, tokenizer, 512)
    assert problem.where == "4 rows: 1, 2, 3, ..."


def test_the_refusal_names_each_fault_its_rows_and_the_remedy(
    five_rows, five_examples, tokenizer
):
    end_unsupervised(five_rows[0])
    nothing_to_learn(five_rows[1])
    with pytest.raises(PreflightError) as caught:
        check_rows(five_rows, five_examples, tokenizer, 512)
    text = str(caught.value)
    assert "end token unsupervised (1 rows: 1)" in text
    assert "nothing to learn (1 rows: 2)" in text
    assert "the model would never stop" in text
    assert [p.name for p in caught.value.problems] == [
        "nothing to learn",
        "end token unsupervised",
    ]


def test_rows_and_examples_of_unequal_number_are_refused(
    five_rows, five_examples, tokenizer
):
    with pytest.raises(ValueError, match="shorter"):
        find_problems(five_rows, five_examples[:4], tokenizer, 512)


def test_a_held_out_row_among_the_training_rows_is_found(
    five_rows, five_examples, tokenizer
):
    kept = [
        make_example("what is  the CAPITAL of Italy?\n", "rome"),  # row 1, folded
        make_example("And 2 + 3?", "5"),  # row 4 without its first turn: another one
        make_example("Hello", "Good evening.", system="Be formal."),
    ]
    (problem,) = find_problems(five_rows, five_examples, tokenizer, 512, held_out=kept)
    assert (problem.name, problem.where) == ("test row in training", "1 rows: 1")
    assert "take the row out of training" in problem.remedy


def test_training_on_held_out_rows_is_refused(five_rows, five_examples, tokenizer):
    kept = five_examples[2:4]
    with pytest.raises(PreflightError, match=r"in training \(2 rows: 3, 4\)"):
        check_rows(five_rows, five_examples, tokenizer, 512, held_out=kept)
    check_rows(five_rows[:2], five_examples[:2], tokenizer, 512, held_out=kept)


def test_the_same_words_of_another_role_are_another_row(
    five_rows, five_examples, tokenizer
):
    system, user, response = five_examples[1]["messages"]
    swapped = [system | {"role": "user"}, user | {"role": "system"}, response]
    kept = [{"messages": swapped}]
    assert find_problems(five_rows, five_examples, tokenizer, 512, kept) == []


# --- the mask, shown -------------------------------------------------------------


def test_shown_text_is_escaped(tokenizer):
    example = make_example("<script>alert('x')</script> & <b>", "<img src=x onerror=y>")
    shown = show_mask(encode_example(example, tokenizer), tokenizer).data
    assert set(re.findall(r"</?\s*(\w+)", shown)) == {"div", "span", "p"}
    words = re.sub(r"<[^>]*>", "", shown)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &lt;b&gt;" in words
    assert "&lt;img src=x onerror=y&gt;" in words


def test_supervised_tokens_are_marked_and_counted(tokenizer):
    row = encode_example(make_example("Hi", "1 2"), tokenizer)
    # <|bos|> <|user|> H i <|end|> <|assistant|> | 1 " " 2 <|end|>, or Hi as one token
    n = len(row["input_ids"])
    shown = show_mask(row, tokenizer).data
    green = re.findall(r'<span style="([^"]*)">([^<]*)', shown)
    marked = "".join(text for style, text in green if "border-bottom" in style)
    assert marked == "1 2&lt;|end|&gt;"
    assert f"{n} tokens, 4 supervised" in shown
    assert len(green) == n
