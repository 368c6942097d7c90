"""Environment: does this machine have what the course needs, and what to do if not."""

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ftlib.config import ROOT
from ftlib.store import RUNS

NEEDED = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "presidio-analyzer",
    "ipywidgets",
)
FREE_MEMORY_GB, FREE_DISK_GB = 2, 1


def check_environment() -> list[dict[str, Any]]:
    """
    Check what the laptop profile needs, one row a line.

    Returns
    -------
    list of dict
        ``check``, ``found``, ``ok`` ("yes", "no" or "not needed") and ``remedy``, which
        is empty where there is nothing to do.

    Examples
    --------
    >>> [row["check"] for row in check_environment()][0]
    'Python'
    """
    rows = [
        _row(
            "Python",
            sys.version.split()[0],
            sys.version_info >= (3, 11),
            "install Python 3.11 or newer, then `python run.py lab`",
        )
    ]
    for package in NEEDED:
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = "missing"
        rows.append(
            _row(
                package,
                found,
                found != "missing",
                "run `python run.py lab`, not jupyter",
            )
        )
    rows.append(_check_4bit())
    weights = ROOT / "data" / "wren" / "model.safetensors"
    size_mb = weights.stat().st_size / 1e6 if weights.exists() else 0
    rows.append(
        # A Git LFS pointer or a cut download is far smaller than the model.
        _row(
            "Wren's weights", f"{size_mb:.1f} MB", size_mb > 8, "clone the course again"
        )
    )
    rows.append(_check_memory())
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    rows.append(
        _row(
            "free disk",
            f"{free_gb:.0f} GB",
            free_gb > FREE_DISK_GB,
            "free 1 GB of disk",
        )
    )
    rows.append(
        _row(
            "runs/ can be written",
            str(_can_write(RUNS)),
            _can_write(RUNS),
            "move the course to a folder that you may write to",
        )
    )
    rows.append(_check_gpu())
    return rows


def _row(check: str, found: str, is_ok: bool, remedy: str) -> dict[str, Any]:
    ok = "yes" if is_ok else "no"
    return {"check": check, "found": found, "ok": ok, "remedy": "" if is_ok else remedy}


def _check_4bit() -> dict[str, Any]:
    """Put a small matrix into 4 bits and back, as QLoRA does with a whole model."""
    remedy = "reinstall bitsandbytes; on an Intel Mac use load_in_4bit=False"
    try:
        import torch
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        ones = torch.ones(64, 64)
        packed, state = quantize_4bit(ones, quant_type="nf4")
        works = torch.equal(dequantize_4bit(packed, state), ones)
        return _row("4-bit weights", "work" if works else "wrong", works, remedy)
    except Exception as error:  # whatever it is, the table must be shown
        return _row("4-bit weights", f"{type(error).__name__}: {error}", False, remedy)


def _check_memory() -> dict[str, Any]:
    import psutil

    free_gb = psutil.virtual_memory().available / 1e9
    remedy = "close other programs: the course needs 2 GB"
    return _row("free memory", f"{free_gb:.1f} GB", free_gb > FREE_MEMORY_GB, remedy)


def _check_gpu() -> dict[str, Any]:
    import torch

    found = f"none; {os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        found = torch.cuda.get_device_name(0)
    return {"check": "GPU", "found": found, "ok": "not needed", "remedy": ""}


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError:
        return False
    return True
