"""
Kill a training run at one point after another and see whether it ends all the same.

``python -m tests.kill_worker --all`` kills 20 runs, each at another step and some of
them inside a save, resumes each, and prints a table of whether the final adapter has
the bytes of an uninterrupted run's. ``tests/test_kill.py`` does it three times.

``python -m tests.kill_worker FOLDER [POINT]`` is the worker: it begins or resumes the
run in FOLDER, and at POINT it says so and stands still, to be killed there.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
N_STEPS, SAVE_STEPS = 24, 2
# Inside the save after a step: what has just been written; or half of it, as when the
# kill falls into the writing; or the mark that makes a checkpoint whole, not yet
# written; or an old checkpoint, half removed.
STAGES = [
    "adapter_model.safetensors",
    "optimizer.pt",
    "half of optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "half of trainer_state.json",
    "complete",
    "removing",
]


def list_points(seed=0):
    """List 20 points at 20 different steps: after a step, in its save, at the end."""
    rng = random.Random(seed)
    points = [f"step {step}" for step in [2, *rng.sample(range(1, N_STEPS, 2), 8)]]
    points.append("save 4 half of adapter_model.safetensors")
    # Nothing is removed before the third save.
    steps = range(6, N_STEPS, 2)
    stages = rng.sample(STAGES, len(steps))
    points += [
        f"save {step} {stage}" for step, stage in zip(steps, stages, strict=True)
    ]
    points.append(f"end {N_STEPS} adapter in place")
    return sorted(points, key=lambda point: int(point.split()[1]))


# --- the worker ------------------------------------------------------------------


def work(folder, point):
    """Begin or resume the run in `folder`, and stand still at `point`."""
    from ftlib import models, training
    from ftlib.config import RunConfig
    from ftlib.schema import make_example
    from ftlib.tokens import encode_example

    config = RunConfig.for_profile(
        "laptop",
        r=4,
        lora_dropout=0.1,
        per_device_train_batch_size=2,
        max_steps=N_STEPS,
        save_steps=SAVE_STEPS,
        eval_steps=5,
        seed=3,
    )
    tokenizer = models.load_tokenizer(config)
    rows = [
        encode_example(
            make_example(f"Say it {n} times. " * n, f"It {n}. " * n), tokenizer
        )
        for n in range(1, 8)
    ]
    checkpoint = training.find_checkpoint(folder)
    print(f"after {checkpoint.name.split('-')[1] if checkpoint else 0}", flush=True)
    if point:
        stand_still_at(point)
    model = models.attach_adapter(models.load_base(config), config)
    run = training.Run(model, tokenizer, rows, rows[:2], config, folder)
    progress = run.start(resume=True).wait()
    print(progress.status, flush=True)


def stand_still_at(point):
    """Let this process say `point` and wait to be killed when it comes there."""
    import torch
    from peft import PeftModel
    from transformers import TrainerState

    from ftlib import training

    kind, step, *rest = point.split(maxsplit=2)
    stage = rest[0] if rest else ""
    wanted = stage.removeprefix("half of ")
    in_save = Path("checkpoints", f"checkpoint-{step}")

    def stand_still():
        print(point, flush=True)
        while True:
            time.sleep(60)

    def after_writing(path):
        path = Path(path)
        if (
            kind == "save"
            and path.name == wanted
            and path.parts[-3:-1] == in_save.parts
        ):
            if stage != wanted:
                os.truncate(path, path.stat().st_size // 2)
            stand_still()

    def wrap(owner, name, before=None, after=None):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            if before:
                before(*args)
            result = original(*args, **kwargs)
            if after:
                after(*args)
            return result

        setattr(owner, name, wrapped)

    def at_step_end(listener, args, state, control):
        if kind == "step" and state.global_step == int(step):
            stand_still()

    def before_mark(path, value):
        if path.name == training.COMPLETE:
            after_writing(path)

    def while_removing(path, *args):
        if stage == "removing" and Path(path).name == f"checkpoint-{int(step) - 4}":
            (Path(path) / "optimizer.pt").unlink()
            stand_still()

    def before_proof(*args):
        if kind == "end":
            stand_still()

    wrap(training._Listener, "on_step_end", after=at_step_end)
    wrap(
        PeftModel,
        "save_pretrained",
        after=lambda model, to: after_writing(Path(to) / "adapter_model.safetensors"),
    )
    wrap(torch, "save", after=lambda value, path: after_writing(path))
    wrap(TrainerState, "save_to_json", after=lambda state, path: after_writing(path))
    wrap(training, "write_json", before=before_mark)
    wrap(shutil, "rmtree", before=while_removing)
    wrap(training.models, "prove_adapter", before=before_proof)


# --- the one that kills ----------------------------------------------------------


def run_worker(folder, point=None):
    """
    Run a worker to its end, or kill it when it stands at `point`.

    Returns after how many steps it began, and what it said last.
    """
    command = [sys.executable, "-m", "tests.kill_worker", str(folder)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command, point] if point else command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        said = []
        try:
            for line in process.stdout:
                said.append(line.strip())
                if said[-1] == point:
                    process.kill()
        finally:
            process.kill()
        if process.wait() and (not said or said[-1] != point):
            errors.seek(0)
            raise RuntimeError(errors.read().decode()[-3000:])
    return int(said[0].split()[1]), said[-1]


def hash_adapter(folder):
    """Give the SHA-256 of a finished run's adapter."""
    path = Path(folder) / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_all():
    """Kill 20 runs at 20 different steps and print what became of each."""
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        run_worker(whole)
        wanted = hash_adapter(whole)
        print(f"uninterrupted: {N_STEPS} steps, adapter {wanted[:16]}")
        print(f"{'killed at':42}{'went on after':>15}  same bytes")
        n_same = 0
        for i, point in enumerate(list_points()):
            folder = Path(name) / str(i)
            run_worker(folder, point)
            after, status = run_worker(folder)
            same = status == "finished" and hash_adapter(folder) == wanted
            n_same += same
            place = f"step {after}" if after else "the start"
            print(f"{point:42}{place:>15}  {'yes' if same else 'NO'}", flush=True)
            shutil.rmtree(folder)
        print(f"{n_same} of {len(list_points())} the same")
    return n_same == len(list_points())


if __name__ == "__main__":
    if sys.argv[1:] == ["--all"]:
        sys.exit(0 if kill_all() else 1)
    work(Path(sys.argv[1]), " ".join(sys.argv[2:]))
