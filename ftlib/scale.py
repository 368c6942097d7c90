"""
Beyond one machine: the same training in several processes, and how to launch it.

A pass's rows are shared between the processes, so a step trains on the rows that it
would train on alone. What the tests prove, with two processes on a CPU: the same
losses, equal adapters, one writer, resuming, and the end of a process whose neighbour
failed. What only a cluster can prove: that FSDP and ZeRO-3 run there with the versions
installed, how fast, and in how much memory. Each process loads the model whole before
it is shared out, so that the model must fit one GPU; several machines need a folder
that all of them see.
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ftlib.config import ROOT, RunConfig
from ftlib.store import hash_file, read_json, read_jsonl, write_json, write_jsonl

HASHES = "exported.json"
"""The file with the SHA-256 of each file written, by which a changed one is seen."""
Row = dict[str, list[int]]
"""One example, tokenised: ``input_ids`` and ``labels``, of equal length."""
_FSDP = {
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_state_dict_type": "FULL_STATE_DICT",
    # Each process loads the same weights: none are sent before the start.
    "fsdp_cpu_ram_efficient_loading": False,
}
# In 4 bits, frozen and trained weights, of two types, lie in pieces of their own.
_FSDP1 = {"fsdp_use_orig_params": False, "fsdp_sync_module_states": False}
_ZERO3 = {"zero_stage": 3, "zero3_init_flag": False, "zero3_save_16bit_model": True}
WAYS: dict[str, dict[str, Any]] = {
    "ddp": {"distributed_type": "MULTI_GPU"},
    "fsdp1": {
        "distributed_type": "FSDP",
        "fsdp_config": {"fsdp_version": 1} | _FSDP | _FSDP1,
    },
    "fsdp2": {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2} | _FSDP},
    "zero3": {
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {"gradient_clipping": 1.0} | _ZERO3,
    },
}
"""What accelerate is told of each way to share the work, under its own names."""
_ABOUT = {
    "ddp": "DDP: each process holds the whole model and takes its share of the rows.",
    "fsdp1": "FSDP1 for QLoRA: 4-bit weights are shared out too, in the type of\n"
    "# the other weights (bnb_4bit_quant_storage), as ftlib.models does under FSDP.",
    "fsdp2": "FSDP2: weights, gradients and optimizer are shared out; not in 4 bits.",
    "zero3": "DeepSpeed ZeRO-3: shares out as FSDP does; needs the deepspeed package.",
}
_UNTESTED = """
# accelerate reads this file; no GPU of ours has run it. Compare the first losses with
# those of `python train.py`. Each process loads the model whole before sharing it out.
"""
_SKY = """# From the course's root: sky launch --down -i 10 {path}
# Text only: we have not run it. Fetch ~/job/run before the machine goes. Several
# machines need a folder for it that all of them see.
name: fine-tune
workdir: .
file_mounts: # what git ignores is not sent with workdir
  ~/job: {folder}
resources:
  accelerators: L4:{n}
setup: pip install -e .
run: torchrun --nproc-per-node {n} ~/job/train.py
"""
_TRAIN = '''"""
Train as the notebook did: alone, or as one of several processes.

    python train.py                         # alone
    torchrun --nproc-per-node {n} train.py    # {n} processes, a GPU each or on one CPU

Ctrl-C keeps a checkpoint, from which the same line goes on. Tested with two processes
on a CPU; on GPUs compare the first losses with those of one.
"""

import signal
from pathlib import Path

from ftlib import models, scale, training

folder = Path(__file__).resolve().parent
config, train, validation = scale.load(folder)
model = models.make_trainable(models.load_base(config), config)
tokenizer = models.load_tokenizer(config)
run = training.Run(model, tokenizer, train, validation, config, folder / "run")
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, lambda *_: run.stop())
progress = run.start(resume=True).wait()
scale.join_processes().print(progress.status, "after step", progress.step)
'''


def join_processes() -> PartialState:
    """
    Join the other processes of this run, if a launcher started several.

    Returns
    -------
    accelerate.PartialState
        Which process this is, of how many.

    Examples
    --------
    >>> join_processes().is_main_process
    True
    """
    # Unless it is told of the CPU, accelerate joins processes on GPUs alone.
    return PartialState(cpu=not torch.cuda.is_available())


def share_batch(config: RunConfig, n_processes: int) -> int:
    """
    Give the rows of a pass that each process takes: a step's rows stay the same.

    Parameters
    ----------
    config : RunConfig
        Whose ``per_device_train_batch_size`` is shared.
    n_processes : int
        Processes that train together.

    Returns
    -------
    int
        The rows of one process.

    Raises
    ------
    ValueError
        When there is no process, or they do not share evenly, such as more processes
        than rows.

    Examples
    --------
    >>> share_batch(RunConfig(per_device_train_batch_size=8), 2)
    4
    """
    if n_processes < 1:
        raise ValueError(f"{n_processes} processes train nothing: start one or more")
    n_rows = config.per_device_train_batch_size
    if n_rows % n_processes:
        raise ValueError(
            f"{n_processes} processes cannot share {n_rows} rows evenly: set "
            f"per_device_train_batch_size to a multiple of {n_processes}, or start a "
            f"number of processes that divides {n_rows}"
        )
    return n_rows // n_processes


def _find_objection(config: RunConfig, way: str) -> str | None:
    """Say why settings cannot be trained in a way of sharing, or None."""
    if way not in WAYS:
        return f"there is no way {way!r}: use {', '.join(WAYS)}"
    if way == "ddp":
        return None
    if way == "fsdp2" and config.load_in_4bit:
        return (
            "FSDP2 cannot share out 4-bit weights: stored as uint8 it crashes or loses "
            "their scales, so that accelerate leaves them whole (its issue 3983), and "
            "as bfloat16 it fails where FSDP1 does not (its issue 3874): use fsdp1 or "
            "zero3, or set load_in_4bit=False"
        )
    if way == "fsdp1" and not config.load_in_4bit:
        return "fsdp1 is here for 4-bit weights alone: use fsdp2"
    if config.method not in ("lora", "rslora", "full"):
        return f"{way} is not known to share out {config.method}: use ddp, or lora"
    if config.speed == "fast":
        return f"{way} is not known to go with fast: use ddp, or set speed='safe'"
    if config.kl_weight:
        return f"{way} leaves no base model to ask: use ddp, or set kl_weight=0"
    return None


def _find_fault(row: Any) -> str | None:
    """Say why something is no row to train on, or None."""
    is_row = isinstance(row, Mapping)
    ids, labels = (is_row and row.get(name) for name in ("input_ids", "labels"))
    if isinstance(ids, list) and isinstance(labels, list) and len(ids) == len(labels):
        return None
    return "input_ids and labels of one length are wanted: encode the examples first"


def _read_rows(given: Sequence[Row] | str | Path, name: str) -> list[Row]:
    """Give the rows of a file, or those given as `name`; the first bad one is named."""
    if isinstance(given, str | Path):
        rows, bad_rows = read_jsonl(given, _find_fault)
        if bad_rows:
            raise ValueError(f"{given}, line {bad_rows[0].row}: {bad_rows[0].reason}")
        return rows
    for i, row in enumerate(given, 1):
        if fault := _find_fault(row):
            raise ValueError(f"{name}, row {i}: {fault}")
    return list(given)


def _name(path: str | Path) -> str:
    """Name a path from the course's root where it lies in there, else whole."""
    full = Path(path).resolve()
    return (full.relative_to(ROOT) if full.is_relative_to(ROOT) else full).as_posix()


def load(folder: str | Path) -> tuple[RunConfig, list[Row], list[Row]]:
    """
    Join the other processes, if there are any, and read what `export` wrote.

    Parameters
    ----------
    folder : path
        Where `export` wrote to.

    Returns
    -------
    tuple of RunConfig, list of dict and list of dict
        The settings, and the rows of training and of validation.

    Raises
    ------
    ValueError
        When these processes cannot share the run, or a row is none.
    """
    way = "ddp"
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        way = "zero3"
    elif parse_flag_from_env("ACCELERATE_USE_FSDP"):
        way = f"fsdp{os.environ.get('FSDP_VERSION', '1')}"
    config = RunConfig(**read_json(Path(folder) / "config.json"))
    if (ROOT / config.model).exists():
        config = config.change(model=str(ROOT / config.model))
    if objection := _find_objection(config, way):
        raise ValueError(objection)
    share_batch(config, join_processes().num_processes)
    train, validation = (
        _read_rows(Path(folder) / f"{name}.jsonl", name)
        for name in ("train", "validation")
    )
    return config, train, validation


def export(
    config: RunConfig,
    folder: str | Path,
    train: Sequence[Row] | str | Path,
    validation: Sequence[Row] | str | Path = (),
    n_processes: int = 2,
    ways: Sequence[str] = (),
) -> list[Path]:
    """
    Write what trains the same run in several processes: a script, its data, its launch.

    Parameters
    ----------
    config : RunConfig
        The settings. A step takes ``rows_per_step`` rows, however many share them. A
        base in a folder outside the course is named by its whole path there.
    folder : path
        Where to. What was written there before is replaced or, for ways left out now,
        removed, unless it was changed.
    train : sequence of dict, or path
        ``input_ids`` and ``labels`` of each example, or a JSONL file of them.
    validation : sequence of dict, or path
        The same for validation; may be empty.
    n_processes : int
        Processes that share the work, one a GPU.
    ways : sequence of str
        Keys of `WAYS`; by default all that the settings allow.

    Returns
    -------
    list of Path
        ``train.py``, its settings and data, ``commands.txt`` with the line that starts
        each way, its YAML for ``accelerate launch``, and ``sky.yaml`` for SkyPilot.

    Raises
    ------
    ValueError
        When the settings cannot be shared in that way or number, or a row is none.
    FileExistsError
        When a file there was changed since it was written; nothing is written then.
    """
    folder = Path(folder)
    share_batch(config, n_processes)
    for way in ways:
        if objection := _find_objection(config, way):
            raise ValueError(objection)
    ways = ways or [way for way in WAYS if not _find_objection(config, way)]
    commands = ["python train.py", f"torchrun --nproc-per-node {n_processes} train.py"]
    commands += [f"accelerate launch --config_file {way}.yaml train.py" for way in ways]
    place = _name(folder)
    sky = shlex.quote(f"{place}/sky.yaml"), json.dumps(place, ensure_ascii=False)
    texts = {
        "train.py": _TRAIN.format(n=n_processes),
        "commands.txt": "\n".join(commands) + "\n",
        "sky.yaml": _SKY.format(path=sky[0], folder=sky[1], n=n_processes),
    } | {f"{way}.yaml": _write_way(config, way, n_processes) for way in ways}
    rows = {
        f"{name}.jsonl": _read_rows(given, name)
        for name, given in (("train", train), ("validation", validation))
    }
    paths = [folder / name for name in [*texts, "config.json", *rows]]
    hashes = read_json(folder / HASHES) if (folder / HASHES).exists() else {}
    changed = [
        path.name
        for path in paths
        if path.exists() and hash_file(path) != hashes.get(path.name)
    ]
    if changed:
        raise FileExistsError(
            f"{', '.join(changed)} in {folder.name} is not as it was written: move it "
            "away, or export to another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / f"{way}.yaml" for way in WAYS if way not in ways):
        if path.exists() and hash_file(path) == hashes.get(path.name):
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    model = _name(config.model) if Path(config.model).exists() else config.model
    write_json(folder / "config.json", config.to_dict() | {"model": model})
    for name, given in rows.items():
        write_jsonl(folder / name, given)
    hashes |= {path.name: hash_file(path) for path in paths}
    write_json(folder / HASHES, hashes)
    return paths


def _write_way(config: RunConfig, way: str, n_processes: int) -> str:
    """Give the text of accelerate's configuration for one way of sharing."""
    settings = WAYS[way] | {
        "compute_environment": "LOCAL_MACHINE",
        "num_machines": 1,
        "machine_rank": 0,
        "num_processes": n_processes,
        "mixed_precision": "bf16",
    }
    if way == "zero3":
        steps = {"gradient_accumulation_steps": config.gradient_accumulation_steps}
        settings["deepspeed_config"] = WAYS[way]["deepspeed_config"] | steps
    return f"# {_ABOUT[way]}{_UNTESTED}" + yaml.safe_dump(settings, sort_keys=False)
