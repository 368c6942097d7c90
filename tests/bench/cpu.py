"""
How fast the course trains and answers on this machine, beside what else there is.

``python -m tests.bench.cpu`` takes about twenty minutes on two idle cores, prints
tables and writes ``runs/bench/cpu.json``; ``training``, ``answering`` and ``course``
choose a part. ``--quick`` runs the same in two minutes or so, the course's first lesson
alone, to see that it works: its numbers mean little.

Training: the same model, adapter and rows in a bare PyTorch loop, in transformers'
``Trainer``, in `training.Run`, safe and fast, and, where TRL is installed, in its
``SFTTrainer`` as it comes. Each is timed from the end of one step to the end of the
next, so all that happens between steps counts, and all take turns, so what else the
machine does falls on each.

Answering: held-out alerts in one batch and one by one, each to the same length.

The course: each lesson run as by ``run.py course``, its seconds by `tests.parts`.
"""

import asyncio
import copy
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_scheduler,
)

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
from ftlib.config import ROOT, RunConfig
from run import choose_notebooks, make_environment, run_notebook
from tests.parts import PARTS

RESULT = store.RUNS / "bench" / "cpu.json"
SKIP = 5  # first steps, in which memory and threads are set up
BARE, OURS = "bare PyTorch loop", "ftlib"
TRL = "TRL SFTTrainer, defaults"
BOUNDS = {BARE: 0.95, TRL: 1.4}
"""How many times as fast as each of these ftlib is to be."""
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


def train_ours(
    config: RunConfig, tokenizer: object, rows: Rows, speed: str = "safe"
) -> list[float]:
    """Train the same with `training.Run`, given the rows that it will plan itself."""
    config = config.change(speed=speed)
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


class Clock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())


def _list_arguments(config: RunConfig) -> dict[str, Any]:
    """Give what a peer's trainer is told: the same steps, and to write nothing."""
    return {
        "output_dir": str(store.RUNS / "bench" / "peer"),
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "max_steps": config.max_steps,
        "learning_rate": config.learning_rate,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }


def train_plain(config: RunConfig, tokenizer: object, rows: Rows) -> list[float]:
    """Train the same with transformers' own trainer, in bfloat16 as we do."""
    clock = Clock()
    trainer = Trainer(
        model=models.attach_adapter(models.load_base(config), config),
        args=TrainingArguments(**_list_arguments(config), bf16=True),
        train_dataset=rows,
        data_collator=batches.make_collator(tokenizer),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.ends


def train_trl(config: RunConfig, tokenizer: object, rows: Rows) -> list[float]:
    """Train the same with TRL's defaults, but for the order of the rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    trainer = SFTTrainer(
        model=models.attach_adapter(models.load_base(config), config),
        args=SFTConfig(**_list_arguments(config)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.ends


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
        BARE: (train_bare, planned),
        "transformers Trainer": (train_plain, planned),
        OURS: (train_ours, rows),
        f"{OURS}, speed fast": (partial(train_ours, speed="fast"), rows),
    }
    if importlib.util.find_spec("trl"):
        contenders[TRL] = (train_trl, planned)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_rounds):
        for name, (train, given) in contenders.items():
            ends = train(config, tokenizer, given)
            speeds[name].append(n_tokens / (ends[-1] - ends[SKIP - 1]))
    for folder in ("cpu", "cpu.before", "peer"):
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


def measure_course(wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Run lessons as the course does, and give each one's seconds by part."""
    os.environ.update(make_environment(dict(os.environ), "laptop"))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        startup = Path(folder) / "profile_default" / "startup"
        startup.mkdir(parents=True)
        os.environ["IPYTHONDIR"] = folder
        for path in choose_notebooks(
            sorted((ROOT / "notebooks").glob("*.ipynb")), wanted
        ):
            seen = Path(folder) / f"{path.stem}.json"
            (startup / "watch.py").write_text(
                f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                f"from tests.parts import watch\nwatch({str(seen)!r})\n"
                "del sys.path[0], sys, watch\n",
                "utf-8",
            )
            result = asyncio.run(run_notebook(path, store.RUNS))
            if result["status"] != "passed":
                raise RuntimeError(f"{path.stem} {result['status']}: {result['error']}")
            parts = json.loads(seen.read_text("utf-8"))
            # The kernel's start, and what it was not seen at.
            parts["other"] += result["seconds"] - parts.pop("all")
            found[path.stem] = {"all": result["seconds"], **parts}
    return found


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, numbers with one decimal, two below ten."""
    print(f"{head[0]:28}" + "".join(f"{name:>12}" for name in head[1:]))
    for name, *values in rows:
        shown = [f"{v:12,.{2 if v < 10 else 1}f}" for v in values]
        print(f"{name:28}" + "".join(shown))


def main() -> None:
    """Measure what is asked for, print the tables and write them down."""
    is_quick, began = "--quick" in sys.argv, time.perf_counter()
    known = ("training", "answering", "course")
    asked = [part for part in known if part in sys.argv] or known
    found: dict[str, Any] = {"is_quick": is_quick, "threads": torch.get_num_threads()}
    if "training" in asked:
        speeds = measure_training(*(8, 1) if is_quick else (60, 3))
        found["train_tokens_per_s"] = speeds
        head = ["training", "tokens/s", "ftlib of it"]
        print_table(head, [(n, v, speeds[OURS] / v) for n, v in speeds.items()])
        for name in BOUNDS.keys() & speeds.keys():
            ratio = speeds[OURS] / speeds[name]
            word = "met" if ratio >= BOUNDS[name] else "missed"
            print(f"ftlib {ratio:.2f} of {name}, bound {BOUNDS[name]}: {word}")
    if "answering" in asked:
        speeds = measure_answering(*(8, 8) if is_quick else (128, 64))
        found["answers_per_s"] = speeds
        head = ["answering", "answers/s", "times"]
        alone = speeds["one by one"]
        print_table(head, [(n, v, v / alone) for n, v in speeds.items()])
    if "course" in asked:
        lessons = measure_course(["00"] if is_quick else [])
        names = ["all", *PARTS]
        sums = {n: sum(lesson[n] for lesson in lessons.values()) for n in names}
        found["course_seconds"] = lessons | {"sum": sums}
        rows = [(n, *(p[x] for x in names)) for n, p in found["course_seconds"].items()]
        print_table(["seconds", *names], rows)
    found |= {
        "seconds": time.perf_counter() - began,
        "versions": store.list_versions(),
    }
    store.write_json(RESULT, found)
    print(f"{found['seconds']:.0f} s; written to {RESULT.relative_to(store.ROOT)}")


if __name__ == "__main__":
    main()
