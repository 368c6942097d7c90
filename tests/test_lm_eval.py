"""Run alone: ``python -m pytest tests/test_lm_eval.py``."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ftlib import generation, models, scoring, training
from ftlib.config import WREN
from ftlib.schema import make_example, split_prompt
from ftlib.tokens import encode_example

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra `harness`")

TASK = Path(__file__).resolve().parent / "lm_eval_task"
# The adapter learns the first by heart and never sees the others.
CHOSEN = [0, 90, 110, 130]


def load_rows():
    spec = importlib.util.spec_from_file_location("rows", TASK / "rows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    benchmark = module.load_benchmark()["test"]
    return [benchmark[i] for i in CHOSEN]


@pytest.mark.filterwarnings("ignore")  # what the harness's own code warns of
def test_the_harness_scores_an_adapter_as_we_do(
    wren_config, tokenizer, tmp_path, monkeypatch
):
    examples = [make_example(row["prompt"], row["reference"]) for row in load_rows()]
    prompts, references = zip(*map(split_prompt, examples), strict=True)
    learnt = [encode_example(examples[0], tokenizer)]
    config = wren_config.change(
        r=16,
        lora_alpha=64,
        learning_rate=8e-3,
        max_steps=16,
        save_steps=16,
        load_in_4bit=False,
    )
    model = models.attach_adapter(models.load_base(config), config)
    training.fine_tune(model, tokenizer, learnt, [], config, tmp_path)

    # Both answer in float32: where another dtype rounds, two tokens can change places.
    monkeypatch.setattr(models, "pick_dtype", lambda: torch.float32)
    ours = generation.generate(model.float(), tokenizer, prompts, 128)
    exact = scoring.match_exactly(ours, references)
    assert exact == [True, False, False, False]

    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(WREN),
            "peft": str(tmp_path / "adapter"),
            "dtype": "float32",
        },
        tasks=["ftlib_triage"],
        task_manager=TaskManager(include_path=str(TASK), include_defaults=False),
        samples={"ftlib_triage": CHOSEN},
        apply_chat_template=True,
        batch_size=len(CHOSEN),
        device="cpu",
        bootstrap_iters=0,
    )
    samples = found["samples"]["ftlib_triage"]
    assert [sample["doc_id"] for sample in samples] == CHOSEN
    assert [sample["filtered_resps"][0] for sample in samples] == ours
    assert [sample["exact_match"] == 1 for sample in samples] == exact
    assert found["results"]["ftlib_triage"]["exact_match,none"] == 0.25
