"""Run alone: ``python -m pytest tests/test_shipped_adapter.py``."""

from datetime import date
from functools import partial

import pytest
from safetensors.torch import load_file

from data.build import adapter
from ftlib import (
    deployment,
    forgetting,
    generation,
    lesson,
    models,
    release,
    schema,
    scoring,
    store,
)
from ftlib.config import ROOT, RunConfig

FOLDER = adapter.FOLDER / "short_triage"
WEIGHTS = FOLDER / "adapter" / adapter.WEIGHTS


def test_the_adapter_is_small_and_names_its_base_as_the_course_does():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3_500_000
    settings = store.read_json(WEIGHTS.parent / "adapter_config.json")
    assert settings["base_model_name_or_path"] == "data/wren"
    for path in files:
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8")
            assert ROOT.as_posix() not in text
            assert not {"/root", "/home", "/tmp", "/work"} & set(text.split('"'))


def test_the_run_beside_it_is_finished_and_on_the_base_that_ships():
    run = store.read_json(FOLDER / "run.json")
    assert run["status"] == "finished"
    base = store.hash_file(ROOT / "data" / "wren" / "model.safetensors")
    assert run["inputs"] == {"data/wren/model.safetensors": base}
    assert run["steps"] == 600  # 4 passes over 1,200 rows, 8 at once
    settings = store.read_json(WEIGHTS.parent / "adapter_config.json")
    assert settings["r"] == run["config"]["r"]
    assert settings["lora_alpha"] == 4 * settings["r"]
    best = max(run["tried"], key=lambda found: found["gain"])
    assert best["ship"]
    assert best["r"] == settings["r"]
    dtypes = {str(weight.dtype) for weight in load_file(WEIGHTS).values()}
    assert dtypes == {"torch.bfloat16"}


def test_what_it_learned_from_is_in_no_split_that_judges_it():
    learned = {schema.fold_messages(e["messages"]) for e in adapter.make_examples(0)}
    judging = lesson.make_triage_examples("test", 300, adapter.FIELDS)
    judging += [row for rows in forgetting.load_probes().values() for row in rows]
    assert len(learned) >= 1_000
    prompts = {text.rpartition("assistant:")[0] for text in learned}
    for row in judging:
        assert schema.fold_messages(row["messages"][:-1]) + "\n" not in prompts


def test_it_is_exported_with_its_card_and_found_to_fit_the_base(tmp_path):
    rows = lesson.make_triage_examples("train", 3, adapter.FIELDS)
    source = ROOT / "data" / "soc" / "alerts.jsonl"
    score = scoring.score_share("exact", [True] * 40)
    pack = release.gather(
        tmp_path / "pack",
        FOLDER,
        {"train": rows},
        [source],
        {"fine-tuned": [score]},
        {"gain": [score]},
    )
    assert pack.read("licences") == {
        "data/soc/alerts.jsonl": "CC0-1.0",
        "data/wren": "apache-2.0",
    }
    today = date(2026, 11, 22)
    terms = release.read_terms(ROOT / "data" / "release.yaml", today)
    release.judge(pack, terms, today)
    release.export(pack, tmp_path / "out", ("model risk", "a test"), today)
    config = RunConfig.for_profile("laptop", load_in_4bit=False)
    deployment.check_export(tmp_path / "out", config)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "OVERRIDE: model risk" in card
    assert "model-index" in card
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert ROOT.as_posix().encode() not in content
        assert tmp_path.as_posix().encode() not in content


@pytest.mark.slow
def test_it_passes_the_gate_on_what_it_was_not_chosen_by():
    config = RunConfig.for_profile("laptop", load_in_4bit=False)
    model = models.load_adapter(config, WEIGHTS.parent)
    tokenizer = models.load_tokenizer(config)
    answer = partial(generation.generate, model, tokenizer, max_new_tokens=96)
    alerts = lesson.make_triage_examples("test", 150, adapter.FIELDS)
    prompts, due = zip(*map(schema.split_prompt, alerts), strict=True)
    probes = forgetting.load_probes(adapter.N_JUDGING)
    with model.disable_adapter():
        before = forgetting.answer_probes(answer, probes)
        old = scoring.match_exactly(answer(prompts, max_new_tokens=32), due)
    new = scoring.match_exactly(answer(prompts), due)
    gain = scoring.compare_paired("gain", old, new)
    assert gain.low > 0.7
    after = forgetting.answer_probes(answer, probes)
    verdict = forgetting.check_gate(gain, before, after)
    assert verdict.ship, verdict
