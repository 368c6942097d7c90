"""Run alone: ``python -m pytest tests/test_colab.py``."""

import os

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from ftlib import colab, training


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A mounted Drive and a runs folder."""
    drive, runs = tmp_path / "MyDrive", tmp_path / "runs"
    drive.mkdir()
    monkeypatch.setattr(colab, "DRIVE", drive)
    monkeypatch.setattr(colab, "RUNS", runs)
    return drive, runs


def make_checkpoint(run, step, text="weights"):
    folder = run / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_text(text, encoding="utf-8")
    (folder / "complete").write_text("{}", encoding="utf-8")
    (run / "run.json").write_text(f'{{"made": "{text}"}}', encoding="utf-8")
    return folder


def list_files(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p.relative_to(folder).as_posix() for p in files)


def test_a_checkpoint_is_copied_whole_and_the_one_before_it_goes(places):
    drive, runs = places
    first = make_checkpoint(runs / "05_qlora" / "qlora", 10)
    copy = colab.copy_checkpoint(first)
    assert copy == drive / colab.KEPT / "05_qlora" / "qlora" / "checkpoint-10"
    colab.copy_checkpoint(make_checkpoint(runs / "05_qlora" / "qlora", 20))
    assert list_files(drive) == [
        f"{colab.KEPT}/05_qlora/qlora/checkpoint-20/{name}"
        for name in ("adapter.safetensors", "complete", "run.json")
    ]


def test_a_new_runs_first_checkpoint_takes_the_place_of_an_old_runs_last(places):
    _, runs = places
    run = runs / "trial"
    colab.copy_checkpoint(make_checkpoint(run, 40, "old"))
    run.rename(runs / "trial.before")
    colab.copy_checkpoint(make_checkpoint(run, 10, "new"))
    run.rename(runs / "lost")
    assert colab.fetch_checkpoint(run).name == "checkpoint-10"
    assert (run / "run.json").read_text("utf-8") == '{"made": "new"}'


def test_a_lost_run_comes_back_and_is_found_by_resume(places):
    _, runs = places
    run = runs / "trial"
    colab.copy_checkpoint(make_checkpoint(run, 10))
    run.rename(runs.parent / "the machine that was lost")
    fetched = colab.fetch_checkpoint(run)
    assert training.find_checkpoint(run) == fetched
    assert list_files(run) == [
        "checkpoints/checkpoint-10/adapter.safetensors",
        "checkpoints/checkpoint-10/complete",
        "run.json",
    ]


def test_half_a_copy_is_never_brought_back(places):
    drive, runs = places
    kept = drive / colab.KEPT / "trial"
    for name in (".checkpoint-30.part", "checkpoint-20"):
        (kept / name).mkdir(parents=True)
        (kept / name / "adapter.safetensors").write_text("half", encoding="utf-8")
    # The first has its mark, but not its name; the second its name, but no mark.
    (kept / ".checkpoint-30.part" / "complete").write_text("{}", encoding="utf-8")
    assert colab.fetch_checkpoint(runs / "trial") is None
    assert not (runs / "trial").exists()


def test_of_two_whole_copies_the_newest_is_brought_back(places):
    drive, runs = places
    for name, seconds in (("checkpoint-40", 1_000), ("checkpoint-10", 2_000)):
        kept = drive / colab.KEPT / "trial" / name
        kept.mkdir(parents=True)
        for file in ("complete", "run.json"):
            (kept / file).write_text("{}", encoding="utf-8")
        os.utime(kept / "complete", (seconds, seconds))
    assert colab.fetch_checkpoint(runs / "trial").name == "checkpoint-10"


def test_a_run_that_is_on_this_machine_stands(places):
    _, runs = places
    run = runs / "trial"
    colab.copy_checkpoint(make_checkpoint(run, 10))
    (run / "run.json").write_text('{"made": "later"}', encoding="utf-8")
    assert colab.fetch_checkpoint(run) is None
    assert (run / "run.json").read_text("utf-8") == '{"made": "later"}'


def test_without_drive_and_outside_runs_nothing_is_copied(places, tmp_path):
    drive, runs = places
    assert colab.copy_checkpoint(make_checkpoint(tmp_path / "elsewhere", 10)) is None
    drive.rmdir()
    assert colab.copy_checkpoint(make_checkpoint(runs / "trial", 10)) is None
    assert not drive.exists()


def test_a_full_drive_is_a_warning_and_leaves_the_older_copy(places, monkeypatch):
    drive, runs = places
    colab.copy_checkpoint(make_checkpoint(runs / "trial", 10))
    second = make_checkpoint(runs / "trial", 20)

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(colab.shutil, "copytree", refuse)
    with pytest.warns(UserWarning, match="checkpoint-20 was not copied to Drive"):
        assert colab.copy_checkpoint(second) is None
    (kept,) = (drive / colab.KEPT / "trial").iterdir()
    assert kept.name == "checkpoint-10"


def test_a_run_copies_each_checkpoint_and_goes_on_from_drive(
    places, monkeypatch, wren_config, tokenizer, tiny_model, five_rows
):
    drive, runs = places
    data, folder = (tokenizer, five_rows, [], wren_config), runs / "a" / "run"
    whole = training.fine_tune(tiny_model(), *data, folder)
    (kept,) = (drive / colab.KEPT / "a" / "run").iterdir()
    assert (whole.step, kept.name) == (4, "checkpoint-4")
    (runs / "a").rename(runs / "lost")
    again = training.fine_tune(tiny_model(), *data, folder, resume=True)
    assert (again.first_step, again.step) == (4, 4)


# --- a gated model -----------------------------------------------------------------


class Hub:
    """Stands for `from_pretrained` of a gated or an open model; keeps the tokens."""

    def __init__(self, error=None):
        self.error, self.tokens = error, []

    def __call__(self, name, token=None, **settings):
        self.tokens.append(token)
        if self.error and token is not True:
            raise self.error
        return name, settings


def make_refusal(kind, wrapped):
    request = httpx.Request("GET", "https://hub.example/model")
    error = kind("refused", response=httpx.Response(401, request=request))
    if not wrapped:
        return error
    outer = OSError("You are trying to access a gated repo.")
    outer.__cause__ = error
    return outer


@pytest.fixture
def asked(monkeypatch):
    """On Colab; how often its secret was asked for."""
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    times = []
    monkeypatch.setattr(colab, "get_token", lambda: times.append(1) or "hf_secret")
    return times


def test_an_open_model_asks_for_no_secret(asked):
    hub = Hub()
    assert colab.load_from_hub(hub, "Qwen/Qwen3-0.6B", revision="main") == (
        "Qwen/Qwen3-0.6B",
        {"revision": "main"},
    )
    assert (hub.tokens, asked) == ([False], [])


@pytest.mark.parametrize("kind", [GatedRepoError, RepositoryNotFoundError])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_gated_model_asks_once_and_is_loaded_with_the_token(asked, kind, wrapped):
    hub = Hub(make_refusal(kind, wrapped))
    assert colab.load_from_hub(hub, "org/gated")[0] == "org/gated"
    assert (hub.tokens, asked) == ([False, True], [1])


def test_without_a_secret_one_sentence_says_what_to_do(asked, monkeypatch):
    monkeypatch.setattr(colab, "get_token", lambda: None)
    hub = Hub(make_refusal(GatedRepoError, wrapped=True))
    with pytest.raises(PermissionError, match=r"org/gated .* as HF_TOKEN"):
        colab.load_from_hub(hub, "org/gated")


def test_another_error_asks_for_no_secret(asked):
    with pytest.raises(OSError, match="disk"):
        colab.load_from_hub(Hub(OSError("disk")), "org/model")
    assert asked == []


def test_elsewhere_the_hub_library_does_as_it_always_does(monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    hub = Hub()
    colab.load_from_hub(hub, "org/model")
    assert hub.tokens == [None]
