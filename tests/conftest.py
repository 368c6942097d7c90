"""What all tests share: the network guard, Wren's tokenizer, small models and rows."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

GUARD = str(Path(__file__).resolve().parent / "guard")
sys.path.insert(0, GUARD)

import network_guard  # noqa: E402 - its folder is known from here on

# Before any library that reads them is imported. The guard is on in the processes that
# tests start too, as long as these get our environment: Python imports sitecustomize.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
_log = (Path(tempfile.mkdtemp(prefix="ftlib-tests-")) / "network.jsonl").open("w+b")
os.environ[network_guard.LOG] = _log.name
os.environ["PYTHONPATH"] = os.pathsep.join(
    [GUARD, *filter(None, [os.environ.get("PYTHONPATH")])]
)
network_guard.install()


def take_attempts():
    """Give the attempts to reach the network that were not taken yet, as lines."""
    return _log.read().decode().splitlines()


def _refuse_attempts():
    attempts = take_attempts()
    if attempts:
        pytest.fail("tried to reach the network: " + "; ".join(attempts), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    try:
        return (yield)
    finally:
        _refuse_attempts()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:
        _refuse_attempts()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    try:
        return (yield)
    finally:
        _refuse_attempts()


def pytest_unconfigure(config):
    _log.close()
    shutil.rmtree(Path(_log.name).parent, ignore_errors=True)


def pytest_collection_finish(session):
    attempts = take_attempts()
    if attempts:
        reason = "a test module, when imported, tried to reach the network: "
        pytest.exit(reason + "; ".join(attempts), returncode=1)


@pytest.fixture
def attempts():
    """What takes the attempts made so far off the record: for the guard's own tests."""
    return take_attempts


@pytest.fixture
def open_environment():
    """The environment variables for a process that may use the network, as pip does."""
    kept = dict(os.environ)
    del kept[network_guard.LOG]
    folders = [f for f in kept["PYTHONPATH"].split(os.pathsep) if f != GUARD]
    kept["PYTHONPATH"] = os.pathsep.join(folders)
    return kept


@pytest.fixture(scope="session")
def wren_config():
    """Settings of a run of a few steps on Wren."""
    from ftlib.config import RunConfig

    return RunConfig.for_profile(
        "laptop",
        r=4,
        lora_alpha=8,
        per_device_train_batch_size=2,
        max_steps=4,
        eval_steps=2,
        save_steps=2,
    )


@pytest.fixture(scope="session")
def tokenizer(wren_config):
    """Wren's tokenizer; copy it before changing anything in it."""
    from ftlib import models

    return models.load_tokenizer(wren_config)


@pytest.fixture(scope="session")
def tiny_model(tokenizer):
    """What makes a model of two layers with random weights, for Wren's tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def make(seed=0, **changes):
        settings = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(Qwen3Config(**(settings | changes))).eval()

    return make


@pytest.fixture
def five_examples():
    """Five conversations: plain, with a system message, long, of many turns, JSON."""
    from ftlib.schema import make_example

    return [
        make_example("What is the capital of Italy?", "Rome"),
        make_example("Hello", "Good day.", system="Be formal."),
        make_example("Say it twice: red lamp. " * 6, "red lamp red lamp"),
        make_example("And 2 + 3?", "5", shots=[("What is 1 + 1?", "2")]),
        make_example("user=ana port=22\nWrite as JSON: user", '{"user": "ana"}'),
    ]


@pytest.fixture
def five_rows(five_examples, tokenizer):
    """The five examples, encoded."""
    from ftlib.tokens import encode_example

    return [encode_example(example, tokenizer) for example in five_examples]
