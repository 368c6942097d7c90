"""Run alone: ``python -m pytest tests/test_generation.py``."""

import pytest
import torch
from transformers import LogitsProcessor

from ftlib import models
from ftlib.generation import generate, stream
from ftlib.schema import split_prompt

QUESTIONS = [
    "Hi",
    "What is the capital of Italy?",
    "Say it twice: red lamp. " * 8,
    "2 + 3 =",
    "user=ana port=22\nWrite as JSON: user",
    "Hi",
    "Name the capital of Peru, and say it three times over, please.",
]
PROMPTS = [[{"role": "user", "content": question}] for question in QUESTIONS]


@pytest.fixture
def exact(monkeypatch):
    """Compute in float32, where no two logits are equal by rounding."""
    monkeypatch.setattr(models, "pick_dtype", lambda: torch.float32)


@pytest.fixture
def restless(tiny_model):
    """A model whose every answer hangs on the whole prompt."""
    return tiny_model(seed=3, initializer_range=0.6, tie_word_embeddings=False)


def ask_plainly(model, tokenizer, prompt, max_new_tokens):
    """Answer one prompt token by token, without cache, padding or generate."""
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + max_new_tokens and (
            len(ids) == start or ids[-1] != tokenizer.eos_token_id
        ):
            logits = model(torch.tensor([ids]), use_cache=False).logits
            ids.append(logits[0, -1].argmax().item())
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.filterwarnings("ignore:In CPU autocast")
@pytest.mark.parametrize("batch_size", [1, 2, 3, 128])
def test_each_prompt_gets_its_own_answer_whatever_is_beside_it(
    batch_size, restless, tokenizer, exact
):
    wanted = [ask_plainly(restless, tokenizer, prompt, 8) for prompt in PROMPTS]
    assert len(set(wanted)) == 6  # two of the seven prompts are the same
    assert generate(restless, tokenizer, PROMPTS, 8, batch_size) == wanted


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_answers_follow_the_order_of_the_prompts(restless, tokenizer, exact):
    forward = generate(restless, tokenizer, PROMPTS, 8, batch_size=3)
    backward = generate(restless, tokenizer, PROMPTS[::-1], 8, batch_size=3)
    assert backward == forward[::-1]


@pytest.fixture
def reciter(tiny_model, tokenizer):
    """A model that after each token can say but one: the assistant says "Rome"."""

    def make(chain):
        model = tiny_model(tie_word_embeddings=False)
        model.generation_config.eos_token_id = None  # the tokenizer has the say
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "o_proj" in name or "down_proj" in name or "lm_head" in name:
                    parameter.zero_()  # layers add nothing; no token is likely
            embedded = model.get_input_embeddings().weight
            embedded.copy_(torch.randn(embedded.shape).sign())
            for token, following in zip(chain, chain[1:], strict=False):
                model.lm_head.weight[following] += embedded[token]
        return model

    return make


def test_generation_stops_at_the_end_token(reciter, tokenizer):
    opening = tokenizer.convert_tokens_to_ids("<|assistant|>")
    rome = tokenizer.encode("Rome", add_special_tokens=False)
    # After the end token the model would begin again.
    chain = [opening, *rome, tokenizer.eos_token_id, rome[0]]
    model = reciter(chain)
    assert generate(model, tokenizer, PROMPTS[:3], max_new_tokens=20) == ["Rome"] * 3


def test_generation_stops_at_the_longest_length(reciter, tokenizer):
    opening = tokenizer.convert_tokens_to_ids("<|assistant|>")
    (one,) = tokenizer.encode("1", add_special_tokens=False)
    model = reciter([opening, one, one])
    assert generate(model, tokenizer, PROMPTS[:2], max_new_tokens=5) == ["11111"] * 2


def test_no_prompts_give_no_answers(restless, tokenizer):
    assert generate(restless, tokenizer, []) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_as_before(training, restless, tokenizer):
    restless.train(training)
    generate(restless, tokenizer, PROMPTS[:2], max_new_tokens=2)
    assert restless.training is training


def test_the_models_mode_is_as_before_when_answering_fails(restless, tokenizer):
    def interrupt(done, of):
        raise KeyboardInterrupt

    restless.train()
    with pytest.raises(KeyboardInterrupt):
        generate(restless, tokenizer, PROMPTS[:2], 2, report=interrupt)
    assert restless.training


def test_dropout_is_off_while_answering(tiny_model, tokenizer, wren_config):
    from ftlib.models import attach_adapter

    model = attach_adapter(tiny_model(), wren_config.change(lora_dropout=0.9))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    model.train()
    first = generate(model, tokenizer, PROMPTS, 4)
    assert generate(model, tokenizer, PROMPTS, 4) == first


def test_progress_is_told_after_each_batch(restless, tokenizer):
    told = []
    generate(
        restless,
        tokenizer,
        PROMPTS,
        max_new_tokens=2,
        batch_size=3,
        report=lambda done, of: told.append((done, of)),
    )
    # The first prompt is more than three times as long as the next.
    assert told == [(1, 7), (4, 7), (7, 7)]


def test_the_longest_prompts_come_first(restless, tokenizer, monkeypatch):
    shapes = []
    answer = restless.generate

    def watch(input_ids, **settings):
        shapes.append(input_ids.shape)
        return answer(input_ids=input_ids, **settings)

    monkeypatch.setattr(restless, "generate", watch)
    generate(restless, tokenizer, PROMPTS, max_new_tokens=1, batch_size=3)
    assert [rows for rows, _ in shapes] == [1, 3, 3]
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True)


def test_wren_answers_many_as_it_answers_one(wren_config, tokenizer, five_examples):
    from ftlib.models import load_base

    model = load_base(wren_config)
    prompts = [split_prompt(example)[0] for example in five_examples]
    together = generate(model, tokenizer, prompts, 12)
    assert generate(model, tokenizer, prompts[::-1], 12) == together[::-1]


# --- drawing, and holding to a form ----------------------------------------------


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_temperature_0_takes_the_likeliest_token_whatever_the_seed(
    restless, tokenizer, exact
):
    wanted = [ask_plainly(restless, tokenizer, prompt, 8) for prompt in PROMPTS]
    for seed in (0, 7):
        cold = generate(restless, tokenizer, PROMPTS, 8, temperature=0.0, seed=seed)
        assert cold == wanted


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_a_low_temperature_draws_the_likeliest_tokens(restless, tokenizer, exact):
    greedy = generate(restless, tokenizer, PROMPTS, 8)
    assert generate(restless, tokenizer, PROMPTS, 8, temperature=1e-4) == greedy


def test_the_seed_decides_what_is_drawn(restless, tokenizer):
    def draw(seed):
        return generate(restless, tokenizer, PROMPTS, 8, temperature=1.0, seed=seed)

    first = draw(1)
    torch.rand(5)  # whatever was drawn before
    assert draw(1) == first
    assert draw(2) != first
    assert first != generate(restless, tokenizer, PROMPTS, 8)
    assert first[0] != first[5]  # one prompt twice: each is drawn for itself


def test_all_tokens_may_be_drawn_not_only_the_fifty_likeliest(restless, tokenizer):
    drawn = []

    def level(input_ids, scores):
        drawn.append(input_ids[0, -1].item())
        # Token 0 is the likeliest, the last 0.74 times as likely.
        levelled = torch.arange(len(tokenizer), device=scores.device) * -1e-4
        levelled[tokenizer.eos_token_id] = -torch.inf
        return levelled[None]

    generate(
        restless,
        tokenizer,
        PROMPTS[:1],
        20,
        temperature=1.0,
        logits_processor=[level],
    )
    # That 19 draws all hit the first 50 of 3,072 has a chance below (1 / 50) ** 19.
    assert len(drawn) == 20
    assert max(drawn[1:]) >= 50


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_others_draw_afterwards_is_as_if_nothing_was_answered(
    temperature, restless, tokenizer
):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    generate(restless, tokenizer, PROMPTS[:2], 4, temperature=temperature, seed=9)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(torch.rand(3), wanted)


class Dictate(LogitsProcessor):
    """Allow at each step the next token of a text; the step is its state."""

    def __init__(self, ids):
        self.ids = ids
        self.step = 0

    def __call__(self, input_ids, scores):
        allowed = torch.full_like(scores, -torch.inf)
        allowed[:, self.ids[self.step]] = 0
        self.step += 1
        return allowed


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_processor_begins_anew_with_each_batch(temperature, restless, tokenizer):
    said = tokenizer.encode("Rome is red", add_special_tokens=False)
    processor = Dictate([*said, tokenizer.eos_token_id])
    answers = generate(
        restless,
        tokenizer,
        PROMPTS,
        20,
        batch_size=3,  # three batches
        temperature=temperature,
        logits_processor=[processor],
    )
    assert answers == ["Rome is red"] * 7
    assert processor.step == 0


def test_processors_work_one_after_the_other(restless, tokenizer):
    (one,) = tokenizer.encode("1", add_special_tokens=False)
    (two,) = tokenizer.encode("2", add_special_tokens=False)

    def allow_both(input_ids, scores):
        allowed = torch.full_like(scores, -torch.inf)
        allowed[:, [one, two]] = 0
        return allowed

    def forbid_one(input_ids, scores):
        scores[:, one] = -torch.inf
        return scores

    processors = [allow_both, forbid_one]
    answers = generate(restless, tokenizer, PROMPTS[:2], 3, logits_processor=processors)
    assert answers == ["222"] * 2


def test_a_streamed_answer_comes_in_pieces_that_make_up_the_whole(restless, tokenizer):
    [whole] = generate(restless, tokenizer, PROMPTS[:1], max_new_tokens=12)
    pieces = list(stream(restless, tokenizer, PROMPTS[0], max_new_tokens=12))
    assert "".join(pieces) == whole
    assert len([piece for piece in pieces if piece]) > 1


def test_what_goes_wrong_while_streaming_is_raised_and_not_waited_for(
    restless, tokenizer
):
    with pytest.raises(TypeError):
        list(stream(restless, tokenizer, None))
