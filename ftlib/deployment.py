"""Deployment: an adapter merged with proof, exported whole, and refused where unfit."""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, snapshot_download
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedModel

from ftlib import models
from ftlib.archives import refuse_unsafe
from ftlib.colab import load_from_hub
from ftlib.config import ROOT, RunConfig
from ftlib.schema import Message
from ftlib.store import RUN_FILE, hash_file, read_json, write_json
from ftlib.tokens import encode_prompt

MAX_LOGIT_CHANGE = 1e-4
"""In float32 a merge may move a logit by so much: what rounding does."""
BATCH_SIZE = 32
"""Prompts answered at once to prove a merge."""
MANIFEST = "manifest.json"
"""What an exported folder fits, and the SHA-256 of each of its files."""
_TOKENIZER = ("tokenizer*", "*_tokens*.json", "vocab.*", "merges.txt")
_FITS = {"revision": "the commit", "weights": "the weights"}
_FITS |= {"tokenizer": "the tokenizer", "chat_template": "the chat template"}
_BESIDE = ("chat_template.jinja", "generation_config.json")


class MismatchError(ValueError):
    """An exported adapter and what it is to be used with do not belong together."""


@dataclass(frozen=True)
class MergeProof:
    """
    What a merge changed: the largest change of a logit, and of the answers.

    Examples
    --------
    >>> print(MergeProof(2e-6, 40, 40))
    holds: logits move by 2e-06 at most, 40 of 40 answers the same
    """

    largest_logit_change: float
    n_same: int
    n_prompts: int

    @property
    def holds(self) -> bool:
        """
        Say whether the merged model is, but for rounding, the one before.

        Returns
        -------
        bool
            Whether no logit moved by `MAX_LOGIT_CHANGE`, and no answer changed.
        """
        is_near = self.largest_logit_change < MAX_LOGIT_CHANGE
        return is_near and self.n_same == self.n_prompts

    def __str__(self) -> str:
        """Write the proof as text, such as ``holds: logits move by 2e-06 ...``."""
        verdict = "holds" if self.holds else "fails"
        moved = f"logits move by {self.largest_logit_change:.0e} at most"
        return f"{verdict}: {moved}, {self.n_same} of {self.n_prompts} answers the same"


def merge_adapter(
    model: PeftModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int = 96,
) -> tuple[PreTrainedModel, MergeProof]:
    """
    Merge an adapter into its base, and measure what that changes.

    Parameters
    ----------
    model : peft.PeftModel
        The base with its adapter, used up by this. In float32 for a proof that holds:
        ``models.load_adapter(config.change(load_in_4bit=False), folder).float()``.
    tokenizer : transformers tokenizer
        Its tokenizer.
    prompts : sequence of sequence of Message, length n_prompts
        Held-out prompts to answer before and after, greedily.
    max_new_tokens : int
        The longest answer, in tokens.

    Returns
    -------
    tuple of transformers.PreTrainedModel and MergeProof
        The merged model, and whether it answers as before.

    Raises
    ------
    ValueError
        When there is no prompt, or the method has no weights to merge.

    Notes
    -----
    The logits are those of the first token of each answer. Merged into 4-bit weights,
    the sum is rounded to 16 values a block once more, and the outputs change (PEFT's
    issue 2321): the proof says so.
    """
    if not prompts:
        raise ValueError("nothing to prove the merge on: give at least one prompt")
    if not hasattr(model.base_model, "merge_and_unload"):
        raise ValueError("this method adds to no weight: serve it as an adapter")
    model.eval()
    logits, said = _answer(model, tokenizer, prompts, max_new_tokens)
    with warnings.catch_warnings():  # what PEFT only warns of is measured below
        warnings.filterwarnings("ignore", "Merge lora module to")
        merged = model.merge_and_unload()
    logits_after, said_after = _answer(merged, tokenizer, prompts, max_new_tokens)
    moved = float((logits - logits_after).abs().max())
    same = sum(a == b for a, b in zip(said, said_after, strict=True))
    return merged, MergeProof(moved, same, len(prompts))


def _answer(
    model: Any, tokenizer: Any, prompts: Sequence[Any], max_new_tokens: int
) -> tuple[torch.Tensor, list[list[int]]]:
    """Give each prompt's next logits and answer, in the weights' own precision."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    marks = {name: getattr(tokenizer, name) for name in names}
    settings = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, **marks)
    logits, said = [], []
    # The same batches before and after: padding cannot make a difference.
    encoded = sorted((encode_prompt(p, tokenizer) for p in prompts), key=len)
    for start in range(0, len(encoded), BATCH_SIZE):
        rows = {"input_ids": encoded[start : start + BATCH_SIZE]}
        batch = tokenizer.pad(rows, padding_side="left", return_tensors="pt")
        batch = batch.to(model.device)
        with torch.no_grad():
            found = model(**batch, use_cache=False, logits_to_keep=1).logits
            output = model.generate(**batch, generation_config=settings)
        logits.append(found[:, -1].float().cpu())
        said += output[:, batch["input_ids"].shape[1] :].tolist()
    return torch.cat(logits), said


def export_adapter(
    adapter_folder: str | os.PathLike,
    folder: str | os.PathLike,
    config: RunConfig,
    card: str = "",
) -> Path:
    """
    Export an adapter as a folder that has all it takes to use it, and says for what.

    Parameters
    ----------
    adapter_folder : path
        A finished run's adapter, as PEFT saved it.
    folder : path
        Where to; new, empty, or what an earlier export wrote there. Written whole or
        not at all.
    config : RunConfig
        Which base model it was trained on.
    card : str
        The model card as Markdown; by default a short one.

    Returns
    -------
    Path
        The folder: ``adapter_config.json`` with the base model and its revision,
        ``adapter_model.safetensors``, the base's tokenizer, chat template and
        generation settings, ``README.md``, and ``manifest.json`` with hashes.

    Raises
    ------
    ValueError
        When the run is not finished, trained no adapter, or left weights that are no
        numbers.
    MismatchError
        When the run was made on another base.
    FileExistsError
        When the folder holds something else, which would be lost.

    Notes
    -----
    A base in the course's folder is named from there, as ``data/wren``, one elsewhere
    by its last part: no path of this computer is published.
    """
    adapter_folder, folder = Path(adapter_folder), Path(folder)
    source, manifest = _describe_base(config)
    _check_adapter(adapter_folder, manifest)
    _refuse_loss(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=folder.parent) as made:
        draft = Path(made) / "new"
        draft.mkdir()
        for pattern in (*_TOKENIZER, *_BESIDE):
            for file in source.glob(pattern):
                shutil.copyfile(file, draft / file.name)
        weights = "adapter_model.safetensors"
        shutil.copyfile(adapter_folder / weights, draft / weights)
        settings = read_json(adapter_folder / "adapter_config.json")
        settings["base_model_name_or_path"] = manifest["base"]
        settings["revision"] = manifest["revision"]
        if isinstance(settings.get("target_modules"), list):
            settings["target_modules"].sort()  # a set's order is another each time
        write_json(draft / "adapter_config.json", settings)
        _write_card(draft / "README.md", card, manifest["base"])
        write_json(draft / MANIFEST, manifest | {"files": _hash_files(draft, "*")})
        refuse_unsafe(draft)
        old = Path(made) / "old"
        if folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    return folder


def check_export(folder: str | os.PathLike, config: RunConfig) -> None:
    """
    Refuse an exported adapter that does not fit the base model, or was changed.

    Parameters
    ----------
    folder : path
        What `export_adapter` wrote.
    config : RunConfig
        Which base model it is to be used on.

    Raises
    ------
    MismatchError
        Naming what differs: the base's weights, its tokenizer or chat template, or a
        file of the folder.
    UnsafeError
        When the folder holds pickles or code, as `archives.refuse_unsafe` says.
    """
    folder = Path(folder)
    refuse_unsafe(folder)
    kept, now = _read_manifest(folder, MismatchError), _describe_base(config)[1]
    differs = [word for key, word in _FITS.items() if kept.get(key) != now[key]]
    if differs:
        raise MismatchError(
            f"{folder.name} does not fit {now['base']}: {' and '.join(differs)} differ "
            f"from those of {kept['base']}, revision {kept.get('revision')}, that "
            "it was exported for"
        )
    files = kept["files"]
    changed = [
        name
        for name in sorted({*files, "adapter_config.json", "adapter_model.safetensors"})
        if Path(name).name != name
        or not (folder / name).is_file()
        or hash_file(folder / name) != files.get(name)
    ]
    if changed:
        raise MismatchError(
            f"{folder.name} was changed since its export, in {', '.join(changed)}: "
            "export the adapter anew"
        )
    named = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if named != kept["base"]:
        raise MismatchError(
            f"{folder.name} names {named!r:.80} as its base and was made for "
            f"{kept['base']}: export the adapter anew"
        )


def load_export(folder: str | os.PathLike, config: RunConfig) -> tuple[PeftModel, Any]:
    """
    Load an exported adapter on its base, once `check_export` has nothing against it.

    Parameters
    ----------
    folder : path
        What `export_adapter` wrote.
    config : RunConfig
        Which base model, and how to hold it.

    Returns
    -------
    tuple of peft.PeftModel and transformers tokenizer
        Ready to answer.

    Raises
    ------
    MismatchError
        When they do not belong together.
    """
    check_export(folder, config)
    return models.load_adapter(config, folder), models.load_tokenizer(config)


def load_adapters(
    config: RunConfig, folders: Mapping[str, str | os.PathLike]
) -> PeftModel:
    """
    Load several adapters on one base, to switch between them or to mix in a batch.

    Parameters
    ----------
    config : RunConfig
        Which base model, and how to hold it.
    folders : mapping of str to path, length n_adapters
        Where each adapter is, by the name it is to have.

    Returns
    -------
    peft.PeftModel
        The first adapter is active: ``set_adapter(name)`` switches, and
        ``generation.generate(..., adapter_names=...)`` has one a prompt.

    Raises
    ------
    ValueError
        When there is no adapter, or a name holds a point, which PEFT refuses.
    MismatchError
        When a folder is an export, and `check_export` has something against it.
    """
    if not folders or any("." in name or not name for name in folders):
        raise ValueError("give each adapter a name without a point, at least one")
    for folder in [f for f in folders.values() if (Path(f) / MANIFEST).exists()]:
        check_export(folder, config)
    (first, folder), *others = folders.items()
    model = models.load_adapter(config, folder, name=first)
    for name, folder in others:
        models.add_adapter(model, folder, name)
    return model


def _describe_base(config: RunConfig) -> tuple[Path, dict[str, Any]]:
    """Give the folder of a base's small files, and what identifies the base."""
    name, source, revision, weights = config.model, Path(config.model), None, {}
    if source.is_dir():
        source = source.resolve()
        weights = _hash_files(source, "config.json", "*.safetensors")
        is_ours = source.is_relative_to(ROOT)
        name = source.relative_to(ROOT).as_posix() if is_ours else source.name
    else:  # of the hub: the snapshot's folder is named by the commit, which says all
        wanted: dict[str, Any] = {"revision": config.revision}
        wanted["allow_patterns"] = ["config.json", *_TOKENIZER, *_BESIDE]
        found = load_from_hub(snapshot_download, name, **wanted)
        source, revision = Path(found), Path(found).name
    template = models.load_tokenizer(config).chat_template
    return source, {
        "base": name,
        "revision": revision,
        "weights": weights,
        "tokenizer": _hash_files(source, *_TOKENIZER),
        "chat_template": hashlib.sha256(str(template).encode()).hexdigest(),
    }


def _hash_files(folder: Path, *patterns: str) -> dict[str, str]:
    """Give the hash of each file of some names, by name."""
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    return {file.name: hash_file(file) for file in sorted(files)}


def _check_adapter(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse what is no finished adapter for the base of a manifest."""
    refuse_unsafe(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds no adapter: a whole model needs no export")
    run_file = folder.parent / RUN_FILE
    run = read_json(run_file) if run_file.is_file() else {}
    if run.get("status", "finished") != "finished":
        raise ValueError(
            f"the run of {folder} is {run['status']}, not finished: resume it first"
        )
    inputs = run.get("inputs", {}).items()  # the base's weights, unless of the hub
    base = {digest for path, digest in inputs if path.endswith("model.safetensors")}
    if not base <= set(manifest["weights"].values()):
        raise MismatchError(
            f"the adapter of {folder.parent.name} was trained on other weights than "
            f"those of {manifest['base']} now: give the config of its run"
        )
    for name, weight in load_file(folder / "adapter_model.safetensors").items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} is not all numbers: train anew, at a lower rate")


def _read_manifest(folder: Path, error: type[Exception]) -> dict[str, Any]:
    """Read what an export says of itself; `error` where it is not an export's."""
    try:
        kept = read_json(folder / MANIFEST)
        return kept | {"base": kept["base"], "files": {**kept["files"]}}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise error(
            f"{folder} has no {MANIFEST} of an export: export into a new folder"
        ) from None


def _refuse_loss(folder: Path) -> None:
    """Refuse to write over anything but an unchanged export."""
    manifest = folder / MANIFEST
    kept = _read_manifest(folder, FileExistsError)["files"] if manifest.exists() else {}
    for file in folder.iterdir() if folder.exists() else []:
        is_ours = file.is_file() and hash_file(file) == kept.get(file.name)
        if file != manifest and not is_ours:
            raise FileExistsError(
                f"{folder} holds {file.name}, which no export wrote: name a new folder"
            )


def _write_card(path: Path, card: str, base: str) -> None:
    """Write a model card whose metadata name the base, whatever the text."""
    text = card or (
        f"# An adapter for {base}\n\nLoad it with PEFT on the base model named above, "
        f"whose hashes are in `{MANIFEST}`.\n"
    )
    if not text.startswith("---"):
        text = f"---\n{ModelCardData(base_model=base).to_yaml()}\n---\n{text}"
    found = ModelCard(text, ignore_metadata_errors=True)
    found.data.base_model, found.data.base_model_relation = base, "adapter"
    found.data.library_name, found.data.pipeline_tag = "peft", "text-generation"
    found.save(path)
