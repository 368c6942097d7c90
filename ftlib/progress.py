"""How far a run is: what a panel shows of it and a test reads, and what it kept."""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

COMPLETE = "complete"  # the file that marks a checkpoint as whole


@dataclass
class Progress:
    """How far a run is; a panel shows it, a test reads it."""

    status: str = "new"
    """new, running, paused, stopped, finished or failed."""
    step: int = 0
    first_step: int = 0
    """The step this start began after: 0, or that of the checkpoint resumed."""
    n_steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    """A row per step: step and loss; validation_loss where it was measured."""
    n_tokens: int = 0
    """Tokens trained on since this start, padding left out."""
    seconds: float = 0.0
    """Seconds of training steps since this start, pauses and validation left out."""
    batch_size: int = 0
    """Rows in one pass; less than the settings say where those did not fit."""
    best_step: int = 0
    """The step whose weights were kept, where the run stops early; 0 elsewhere."""
    effect: float = math.nan
    """The largest change of a logit that the saved adapter makes, when reloaded."""
    error: BaseException | None = None

    @property
    def tokens_per_s(self) -> float:
        """Give the training speed so far."""
        return self.n_tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Give the time that the remaining steps will take at the speed so far."""
        done = self.step - self.first_step
        if done <= 0:
            return math.nan
        return (self.n_steps - self.step) * self.seconds / done


def find_checkpoint(folder: str | Path) -> Path | None:
    """
    Give the last whole checkpoint of a run, or None, and remove torn ones.

    A checkpoint is whole when it has the file ``complete``, which is written last.

    Parameters
    ----------
    folder : path
        The run's folder.

    Returns
    -------
    Path or None
        The checkpoint's folder.
    """
    found = {}
    for path in (Path(folder) / "checkpoints").glob("checkpoint-*"):
        if (path / COMPLETE).exists():
            found[int(path.name.split("-")[-1])] = path
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None
