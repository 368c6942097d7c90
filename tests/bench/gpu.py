"""
How fast ftlib trains on one GPU, beside what else there is, on the same work.

``python -m tests.bench.gpu`` on a machine with CUDA runs each contender in a process of
its own and writes a line of JSON for each to ``runs/bench/gpu/MODEL/DATA/TOKENS``, a
``summary.json`` and a table. What has a result is not run again unless ``--again``, so
that the work may be cut up: ``--models``, ``--data``, ``--tokens-per-step`` and
``--contenders`` choose a part, by names parted by commas. ``--rehearse`` runs two tiny
layers on a CPU in under three minutes, to see that it works: no speed there means
anything, and it is written to ``runs/bench/gpu/rehearsal``.

Before a contender is timed it must pass `tests.parity`; no speed is written of
one that does not. TRL, Liger and Unsloth are optional.
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "runs" / "bench" / "gpu"
MODELS = {
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
}
DATA = {"D1": "all rows of full length", "D2": "log-normal lengths"}
LENGTH, MEDIAN, SIGMA = 2_048, 300, 0.8
PASS_TOKENS = 8_192  # in one forward and backward pass, so that the logits fit
TINY = 32  # a rehearsal divides lengths and tokens by it
WARM_UP, TIMED = 5, 20
R = ALPHA = 16
NOTE = "rehearsal: no speed here means anything"
MEASURED = "measured"


@dataclass(frozen=True)
class Contender:
    """One way to train: what it is, the packages it needs, and what is set."""

    about: str
    needs: tuple[str, ...] = ()
    levels: tuple[str, ...] | None = None
    """ftlib's levels; None where the contender is not ftlib."""
    every: int = 0
    """ftlib's ``gradient_checkpointing``."""


CONTENDERS = {
    "C_ceilings": Contender("matrix products and copies, nothing else"),
    "P0": Contender("PEFT, prepare_model_for_kbit_training and Trainer, padded"),
    "P1": Contender("TRL SFTTrainer, defaults", ("trl", "datasets")),
    "P2": Contender("TRL with packing", ("trl", "datasets")),
    "P3": Contender("TRL with packing, Liger", ("trl", "datasets", "liger_kernel")),
    "P4": Contender("Unsloth, its checkpointing", ("unsloth", "trl", "datasets")),
    "P5": Contender("Unsloth, no checkpointing", ("unsloth", "trl", "datasets")),
    "F_safe": Contender("ftlib, safe", levels=()),
    "F_packing": Contender("ftlib, packs only", levels=("packing",)),
    "F_liger": Contender("ftlib, Liger only", ("liger_kernel",), ("liger",)),
    "F_kept_layers": Contender("ftlib, layers kept", levels=("kept_layers",)),
    "F_safe_all": Contender("ftlib, safe, every layer again", levels=(), every=1),
    "F_lora_first": Contender(
        "ftlib, LoRA first, every layer again", levels=("lora_first",), every=1
    ),
    "F_fast": Contender(
        "ftlib, fast", levels=("packing", "lora_first", "kept_layers", "liger")
    ),
    "F_fast_all": Contender(
        "ftlib, fast, every layer again",
        levels=("packing", "lora_first", "kept_layers", "liger"),
        every=1,
    ),
    "C_bf16": Contender("bf16 LoRA on Trainer, nothing in 4 bits"),
}
"""All there are, in the order they run in."""


@dataclass(frozen=True)
class Work:
    """What every contender is given: a model, data, and how much a step takes."""

    model: str
    data: str
    tokens_per_step: int
    is_rehearsal: bool = False

    @property
    def length(self) -> int:
        """Give the longest row, in tokens."""
        return LENGTH // (TINY if self.is_rehearsal else 1)

    @property
    def steps(self) -> tuple[int, int]:
        """Give the warm-up steps and the timed ones."""
        return (1, 3) if self.is_rehearsal else (WARM_UP, TIMED)

    @property
    def root(self) -> Path:
        """Give where this run of the bench writes to."""
        return RESULTS / "rehearsal" if self.is_rehearsal else RESULTS

    @property
    def folder(self) -> Path:
        """Give where results on this work are."""
        return self.root / self.model / self.data / str(self.tokens_per_step)

    @property
    def model_folder(self) -> Path:
        """Give where the model lies, in NF4."""
        return self.root / "models" / self.model

    @property
    def reference_file(self) -> Path:
        """Give where the step that the gates ask for is kept."""
        return self.model_folder.with_name(f"{self.model}-reference.pt")


# --- the work ----------------------------------------------------------------------


def draw_lengths(work: Work, n_rows: int, seed: int = 0) -> list[int]:
    """Give the rows' lengths: all of full length, or log-normal and cut there."""
    import numpy as np

    if work.data == "D1":
        return [work.length] * n_rows
    median = MEDIAN * work.length / LENGTH
    drawn = np.random.default_rng(seed).lognormal(math.log(median), SIGMA, n_rows)
    return [int(n) for n in np.clip(drawn.round(), 4, work.length)]


def make_rows(lengths: Iterable[int], vocab_size: int, seed: int = 0) -> list[dict]:
    """Give rows of random tokens, the last two thirds of each supervised."""
    import numpy as np

    draw, rows = np.random.default_rng(seed + 1), []
    for n in lengths:
        ids = draw.integers(16, vocab_size, n).tolist()
        prompt = max(1, n // 3)
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def plan_step(work: Work, lengths: Sequence[int]) -> tuple[int, int]:
    """Give the rows of a pass and the passes of a step, about `tokens_per_step`."""
    limit = PASS_TOKENS // (TINY if work.is_rehearsal else 1)
    n_passes = max(1, work.tokens_per_step // limit)
    n_rows = work.tokens_per_step / statistics.mean(lengths)
    return max(1, round(n_rows / n_passes)), n_passes


def give_architecture(work: Work) -> Any:
    """Give the model's config; of a rehearsal two narrow layers of the same kind."""
    from transformers import AutoConfig

    known = json.loads((ROOT / "data" / "architectures.json").read_text("utf-8"))
    settings = known[MODELS[work.model]]["config"]
    if work.is_rehearsal:
        settings = settings | {
            "vocab_size": 3_072,  # Wren's, whose tokenizer is used
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
        }
    return AutoConfig.for_model(**settings)


def save_model(work: Work) -> None:
    """Draw the model's weights, seeded, and keep them in NF4 with double quantising."""
    if (work.model_folder / "config.json").exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from ftlib import config, models

    draft = work.model_folder.with_name(f".{work.model}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    torch.manual_seed(0)
    with torch.device(models.pick_device()):
        plain = AutoModelForCausalLM.from_config(
            give_architecture(work), dtype=torch.bfloat16
        )
    plain.save_pretrained(draft / "bf16")
    del plain
    model = AutoModelForCausalLM.from_pretrained(
        draft / "bf16",
        dtype=torch.bfloat16,
        device_map={"": models.pick_device()},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    )
    model.save_pretrained(draft / "nf4")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(Path(config.WREN) / name, draft / "nf4")
    work.reference_file.unlink(missing_ok=True)  # other weights, another step
    (draft / "nf4").rename(work.model_folder)
    shutil.rmtree(draft)


def load_model(work: Work, is_bf16: bool = False) -> Any:
    """Load the model in NF4, or with what NF4 holds written out in bf16."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM

    from ftlib import models

    model = AutoModelForCausalLM.from_pretrained(
        work.model_folder, dtype=torch.bfloat16, device_map={"": models.pick_device()}
    )
    # A trap of CPUs alone (`models.keep_gradients_right`), and no contender's fault.
    models.keep_gradients_right(model)
    if not is_bf16:
        return model
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear4bit):
            weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            shape = (layer.in_features, layer.out_features)
            plain = torch.nn.Linear(*shape, bias=False, device="meta")
            plain.weight = torch.nn.Parameter(weight.bfloat16(), requires_grad=False)
            owner, _, place = name.rpartition(".")
            setattr(model.get_submodule(owner), place, plain)
    model.config.quantization_config = None
    for name in ("is_quantized", "is_loaded_in_4bit", "hf_quantizer"):
        setattr(model, name, None)
    return model


def make_lora_config() -> Any:
    """Give PEFT's settings: all linear layers, no dropout."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=R,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules="all-linear",
    )


def find_reference(work: Work) -> tuple[list[dict], Any]:
    """Give the gates' fixed rows and the step to take on them, kept once known."""
    import torch
    from peft import get_peft_model

    from ftlib import models
    from ftlib.batches import make_collator
    from tests import parity

    longest = 512 // (TINY if work.is_rehearsal else 1) + 8
    lengths = [longest, longest // 3, longest // 2, longest // 4]
    rows = make_rows(lengths, give_architecture(work).vocab_size, seed=7)
    path = work.reference_file
    if path.exists():
        return rows, tuple(torch.load(path, weights_only=True))
    model = load_model(work, is_bf16=True)
    model = get_peft_model(model, make_lora_config())
    parity.seed_adapter(model)
    batch = make_collator(models.load_tokenizer(make_config(work, 1, 1)))(rows)
    step = parity.take_reference(model, batch)
    torch.save(list(step), path)
    return rows, step


def make_config(work: Work, size: int, n_passes: int, **changes: Any) -> Any:
    """Give ftlib's settings for this work."""
    from ftlib.config import RunConfig

    settings = {
        "model": str(work.model_folder),
        "r": R,
        "lora_alpha": ALPHA,
        "max_length": work.length,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": n_passes,
        "max_steps": sum(work.steps),
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-4,
        "warmup_steps": 0,
    }
    return RunConfig(**(settings | changes))


# --- one contender -----------------------------------------------------------------


def watch(trainer: Any, work: Work, join: Callable, began: float) -> dict[str, Any]:
    """Have a trainer pass the gates when it begins and be timed after; gives a dict."""
    import torch
    from transformers import TrainerCallback

    from tests import parity

    is_cuda = trainer.model.device.type == "cuda"
    found: dict[str, Any] = {"ends": [], "counts": []}
    collate = trainer.data_collator

    def count(items: Any) -> Any:
        batch = collate(items)
        seen = batch.get("attention_mask")
        n_useful = batch["input_ids"].numel() if seen is None else int(seen.sum())
        n_labels = int((batch["labels"][..., 1:] != -100).sum())
        found["counts"].append((n_useful, n_labels, batch["input_ids"].numel()))
        return batch

    class Clock(TrainerCallback):
        """Ask the gates, then note the end of each step."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            start = time.time()
            rows, reference = find_reference(work)
            parity.seed_adapter(trainer.model)
            trainer.data_collator = collate
            found["parity"] = parity.check(trainer, rows, join, reference)
            found["counts"].clear()  # of batches that the gates joined
            if is_cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            found["gate_s"] = time.time() - start

        def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            if is_cuda:
                event = torch.cuda.Event(enable_timing=True)
                event.record()
                found["ends"].append(event)
                if len(found["ends"]) == 1:
                    torch.cuda.synchronize()
            else:
                found["ends"].append(time.perf_counter())
            if len(found["ends"]) == 1:
                found["cold_start_s"] = time.time() - began - found["gate_s"]

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            if is_cuda:
                torch.cuda.synchronize()
                found["peak_allocated"] = torch.cuda.max_memory_allocated()
                found["peak_reserved"] = torch.cuda.max_memory_reserved()

    trainer.data_collator = count
    found["passes"] = trainer.args.gradient_accumulation_steps
    trainer.add_callback(Clock())
    return found


def run_peer(name: str, work: Work, rows: list, began: float) -> dict[str, Any]:
    """Train as a peer does, on rows in their order."""
    if name in ("P4", "P5"):
        import unsloth  # noqa: F401 - it wants to be the first
    import torch
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from ftlib import models
    from ftlib.batches import make_collator

    size, n_passes = plan_step(work, [len(row["input_ids"]) for row in rows])
    settings: dict[str, Any] = {
        "output_dir": str(work.root / "trash"),
        "max_steps": sum(work.steps),
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": n_passes,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "bf16": True,
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    tokenizer = models.load_tokenizer(make_config(work, size, n_passes))
    if name in ("P0", "C_bf16"):
        model = load_model(work, is_bf16=name == "C_bf16")
        if name == "P0":
            model = prepare_model_for_kbit_training(model)
        model.enable_input_require_grads()
        trainer: Any = Trainer(
            model=get_peft_model(model, make_lora_config()),
            args=TrainingArguments(**settings),
            train_dataset=rows,
            data_collator=make_collator(tokenizer),
        )
        join: Callable = trainer.data_collator
    else:
        trainer, join = _make_trl(name, work, rows, settings, tokenizer)
    trainer.remove_callback(PrinterCallback)
    found = watch(trainer, work, join, began)
    trainer.train()
    return found


def _make_trl(
    name: str, work: Work, rows: list, settings: dict, tokenizer: Any
) -> tuple[Any, Callable]:
    """Give TRL's trainer, Unsloth's model in it or not, and what joins rows for it."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer, pack_dataset

    from ftlib import speed

    is_packed = name in ("P2", "P3")
    settings |= {"max_length": work.length}
    if is_packed:
        # A pack is of full length: so many make a pass of the same size.
        n_tokens = work.tokens_per_step / settings["gradient_accumulation_steps"]
        packs = max(1, round(n_tokens / work.length))
        settings |= {"packing": True, "per_device_train_batch_size": packs}
    if name == "P3":
        kernels = {"use_liger_kernel": True, "liger_kernel_config": dict(speed.LIGER)}
        settings |= kernels
    given: dict[str, Any] = {"peft_config": make_lora_config()}
    if name in ("P4", "P5"):
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(
            str(work.model_folder), max_seq_length=work.length, load_in_4bit=True
        )
        modules = [
            f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")
        ]
        model = FastLanguageModel.get_peft_model(
            model,
            r=R,
            lora_alpha=ALPHA,
            lora_dropout=0,
            bias="none",
            target_modules=modules,
            use_gradient_checkpointing="unsloth" if name == "P4" else False,
        )
        settings["gradient_checkpointing"] = name == "P4"
        given = {}
    else:
        model = load_model(work)
        if is_packed and importlib.util.find_spec("flash_attn"):
            model.set_attn_implementation("flash_attention_2")
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **given,
    )
    collate = trainer.data_collator

    def join(chosen: Sequence[dict]) -> Any:
        if not is_packed:
            return collate(list(chosen))
        length = sum(len(row["input_ids"]) for row in chosen)
        packed = pack_dataset(Dataset.from_list(list(chosen)), length)
        return collate([packed[i] for i in range(len(packed))])

    return trainer, join


def run_ftlib(name: str, work: Work, rows: list, began: float) -> dict[str, Any]:
    """Train as the course does, with some of the levels of `ftlib.speed`."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    from ftlib import memory, models, speed, training
    from ftlib.batches import join_packs

    contender = CONTENDERS[name]
    size, n_passes = plan_step(work, [len(row["input_ids"]) for row in rows])
    speed.LEVELS = contender.levels or ()
    config = make_config(
        work,
        size,
        n_passes,
        speed="fast" if contender.levels else "safe",
        gradient_checkpointing=contender.every,
    )
    watched: list[dict] = []

    class Watched(training.CheckedTrainer):
        """The course's trainer, timed; a batch that did not fit begins anew."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            collate, is_packed = self.data_collator, "packing" in speed.LEVELS
            join = (lambda rows: join_packs([rows])) if is_packed else collate
            watched.append(watch(self, work, join, began))

    training.CheckedTrainer = Watched
    model = models.attach_adapter(models.load_base(config), config)
    tokenizer = models.load_tokenizer(config)
    training.fine_tune(model, tokenizer, rows, [], config, work.root / "trash" / name)
    found = watched[-1]
    parts = memory.estimate_memory(give_architecture(work), config)
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    found["estimated_bytes"] = sum(parts.values())
    found["layers_again"] = sum(layer.gradient_checkpointing for layer in layers)
    found["trainers"] = len(watched)  # above 1: memory had to be made
    return found


def measure_ceilings(is_rehearsal: bool) -> dict[str, Any]:
    """Measure how fast bf16 matrices are multiplied and bytes are copied here."""
    import torch

    from ftlib.models import pick_device

    device, n = pick_device(), 256 if is_rehearsal else 8_192
    one, two = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    source = torch.ones(n * n * (1 if is_rehearsal else 8), device=device)
    target = torch.empty_like(source)

    def time_it(work: Callable, n_times: int = 30) -> float:
        taken = []
        for _ in range(n_times):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[5:])

    product_s = time_it(lambda: torch.matmul(one, two))
    copy_s = time_it(lambda: target.copy_(source))
    return {
        "matmul_flop_per_s": 2 * n**3 / product_s,
        "copy_bytes_per_s": 2 * source.nbytes / copy_s,
    }


def count_floor(architecture: Any, length: float) -> float:
    """
    Give the least operations a token of a QLoRA step takes.

    F0 = 4 Nb + 4 Nh + 7 T dA L + 6 Nl: a frozen product is done forward and for the
    gradient of its input; LoRA's for its weights' too; attention, half of it masked,
    is 2 T dA a layer forward and 5 T dA back, as its weights are made again.

    Parameters
    ----------
    architecture : transformers.PretrainedConfig
        Of a Llama or Qwen3: four products of attention and three after it a layer.
    length : float
        Tokens that a token's row has, on average over the tokens.

    Returns
    -------
    float
        Operations a token, an addition and a multiplication being two.
    """
    a, n_layers, wide = architecture, architecture.num_hidden_layers, None
    wide = getattr(a, "head_dim", None) or a.hidden_size // a.num_attention_heads
    queries, keys = wide * a.num_attention_heads, wide * a.num_key_value_heads
    hidden, inner = a.hidden_size, a.intermediate_size
    shapes = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    n_block = n_layers * sum(i * o for i, o in shapes)
    n_lora = n_layers * sum(R * (i + o) for i, o in shapes)
    n_head = hidden * a.vocab_size
    return 4 * n_block + 4 * n_head + 7 * length * queries * n_layers + 6 * n_lora


def run_one(name: str, work: Work, began: float) -> dict[str, Any]:
    """Run one contender in this process and give its result."""
    from ftlib import store
    from ftlib.models import pick_device
    from tests import parity

    result: dict[str, Any] = {
        "contender": name,
        "about": CONTENDERS[name.removesuffix("_again")].about,
        "model": work.model,
        "data": work.data,
        "tokens_per_step": work.tokens_per_step,
        "is_rehearsal": work.is_rehearsal,
        "versions": store.list_versions(),
        "device": _name_device(pick_device()),
        "began": began,
    }
    plain = name.removesuffix("_again")
    if plain == "C_ceilings":
        return result | {"status": MEASURED} | measure_ceilings(work.is_rehearsal)
    vocab_size = give_architecture(work).vocab_size
    few = draw_lengths(work, 200)
    size, n_passes = plan_step(work, few)
    # A third more than the steps take: packs of full length are fuller than rows.
    lengths = draw_lengths(work, 4 + size * n_passes * sum(work.steps) * 4 // 3)
    rows = make_rows(lengths, vocab_size)
    prepared_s = time.time() - began
    run = run_peer if CONTENDERS[plain].levels is None else run_ftlib
    try:
        found = run(plain, work, rows, began)
    except parity.ParityError as error:
        return result | {"status": "parity failed", "parity": error.findings}
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error):
            raise
        return result | {"status": "out of memory", "error": str(error)[:500]}
    mean = sum(n * n for n in lengths) / sum(lengths)
    result["flop_per_token"] = count_floor(give_architecture(work), mean)
    result["prepared_s"] = prepared_s  # of the cold start: some imports, and the rows
    return result | {"status": MEASURED} | summarise(found, work.steps[0])


def _name_device(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def summarise(found: dict[str, Any], n_warm_up: int) -> dict[str, Any]:
    """Give speeds from when steps ended and what their batches held."""
    ends, passes = found.pop("ends"), found["passes"]
    counts = found.pop("counts")
    took, useful, supervised, held = [], [], [], []
    for step in range(n_warm_up, len(ends)):
        before, after = ends[step - 1], ends[step]
        is_event = hasattr(before, "elapsed_time")
        took.append(before.elapsed_time(after) / 1e3 if is_event else after - before)
        of_step = counts[step * passes : (step + 1) * passes]
        for place, to in enumerate((useful, supervised, held)):
            to.append(sum(one[place] for one in of_step))
    speeds = [n / s for n, s in zip(useful, took, strict=True)]
    return found | {
        "step_s": statistics.median(took),
        "useful_tokens_per_s": statistics.median(speeds),
        "supervised_tokens_per_s": statistics.median(
            n / s for n, s in zip(supervised, took, strict=True)
        ),
        "mean_useful_tokens_per_s": sum(useful) / sum(took),
        "quartiles": statistics.quantiles(speeds, n=4) if len(speeds) > 1 else speeds,
        "padding": 1 - sum(useful) / sum(held),
        "timed_steps": len(took),
    }


# --- all of them -------------------------------------------------------------------


def find_missing(name: str, has_cuda: bool) -> str | None:
    """Say why a contender cannot run here, or None."""
    needs = CONTENDERS[name.removesuffix("_again")].needs
    if not all(importlib.util.find_spec(package) for package in needs):
        return "not installed"
    if not has_cuda and {"liger_kernel", "unsloth"} & set(needs):
        return "needs CUDA"
    return None


def list_names(chosen: Sequence[str]) -> list[str]:
    """Give who runs in which order: the first that trains comes again at the end."""
    unknown = sorted(set(chosen) - CONTENDERS.keys())
    if unknown:
        known = ", ".join(CONTENDERS)
        raise ValueError(f"there is no contender {unknown[0]!r}: use {known}")
    names = [name for name in CONTENDERS if name in chosen]
    training = [name for name in names if name != "C_ceilings"]
    return names + [f"{training[0]}_again"] * (len(training) > 1)


def run_all(works: Sequence[Work], names: Sequence[str], again: bool) -> list[dict]:
    """Run each contender on each work in a process of its own, where none has yet."""
    import torch

    results = []
    for work in works:
        for name in names:
            path = work.folder / f"{name}.json"
            if again or not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                missing = find_missing(name, torch.cuda.is_available())
                if missing:
                    _write(path, work, name, missing)
                else:
                    _start(path, work, name)
            results.append(json.loads(path.read_text("utf-8")))
            print(f"{work.model} {work.data} {name}: {results[-1]['status']}")
    shutil.rmtree(works[0].root / "trash", ignore_errors=True)
    return results


def _start(path: Path, work: Work, name: str) -> None:
    """Start one contender's process, and write what went wrong if it writes nothing."""
    # Shapes so small are computed no faster by two threads, which would wait in turn.
    one = {"OMP_NUM_THREADS": "1"} if work.is_rehearsal else {}

    def start(play: str) -> subprocess.CompletedProcess:
        parts = [work.model, work.data, str(work.tokens_per_step), str(time.time())]
        command = [sys.executable, "-m", "tests.bench.gpu", "--one", play, *parts]
        command += ["--rehearse"] if work.is_rehearsal else []
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | one, capture_output=True, text=True
        )

    if name != "C_ceilings" and not (work.model_folder / "config.json").exists():
        start("prepare")  # by itself, or the first contender's start would be slow
    done = start(name)
    if not path.exists():
        _write(path, work, name, "failed", error=done.stderr[-2_000:])


def _write(path: Path, work: Work, name: str, status: str, **more: Any) -> None:
    found = {"contender": name, "model": work.model, "data": work.data}
    found |= {"tokens_per_step": work.tokens_per_step, "status": status} | more
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")


def judge(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give results with their share of the floor, and the drift of those run twice."""
    keys = ("model", "data", "tokens_per_step")

    def find(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        same = (r for r in results if all(r[key] == of[key] for key in keys))
        return next((r for r in same if r["contender"] == name), {})

    judged = []
    for result in map(dict, results):
        speed = result.get("useful_tokens_per_s")
        ceiling = find(result, "C_ceilings").get("matmul_flop_per_s")
        if speed and ceiling:
            result["share_of_floor"] = speed * result["flop_per_token"] / ceiling
        name = result["contender"]
        first = find(result, name.removesuffix("_again")).get("useful_tokens_per_s")
        if name.endswith("_again") and speed and first:
            result["drift"] = speed / first - 1
        judged.append(result)
    return judged


def draw_table(results: Sequence[Mapping[str, Any]], is_rehearsal: bool) -> str:
    """Give the table; of who was not measured it has the status and no number."""
    lines = [NOTE] if is_rehearsal else []
    lines += [
        f"{'contender':16}{'useful/s':>10}{'quartiles':>18}{'superv./s':>11}"
        f"{'floor':>8}{'peak GB':>9}{'held GB':>9}{'est. GB':>9}{'cold s':>8}"
    ]
    title: tuple = ()
    for result in results:
        here = (result["model"], result["data"], result["tokens_per_step"])
        if here != title:
            title = here
            lines.append(f"-- {here[0]}, {here[1]}, {here[2]:,} tokens a step")
        start = f"{result['contender']:16}"
        if result["status"] != MEASURED:
            lines.append(f"{start}{result['status']}")
            continue
        if "matmul_flop_per_s" in result:
            flops, copied = result["matmul_flop_per_s"], result["copy_bytes_per_s"]
            rates = f"{flops / 1e12:,.2f} TFLOP/s, {copied / 1e9:,.1f} GB/s"
            lines.append(start + rates)
            continue
        low, *_, high = result["quartiles"]
        sizes = (
            f"{result[key] / 1e9:9.2f}" if result.get(key) else f"{'-':>9}"
            for key in ("peak_allocated", "peak_reserved", "estimated_bytes")
        )
        share, drift = result.get("share_of_floor"), result.get("drift")
        lines.append(
            f"{start}{result['useful_tokens_per_s']:10,.0f}"
            f"{f'{low:,.0f}-{high:,.0f}':>18}{result['supervised_tokens_per_s']:11,.0f}"
            + (f"{share:8.1%}" if share else f"{'-':>8}")
            + "".join(sizes)
            + f"{result['cold_start_s']:8.1f}"
            + (f"  drift {drift:+.1%}" if drift is not None else "")
        )
    return "\n".join(lines)


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; what is not chosen is all, or little to rehearse."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--models")
    parser.add_argument("--data")
    parser.add_argument("--tokens-per-step")
    parser.add_argument("--contenders")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args(given)
    few = chosen.rehearse
    asked = {
        "models": (chosen.models, ["qwen3-0.6b"] if few else list(MODELS), MODELS),
        "data": (chosen.data, ["D2"] if few else list(DATA), DATA),
        "contenders": (chosen.contenders, list(CONTENDERS), CONTENDERS),
    }
    for name, (text, default, known) in asked.items():
        values = text.split(",") if text else default
        for value in values:
            if value not in known:
                parser.error(f"there is no {value!r}: use {', '.join(known)}")
        setattr(chosen, name, values)
    sizes = chosen.tokens_per_step or ("8192" if few else "2048,8192,32768")
    divisor = TINY if few else 1
    chosen.tokens_per_step = [int(size) // divisor for size in sizes.split(",")]
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    """Run what was chosen, print the table and write it down."""
    chosen = read_arguments(given)
    if chosen.one:
        name, model, data, size, began = chosen.one
        work = Work(model, data, int(size), chosen.rehearse)
        if name == "prepare":
            save_model(work)
            return
        result = run_one(name, work, float(began))
        path = work.folder / f"{name}.json"
        path.write_text(json.dumps(result) + "\n", encoding="utf-8")
        return
    import torch

    if not torch.cuda.is_available() and not chosen.rehearse:
        sys.exit("there is no CUDA here: add --rehearse to try the bench on a CPU")
    works = [
        Work(model, data, size, chosen.rehearse)
        for model in chosen.models
        for data in chosen.data
        for size in chosen.tokens_per_step
    ]
    began = time.perf_counter()
    names = list_names(chosen.contenders)
    results = judge(run_all(works, names, chosen.again))
    print(draw_table(results, chosen.rehearse))
    # Of all that was measured so far, cut up as it may have been.
    root = works[0].root
    paths = sorted(root.glob("*/*/*/*.json"), key=lambda path: path.stat().st_mtime)
    paths = [path for path in paths if path.relative_to(root).parts[0] in MODELS]
    known = judge([json.loads(path.read_text("utf-8")) for path in paths])
    summary = {"note": NOTE if chosen.rehearse else "", "results": known}
    path = root / "summary.json"
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - began:.0f} s; written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
