"""
Draw what the base model was trained on once more: replay and neutral text.

``conversations.jsonl`` is drawn as pre-training drew its own, for learning again beside
a new task. ``neutral.jsonl`` holds documents, which no task is about, for a loss.
"""

import json
import random
from pathlib import Path

from data.build import abilities
from ftlib.store import write_jsonl

FOLDER = Path(__file__).resolve().parents[1] / "replay"
PROBES = FOLDER.parent / "probes"
SEED = 8
N_CONVERSATIONS = 800
N_DOCUMENTS = 120
LONGEST = 900  # characters: one long row would make its whole batch slow


def read_probes() -> set[str]:
    """Give the prompts of all probes, each as JSON."""
    lines = [
        line
        for path in sorted(PROBES.glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    return {json.dumps(json.loads(line)["messages"]) for line in lines}


def draw_conversations(rng: random.Random) -> list[dict]:
    """Draw the conversations, each once, with the maker of its first exchange."""
    makers = {m: s for m, s in abilities.SHARES.items() if m is not abilities.document}
    seen, rows = read_probes(), []
    while len(rows) < N_CONVERSATIONS:
        [maker] = rng.choices(list(makers), list(makers.values()))
        messages = abilities.draw_training(rng, {maker: 1.0})
        prompt = json.dumps(messages[:-1])
        if prompt not in seen and sum(len(m["content"]) for m in messages) <= LONGEST:
            rows.append({"kind": maker.__name__, "messages": messages})
            seen.add(prompt)
    return rows


def main() -> None:
    """Write ``data/replay``."""
    FOLDER.mkdir(exist_ok=True)
    rng = random.Random(SEED)
    write_jsonl(FOLDER / "conversations.jsonl", draw_conversations(rng))
    drawn = (abilities.document(rng, held_out=False) for _ in range(N_DOCUMENTS))
    texts = [{"text": messages[0]["content"]} for _, messages in drawn]
    write_jsonl(FOLDER / "neutral.jsonl", texts)
