"""The machine: its threads and its memory, given back when they are not needed."""

import ctypes
import sys
from pathlib import Path

import torch


def release_threads() -> None:
    """
    Let go of this thread's OpenMP workers, before another thread computes.

    PyTorch's OpenMP on Linux (libgomp) keeps workers for each Python thread that has
    computed. Once they outnumber the cores they sleep after every operation: training
    in the background took 1.45 times as long on two cores. They come back by
    themselves when this thread computes again.
    """
    folder = Path(torch.__file__).parent / "lib"
    for path in folder.glob("libgomp*.so*"):  # none where another OpenMP is used
        ctypes.CDLL(str(path)).omp_pause_resource_all(2)  # 2 is omp_pause_hard


def release_memory() -> None:
    """
    Give the system back what freed tensors took.

    Linux's C library keeps it in pieces between what is still held, and training and
    answering in turns pile it up: lesson 01 held 2.3 GB in the end, and 1.6 with this.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
