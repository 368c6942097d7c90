"""
How fast the course trains and answers on this machine, beside what else there is.

``python -m tests.bench.cpu`` takes about six minutes on two idle cores, prints a table
and writes ``runs/bench/cpu.json``; ``--quick`` runs the same in a minute or so, to see
that it works: its numbers mean little.

Training: the same model, adapter and batches in a bare PyTorch loop, in `training.Run`
and, where TRL is installed, in its ``SFTTrainer`` as it comes. Each is timed from the
end of one step to the end of the next, so all that happens between steps counts, and
all take turns, so what else the machine does falls on each.

Answering: held-out alerts in one batch and one by one, each to the same length.
"""

import copy
import importlib.util
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

import torch
from transformers import PrinterCallback, TrainerCallback, get_scheduler

from ftlib import (
    batches,
    generation,
    lesson,
    models,
    schema,
    store,
    tokens,
    training,
)
from ftlib.config import RunConfig

RESULT = store.RUNS / "bench" / "cpu.json"
SKIP = 5  # first steps, in which memory and threads are set up
Rows = list[batches.Row]


def train_bare(config: RunConfig, tokenizer: object, rows: Rows) -> list[float]:
    """Train on `rows` in their order in a plain loop; give when each step ended."""
    model = models.attach_adapter(models.load_base(config), config).train()
    collate = batches.make_collator(tokenizer)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=config.learning_rate, weight_decay=0.0, fused=True
    )
    scheduler = get_scheduler("cosine", optimizer, 0, config.max_steps)
    size, ends = config.per_device_train_batch_size, []
    for begin in range(0, len(rows), size):
        batch = collate([dict(row) for row in rows[begin : begin + size]])
        with torch.autocast("cpu", dtype=models.pick_dtype()):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        loss.item()
        ends.append(time.perf_counter())
    return ends


def train_ours(config: RunConfig, tokenizer: object, rows: Rows) -> list[float]:
    """Train the same with `training.Run`, given the rows that it will plan itself."""
    model = models.attach_adapter(models.load_base(config), config)
    ends: list[float] = []
    count = training._Listener.on_step_end

    def on_step_end(*args: object, **kwargs: object) -> None:
        count(*args, **kwargs)
        ends.append(time.perf_counter())

    folder = store.RUNS / "bench" / "cpu"
    training._Listener.on_step_end = on_step_end
    try:
        training.fine_tune(model, tokenizer, rows, [], config, folder)
    finally:
        training._Listener.on_step_end = count
    return ends


def train_trl(config: RunConfig, tokenizer: object, rows: Rows) -> list[float]:
    """Train the same with TRL's defaults, but for the order of the rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: object, **kwargs: object) -> None:
            ends.append(time.perf_counter())

    trainer = SFTTrainer(
        model=models.attach_adapter(models.load_base(config), config),
        args=SFTConfig(
            output_dir=str(store.RUNS / "bench" / "trl"),
            per_device_train_batch_size=config.per_device_train_batch_size,
            max_steps=config.max_steps,
            learning_rate=config.learning_rate,
            train_sampling_strategy="sequential",
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return ends


def measure_training(n_steps: int, n_rounds: int) -> dict[str, float]:
    """Give the median tokens a second of each contender, padding left out."""
    config = RunConfig.for_profile(
        "laptop", max_steps=n_steps, save_steps=n_steps, eval_steps=n_steps
    )
    tokenizer = models.load_tokenizer(config)
    size = config.per_device_train_batch_size
    rows = [
        tokens.encode_example(e, tokenizer)
        for e in lesson.make_triage_examples("train", 304)
    ]
    lengths = [len(row["input_ids"]) for row in rows]
    plan = batches.plan_rows(lengths, size, n_steps * size, config.seed)
    planned = [rows[i] for i in plan]
    n_tokens = sum(len(row["input_ids"]) for row in planned[SKIP * size :])
    contenders: dict[str, tuple[Callable, Rows]] = {
        "bare PyTorch loop": (train_bare, planned),
        "ftlib.training.Run": (train_ours, rows),
    }
    if importlib.util.find_spec("trl"):
        contenders["TRL SFTTrainer, defaults"] = (train_trl, planned)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_rounds):
        for name, (train, given) in contenders.items():
            ends = train(config, tokenizer, given)
            speeds[name].append(n_tokens / (ends[-1] - ends[SKIP - 1]))
    for folder in ("cpu", "cpu.before", "trl"):
        shutil.rmtree(store.RUNS / "bench" / folder, ignore_errors=True)
    return {name: statistics.median(found) for name, found in speeds.items()}


def measure_answering(n_prompts: int, n_tokens: int) -> dict[str, float]:
    """Give the answers a second, batched and one by one, of `n_tokens` tokens each."""
    config = RunConfig.for_profile("laptop")
    model, tokenizer = models.load_base(config), models.load_tokenizer(config)
    prompts = [
        schema.split_prompt(e)[0]
        for e in lesson.make_triage_examples("test", n_prompts)
    ]
    # What ends an answer here is never said, so that all get equally long.
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = "<|tool|>"
    speeds = {}
    for name, batch_size in (("batched", len(prompts)), ("one by one", 1)):
        generation.generate(model, endless, prompts[:2], 2, batch_size)
        began = time.perf_counter()
        generation.generate(model, endless, prompts, n_tokens, batch_size)
        speeds[name] = len(prompts) / (time.perf_counter() - began)
    return speeds


def main(is_quick: bool) -> None:
    """Measure, print the table and write it down."""
    began = time.perf_counter()
    training_speeds = measure_training(*(8, 1) if is_quick else (60, 3))
    answering_speeds = measure_answering(*(8, 8) if is_quick else (128, 64))
    bare = training_speeds["bare PyTorch loop"]
    single = answering_speeds["one by one"]
    print(f"{'training':28}{'tokens/s':>10}{'of bare':>10}")
    for name, speed in training_speeds.items():
        print(f"{name:28}{speed:10,.0f}{speed / bare:10.2f}")
    print(f"{'answering':28}{'answers/s':>10}{'times':>10}")
    for name, speed in answering_speeds.items():
        print(f"{name:28}{speed:10.2f}{speed / single:10.1f}")
    found = {
        "is_quick": is_quick,
        "train_tokens_per_s": training_speeds,
        "ours_of_bare": training_speeds["ftlib.training.Run"] / bare,
        "answers_per_s": answering_speeds,
        "batched_of_one_by_one": answering_speeds["batched"] / single,
        "seconds": time.perf_counter() - began,
        "threads": torch.get_num_threads(),
        "versions": store.list_versions(),
    }
    store.write_json(RESULT, found)
    print(f"{found['seconds']:.0f} s; written to {RESULT.relative_to(store.ROOT)}")


if __name__ == "__main__":
    main(is_quick="--quick" in sys.argv[1:])
