"""
One of two processes that train together, for ``tests/test_scale.py``.

``torchrun --nproc-per-node 2 -m tests.scale_worker FOLDER PLAY`` plays one of the
functions below, and each process writes what it saw to ``FOLDER/PLAY-RANK.json``.
"""

import hashlib
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from peft.utils.other import fsdp_auto_wrap_policy
from torch.distributed.fsdp import FullyShardedDataParallel

from ftlib import models, trainer, training
from ftlib.config import RunConfig
from ftlib.store import write_json

RANK = int(os.environ.get("RANK", 0))
N_STEPS, STOP_AFTER = 5, 3


def make_config(**changes):
    """Give settings of a few steps: two passes of four rows each."""
    settings = {
        "r": 4,
        "learning_rate": 5e-3,
        "load_in_4bit": False,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": N_STEPS,
        "save_steps": 2,
        "eval_steps": 2,
        "seed": 3,
    }
    return RunConfig.for_profile("laptop", **(settings | changes))


def make_rows():
    """Give 11 rows, no two of one length, each with its own share of prompt."""
    return [
        {
            "input_ids": [5 + (i * k) % 300 for i in range(1, 3 * k + 8)],
            "labels": [-100] * 2 * k
            + [5 + (i * k) % 300 for i in range(2 * k + 1, 3 * k + 8)],
        }
        for k in range(1, 12)
    ]


def make_run(folder, config=None):
    """Give a run in float32, where two ways to add up differ by 1e-6 and not 1e-2."""
    models.pick_dtype = trainer.pick_dtype = lambda: torch.float32
    config = config or make_config()
    model = models.attach_adapter(models.load_base(config), config)
    tokenizer = models.load_tokenizer(config)
    rows = make_rows()
    return training.Run(model, tokenizer, rows, rows[:3], config, folder)


def describe(run):
    """Give what a run ended with: its losses, and its adapter's weights as a hash."""
    weights = get_peft_model_state_dict(run.model)
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    history = run.progress.history
    return {
        "status": run.progress.status,
        "step": run.progress.step,
        "losses": [row["loss"] for row in history],
        "validation": [row["validation_loss"] for row in history if len(row) == 3],
        "n_tokens": run.progress.n_tokens,
        "sha256": digest.hexdigest(),
    }


def watch_writes(folder):
    """List the files that this process's Python opens to write under `folder`."""
    written = []

    def watch(event, arguments):
        if event == "open" and isinstance(arguments[1], str):
            path, mode = str(arguments[0]), arguments[1]
            if set(mode) & set("wax+") and path.startswith(str(folder)):
                written.append(path)
        elif event in ("os.rename", "shutil.rmtree") and str(folder) in str(arguments):
            written.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    return written


def play_sharing(folder):
    """Train through; with a pull to the base; fast; stopped and resumed; anew."""
    written = watch_writes(folder)
    run = make_run(folder / "whole")
    run.start().wait()
    seen = {"whole": describe(run)}
    pulled = make_run(folder / "pulled", make_config(kl_weight=0.5, max_steps=2))
    pulled.start().wait()
    seen["pulled"] = describe(pulled)
    fast = make_run(folder / "fast", make_config(speed="fast", max_steps=2))
    fast.start().wait()
    seen["fast"] = describe(fast)
    with stopping_after(STOP_AFTER):
        run = make_run(folder / "stopped")
        run.start().wait()
    seen["stopped"] = describe(run)
    run = make_run(folder / "stopped")
    run.start(resume=True).wait()
    seen["resumed"] = describe(run)
    make_run(folder / "whole", make_config(max_steps=1)).start().wait()
    return seen | {"written": written}


@contextmanager
def stopping_after(step):
    """Stop the run in the second process alone, after a step that saves nothing."""
    end_step = training._Listener.on_step_end

    def stop_first(listener, args, state, control, **kwargs):
        if RANK == 1 and state.global_step == step:
            listener.run.stop()
        end_step(listener, args, state, control, **kwargs)

    training._Listener.on_step_end = stop_first
    yield
    training._Listener.on_step_end = end_step


def play_failing(folder):
    """Let the second process fail in its fourth step, while the first waits for it."""
    run = make_run(folder / "failing")
    take_pass = training.CheckedTrainer.training_step

    def fail(self, *args):
        if RANK == 1 and self.state.global_step == STOP_AFTER:
            raise ZeroDivisionError("planted in the second process")
        return take_pass(self, *args)

    training.CheckedTrainer.training_step = fail
    # As the exported script does: torchrun ends the others in this way.
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    try:
        run.start().wait()
    except Exception as error:
        write_json(folder / f"failing-{RANK}.json", [type(error).__name__, str(error)])
        raise


def play_resumed(folder):
    """Go on where the run that failed left off."""
    run = make_run(folder / "failing")
    run.start(resume=True).wait()
    return describe(run) | {"first_step": run.progress.first_step}


def play_sharded(folder):
    """Let FSDP1 share out QLoRA's weights, with PEFT's rule, as transformers does."""
    torch.distributed.init_process_group("gloo")
    seen = {}
    for flag in ("false", "true"):  # as accelerate's launcher sets it
        os.environ["ACCELERATE_USE_FSDP"] = flag
        config = make_config(load_in_4bit=True)
        model = models.attach_adapter(models.load_base(config), config)
        row = {k: torch.tensor([v]) for k, v in make_rows()[5].items()}
        seen["loss alone"], seen["gradient alone"] = take_gradient(model, row)
        try:
            shared = FullyShardedDataParallel(
                model,
                auto_wrap_policy=fsdp_auto_wrap_policy(model),
                use_orig_params=False,
                device_id=torch.device("cpu"),
            )
        except ValueError as error:
            seen["as uint8"] = str(error)
    pieces = [
        part._flat_param
        for part in FullyShardedDataParallel.fsdp_modules(shared)
        if part._has_params
    ]
    kinds = {True: "trained", False: "frozen"}
    seen["pieces"] = Counter(
        f"{str(piece.dtype)[6:]} {kinds[piece.requires_grad]}" for piece in pieces
    )
    seen["loss"], here = take_gradient(shared, row)
    squares = torch.tensor(here**2)
    torch.distributed.all_reduce(squares)
    return seen | {"gradient": float(squares) ** 0.5}


def take_gradient(model, row):
    """Give the loss of a row and the length of its gradient, and clear that."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**row, use_cache=False).loss
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    length = float(sum((grad.float() ** 2).sum() for grad in grads)) ** 0.5
    model.zero_grad()
    return float(loss.detach()), length


if __name__ == "__main__":
    to, play = Path(sys.argv[1]), sys.argv[2]
    write_json(to / f"{play}-{RANK}.json", globals()[f"play_{play}"](to))
