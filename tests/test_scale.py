"""Run alone: ``python -m pytest -m "" tests/test_scale.py``: a minute of training."""

import os
import runpy
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env

from ftlib import models, scale, trainer
from ftlib.config import ROOT, RunConfig
from ftlib.store import read_json, read_jsonl, write_jsonl
from tests import scale_worker

ROWS = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
QLORA = RunConfig()
LORA = RunConfig(load_in_4bit=False)


# --- what is written -------------------------------------------------------------


def test_a_qlora_run_is_written_with_each_way_that_can_train_it(tmp_path):
    paths = scale.export(QLORA, tmp_path / "job", ROWS, ROWS)
    assert [path.name for path in paths] == [
        "train.py",
        "commands.txt",
        "sky.yaml",
        "ddp.yaml",
        "fsdp1.yaml",
        "zero3.yaml",
        "config.json",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert all(path.is_file() for path in paths)
    assert (tmp_path / "job" / "commands.txt").read_text() == (
        "python train.py\n"
        "torchrun --nproc-per-node 2 train.py\n"
        "accelerate launch --config_file ddp.yaml train.py\n"
        "accelerate launch --config_file fsdp1.yaml train.py\n"
        "accelerate launch --config_file zero3.yaml train.py\n"
    )


def test_without_4_bits_fsdp2_takes_the_place_of_fsdp1(tmp_path):
    names = {path.name for path in scale.export(LORA, tmp_path, ROWS)}
    assert {"ddp.yaml", "fsdp2.yaml", "zero3.yaml"} < names
    assert "fsdp1.yaml" not in names


def test_what_cannot_be_shared_out_gets_data_parallel_files_alone(tmp_path):
    config = RunConfig(method="ia3")
    names = {path.name for path in scale.export(config, tmp_path, ROWS)}
    assert {name for name in names if name.endswith("yaml")} == {"ddp.yaml", "sky.yaml"}


def test_settings_and_rows_come_back_as_they_were(tmp_path):
    scale.export(QLORA, tmp_path, ROWS * 3, ROWS)
    assert scale.load(tmp_path) == (QLORA, ROWS * 3, ROWS)


def test_rows_may_come_from_a_file_that_the_user_names(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", ROWS * 2)
    scale.export(QLORA, tmp_path / "job", tmp_path / "mine.jsonl")
    assert read_jsonl(tmp_path / "job" / "train.jsonl") == (ROWS * 2, [])


@pytest.mark.parametrize(
    "row", [{"text": "a"}, {"input_ids": [1, 2], "labels": [1]}, {"input_ids": [1]}]
)
def test_a_line_that_is_no_row_is_named(tmp_path, row):
    write_jsonl(tmp_path / "mine.jsonl", [*ROWS, row])
    with pytest.raises(ValueError, match=r"mine.jsonl, line 2: .*encode the examples"):
        scale.export(QLORA, tmp_path / "job", tmp_path / "mine.jsonl")
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    "row", [{"text": "a"}, {"input_ids": [1, 2], "labels": [1]}, {"labels": [1]}, "a"]
)
def test_a_row_that_is_none_is_named_too_where_rows_are_given(tmp_path, row):
    with pytest.raises(ValueError, match=r"validation, row 2: .*encode the examples"):
        scale.export(QLORA, tmp_path / "job", ROWS, [*ROWS, row])
    assert not (tmp_path / "job").exists()


def test_no_file_written_in_the_course_names_a_folder_of_this_machine(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(scale, "ROOT", tmp_path.resolve())
    (tmp_path / "data" / "mine").mkdir(parents=True)
    config = QLORA.change(model=str(tmp_path / "data" / "mine"))
    for path in scale.export(config, tmp_path / "runs" / "job", ROWS):
        text = path.read_text("utf-8")
        assert str(ROOT) not in text
        assert tmp_path.name not in text
    written = read_json(tmp_path / "runs" / "job" / "config.json")
    assert written["model"] == "data/mine"
    task = yaml.safe_load((tmp_path / "runs" / "job" / "sky.yaml").read_text())
    assert task["file_mounts"] == {"~/job": "runs/job"}


def test_a_base_outside_the_course_is_found_again(tmp_path):
    assert not tmp_path.is_relative_to(ROOT)
    (tmp_path / "mybase").mkdir()
    config = QLORA.change(model=str(tmp_path / "mybase"))
    scale.export(config, tmp_path / "job", ROWS)
    assert Path(scale.load(tmp_path / "job")[0].model) == tmp_path.resolve() / "mybase"


def test_the_script_is_short_and_starts_with_what_it_is(tmp_path):
    scale.export(QLORA, tmp_path, ROWS, n_processes=4)
    text = (tmp_path / "train.py").read_text()
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 88
    assert "torchrun --nproc-per-node 4 train.py" in text
    compile(text, "train.py", "exec")


# --- nothing is lost -------------------------------------------------------------


def test_what_was_written_is_replaced_but_never_what_was_changed(tmp_path):
    scale.export(QLORA, tmp_path, ROWS)
    scale.export(QLORA.change(r=8), tmp_path, ROWS)
    assert read_json(tmp_path / "config.json")["r"] == 8
    mine = (tmp_path / "train.py").read_text() + "# mine\n"
    (tmp_path / "train.py").write_text(mine)
    with pytest.raises(FileExistsError, match=r"train.py .* move it away"):
        scale.export(QLORA.change(r=4), tmp_path, ROWS)
    assert (tmp_path / "train.py").read_text() == mine
    assert read_json(tmp_path / "config.json")["r"] == 8  # nothing else either


def test_a_file_that_was_there_before_is_kept(tmp_path):
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(FileExistsError, match=r"train.py"):
        scale.export(QLORA, tmp_path, ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_way_left_out_leaves_no_file_behind_and_can_come_back(tmp_path):
    scale.export(QLORA, tmp_path, ROWS)
    scale.export(QLORA, tmp_path, ROWS, ways=["ddp"])
    assert not (tmp_path / "fsdp1.yaml").exists()
    assert not (tmp_path / "zero3.yaml").exists()
    scale.export(QLORA, tmp_path, ROWS)
    assert (tmp_path / "zero3.yaml").exists()


def test_a_file_of_a_way_left_out_is_kept_where_it_was_changed_and_known_again(
    tmp_path,
):
    scale.export(QLORA, tmp_path, ROWS)
    written = (tmp_path / "zero3.yaml").read_bytes()
    (tmp_path / "zero3.yaml").write_bytes(written + b"# mine\n")
    scale.export(QLORA, tmp_path, ROWS, ways=["ddp"])
    assert (tmp_path / "zero3.yaml").read_bytes() == written + b"# mine\n"
    with pytest.raises(FileExistsError, match=r"zero3.yaml .* move it away"):
        scale.export(QLORA, tmp_path, ROWS)
    (tmp_path / "zero3.yaml").write_bytes(written)  # as it was written
    scale.export(QLORA, tmp_path, ROWS)


# --- what is refused -------------------------------------------------------------


def test_fsdp2_with_4_bits_is_refused_with_the_upstream_reason(tmp_path):
    with pytest.raises(ValueError, match=r"issue 3983.*issue 3874.*load_in_4bit=False"):
        scale.export(QLORA, tmp_path / "job", ROWS, ways=["fsdp2"])
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("config", "way", "reason"),
    [
        (LORA, "fsdp1", "use fsdp2"),
        (LORA, "fsdp3", "no way 'fsdp3': use ddp, fsdp1, fsdp2, zero3"),
        (RunConfig(method="dora"), "zero3", "not known to share out dora"),
        (RunConfig(kl_weight=0.1), "fsdp1", "set kl_weight=0"),
        (RunConfig(speed="fast"), "zero3", "set speed='safe'"),
    ],
)
def test_a_way_that_cannot_train_the_settings_is_refused(tmp_path, config, way, reason):
    with pytest.raises(ValueError, match=reason):
        scale.export(config, tmp_path, ROWS, ways=[way])


@pytest.mark.parametrize("n", [3, 16])
def test_more_processes_than_rows_or_an_uneven_share_is_refused(tmp_path, n):
    with pytest.raises(ValueError, match=f"^{n} processes cannot share 8 rows evenly"):
        scale.export(QLORA, tmp_path / "job", ROWS, n_processes=n)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("n", [0, -2])
def test_less_than_one_process_is_refused(tmp_path, n):
    with pytest.raises(ValueError, match=f"^{n} processes train nothing: start one or"):
        scale.export(QLORA, tmp_path / "job", ROWS, n_processes=n)
    assert not (tmp_path / "job").exists()


def test_a_launch_that_the_settings_do_not_allow_is_refused_at_its_start(
    tmp_path, monkeypatch
):
    scale.export(QLORA, tmp_path, ROWS)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ValueError, match="issue 3874"):
        scale.load(tmp_path)
    monkeypatch.setenv("FSDP_VERSION", "1")
    assert scale.load(tmp_path)[0] == QLORA


# --- what others read of it ------------------------------------------------------


def read_launch(path, monkeypatch):
    """Give what ``accelerate launch`` reads of a file, on a machine of two GPUs."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    line = ["--config_file", str(path), "train.py"]
    arguments = launch_command_parser().parse_args(line)
    arguments, _, _ = _validate_launch_command(arguments)
    return arguments


@pytest.mark.parametrize(
    ("config", "way", "kind"),
    [
        (QLORA, "ddp", DistributedType.MULTI_GPU),
        (QLORA, "fsdp1", DistributedType.FSDP),
        (LORA, "fsdp2", DistributedType.FSDP),
        (QLORA, "zero3", DistributedType.DEEPSPEED),
    ],
)
def test_accelerate_reads_each_file(tmp_path, config, way, kind):
    scale.export(config, tmp_path, ROWS, n_processes=4)
    read = load_config_from_file(str(tmp_path / f"{way}.yaml"))
    assert (read.distributed_type, read.num_processes) == (kind, 4)
    assert read.mixed_precision == "bf16"


@pytest.mark.parametrize(("config", "version"), [(QLORA, 1), (LORA, 2)])
def test_accelerate_makes_of_the_fsdp_files_what_they_say(
    tmp_path, monkeypatch, config, version
):
    scale.export(config, tmp_path, ROWS)
    arguments = read_launch(tmp_path / f"fsdp{version}.yaml", monkeypatch)
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == version
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert not plugin.cpu_ram_efficient_loading
    if version == 2:
        assert plugin.reshard_after_forward
    else:
        assert plugin.sharding_strategy.name == "FULL_SHARD"
        assert not plugin.use_orig_params
        assert not plugin.sync_module_states


def test_deepspeed_is_told_of_stage_3_and_the_passes_of_a_step(tmp_path):
    config = LORA.change(gradient_accumulation_steps=4)
    scale.export(config, tmp_path, ROWS)
    settings = load_config_from_file(str(tmp_path / "zero3.yaml")).deepspeed_config
    assert settings == {
        "zero_stage": 3,
        "zero3_init_flag": False,
        "zero3_save_16bit_model": True,
        "gradient_clipping": 1.0,
        "gradient_accumulation_steps": 4,
    }


def test_skypilot_is_told_what_it_needs(tmp_path):
    scale.export(QLORA, tmp_path / "job", ROWS, n_processes=4)
    task = yaml.safe_load((tmp_path / "job" / "sky.yaml").read_text())
    assert task == {
        "name": "fine-tune",
        "workdir": ".",
        "file_mounts": {"~/job": (tmp_path / "job").resolve().as_posix()},
        "resources": {"accelerators": "L4:4"},
        "setup": "pip install -e .",
        "run": "torchrun --nproc-per-node 4 ~/job/train.py",
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_folders_odd_name_reaches_skypilot_as_it_is(tmp_path):
    folder = tmp_path / 'a: b #1 "c" {0} \N{HOUSE BUILDING}'
    text = scale.export(QLORA, folder, ROWS)[2].read_text("utf-8")
    assert yaml.safe_load(text)["file_mounts"] == {"~/job": str(folder.resolve())}
    command = text.splitlines()[0].partition(": ")[2]
    assert shlex.split(command)[-1] == str(folder.resolve() / "sky.yaml")


# --- two processes that train ----------------------------------------------------

needs_torchrun = pytest.mark.skipif(
    sys.platform == "win32", reason="PyTorch for Windows has no libuv, for torchrun"
)


def launch(*arguments):
    """Run two processes on this machine; give the exit status and what they said."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    folders = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def play(folder, name):
    """Let two processes play a part; give what each of them wrote down."""
    status, said = launch("-m", "tests.scale_worker", folder, name)
    assert status == 0, said[-3000:]
    return [read_json(folder / f"{name}-{rank}.json") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process sees on the same rows: trained through, and with a pull."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        for module in (models, trainer):  # to be put back
            patch.setattr(module, "pick_dtype", module.pick_dtype)
        run = scale_worker.make_run(folder / "whole")
        run.start().wait()
        config = scale_worker.make_config(kl_weight=0.5, max_steps=2)
        pulled = scale_worker.make_run(folder / "pulled", config)
        pulled.start().wait()
        config = scale_worker.make_config(speed="fast", max_steps=2)
        fast = scale_worker.make_run(folder / "fast", config)
        fast.start().wait()
        return {
            name: scale_worker.describe(one)
            for name, one in (("whole", run), ("pulled", pulled), ("fast", fast))
        }


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What two processes see, and the folder they wrote."""
    folder = tmp_path_factory.mktemp("shared")
    return folder, play(folder, "sharing")


@needs_torchrun
@pytest.mark.kill
@pytest.mark.parametrize("name", ["whole", "pulled", "fast"])
def test_two_processes_lose_step_by_step_what_one_does(alone, shared, name):
    # In float32, sums in another order and padding of another width differ by 1e-7 of
    # a loss; the optimizer's division makes it up to a hundred times that.
    near = partial(pytest.approx, rel=1e-4)
    for seen in shared[1]:
        assert seen[name]["losses"] == near(alone[name]["losses"])
        assert seen[name]["validation"] == near(alone[name]["validation"])
        assert seen[name]["n_tokens"] == alone[name]["n_tokens"]
    assert len(alone["whole"]["losses"]) == scale_worker.N_STEPS


@needs_torchrun
@pytest.mark.kill
def test_both_processes_end_with_the_same_adapter_to_the_bit(shared):
    first, second = shared[1]
    for name in ("whole", "pulled", "fast", "stopped", "resumed"):
        assert first[name] == second[name]


@needs_torchrun
@pytest.mark.kill
def test_the_first_process_alone_writes_and_moves_files(shared):
    folder, (first, second) = shared
    assert second["written"] == []
    assert any(path.endswith("adapter_config.json") for path in first["written"])
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "fast",
        "pulled",
        "stopped",
        "whole",
        "whole.before",  # the fresh start in the same folder: moved once
    ]
    assert read_json(folder / "whole.before" / "run.json")["steps"] == 5
    assert read_json(folder / "whole" / "run.json")["steps"] == 1
    kept = folder / "whole.before" / "checkpoints"
    assert {path.name for path in kept.iterdir()} == {"checkpoint-4", "checkpoint-5"}
    for path in kept.iterdir():
        assert (path / "complete").exists()
        assert len(list(path.glob("rng_state_*.pth"))) == 2  # each one's own


@needs_torchrun
@pytest.mark.kill
def test_a_stop_in_one_process_stops_both_and_resuming_changes_nothing(shared):
    for seen in shared[1]:
        assert (seen["stopped"]["status"], seen["stopped"]["step"]) == ("stopped", 3)
        assert seen["resumed"]["status"] == "finished"
        assert seen["resumed"]["losses"] == seen["whole"]["losses"]
        assert seen["resumed"]["sha256"] == seen["whole"]["sha256"]


@needs_torchrun
@pytest.mark.kill
def test_a_process_that_fails_ends_the_other_by_name_and_both_can_resume(
    shared, tmp_path
):
    status, said = launch("-m", "tests.scale_worker", tmp_path, "failing")
    assert status != 0
    assert "ZeroDivisionError: planted in the second process" in said
    assert read_json(tmp_path / "failing-1.json")[0] == "ZeroDivisionError"
    name, reason = read_json(tmp_path / "failing-0.json")
    assert name == "OtherProcessError"
    assert "another process of this run has ended" in reason
    record = read_json(tmp_path / "failing" / "run.json")
    assert record["status"] == "failed"
    assert record["error"].startswith("OtherProcessError")
    # A checkpoint that the end cut short is removed, by one process.
    torn = tmp_path / "failing" / "checkpoints" / "checkpoint-3"
    torn.mkdir()
    for seen in play(tmp_path, "resumed"):
        assert seen["first_step"] == 2
        assert seen["sha256"] == shared[1][0]["whole"]["sha256"]
    assert not torn.exists()


@needs_torchrun
@pytest.mark.kill
def test_fsdp1_shares_out_4_bit_weights_in_the_storage_that_load_base_chooses(tmp_path):
    for seen in play(tmp_path, "sharded"):
        assert "Cannot flatten integer" in seen["as uint8"]
        assert seen["pieces"] == {"bfloat16 frozen": 7, "float32 trained": 84}
        # bfloat16 keeps 8 bits of each number.
        assert seen["loss"] == pytest.approx(seen["loss alone"], rel=1e-2)
        assert seen["gradient"] == pytest.approx(seen["gradient alone"], rel=1e-2)


@needs_torchrun
@pytest.mark.kill
def test_the_script_trains_4_bit_weights_alone_and_in_two_processes(tmp_path):
    config = scale_worker.make_config(
        load_in_4bit=True, learning_rate=1e-3, max_steps=3, eval_steps=3
    )
    rows = scale_worker.make_rows()
    for name in ("alone", "two"):
        scale.export(config, tmp_path / name, rows, rows[:2])
    status, said = launch(tmp_path / "two" / "train.py")
    assert status == 0, said[-3000:]
    assert said.count("finished after step 3") == 1
    handlers = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        runpy.run_path(str(tmp_path / "alone" / "train.py"), run_name="__main__")
    finally:
        signal.signal(signal.SIGINT, handlers[0])
        signal.signal(signal.SIGTERM, handlers[1])
    one, two = (
        read_json(tmp_path / name / "run" / "run.json") for name in ("alone", "two")
    )
    assert one["train_sha256"] == two["train_sha256"]
    for a, b in zip(one["history"], two["history"], strict=True):
        # bfloat16 keeps 8 bits of each number: 1 in 256.
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-2)
    assert two["history"][-1]["validation_loss"] < two["history"][0]["loss"]
    assert two["adapter_effect"] > 0
