"""Faults: the twelve classic ones, planted in a small fine-tune, and what says so."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from ftlib import models, tokens, training
from ftlib.config import RunConfig
from ftlib.schema import IGNORE_INDEX, Example, PreflightError, Problem
from ftlib.store import ADAPTER_FOLDER
from ftlib.trainer import NonFiniteLossError

OTHER_TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content }}"
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""ChatML, the template that many tools fall back to."""


class Setup:
    """
    A small fine-tune before its start, in which a fault can be planted.

    Parameters
    ----------
    config : RunConfig
        The settings.
    tokenizer : transformers tokenizer
        One with a chat template; a copy is kept.
    examples : sequence of Example
        What is to be learned.

    Attributes
    ----------
    settings : dict
        Of `config`, and not yet checked.
    rows : list of dict
        The examples, encoded.
    change_model, change_saved : callable
        What befalls the model that is ready to train, and the folder of its adapter
        once saved; at first nothing.
    """

    def __init__(
        self, config: RunConfig, tokenizer: Any, examples: Sequence[Example]
    ) -> None:
        self.settings = config.to_dict()
        self.tokenizer, self.examples = copy.deepcopy(tokenizer), list(examples)
        self.rows = [tokens.encode_example(example, tokenizer) for example in examples]
        self.change_model: Callable[[Any], Any] = lambda model: None
        self.change_saved: Callable[[Path], Any] = lambda folder: None

    def check(self) -> tuple[str, list[Problem]]:
        """
        Go through all checks, as far as training one step and loading it again.

        Returns
        -------
        tuple
            When something was found, and what: ``settings``, ``before training``,
            ``first step``, ``on reload``; or ``never`` and an empty list.
        """
        try:
            config = RunConfig(**self.settings | {"max_steps": 1})
        except ValueError as error:
            return "settings", [_name(error, "settings")]
        problems = tokens.find_problems(
            self.rows, self.examples, self.tokenizer, config.max_length
        )
        if problems:
            return "before training", problems
        model = models.make_trainable(models.load_base(config), config)
        self.change_model(model)
        # On Windows a file stays while a tensor is mapped to it.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                training.fine_tune(model, self.tokenizer, self.rows, [], config, folder)
                if isinstance(model, PeftModel):
                    adapter = Path(folder) / ADAPTER_FOLDER
                    self.change_saved(adapter)
                    models.load_adapter(config, adapter)
            except PreflightError as error:
                return "first step", error.problems
            except NonFiniteLossError as error:
                return "first step", [_name(error, "first step")]
            except models.NoEffectError as error:
                return "on reload", [_name(error, "reload")]
        return "never", []


def _name(error: Exception, where: str) -> Problem:
    """Give an error as a problem; ours say what it is, a colon, what to do."""
    name, _, remedy = str(error).partition(": ")
    return Problem(name, where, remedy)


def _set_pad_to_eos(setup: Setup) -> None:
    setup.tokenizer.pad_token = setup.tokenizer.eos_token


def _ignore_ends(setup: Setup) -> None:
    """Leave the end tokens out of the loss, as a collator does when pad is eos."""
    end = setup.tokenizer.eos_token_id
    for row in setup.rows:
        row["labels"] = [IGNORE_INDEX if i == end else i for i in row["labels"]]


def _double_first(setup: Setup) -> None:
    """Write the first token twice, as a tokenizer does that adds its own."""
    for row in setup.rows:
        row["input_ids"] = row["input_ids"][:1] + row["input_ids"]
        row["labels"] = [IGNORE_INDEX, *row["labels"]]


def _drop_first(setup: Setup) -> None:
    for row in setup.rows:
        row["input_ids"], row["labels"] = row["input_ids"][1:], row["labels"][1:]


def _supervise_all(setup: Setup) -> None:
    for row in setup.rows:
        row["labels"] = list(row["input_ids"])


def _supervise_nothing(setup: Setup) -> None:
    for row in setup.rows:
        row["labels"] = [IGNORE_INDEX] * len(row["labels"])


def _cut(setup: Setup) -> None:
    """Cut each row in the middle of what is supervised, as a length limit may."""
    for row in setup.rows:
        told = [i for i, label in enumerate(row["labels"]) if label != IGNORE_INDEX]
        end = told[len(told) // 2]
        row["input_ids"], row["labels"] = row["input_ids"][:end], row["labels"][:end]


def _change_template(setup: Setup) -> None:
    setup.tokenizer.chat_template = OTHER_TEMPLATE


def _raise_rate(setup: Setup) -> None:
    setup.settings["learning_rate"] *= 100


def _overflow(setup: Setup) -> None:
    """Compute 4-bit layers in float16, on weights as large as some models have."""

    def change(model: Any) -> None:
        for name, module in model.named_modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = torch.float16
            if name.endswith("post_attention_layernorm"):
                module.weight.data *= 1e4

    setup.change_model = change


def _rename_weights(setup: Setup) -> None:
    """Name the saved weights as ``torch.compile`` does, which PEFT does not know."""

    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        weights = {f"_orig_mod.{name}": w for name, w in load_file(path).items()}
        save_file(weights, path)

    setup.change_saved = change


def _freeze(setup: Setup) -> None:
    """Freeze everything, as an adapter is that was loaded to answer with."""
    setup.change_model = lambda model: model.requires_grad_(False)


FAULTS_IN_ROWS: dict[str, Callable[[Setup], None]] = {
    "pad = eos": _set_pad_to_eos,
    "end token unsupervised": _ignore_ends,
    "double BOS": _double_first,
    "no BOS": _drop_first,
    "loss on the prompt": _supervise_all,
    "all labels -100": _supervise_nothing,
    "truncated responses": _cut,
    "wrong template at generation": _change_template,
}
"""What plants a fault in the rows or the tokenizer of a `Setup`, by its name."""
FAULTS = FAULTS_IN_ROWS | {
    "learning rate x100": _raise_rate,
    "fp16 overflow": _overflow,
    "adapter not loaded": _rename_weights,
    "adapter never given gradients": _freeze,
}
"""The twelve classic faults: what plants each in a `Setup`."""
