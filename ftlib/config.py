"""One run's settings, checked when they are made, and the three profiles."""

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
WREN = str(ROOT / "data" / "wren")
METHODS = {
    "lora": 0.1,
    "rslora": 0.1,
    "dora": 0.1,
    "ia3": 1.0,
    "ln_tuning": 1.0,
    "prefix": 1.0,
    "prompt": 1.0,
    "shadow": 0.1,
    "last_layers": 0.1,
    "full": 0.1,
}
"""The ways to train, with the learning rate above which each is refused."""
WHOLE = ("last_layers", "full")
"""The methods that change the base model's own weights."""
SPEEDS = ("safe", "fast")
"""How a step is computed: as the libraries do, or by what `ftlib.speed` has."""
UNPACKED = ("prefix", "prompt", "shadow")
"""The methods that need each row by itself: rows joined end to end would share one."""


@dataclass(frozen=True)
class RunConfig:
    """
    The settings of one fine-tuning run, under PEFT's and transformers' own names.

    A contradiction is refused here, before anything is loaded.

    Raises
    ------
    ValueError
        Naming the field and a value that would do.

    Examples
    --------
    >>> RunConfig.for_profile("laptop", r=8).r
    8
    """

    model: str = WREN
    """The base model: a folder, or a hub id such as ``Qwen/Qwen3-0.6B``."""
    revision: str | None = None
    """The commit of a hub model, so that the same weights load next year."""
    load_in_4bit: bool = True
    """Whether the frozen base weights are held in 4-bit NF4: the Q of QLoRA."""
    r: int = 16
    """The rank of the adapter: inner width of each pair of low-rank matrices."""
    lora_alpha: int = 32
    """The adapter's strength: its update is scaled by lora_alpha / r."""
    lora_dropout: float = 0.0
    """The share of the adapter's inputs zeroed at random while training."""
    method: str = "lora"
    """How it is trained: a key of `METHODS`."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Which layers get an adapter: PEFT's ``all-linear``, or layer names."""
    learning_rate: float = 2e-4
    """The peak size of an optimizer step."""
    lr_scheduler_type: str = "cosine"
    """How the learning rate falls after warm-up: transformers' scheduler name."""
    warmup_steps: int = 10
    """Optimizer steps of climbing learning rate; a tenth of the run at most."""
    weight_decay: float = 0.0
    """Pull of the trained weights towards zero, per step and unit of rate."""
    num_train_epochs: float = 3.0
    """Passes over the training examples."""
    max_steps: int = -1
    """Optimizer steps in all; -1 leaves it to num_train_epochs."""
    per_device_train_batch_size: int = 8
    """Examples in one forward and backward pass."""
    gradient_accumulation_steps: int = 1
    """Passes whose gradients are added up before one optimizer step."""
    gradient_checkpointing: int = 0
    """Every n-th layer is computed again in the backward pass, not kept; 0 for none."""
    max_length: int = 512
    """The longest example, in tokens; longer ones are refused, never cut."""
    max_new_tokens: int = 128
    """The longest response that is generated, in tokens."""
    eval_steps: int = 20
    """Optimizer steps between two measurements of the validation loss."""
    save_steps: int = 50
    """Optimizer steps between two checkpoints."""
    early_stopping_patience: int = 0
    """Validations without a better loss before the end; 0 trains on to the end."""
    kl_weight: float = 0.0
    """Pull back to the base model: weight of the KL divergence from it in the loss."""
    speed: str = "safe"
    """How a step is computed: "safe", or "fast", the same rows without padding."""
    seed: int = 0
    """Seed of the adapter's weights, the order of examples and the dropout."""

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if not isinstance(self.target_modules, str):  # a list could not be hashed
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        positive = (
            "r lora_alpha learning_rate num_train_epochs max_length max_new_tokens "
            "per_device_train_batch_size gradient_accumulation_steps eval_steps "
            "save_steps"
        )
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        at_least_zero = (
            "warmup_steps weight_decay kl_weight gradient_checkpointing "
            "early_stopping_patience"
        )
        for name in at_least_zero.split():
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(
                f"lora_dropout is {self.lora_dropout}: give a share from 0 up to 1"
            )
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(
                f"max_steps is {self.max_steps}: give a number of steps, or -1 to go "
                "by num_train_epochs"
            )
        if self.method not in METHODS:
            raise ValueError(
                f"there is no method {self.method!r}: use one of {', '.join(METHODS)}"
            )
        if self.learning_rate > METHODS[self.method]:
            raise ValueError(
                f"learning_rate is {self.learning_rate}: {self.method} never trains "
                f"above {METHODS[self.method]}; LoRA likes 1e-5 to 1e-2"
            )
        if self.load_in_4bit and self.method in WHOLE:
            raise ValueError(
                f"method {self.method} trains weights of the base, which 4-bit ones do "
                "not allow: set load_in_4bit=False"
            )
        if self.method == "prefix" and self.gradient_checkpointing:
            raise ValueError(
                "a layer that is computed again has lost its prefix: set "
                "gradient_checkpointing=0, or choose another method"
            )
        if self.speed not in SPEEDS:
            raise ValueError(f"speed is {self.speed!r}: give {' or '.join(SPEEDS)}")
        if self.speed == "fast" and (self.kl_weight or self.method in UNPACKED):
            cause = "kl_weight" if self.kl_weight else f"method {self.method}"
            raise ValueError(
                f"{cause} needs rows that are padded, not joined: set speed='safe'"
            )
        if self.kl_weight and self.method in WHOLE:
            raise ValueError(
                f"kl_weight needs the base model beside the tuned one, and "
                f"{self.method} changes it: choose an adapter, or set kl_weight=0"
            )

    @classmethod
    def for_profile(cls, profile: str | None = None, **changes: Any) -> Self:
        """
        Give the settings of a profile, with `changes` on top.

        Parameters
        ----------
        profile : {"laptop", "colab", "gpu"}, optional
            By default the environment's ``FTLIB_PROFILE``, or laptop.
        **changes
            Fields to set otherwise.

        Returns
        -------
        RunConfig
            Checked.
        """
        profile = profile or default_profile()
        if profile not in PROFILES:
            raise ValueError(
                f"there is no profile {profile!r}: use one of {', '.join(PROFILES)}"
            )
        return cls(**(PROFILES[profile] | changes))

    def change(self, **changes: Any) -> Self:
        """
        Give a copy with `changes`, checked anew.

        Parameters
        ----------
        **changes
            Fields to set otherwise.

        Returns
        -------
        RunConfig
            The copy.
        """
        return replace(self, **changes)

    def count_steps(self, n_rows: int) -> int:
        """
        Give the optimizer steps of a run on `n_rows` examples.

        Parameters
        ----------
        n_rows : int
            Training examples.

        Returns
        -------
        int
            ``max_steps`` where it is set, else as many as the epochs take.

        Examples
        --------
        >>> RunConfig(num_train_epochs=2, per_device_train_batch_size=8).count_steps(20)
        5
        """
        if self.max_steps > 0:
            return self.max_steps
        return math.ceil(self.num_train_epochs * n_rows / self.rows_per_step)

    @property
    def rows_per_step(self) -> int:
        """
        Give the examples in one optimizer step: the effective batch.

        Returns
        -------
        int
            The batch of one pass times the passes added up.
        """
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def to_dict(self) -> dict[str, Any]:
        """
        Give the fields as a plain dict, for ``run.json``.

        Returns
        -------
        dict
            By field name.
        """
        return asdict(self)


PROFILES: dict[str, dict[str, Any]] = {
    "laptop": {
        "model": WREN,
        "learning_rate": 8e-3,
        "lora_alpha": 64,
        "num_train_epochs": 4.0,
        "max_new_tokens": 96,
        "eval_steps": 30,
    },
    "colab": {
        "model": "Qwen/Qwen3-0.6B",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_length": 1024,
    },
    "gpu": {"model": "Qwen/Qwen3-8B", "max_length": 2048},
}
"""What each profile sets; Wren, being small, wants a larger rate and more passes."""


def default_profile() -> str:
    """
    Give the profile that ``FTLIB_PROFILE`` names, or laptop.

    Returns
    -------
    str
        A key of `PROFILES`, if the environment names one.
    """
    return os.environ.get("FTLIB_PROFILE", "laptop")


def name_knobs(config: RunConfig) -> str:
    """
    Say which settings of `config` to change to save memory, the cheapest first.

    Parameters
    ----------
    config : RunConfig
        The settings that do not fit.

    Returns
    -------
    str
        What is not set already, in the order to try it.

    Examples
    --------
    >>> name_knobs(RunConfig(per_device_train_batch_size=1, gradient_checkpointing=1))
    'choose a smaller max_length, a smaller r, a smaller model'
    """
    whole = config.method in WHOLE
    knobs = {
        "a smaller batch": config.per_device_train_batch_size > 1,
        "gradient_checkpointing=1": config.gradient_checkpointing != 1
        and config.method != "prefix",
        "an adapter method such as lora": whole,
        "load_in_4bit=True": not config.load_in_4bit and not whole,
        "a smaller max_length": True,
        "a smaller r": not whole and config.method not in ("ia3", "ln_tuning"),
        "a smaller model": True,
    }
    return "choose " + ", ".join(knob for knob, helps in knobs.items() if helps)
