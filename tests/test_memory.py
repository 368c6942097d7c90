"""Run alone: ``python -m pytest tests/test_memory.py``."""

import json

import pytest
import torch

from ftlib import memory
from ftlib.config import METHODS, WHOLE, WREN, RunConfig, name_knobs

WREN_SHAPE = memory.load_architecture(WREN)
QWEN_8B = memory.load_architecture("Qwen/Qwen3-8B")
# Of Wren, by hand: four attention matrices of 256 x 256, 128, 128 and 256, three of
# 256 x 704 in the MLP; two norms of 256 and two of 64; six layers; a table of 3,072
# tokens, the head with it; and a last norm.
IN_MATRICES = 6 * 737_280
ALL = IN_MATRICES + 6 * 640 + 786_432 + 256
ROTARY = 256  # bytes: 32 frequencies in float32, held twice


def make_config(**changes):
    small = {"per_device_train_batch_size": 2, "max_length": 64}
    return RunConfig.for_profile("laptop", **(small | changes))


def estimate(architecture=WREN_SHAPE, device_type="cpu", **changes):
    return memory.estimate_memory(architecture, make_config(**changes), device_type)


def test_a_model_folder_runs_no_code_of_its_own_for_its_shape(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(
        "from transformers import PretrainedConfig\n"
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
        "class Evil(PretrainedConfig):\n    pass\n"
    )
    settings = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a user who says yes
    with pytest.raises(ValueError, match="trust_remote_code"):
        memory.load_architecture(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_weights_in_16_bits_take_two_bytes_each():
    assert estimate(load_in_4bit=False)["weights"] == 2 * ALL + ROTARY
    # 36 layers of 192,946,432 weights, two tables of 151,936 x 4,096, a norm; and 64
    # frequencies held twice.
    weights = 36 * 192_946_432 + 2 * 622_329_856 + 4_096
    assert weights == 8_190_735_360
    found = estimate(QWEN_8B, load_in_4bit=False)
    assert found["weights"] == 2 * weights + 512
    assert found["constants"] == 0


def test_weights_in_4_bits_take_half_a_byte_and_their_constants():
    found = estimate()
    assert found["weights"] == IN_MATRICES // 2 + 2 * (ALL - IN_MATRICES) + ROTARY
    # A layer's 737,280 weights are 11,520 blocks of 64, a byte each, and these 45
    # blocks of 256, four bytes each; 7 matrices with 16 + 256 + 1 numbers each.
    assert found["constants"] == 6 * (11_520 + 4 * 45 + 7 * 4 * 273)


@pytest.mark.parametrize(
    ("changes", "n_trained", "n_bytes"),
    [
        # r times (256 + 256), twice (256 + 128), (256 + 256), and three times 960.
        ({"r": 16}, 6 * 16 * 4_672, 4),
        ({"r": 4}, 6 * 4 * 4_672, 4),
        # And a length for each row of each matrix: 256 + 128 + 128 + 256 + 1,408 + 256.
        ({"r": 4, "method": "dora"}, 6 * (4 * 4_672 + 2_432), 4),
        # The keys and values of 128, the 704 that go into the last matrix.
        ({"method": "ia3"}, 6 * 960, 4),
        # PEFT holds a copy of a norm as the base holds the norm: in 16 bits.
        ({"method": "ln_tuning"}, 6 * 640 + 256, 2),
        ({"method": "prompt", "r": 8}, 8 * 256, 4),
        # A key and a value of 128 a layer and token.
        ({"method": "prefix", "r": 8}, 8 * 6 * 2 * 128, 4),
    ],
)
def test_the_adapters_bytes_and_twice_that_for_its_optimizer(
    changes, n_trained, n_bytes
):
    found = estimate(**changes)
    assert found["adapter"] == n_bytes * n_trained
    assert found["optimizer"] == 2 * n_bytes * n_trained


def test_whole_methods_hold_all_in_32_bits_and_an_optimizer_for_what_is_trained():
    full = estimate(method="full", load_in_4bit=False)
    assert (full["weights"], full["adapter"]) == (4 * ALL + ROTARY, 0)
    assert full["optimizer"] == 8 * ALL
    last = estimate(method="last_layers", load_in_4bit=False)
    assert last["weights"] == full["weights"]
    assert last["optimizer"] == 8 * (2 * (737_280 + 640) + 256)


def test_the_logits_take_twelve_bytes_a_token_and_word():
    assert estimate()["logits"] == 12 * 3_072 * 2 * 64
    # A prompt's eight tokens have logits too.
    assert estimate(method="prompt", r=8)["logits"] == 12 * 3_072 * 2 * (64 + 8)


def test_a_layer_computed_again_keeps_its_input_alone():
    kept = {n: estimate(gradient_checkpointing=n)["activations"] for n in range(4)}
    inputs = 2 * 64 * 256 * 2  # rows, tokens, width, bytes
    saved = (kept[0] - kept[1]) / 6
    layer = saved + inputs
    # What the rehearsal of one more layer adds, by hand: norms 4 x (256 + 256 + 256 +
    # 128) in float32 and their 8 + 4 x 6 scales; the keys and values widened and the
    # queries, the answer: 2 x 256 each; one input of queries, keys and values, one of
    # gate and up, and that of the last matrix, 2 x (2 x 256 + 704); gate, its SiLU and
    # up 3 x 2 x 704; seven times 2 x 16 of the rank: a token's bytes. And four heads'
    # 64 x 64 weights a row, in float32 and in 16 bits.
    token = 4 * 896 + 32 + 4 * 512 + 2 * 1_216 + 4_224 + 7 * 32
    adapter = 2 * 74_752  # LoRA's matrices as autocast turns them
    assert layer == 128 * token + 2 * 4 * 64 * 64 * (4 + 2) + adapter
    # SDPA keeps a mask of 64 x 64 a row, and 16 a token for its sums, in their place.
    gpu = [
        estimate(device_type="cuda", gradient_checkpointing=n)["activations"]
        for n in (0, 1)
    ]
    assert (gpu[0] - gpu[1]) / 6 == saved - 2 * 64 * 64 * (24 - 2) + 128 * 16
    assert kept[0] - kept[2] == 3 * saved
    assert kept[0] - kept[3] == 2 * saved


def test_gradients_are_there_at_the_peak_when_passes_are_accumulated():
    assert estimate()["gradients"] == 0
    parts = estimate(gradient_accumulation_steps=2)
    assert parts["gradients"] == parts["adapter"] > 0


def test_at_the_optimizers_step_of_a_big_model_there_are_no_activations():
    parts = estimate(QWEN_8B, method="full", load_in_4bit=False)
    assert parts["gradients"] == 4 * 8_190_735_360
    assert (parts["activations"], parts["logits"]) == (0, 0)


def test_a_gpu_adds_its_context_alone():
    # Rows too long for the attention that a CPU trains short ones with.
    cpu, gpu = (estimate(max_length=1024, device_type=one) for one in ("cpu", "cuda"))
    assert (cpu["CUDA context"], gpu["CUDA context"]) == (0, 400_000_000)
    assert cpu | {"CUDA context": 400_000_000} == gpu


def test_estimating_leaves_the_random_numbers_alone():
    memory._rehearse.cache_clear()
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    estimate()
    assert torch.rand(1) == first


def test_every_model_that_ships_has_its_source_and_the_size_in_its_name():
    billions = {}
    for name in memory.ARCHITECTURES:
        parts = estimate(memory.load_architecture(name), load_in_4bit=False)
        billions[name.split("/")[-1]] = round(parts["weights"] / 2e9, 2)
    assert billions == {
        "Qwen3-0.6B": 0.60,
        "Qwen3-1.7B": 1.72,
        "Qwen3-4B": 4.02,
        "Qwen3-8B": 8.19,
        "Llama-3.1-8B-Instruct": 8.03,
    }
    sources = [entry["source"] for entry in memory.ARCHITECTURES.values()]
    assert all(source.startswith("https://") for source in sources)


def test_the_peak_counts_what_is_alive_at_once_and_says_nothing(capfd):
    def run():
        first = torch.empty(30_000_000, dtype=torch.uint8)
        del first
        second = torch.empty(40_000_000, dtype=torch.uint8)
        third = torch.empty(5_000_000, dtype=torch.uint8)
        del second, third

    assert memory._trace_peak(run) == 45_000_000
    assert capfd.readouterr() == ("", "")


def test_the_estimate_is_near_the_measured_peak():
    config = make_config()
    assert sum(estimate().values()) == pytest.approx(
        memory.measure_memory(config), rel=0.1
    )


def test_fifty_megabytes_alive_in_a_step_are_measured(monkeypatch):
    class Hoarder(memory.CheckedTrainer):
        def compute_loss(self, *args, **kwargs):
            self.hoard = None
            self.hoard = torch.ones(12_500_000)
            return super().compute_loss(*args, **kwargs)

    config = make_config(r=4, max_length=32)
    plain = memory.measure_memory(config)
    monkeypatch.setattr(memory, "CheckedTrainer", Hoarder)
    assert memory.measure_memory(config) - plain == pytest.approx(50e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("every", [0, 1])
def test_the_estimate_is_near_the_measured_peak_for_each_method(method, every):
    if method == "prefix" and every:
        pytest.skip("refused by RunConfig: the layers would lose their prefix")
    config = make_config(
        method=method,
        # On a CPU, PEFT's IA3 in 4 bits makes copies that are not estimated.
        load_in_4bit=method not in (*WHOLE, "ia3"),
        gradient_checkpointing=every,
        per_device_train_batch_size=4,
        max_length=160,
    )
    found = memory.estimate_memory(WREN_SHAPE, config, "cpu")
    assert sum(found.values()) == pytest.approx(memory.measure_memory(config), rel=0.1)


def test_the_largest_batch_that_fits_keeps_the_effective_batch():
    config = make_config(per_device_train_batch_size=6, gradient_accumulation_steps=2)

    def needs(size):
        changes = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": 12 // size,
        }
        return sum(estimate(**changes).values())

    for n_bytes, size in ((needs(12), 12), (needs(12) - 1, 6), (needs(4), 4)):
        fitting = memory.fit_batch(WREN_SHAPE, config, n_bytes, "cpu")
        assert fitting == config.change(
            per_device_train_batch_size=size, gradient_accumulation_steps=12 // size
        )


def test_where_not_one_row_fits_the_knobs_are_named_in_order():
    config = make_config(load_in_4bit=False)
    with pytest.raises(ValueError, match="one row takes") as error:
        memory.fit_batch(QWEN_8B, config, memory.CARDS["T4"])
    named = str(error.value).split("choose ")[1].split(", ")
    assert named == [
        "gradient_checkpointing=1",
        "load_in_4bit=True",
        "a smaller max_length",
        "a smaller r",
        "a smaller model",
    ]
    knobs = name_knobs(make_config(method="full", load_in_4bit=False))
    assert "an adapter method such as lora" in knobs
    assert "load_in_4bit" not in knobs
    # What a method refuses, or does not use, is no advice.
    assert "gradient_checkpointing" not in name_knobs(make_config(method="prefix"))
    assert "smaller r" not in name_knobs(make_config(method="ia3"))


def test_an_8b_model_fits_a_4090_in_4_bits_and_not_in_16():
    need = {
        bits: sum(
            memory.estimate_memory(
                QWEN_8B, make_config(load_in_4bit=bits == 4, max_length=512)
            ).values()
        )
        for bits in (4, 16)
    }
    assert need[4] < memory.CARDS["4090"]
    assert need[16] > 16e9
    assert memory.CARDS["my laptop"] > 1e9
