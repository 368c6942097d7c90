"""Methods: PEFT's own configuration of each way to train, from one `RunConfig`."""

import warnings
from typing import Any

import peft
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    PromptTuningInit,
)

from ftlib.config import WHOLE, RunConfig

# PEFT asks a norm for its width as if it were a linear layer, and needs none; a soft
# prompt takes no positions, and needs none where `generate` pads nothing.
warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
warnings.filterwarnings("ignore", "Position ids are not supported", UserWarning)

LAST_LAYERS = 2
"""How many layers the method ``last_layers`` trains, and the final norm with them."""


def make_peft_config(config: RunConfig) -> PeftConfig:
    """
    Give PEFT's configuration for the method of `config`.

    Parameters
    ----------
    config : RunConfig
        Its ``method``, and what that method takes of the rest: ``r`` is the rank of a
        LoRA and the number of virtual tokens of a prefix or a prompt.

    Returns
    -------
    peft.PeftConfig
        For ``peft.get_peft_model``.

    Raises
    ------
    ValueError
        When the method trains the base's own weights, in which PEFT has no part, or
        when the installed PEFT is too old for it.

    Examples
    --------
    >>> make_peft_config(RunConfig(method="rslora")).use_rslora
    True
    """
    if config.method in WHOLE:
        raise ValueError(f"{config.method} attaches nothing: use make_trainable")
    targets: Any = config.target_modules
    targets = targets if isinstance(targets, str) else list(targets)
    if config.method == "ia3":
        return IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )
    if config.method == "ln_tuning":
        return LNTuningConfig(task_type="CAUSAL_LM", target_modules=r".*norm")
    if config.method == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=config.r)
    if config.method == "shadow":
        if not hasattr(peft, "ShadowConfig"):
            raise ValueError("method shadow needs a newer PEFT: pip install -U peft")
        return peft.ShadowConfig(
            task_type="CAUSAL_LM",
            r=config.r,
            shadow_dropout=config.lora_dropout,
            auxiliary_loss_weight=0.0,  # else its loss is another than the rest's
        )
    if config.method == "prompt":
        return PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=config.r,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        use_rslora=config.method == "rslora",
        use_dora=config.method == "dora",
    )
