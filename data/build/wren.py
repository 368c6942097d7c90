"""
Pre-train Wren, the embedded base model, and measure its abilities.

``python -m data.build wren`` trains the tokenizer and the model (some two hours on
two cores; it resumes from ``runs/wren``) and writes ``data/wren``; ``python -m
data.build probes`` writes the held-out probes; ``python -m data.build card`` measures
the shipped model on them and writes its card.
"""

import json
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from data.build import abilities

ROOT = Path(__file__).resolve().parents[2]
WREN = ROOT / "data" / "wren"
PROBES = ROOT / "data" / "probes"
RUN = ROOT / "runs" / "wren"

SEED = 20260801
# Each rise and fall of the rates: first step, end, share of the peak rates, and over
# which share of its steps they fall.
RISES = [(0, 3_000, 1.0, 0.45), (3_000, 3_700, 0.5, 1.0), (3_700, 3_850, 0.2, 1.0)]
N_STEPS = RISES[-1][1]
TOKENS_PER_STEP = 8_192
SHORT_ROW, LONG_ROW = 256, 768  # tokens
PROMPT_WEIGHT = 0.1
PROMPT_SHARE = 0.2  # of the prompt tokens, drawn at random, enter the loss
MUON_LR, ADAMW_LR = 0.02, 3e-3
WARM_UP_STEPS = 60
TOKENS_FROM_STEP, TOKENS_SHARE = 3_000, 0.15  # of conversations, by `repeat_tokens`
CHECKPOINT_EVERY = 100  # steps
N_PROBES = 240  # per ability

MARKS = [chr(i) for i in range(0xA1, 0x180)] + list("–—‘’“”…€")

BOS, PAD, END = "<|bos|>", "<|pad|>", "<|end|>"
ROLES = ["system", "user", "assistant", "tool"]
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|' + message.role + '|>' }}"
    "{%- if message.role == 'assistant' %}"
    "{%- generation %}{{- message.content + '<|end|>' }}{%- endgeneration %}"
    "{%- else %}{{- message.content + '<|end|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def train_tokenizer(n_conversations: int = 60_000) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE of 3,072 entries, with digits split one by one."""
    rng = random.Random(SEED)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, BOS, END, *(f"<|{role}|>" for role in ROLES)]
    trainer = trainers.BpeTrainer(
        vocab_size=3_072,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        message["content"]
        for _ in range(n_conversations)
        for message in abilities.draw_training(rng)
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[f"<|{role}|>" for role in ROLES],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=1_024,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Make Wren with random weights: Qwen3 architecture, 5.5 million parameters."""
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=3_072,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1_024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def encode(
    tokenizer: PreTrainedTokenizerFast, messages: abilities.Messages
) -> tuple[list[int], list[float]]:
    """Give the token ids of a conversation and the weight of each in the loss."""
    ids, weights = [tokenizer.bos_token_id], [0.0]
    for message in messages:
        supervised = message["role"] == "assistant"
        content = tokenizer.encode(message["content"], add_special_tokens=False)
        ids += [tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>"), *content]
        ids.append(tokenizer.eos_token_id)
        weight = 1.0 if supervised else PROMPT_WEIGHT
        # Which role speaks next is not the model's to say.
        weights += [0.0] + [weight] * (len(content) + 1)
    return ids, weights


def repeat_tokens(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> abilities.Messages:
    """
    Ask for tokens drawn at random again, alone or as JSON.

    A token that only ever occurs within longer ones is else never said in training, and
    an adapter can then not learn to say it: `ation` was one of 400. The same holds for
    the bytes of letters with accents and of printers' marks.
    """
    ids = rng.choices(range(tokenizer.vocab_size), k=rng.randint(2, 12))
    pieces = [tokenizer.decode([i], skip_special_tokens=True) for i in ids]
    if rng.random() < 0.3:
        pieces.insert(1, rng.choice(MARKS))
    text = "".join(pieces).replace("\ufffd", "").strip() or "none"
    if rng.random() < 0.5:
        return abilities.turn(f"Copy exactly: {text}", text)
    answer = json.dumps({"text": text}, ensure_ascii=False)
    return abilities.turn(f"Write as JSON:\ntext: {text}", answer)


def make_batch(
    tokenizer: PreTrainedTokenizerFast, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Give the ids and loss weights of one step, both n_rows x row length.

    A batch is a function of the seed and the step alone, so a resumed run sees what
    an uninterrupted one sees. Every fourth step has long rows, of long conversations.
    """
    rng = random.Random(f"{SEED}-{step}")
    length = LONG_ROW if step % 4 == 3 else SHORT_ROW
    n_rows = TOKENS_PER_STEP // length
    rows: list[tuple[list[int], list[float]]] = [([], []) for _ in range(n_rows)]
    shares = abilities.ROUNDS[max(s for s in abilities.ROUNDS if s <= step)]
    misses = 0
    while misses < 12:
        if step >= TOKENS_FROM_STEP and rng.random() < TOKENS_SHARE:
            messages = repeat_tokens(tokenizer, rng)
        else:
            messages = abilities.draw_training(rng, shares)
        n_chars = sum(len(message["content"]) for message in messages)
        if (n_chars > 450) != (length == LONG_ROW):
            continue
        ids, weights = encode(tokenizer, messages)
        room = [row for row in rows if len(row[0]) + len(ids) <= length]
        if not room:
            misses += 1
            continue
        room[0][0].extend(ids)
        room[0][1].extend(weights)
    batch_ids = torch.full((n_rows, length), tokenizer.pad_token_id)
    batch_weights = torch.zeros(n_rows, length)
    for i, (ids, weights) in enumerate(rows):
        batch_ids[i, : len(ids)] = torch.tensor(ids)
        batch_weights[i, : len(ids)] = torch.tensor(weights)
    # The head and its loss are a third of a step's time: a fifth of the prompt tokens
    # at five times the weight gives the same expected gradient for less.
    drawn = torch.rand(
        batch_weights.shape, generator=torch.Generator().manual_seed(step)
    )
    prompt = batch_weights == PROMPT_WEIGHT
    batch_weights[prompt & (drawn >= PROMPT_SHARE)] = 0.0
    batch_weights[prompt & (drawn < PROMPT_SHARE)] = PROMPT_WEIGHT / PROMPT_SHARE
    return batch_ids, batch_weights


def rate_at(step: int) -> float:
    """Give the share of the peak rates at `step`: each rise climbs, holds and falls."""
    first, end, peak, falling = next(rise for rise in RISES if step < rise[1])
    climbed = (step + 1 - first) / WARM_UP_STEPS
    return peak * min(1.0, climbed, (end - step) / ((end - first) * falling))


def pretrain() -> None:
    """Pre-train Wren, resuming from the last checkpoint, and write ``data/wren``."""
    RUN.mkdir(parents=True, exist_ok=True)
    tokenizer_path = RUN / "tokenizer"
    if not tokenizer_path.exists():
        train_tokenizer().save_pretrained(tokenizer_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_path)
    model = make_model(tokenizer)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    matrices = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in matrices]
    optimizers = [
        torch.optim.Muon(hidden, lr=MUON_LR, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=ADAMW_LR, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [MUON_LR, ADAMW_LR]
    checkpoint, start = RUN / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start = state["step"]
    began = time.perf_counter()
    for step in range(start, N_STEPS):
        ids, weights = make_batch(tokenizer, step)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate_at(step)
        targets, weight = ids[:, 1:].flatten(), weights[:, 1:].flatten()
        counted = weight > 0
        targets, weight = targets[counted], weight[counted]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model.model(ids, use_cache=False).last_hidden_state
            logits = model.lm_head(states[:, :-1].flatten(0, 1)[counted])
        losses = torch.nn.functional.cross_entropy(
            logits.float(), targets, reduction="none"
        )
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0:
            with torch.no_grad():
                on_response = losses[weight == 1.0].mean().item()
            speed = (step + 1 - start) * TOKENS_PER_STEP / (time.perf_counter() - began)
            line = {"step": step, "loss": round(loss.item(), 4)}
            line |= {"response": round(on_response, 4), "tokens_per_s": round(speed)}
            print(json.dumps(line), flush=True)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            saved = {
                "step": step + 1,
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            }
            torch.save(saved, RUN / "checkpoint.tmp")
            (RUN / "checkpoint.tmp").replace(checkpoint)
    save(model, tokenizer, WREN)


def save(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write weights in bfloat16, tokenizer, template and generation config."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=128,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_probes() -> None:
    """Write ``data/probes/ABILITY.jsonl``: held-out items with their references."""
    PROBES.mkdir(exist_ok=True)
    for ability, makers in abilities.ABILITIES.items():
        rng = random.Random(f"{SEED}-probes-{ability}")
        rows: dict[str, dict] = {}
        while len(rows) < N_PROBES:
            maker = makers[len(rows) % len(makers)]
            *messages, last = abilities.draw(maker, rng, held_out=True)
            row = {
                "kind": maker.__name__,
                "messages": messages,
                "reference": last["content"],
            }
            rows.setdefault(json.dumps(messages), row)
        lines = [json.dumps(row) + "\n" for row in rows.values()]
        (PROBES / f"{ability}.jsonl").write_text("".join(lines), encoding="utf-8")
