"""
Parts: what a lesson's seconds go to, told from where its threads are now and then.

`tests.bench.cpu` has a kernel call `watch` when it starts; nothing is wrapped, so what
is measured is what runs.
"""

import atexit
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

EVERY_SECONDS = 0.02
PARTS = {
    "imports": "",
    "data": "canaries cleaning formats records redaction retrieval schema store tokens",
    "models": "archives methods models",
    "training": "scale speed trainer training",
    "evaluation": "batches diagnosis drift forgetting generation leakage scoring",
    "other": "",
}
"""The parts, and the modules and folders of ftlib whose work each is."""


def name_part(files: Iterable[str]) -> str | None:
    """
    Name the part that a thread works at.

    Parameters
    ----------
    files : iterable of str
        The file of each call, the innermost first.

    Returns
    -------
    str or None
        A key of `PARTS`: imports wherever there is one, else that of the innermost call
        in ftlib which has one; None for a thread that is in no call of ours.
    """
    found = None
    for file in files:
        if file.startswith("<frozen importlib"):
            return "imports"
        _, ours, place = file.replace("\\", "/").rpartition("/ftlib/")
        if ours:
            names = place.removesuffix(".py").split("/")[::-1]
            parts = [p for n in names for p in PARTS if n in PARTS[p].split()]
            found = found or next(iter(parts), None)
    return found


def watch(file: str) -> None:
    """
    Watch this process from now on, and write down at its end where its time went.

    Parameters
    ----------
    file : path
        Gets a JSON object of seconds by part, and ``all``, those watched.
    """
    counts: Counter[str] = Counter()
    began = time.perf_counter()

    def look() -> None:
        while True:
            time.sleep(EVERY_SECONDS)
            frames = sys._current_frames()
            found = {
                thread.name: name_part(_list_files(frames[thread.ident]))
                for thread in threading.enumerate()
                if thread.ident in frames and thread is not threading.current_thread()
            }
            # While a run trains in its thread, the cell only waits for it.
            counts[found.get("ftlib-run") or found.get("MainThread") or "other"] += 1

    def write() -> None:
        seconds, n = time.perf_counter() - began, max(counts.total(), 1)
        parts = {part: round(counts[part] / n * seconds, 2) for part in PARTS}
        Path(file).write_text(json.dumps({"all": round(seconds, 2), **parts}), "utf-8")

    atexit.register(write)
    threading.Thread(target=look, name="watch", daemon=True).start()


def _list_files(frame: FrameType | None) -> Iterable[str]:
    """List the file of a call and of those around it."""
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back
