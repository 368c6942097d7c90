"""Run alone: ``python -m pytest tests/test_gpu_bench.py``."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.bnb import Linear4bit
from transformers import LlamaConfig, TrainerCallback

from ftlib import lesson, models, speed, training
from ftlib.batches import join_packs, make_collator
from ftlib.schema import IGNORE_INDEX
from ftlib.tokens import encode_example
from tests import parity
from tests.bench import gpu


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Four alerts in training form: on text that Wren knows, bfloat16 errs little."""
    examples = lesson.make_triage_examples("train", 4)
    rows = [encode_example(example, tokenizer) for example in examples]
    assert len({len(row["input_ids"]) for row in rows}) > 1
    ids = [row["input_ids"] for row in rows]
    return [{"input_ids": i, "labels": [IGNORE_INDEX] * 4 + i[4:]} for i in ids]


@pytest.fixture(scope="module")
def reference(wren_config, tokenizer, rows):
    """The step of Wren with what NF4 holds written out, LoRA of its own strength."""
    work = SimpleNamespace(model_folder=wren_config.model)
    with pytest.MonkeyPatch.context() as patch:
        load, quantized = gpu.load_model, models.load_base(wren_config)
        patch.setattr(
            "transformers.AutoModelForCausalLM.from_pretrained",
            lambda *args, **kwargs: quantized,
        )
        model = load(work, is_bf16=True)
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=wren_config.r,
            lora_alpha=wren_config.lora_alpha,  # twice r: a scaling that shows
            target_modules="all-linear",
        ),
    )
    assert not any(isinstance(m, Linear4bit) for m in model.modules())
    parity.seed_adapter(model)
    return parity.take_reference(model, make_collator(tokenizer)(rows))


@pytest.fixture
def ask(wren_config, tokenizer, rows, reference, tmp_path, monkeypatch):
    """What asks the gates of a run on Wren, by hand or of one that is broken."""

    def make(spoil=lambda trainer: None, join=None, load=models.load_base, **changes):
        config = wren_config.change(max_steps=1, **changes)
        is_packed = config.speed == "fast"
        found = {}

        class Gate(TrainerCallback):
            def __init__(self, trainer):
                self.trainer = trainer

            def on_train_begin(self, *args, **kwargs):
                parity.seed_adapter(self.trainer.model)
                spoil(self.trainer)
                usual = (
                    (lambda r: join_packs([r]))
                    if is_packed
                    else make_collator(tokenizer)
                )
                found.update(parity.check(self.trainer, rows, join or usual, reference))

        class Watched(training.CheckedTrainer):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.add_callback(Gate(self))

        monkeypatch.setattr(training, "CheckedTrainer", Watched)
        model = models.attach_adapter(load(config), config)
        training.fine_tune(model, tokenizer, rows, [], config, tmp_path / "run")
        return found

    return make


def list_failures(caught):
    return {
        name for name, found in caught.value.findings.items() if not found["passed"]
    }


# --- the gates pass ----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"speed": "fast", "gradient_checkpointing": 1}]
)
def test_both_speeds_pass_all_gates(changes, ask):
    found = ask(**changes)
    assert list(found) == ["reference", "packed = unpacked", "eval, then train = train"]
    assert all(one["passed"] for one in found.values())
    assert found["reference"]["norm_ratio"] == pytest.approx(1, abs=0.02)


# --- and fail where they should ----------------------------------------------------


def test_rows_that_see_each_other_fail(ask):
    def leak(rows):
        batch = join_packs([rows])
        ends = batch["cu_seq_lens_q"]
        batch["cu_seq_lens_q"] = torch.stack([ends[0], *ends[2:]])  # two rows as one
        return batch

    with pytest.raises(parity.ParityError) as caught:
        ask(join=lambda r: leak(r) if len(r) > 1 else join_packs([r]), speed="fast")
    assert list_failures(caught) == {"reference", "packed = unpacked"}


def test_a_shifted_loss_fails(ask):
    def shift(trainer):
        step = trainer.training_step
        trainer.training_step = lambda *args: step(*args) + 0.02

    with pytest.raises(parity.ParityError) as caught:
        ask(shift)
    assert "reference" in list_failures(caught)
    found = caught.value.findings["reference"]
    assert found["cosine"] > parity.COSINE
    assert found["loss_difference"] == pytest.approx(0.02, abs=0.005)


def test_an_override_that_forgets_the_scaling_fails(ask, monkeypatch):
    def forget(layer, x):
        update = layer.lora_B["default"](layer.lora_A["default"](x))
        return update + layer.base_layer(x)

    monkeypatch.setattr(speed, "_forward_lora_first", forget)
    with pytest.raises(parity.ParityError) as caught:
        ask(speed="fast")
    assert "reference" in list_failures(caught)


def test_one_wrong_gradient_fails(ask):
    def spoil(trainer):
        weight = next(p for n, p in trainer.model.named_parameters() if "lora_A" in n)
        weight.register_hook(lambda gradient: gradient.flip(0))

    with pytest.raises(parity.ParityError) as caught:
        ask(spoil)
    assert list_failures(caught) == {"reference"}
    assert "lora_A" in caught.value.findings["reference"]["lowest_name"]


def test_gradients_that_an_answer_spoils_fail(ask):
    # As bitsandbytes' repacking of 4-bit weights on some CPUs does, on any CPU.
    def spoil(trainer):
        seen = []
        trainer.model.register_forward_pre_hook(
            lambda module, args: seen.append(1) if not module.training else None
        )
        weight = next(p for n, p in trainer.model.named_parameters() if "lora_A" in n)
        weight.register_hook(lambda g: torch.zeros_like(g) if seen else g)

    with pytest.raises(parity.ParityError) as caught:
        ask(spoil)
    assert list_failures(caught) == {"eval, then train = train"}


# --- comparing, by hand ------------------------------------------------------------


def compare(loss=2.0, a=(3.0, 4.0), b=(5.0, 12.0)):
    ours = {"a": torch.tensor(a), "b": torch.tensor(b)}
    wanted = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([5.0, 12.0])}
    return parity.compare(loss, ours, (2.0, wanted))


def test_figures_are_those_worked_out_by_hand():
    found = compare(loss=2.005, b=(12.0, 5.0))
    # The products are 25 and 120, both lengths the root of 25 + 169.
    assert found["cosine"] == pytest.approx(145 / 194)
    assert found["lowest_cosine"] == pytest.approx(120 / 169)
    assert found["lowest_name"] == "b"
    assert found["norm_ratio"] == pytest.approx(1)
    assert found["loss_difference"] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"loss": 2.009}, True),
        ({"loss": 1.991}, True),
        ({"loss": 2.02}, False),
        ({"loss": float("nan")}, False),
        ({"a": (4.0, 3.0)}, False),
        ({"b": (0.0, 0.0)}, False),
        ({"a": (6.0, 8.0), "b": (10.0, 24.0)}, False),  # twice as long
        ({"a": (float("nan"), 4.0)}, False),
    ],
)
def test_what_passes_and_what_does_not(changes, passed):
    assert compare(**changes)["passed"] is passed


def test_one_wrong_matrix_is_not_outvoted_by_a_large_one():
    large, wanted = torch.tensor([1_000.0, 0.0]), torch.tensor([1.0, 0.0])
    ours = {"a": large, "b": torch.tensor([0.0, 1.0])}
    found = parity.compare(2.0, ours, (2.0, {"a": large, "b": wanted}))
    assert found["cosine"] > parity.COSINE
    assert not found["passed"]


def test_a_matrix_without_a_partner_fails():
    one = {"a": torch.ones(2)}
    found = parity.compare(1.0, one | {"b": torch.ones(2)}, (1.0, one))
    assert (found["passed"], found["unmatched"]) == (False, ["b"])
    assert not parity.compare(1.0, {}, (1.0, {}))["passed"]


# --- the floor, the table, who can run ---------------------------------------------


def test_the_floor_is_the_formula_by_hand():
    architecture = LlamaConfig(
        vocab_size=100,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    # Heads of 4: q and o 64 each, k and v 32 each, the three others 128: 576 a layer.
    # LoRA of rank 16: (16 + 12 + 12 + 16 + 24 + 24 + 24) * 16 = 2,048 a layer.
    # 4 * 1,152 + 4 * 800 + 7 * 10 * 8 * 2 + 6 * 4,096
    assert gpu.count_floor(architecture, 10) == 4_608 + 3_200 + 1_120 + 24_576


def test_the_blocks_of_an_8b_model_are_counted_right():
    work = gpu.Work("llama-3.1-8b", "D1", 2_048)
    # 32 layers of 218,103,808 weights, a head of 525,336,576; LoRA 41,943,040.
    weights = 4 * 32 * 218_103_808 + 4 * 525_336_576 + 6 * 41_943_040
    floor = gpu.count_floor(gpu.give_architecture(work), 2_048)
    assert floor == weights + 7 * 2_048 * 4_096 * 32


HERE = {"model": "qwen3-0.6b", "data": "D1", "tokens_per_step": 2_048}


def make_result(name, **changes):
    figures = {
        "status": gpu.MEASURED,
        "useful_tokens_per_s": 5_000.0,
        "supervised_tokens_per_s": 3_333.0,
        "quartiles": [4_900.0, 5_000.0, 5_100.0],
        "flop_per_token": 2e6,
        "cold_start_s": 12.0,
        "peak_allocated": 7_000_000_000,
    }
    return HERE | {"contender": name} | figures | changes


def test_the_share_of_the_floor_and_the_drift_are_by_hand():
    ceiling = HERE | {"contender": "C_ceilings", "status": gpu.MEASURED}
    ceiling |= {"matmul_flop_per_s": 4e10, "copy_bytes_per_s": 1e9}
    again = make_result("P0_again", useful_tokens_per_s=4_500.0)
    _, first, last = gpu.judge([ceiling, make_result("P0"), again])
    assert first["share_of_floor"] == pytest.approx(0.25)  # 1e10 of 4e10
    assert last["drift"] == pytest.approx(-0.1)
    assert "drift" not in first
    table = gpu.draw_table([ceiling, first, last], is_rehearsal=False)
    assert "25.0%" in table
    assert "drift -10.0%" in table
    assert gpu.NOTE not in table


@pytest.mark.parametrize(
    "status",
    ["parity failed", "not installed", "needs CUDA", "out of memory", "failed"],
)
def test_who_was_not_measured_has_no_number_in_the_table(status):
    spoiled = make_result("P1", status=status)
    last = gpu.draw_table(gpu.judge([spoiled]), is_rehearsal=True).splitlines()[-1]
    assert last.split(maxsplit=1) == ["P1", status]


def test_a_rehearsal_says_that_it_is_one():
    table = gpu.draw_table([make_result("P0")], is_rehearsal=True)
    assert table.startswith("rehearsal: no speed here means anything")


def test_no_speed_is_written_of_who_fails_a_gate(monkeypatch):
    findings = {"reference": {"passed": False, "cosine": 0.5}}

    def fail(*args):
        raise parity.ParityError(findings)

    monkeypatch.setattr(gpu, "run_peer", fail)
    result = gpu.run_one("P0", gpu.Work("qwen3-0.6b", "D2", 256, True), 0.0)
    assert (result["status"], result["parity"]) == ("parity failed", findings)
    assert not [key for key in result if key.endswith("per_s") or key == "step_s"]


def test_who_needs_what_is_not_there_is_said_not_to_be_installed(monkeypatch):
    find = importlib.util.find_spec
    absent = {"trl", "unsloth", "liger_kernel"}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name in absent else find(name, *args),
    )
    found = {name: gpu.find_missing(name, has_cuda=True) for name in gpu.CONTENDERS}
    missing = {name for name, reason in found.items() if reason == "not installed"}
    assert missing == {"P1", "P2", "P3", "P4", "P5", "F_liger"}
    assert all(found[name] is None for name in found.keys() - missing)


def test_what_has_a_result_is_not_run_again(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    started = []

    def start(path, work, name):
        started.append(name)
        gpu._write(path, work, name, "failed")

    monkeypatch.setattr(gpu, "_start", start)
    monkeypatch.setattr(gpu, "find_missing", lambda *args: None)
    work = gpu.Work("qwen3-0.6b", "D2", 256, True)
    gpu.run_all([work], ["P0", "F_fast"], again=False)
    gpu.run_all([work], ["P0", "C_bf16"], again=False)
    assert started == ["P0", "F_fast", "C_bf16"]
    gpu.run_all([work], ["P0"], again=True)
    assert started[-1] == "P0"


def test_the_first_that_trains_comes_again_at_the_end():
    names = gpu.list_names(["F_fast", "P0", "C_ceilings"])
    assert names == ["C_ceilings", "P0", "F_fast", "P0_again"]
    assert gpu.list_names(["P0"]) == ["P0"]
    with pytest.raises(ValueError, match="no contender 'P9'"):
        gpu.list_names(["P9"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA it would begin")
def test_without_cuda_it_says_what_to_do():
    with pytest.raises(SystemExit, match="add --rehearse to try the bench on a CPU"):
        gpu.main([])


# --- the work ----------------------------------------------------------------------


def test_lengths_are_full_or_log_normal_and_cut():
    assert gpu.draw_lengths(gpu.Work("qwen3-0.6b", "D1", 2_048), 3) == [2_048] * 3
    work = gpu.Work("qwen3-0.6b", "D2", 2_048)
    lengths = gpu.draw_lengths(work, 2_001)
    assert max(lengths) == 2_048
    assert 270 < sorted(lengths)[1_000] < 330
    assert lengths == gpu.draw_lengths(work, 2_001)


@pytest.mark.parametrize(
    ("size", "lengths", "planned"),
    [
        (2_048, [2_048], (1, 1)),
        (8_192, [2_048], (4, 1)),
        (32_768, [2_048], (4, 4)),
        (8_192, [200, 600], (20, 1)),  # 20.48 rows of 400
        (32_768, [200, 600], (20, 4)),
    ],
)
def test_a_step_takes_about_as_many_tokens_as_asked(size, lengths, planned):
    assert gpu.plan_step(gpu.Work("qwen3-0.6b", "D2", size), lengths) == planned


def test_speeds_are_those_of_the_steps_after_warm_up_by_hand():
    found = {
        "passes": 2,
        "ends": [10.0, 11.0, 13.0, 17.0],
        # useful, supervised and all places of each of two passes a step
        "counts": [(1, 1, 1)] * 2
        + [(40, 30, 50)] * 2
        + [(60, 30, 80)] * 4
        + [(9, 9, 9)],
    }
    told = gpu.summarise(found, 1)
    # 80 tokens in 1 s, 120 in 2 s, 120 in 4 s; of them 60, 60, 60 supervised.
    assert told["useful_tokens_per_s"] == 60  # the middle one of 80, 60 and 30
    assert told["supervised_tokens_per_s"] == 30  # and of 60, 30 and 15
    assert told["mean_useful_tokens_per_s"] == pytest.approx(320 / 7)
    assert (told["step_s"], told["timed_steps"]) == (2.0, 3)
    assert told["padding"] == pytest.approx(1 - 320 / 420)
    assert told["quartiles"] == [30, 60, 80]
