"""Colab: checkpoints that outlive the machine, and a token only for a gated model."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import RepositoryNotFoundError

from ftlib.progress import COMPLETE
from ftlib.store import RUN_FILE, RUNS

DRIVE = Path("/content/drive/MyDrive")  # is there when Drive is mounted
KEPT = "fine-tuning-course"  # our folder in it


def copy_checkpoint(checkpoint: str | os.PathLike) -> Path | None:
    """
    Copy a whole checkpoint, and its run's settings, to Drive when Drive is mounted.

    It gets its name when it is whole, and then those before it go. A failure is a
    warning: training goes on.

    Parameters
    ----------
    checkpoint : path
        A folder ``RUN/checkpoints/checkpoint-N``, the run being one of ``runs/``.

    Returns
    -------
    Path or None
        The copy; None without Drive, or when it could not be made.
    """
    checkpoint = Path(checkpoint)
    kept = _find_kept(checkpoint.parents[1])
    if not kept:
        return None
    draft, copy = kept / f".{checkpoint.name}.part", kept / checkpoint.name
    try:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(checkpoint, draft)
        shutil.copy(checkpoint.parents[1] / RUN_FILE, draft)
        # An earlier run's checkpoint of this name.
        shutil.rmtree(copy, ignore_errors=True)
        draft.rename(copy)
        for other in kept.glob("checkpoint-*"):
            if other != copy:
                shutil.rmtree(other)
    except OSError as error:
        warnings.warn(
            f"{checkpoint.name} was not copied to Drive ({error}): make room there; "
            "training goes on",
            stacklevel=2,
        )
        return None
    return copy


def fetch_checkpoint(folder: str | os.PathLike) -> Path | None:
    """
    Bring a run's newest whole checkpoint back from Drive, on a machine without one.

    Parameters
    ----------
    folder : path
        The run's folder, one of ``runs/``. What it holds already stands.

    Returns
    -------
    Path or None
        The checkpoint's folder; None when nothing was brought.
    """
    folder = Path(folder)
    kept = _find_kept(folder)
    if not kept or (folder / RUN_FILE).exists():
        return None
    whole = [p.parent for p in kept.glob(f"checkpoint-*/{COMPLETE}")]
    if not whole:
        return None
    newest = max(whole, key=lambda path: (path / COMPLETE).stat().st_mtime)
    fetched = folder / "checkpoints" / newest.name
    # Its mark comes last: without it, the checkpoint is a torn one.
    last = shutil.ignore_patterns(COMPLETE, RUN_FILE)
    shutil.copytree(newest, fetched, ignore=last, dirs_exist_ok=True)
    shutil.copy(newest / COMPLETE, fetched)
    shutil.copy(newest / RUN_FILE, folder)
    return fetched


def _find_kept(folder: Path) -> Path | None:
    """Give the place of a run in Drive, None when there is no Drive or no such run."""
    if not DRIVE.is_dir() or not folder.resolve().is_relative_to(RUNS.resolve()):
        return None
    return DRIVE / KEPT / folder.resolve().relative_to(RUNS.resolve())


def load_from_hub(load: Callable[..., Any], name: str, **settings: Any) -> Any:
    """
    Load a model or tokenizer; on Colab, with the user's token only when one is needed.

    The hub's library would ask for Colab's secret ``HF_TOKEN`` at any download.

    Parameters
    ----------
    load : callable
        A ``from_pretrained``.
    name : str
        A hub id or a folder.
    **settings : Any
        Passed on.

    Returns
    -------
    Any
        What `load` gives.

    Raises
    ------
    PermissionError
        When the hub keeps the model from whoever sends no token, and there is none.
    """
    if "COLAB_RELEASE_TAG" not in os.environ:
        return load(name, **settings)
    try:
        return load(name, token=False, **settings)
    except OSError as error:
        refused = (error, error.__cause__)
        if not any(isinstance(each, RepositoryNotFoundError) for each in refused):
            raise
        if not get_token():  # on Colab it asks for the secret
            raise PermissionError(
                f"the hub does not give {name} to everyone: check its spelling, accept "
                "its terms on its page, and put a token of yours into Colab's secrets "
                "(the key on the left) as HF_TOKEN"
            ) from error
    return load(name, token=True, **settings)
