"""Run alone: pytest tests/test_data.py. The shipped data is what its tables say."""

import json
import random

from data.build import abilities, hashes, wren
from ftlib import schema, store
from ftlib.config import ROOT


def test_the_table_of_data_lists_every_file_with_its_hash():
    table = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    files = hashes.list_files()
    assert len(files) >= 18
    listed = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(listed) == len(files)
    for path in files:
        assert f"`{store.hash_file(path)}`" in table, f"{path.name} has changed"


def test_every_ability_has_enough_probes_that_are_held_out_conversations():
    for ability in abilities.ABILITIES:
        rows, bad_rows = store.read_jsonl(wren.PROBES / f"{ability}.jsonl")
        assert not bad_rows
        assert len(rows) >= 200
        assert len({json.dumps(row["messages"]) for row in rows}) == len(rows)
        for row in rows:
            answer = {"role": "assistant", "content": row["reference"]}
            assert schema.find_fault({"messages": [*row["messages"], answer]}) is None


def test_no_probe_occurs_in_a_sample_of_training_conversations():
    rng = random.Random(11)
    seen = {
        json.dumps(messages[:-1])
        for messages in (abilities.draw_training(rng) for _ in range(20_000))
    }
    for path in wren.PROBES.glob("*.jsonl"):
        rows, _ = store.read_jsonl(path)
        assert not [row for row in rows if json.dumps(row["messages"]) in seen]


def test_the_shipped_probes_are_those_the_script_makes(tmp_path, monkeypatch):
    monkeypatch.setattr(wren, "PROBES", tmp_path)
    wren.write_probes()
    for path in sorted((ROOT / "data" / "probes").glob("*.jsonl")):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_wren_is_small_and_says_where_a_response_ends():
    folder = ROOT / "data" / "wren"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 16_000_000
    settings = json.loads((folder / "generation_config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert settings["eos_token_id"] == ids["<|end|>"]
    assert settings["pad_token_id"] == ids["<|pad|>"]
    assert settings["bos_token_id"] == ids["<|bos|>"]
