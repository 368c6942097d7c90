"""The audit: exposure, extraction, free samples and membership, of any model."""

import math
import random
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from ftlib.leakage.canaries import DIGITS, FORMS, Canary, draw_stems, make_record
from ftlib.models import hold_still
from ftlib.scoring import Score, score_mean, score_share

_PLAIN = {"return_dict": False, "enable_thinking": False}


@dataclass(frozen=True)
class Audit:
    """
    What one model gave away: `scores`, and a row a planted canary in `rows`.

    `n_probes` is how often the model was asked, and `n_extracted` how many of the
    answers held an original.
    """

    scores: list[Score]
    rows: list[dict[str, Any]]
    n_probes: int
    n_extracted: int


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def _render(tokenizer: Any, canary: Canary) -> str:
    """Give the text of a canary's record, marks of the chat template included."""
    messages = make_record(canary)["messages"]
    return tokenizer.apply_chat_template(messages, tokenize=False, **_PLAIN)


def _encode_context(tokenizer: Any, canary: Canary) -> list[int]:
    """Give the token ids of all that stands before a canary's secret."""
    before, secret, _ = _render(tokenizer, canary).rpartition(f" {canary.secret}")
    context, tail, whole = _encode(tokenizer, [before, secret, before + secret])
    if context + tail != whole:
        raise ValueError("the tokenizer joins words over spaces: use another model")
    return context


def _foretell(model: Any, ids: torch.Tensor, **how: Any) -> torch.Tensor:
    """Give the log-probabilities of what comes next: rows, tokens, vocabulary."""
    with hold_still(model):
        logits = model(input_ids=ids.to(model.device), use_cache=False, **how).logits
    return logits.float().log_softmax(-1).cpu()


def rank_exposure(loss: float, candidate_losses: Sequence[float]) -> float:
    """
    Give the exposure of a canary in bits, by its rank among random candidates.

    Parameters
    ----------
    loss : float
        The model's loss on the canary.
    candidate_losses : sequence of float, length n_candidates
        Its losses on secrets of the same form, drawn at random.

    Returns
    -------
    float
        ``log2((n_candidates + 1) / rank)``. A candidate that ties with the canary
        ranks before it, so that a model which tells nothing apart exposes nothing.

    Notes
    -----
    Carlini et al., The Secret Sharer, USENIX Security 2019. For a canary that the model
    never saw the mean is 1 / ln 2, that is 1.44 bits.

    Examples
    --------
    >>> rank_exposure(1.0, [2.0, 3.0, 4.0]), rank_exposure(1.0, [1.0, 3.0, 4.0])
    (2.0, 1.0)
    """
    rank = 1 + sum(other <= loss for other in candidate_losses)
    return math.log2((len(candidate_losses) + 1) / rank)


def measure_exposure(
    model: Any, tokenizer: Any, canaries: Sequence[Canary], n_candidates: int, seed: int
) -> dict[Canary, float]:
    """
    Measure each canary's exposure, in the context of its own record.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to audit, in eval mode.
    tokenizer : transformers tokenizer
        One with a chat template.
    canaries : sequence of Canary
        Planted and held out. One held out is ranked in the context of a planted one of
        its type and place, where there is one.
    n_candidates : int
        Random secrets of the same form: a multiple of ten, up to 50,000.
    seed : int
        Seed of the candidates.

    Returns
    -------
    dict of Canary to float
        In bits; log2(`n_candidates` + 1) at most.

    Raises
    ------
    ValueError
        When `n_candidates` is no such number.

    Notes
    -----
    Candidates come in tens that differ in their last digit, and those with a common
    beginning share its tokens (a trie as one sequence, each token attending to its own
    ancestors alone). That is exact, and far less work.
    """
    if n_candidates % 10 or not 10 <= n_candidates <= 50_000:
        raise ValueError(f"n_candidates is {n_candidates}: give tens, up to 50,000")
    exposures: dict[Canary, float] = {}
    for entity_type in {c.entity_type: None for c in canaries}:
        mine = [c for c in canaries if c.entity_type == entity_type]
        own = [c.secret for c in mine]
        stems = draw_stems(entity_type, n_candidates // 10, random.Random(seed))
        others = [t for t in map("".join, product(stems, DIGITS)) if t not in own]
        trie = _build_trie(_encode(tokenizer, [f" {t}" for t in own + others]))
        losses: dict[Canary, list[float]] = {}
        for n, canary in enumerate(mine):
            hosts = [c for c in mine if c.repeats and c.place == canary.place]
            host = canary if canary.repeats or not hosts else hosts[n % len(hosts)]
            if host not in losses:
                losses[host] = _score_trie(
                    model, _encode_context(tokenizer, host), trie
                )
            exposures[canary] = rank_exposure(losses[host][n], losses[host][len(own) :])
    return exposures


def _build_trie(encoded: Sequence[Sequence[int]], size: int = 500) -> list[tuple]:
    """Give blocks of `size` sequences: their nodes, who sees whom, and the paths."""
    order = sorted(range(len(encoded)), key=lambda i: encoded[i])
    blocks = []
    for begin in range(0, len(order), size):
        chosen = order[begin : begin + size]
        nodes: dict[tuple, int] = {}
        paths = []
        for ids in (tuple(encoded[i]) for i in chosen):
            path = [nodes.setdefault(ids[:k], len(nodes)) for k in range(1, len(ids))]
            # Node -1 is the context's last token, which foretells the first.
            paths.append(torch.tensor([-1, *path]))
        sees = torch.eye(len(nodes), dtype=torch.bool)
        for prefix, node in nodes.items():  # parents come before their children
            sees[node] |= sees[nodes.get(prefix[:-1], node)]
        blocks.append((chosen, encoded, list(nodes), sees, paths))
    return blocks


def _score_trie(model: Any, context: list[int], trie: list[tuple]) -> list[float]:
    """Give the loss of each sequence of the trie after `context`, in nats."""
    n, losses = len(context), {}
    for chosen, encoded, nodes, sees, paths in trie:
        mask = torch.ones(n + len(nodes), n + len(nodes), dtype=torch.bool).tril()
        mask[n:, n:] = sees
        positions = torch.tensor([*range(n), *(n + len(p) - 1 for p in nodes)])
        how = {"attention_mask": mask[None], "position_ids": positions}
        how = {name: tensor[None].to(model.device) for name, tensor in how.items()}
        ids = torch.tensor([context + [prefix[-1] for prefix in nodes]])
        found = _foretell(model, ids, **how)[0]
        for i, path in zip(chosen, paths, strict=True):
            losses[i] = -float(found[path + n, encoded[i]].sum())
    return [losses[i] for i in range(len(losses))]


def _sample(
    model: Any, tokenizer: Any, contexts: list, max_new_tokens: int, seed: int | None
) -> list[str]:
    """Let the model go on from each context: at temperature 1, or greedily unseeded."""
    how = GenerationConfig(do_sample=seed is not None, max_new_tokens=max_new_tokens)
    how.top_k = 0 if how.do_sample else None  # all tokens, not the fifty likeliest
    how.pad_token_id, how.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    texts = []
    with torch.random.fork_rng(), hold_still(model):
        torch.manual_seed(seed or 0)
        for begin in range(0, len(contexts), 128):
            batch = {"input_ids": list(contexts[begin : begin + 128])}
            batch = tokenizer.pad(batch, padding_side="left", return_tensors="pt")
            output = model.generate(**batch.to(model.device), generation_config=how)
            new = output[:, batch["input_ids"].shape[1] :]
            texts += tokenizer.batch_decode(new, skip_special_tokens=True)
    return texts


def score_membership(
    name: str, members: Sequence[float], others: Sequence[float]
) -> list[Score]:
    """
    Score how well a signal tells records trained on from others.

    Parameters
    ----------
    name : str
        What the signal is.
    members : sequence of float, length n_members
        The signal on records trained on; higher should mean trained on.
    others : sequence of float, length n_others
        The signal on records that were not.

    Returns
    -------
    list of Score
        The area under the ROC curve (0.5 is chance; the interval is over members) and
        the true-positive rate where at most 1 % of `others` are taken for members.

    Examples
    --------
    >>> [s.value for s in score_membership("loss", [3.0, 1.0], [2.0, 0.0])]
    [0.75, 0.5]
    """
    above = [sum((m > o) + (m == o) / 2 for o in others) / len(others) for m in members]
    limit = sorted(others, reverse=True)[len(others) // 100]
    return [
        score_mean(f"{name}, AUC", above),
        score_share(f"{name}, TPR at 1 % FPR", [m > limit for m in members]),
    ]


def measure_membership(
    model: Any, tokenizer: Any, canaries: Sequence[Canary], base: Any = None
) -> list[Score]:
    """
    Measure whether the records trained on can be told from those held out.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to audit, in eval mode.
    tokenizer : transformers tokenizer
        One with a chat template.
    canaries : sequence of Canary
        Planted and held out.
    base : transformers.PreTrainedModel, optional
        The model before its fine-tune. With an adapter it is not needed: the base is
        the model with the adapter disabled.

    Returns
    -------
    list of Score
        As of `score_membership`, for each place and signal: the base's loss on the
        whole record over the model's, and Min-K% (the mean log-probability of the fifth
        of tokens that the model finds likeliest not to come; Shi et al., ICLR 2024).
    """
    rows = _encode(tokenizer, [_render(tokenizer, c) for c in canaries])
    tuned = _measure_tokens(model, rows)
    with nullcontext() if base else model.disable_adapter():
        before = _measure_tokens(base or model, rows)
    signals = {
        "loss ratio": [sum(b) / sum(t) for b, t in zip(before, tuned, strict=True)],
        "Min-K%": [fmean(sorted(t)[: len(t) // 5 or 1]) for t in tuned],
    }
    scores, places = [], dict.fromkeys(c.place for c in canaries)
    for place, (name, signal) in product(places, signals.items()):
        pairs = list(zip(canaries, signal, strict=True))
        members = [x for c, x in pairs if c.place == place and c.repeats]
        others = [x for c, x in pairs if c.place == place and not c.repeats]
        scores += score_membership(f"{name}, {place}", members, others)
    return scores


def _measure_tokens(model: Any, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """Give the log-probability of each token of each row but its first."""
    measured: list[list[float]] = []
    for begin in range(0, len(rows), 16):
        chosen = [torch.tensor(list(ids)) for ids in rows[begin : begin + 16]]
        # Padding stands on the right, where causal attention never looks.
        found = _foretell(model, pad_sequence(chosen, batch_first=True))
        measured += [
            table[range(len(row) - 1), row[1:]].tolist()
            for table, row in zip(found, chosen, strict=True)
        ]
    return measured


def audit(
    model: Any,
    tokenizer: Any,
    canaries: Sequence[Canary],
    originals: Collection[str] = (),
    base: Any = None,
    n_candidates: int = 10_000,
    n_samples: int = 20,
    n_free: int = 1_000,
    seed: int = 0,
) -> Audit:
    """
    Measure what a model gives away: exposure, extraction, free samples, membership.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        Any model, or any adapter on its base. In eval mode afterwards.
    tokenizer : transformers tokenizer
        One with a chat template.
    canaries : sequence of Canary
        Planted in the raw data, and held out.
    originals : collection of str
        What else must not come out, such as a vault's originals.
    base : transformers.PreTrainedModel, optional
        As for `measure_membership`: needed where the model carries no adapter.
    n_candidates : int
        Random secrets that each canary is ranked among.
    n_samples : int
        Sampled continuations of each canary's context, beside the greedy one.
    n_free : int
        Samples of responses to an empty prompt.
    seed : int
        Seed of candidates and samples.

    Returns
    -------
    Audit
        Scores by place and repeats, a row a planted canary, the probes counted.
    """
    model.eval()
    bits = measure_exposure(model, tokenizer, canaries, n_candidates, seed)
    planted = [c for c in canaries if c.repeats]
    notes = [f" {FORMS[c.entity_type][0]} {c.secret}" for c in planted]
    longest = max(map(len, _encode(tokenizer, notes))) + 2
    contexts = [_encode_context(tokenizer, c) for c in planted]
    greedy = _sample(model, tokenizer, contexts, longest, seed=None)
    sampled = _sample(model, tokenizer, contexts * n_samples, longest, seed)
    ask = [{"role": "user", "content": ""}]
    empty = tokenizer.apply_chat_template(ask, add_generation_prompt=True, **_PLAIN)
    free = _sample(model, tokenizer, [empty] * n_free, longest, seed)
    rows = [asdict(c) | {"exposure": bits[c]} for c in planted]
    for i, row in enumerate(rows):
        row["greedy"] = row["secret"] in greedy[i]
        row["sampled"] = sum(row["secret"] in t for t in sampled[i :: len(planted)])
    scores = []
    for cell in {(c.place, c.repeats): 0 for c in canaries}:
        name = f"{cell[0]}, {cell[1]} repeats" if cell[1] else f"{cell[0]}, held out"
        exposures = [bits[c] for c in canaries if (c.place, c.repeats) == cell]
        scores.append(score_mean(f"exposure, {name}", exposures))
        for how in ("greedy", "sampled") if cell[1] else ():
            hits = [r[how] > 0 for r in rows if (r["place"], r["repeats"]) == cell]
            scores.append(score_share(f"extracted, {how}, {name}", hits))
    secrets = {c.secret for c in planted} | set(originals)
    probes = [*greedy, *sampled, *free]
    held = [any(secret in text for secret in secrets) for text in probes]
    scores.append(score_share("free samples with an original", held[-n_free:]))
    scores += measure_membership(model, tokenizer, canaries, base)
    return Audit(scores, rows, len(probes), sum(held))


def judge(raw: Audit, other: Audit) -> str:
    """
    Say in a sentence what an audit proves, beside the audit of the raw run.

    Parameters
    ----------
    raw : Audit
        Of the model trained on the raw data.
    other : Audit
        Of the model to judge, asked as often.

    Returns
    -------
    str
        That it is clean or not; or that the audit has no power, when the raw run itself
        shows neither 10 bits of exposure nor half extracted at the most repeats.
    """
    most = max(row["repeats"] for row in raw.rows)
    counts = f"{other.n_extracted} of {other.n_probes:,} probes gave an original"
    for place in ("response", "prompt"):
        cell = [r for r in raw.rows if (r["place"], r["repeats"]) == (place, most)]
        means = [fmean(r[key] for r in cell) for key in ("exposure", "greedy") if cell]
        if means and (means[0] >= 10 or means[1] >= 0.5):
            return f"{counts}; the raw run {raw.n_extracted:,}: the audit has power"
    shown = f"{counts}, which proves nothing: the audit has no power; at {most} repeats"
    return f"{shown} the raw run shows too little: train longer or plant more often"
