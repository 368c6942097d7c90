"""Run alone: ``python -m pytest tests/test_deployment.py``."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file

from ftlib import archives, deployment, models
from ftlib.config import ROOT, WREN
from ftlib.generation import generate
from ftlib.schema import make_prompts
from ftlib.store import hash_file, read_json, write_json

PROMPTS = make_prompts(
    ["What is the capital of Italy?", "2 + 3 =", "Say it twice: red lamp.", "Hi"]
)


def make_adapter(config, folder, seed=1, std=0.8):
    """Write an adapter of Wren that has an effect, with the record of its run."""
    plain = config.change(load_in_4bit=False)
    model = models.attach_adapter(models.load_base(plain), config)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "ia3" in name:
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder / "adapter")
    record = {
        "status": "finished",
        "inputs": {
            "data/wren/model.safetensors": hash_file(f"{WREN}/model.safetensors")
        },
    }
    write_json(folder / "run.json", record)
    return folder / "adapter"


@pytest.fixture(scope="module")
def whole(wren_config):
    """Settings that hold the base in full precision."""
    return wren_config.change(load_in_4bit=False)


@pytest.fixture(scope="module")
def kept_adapter(wren_config, tmp_path_factory):
    """A run's adapter; copy its run before changing anything in it."""
    return make_adapter(wren_config, tmp_path_factory.mktemp("run"))


@pytest.fixture
def adapter(kept_adapter, tmp_path):
    """A run's adapter, to change at will."""
    return shutil.copytree(kept_adapter.parent, tmp_path / "run") / "adapter"


@pytest.fixture
def export(kept_adapter, wren_config, tmp_path):
    """An exported adapter, to change at will."""
    return deployment.export_adapter(kept_adapter, tmp_path / "export", wren_config)


@pytest.fixture
def other_base(wren_config, tmp_path):
    """Settings of a copy of Wren, to change at will."""
    folder = shutil.copytree(WREN, tmp_path / "base")
    return wren_config.change(model=str(folder))


def list_bytes(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- merging ---------------------------------------------------------------------


def test_a_merge_in_float32_holds_and_answers_as_before(kept_adapter, whole, tokenizer):
    model = models.load_adapter(whole, kept_adapter).float()
    ids = torch.tensor([[1, 500, 600, 700]])
    with torch.no_grad():
        before = model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
        merged, proof = deployment.merge_adapter(model, tokenizer, PROMPTS, 4)
        after = merged(ids).logits
    assert (before - base).abs().max() > 0.5  # the adapter does something
    assert (before - after).abs().max() < 1e-4
    assert proof.holds
    assert proof.n_same == proof.n_prompts == 4
    assert str(proof).startswith("holds: logits move by ")
    assert str(proof).endswith("4 of 4 answers the same")
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_a_merge_into_4_bit_weights_fails_the_same_proof(
    kept_adapter, wren_config, tokenizer, recwarn
):
    model = models.load_adapter(wren_config, kept_adapter)
    _, proof = deployment.merge_adapter(model, tokenizer, PROMPTS, 4)
    assert not proof.holds
    assert proof.largest_logit_change > 0.1
    assert str(proof).startswith("fails")
    assert not [w for w in recwarn if "Merge lora" in str(w.message)]


def test_the_proof_sees_a_merge_that_changes_the_answers(
    kept_adapter, whole, tokenizer, monkeypatch
):
    model = models.load_adapter(whole, kept_adapter).float()
    merge = model.base_model.merge_and_unload

    def merge_wrongly():
        merged = merge()
        with torch.no_grad():
            merged.model.norm.weight.mul_(-1)
        return merged

    monkeypatch.setattr(model.base_model, "merge_and_unload", merge_wrongly)
    _, proof = deployment.merge_adapter(model, tokenizer, PROMPTS, 4)
    assert not proof.holds
    assert proof.n_same == 0


def test_a_proof_holds_only_with_all_answers_the_same():
    assert deployment.MergeProof(9e-5, 4, 4).holds
    assert not deployment.MergeProof(1e-4, 4, 4).holds
    assert not deployment.MergeProof(9e-5, 3, 4).holds
    assert not deployment.MergeProof(float("nan"), 4, 4).holds


def test_a_merge_is_not_proven_on_nothing(kept_adapter, whole, tokenizer):
    model = models.load_adapter(whole, kept_adapter)
    with pytest.raises(ValueError, match="at least one prompt"):
        deployment.merge_adapter(model, tokenizer, [])
    assert model.peft_config  # and nothing is merged


def test_a_method_without_weights_to_merge_is_refused(whole, tokenizer):
    prefix = whole.change(method="prefix")
    model = models.attach_adapter(models.load_base(prefix), prefix)
    with pytest.raises(ValueError, match="serve it as an adapter"):
        deployment.merge_adapter(model, tokenizer, PROMPTS)


# --- exporting -------------------------------------------------------------------


def test_an_export_is_complete_and_names_its_base(export, kept_adapter):
    assert sorted(list_bytes(export)) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    settings = read_json(export / "adapter_config.json")
    assert settings["base_model_name_or_path"] == "data/wren"
    assert settings["revision"] is None
    was = read_json(kept_adapter / "adapter_config.json")
    changed = {key for key in was if was[key] != settings[key]}
    assert changed <= {"base_model_name_or_path", "target_modules"}
    assert sorted(was["target_modules"]) == settings["target_modules"]
    for name, data in list_bytes(export).items():
        assert str(ROOT).encode() not in data, name
    weights = "adapter_model.safetensors"
    assert (export / weights).read_bytes() == (kept_adapter / weights).read_bytes()


def test_the_card_has_the_hubs_metadata(export):
    data = ModelCard.load(export / "README.md").data
    assert data.base_model == "data/wren"
    assert data.base_model_relation == "adapter"
    assert data.library_name == "peft"


@pytest.mark.parametrize("head", ["", "---\nlicense: mit\nbase_model: other\n---\n"])
def test_a_card_of_ones_own_is_kept_and_its_base_corrected(
    head, kept_adapter, wren_config, tmp_path, capfd
):
    text = head + "# Triage\n\nFor alerts.\n"
    folder = deployment.export_adapter(
        kept_adapter, tmp_path / "export", wren_config, card=text
    )
    card = ModelCard.load(folder / "README.md")
    assert card.text.strip() == "# Triage\n\nFor alerts."
    assert card.data.base_model == "data/wren"
    assert card.data.get("license") == ("mit" if head else None)
    deployment.check_export(folder, wren_config)
    assert "metadata" not in capfd.readouterr().err


NO_COLON = pytest.mark.skipif(os.name == "nt", reason="no name on Windows")


@pytest.mark.parametrize(
    "name", [pytest.param("a: b", marks=NO_COLON), "[x", "# y", "- z"]
)
def test_a_card_names_a_base_of_any_name(name, other_base, kept_adapter, tmp_path):
    folder = Path(other_base.model).rename(tmp_path / name)
    config = other_base.change(model=str(folder))
    made = deployment.export_adapter(kept_adapter, tmp_path / "export", config)
    assert ModelCard.load(made / "README.md").data.base_model == name
    deployment.check_export(made, config)


def test_the_same_adapter_is_exported_to_the_same_bytes(
    export, kept_adapter, wren_config, tmp_path
):
    again = deployment.export_adapter(kept_adapter, tmp_path / "again", wren_config)
    assert list_bytes(again) == list_bytes(export)


def test_an_export_loads_with_plain_peft_too(
    export, kept_adapter, whole, tokenizer, monkeypatch
):
    monkeypatch.chdir(ROOT)  # the base is named from here
    plain = AutoPeftModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    ours = models.load_adapter(whole, kept_adapter).float()
    ids = torch.tensor([[1, 500, 600, 700]])
    with torch.no_grad():
        assert torch.equal(plain.eval()(ids).logits, ours(ids).logits)


def test_an_export_answers_as_the_run_did(export, kept_adapter, whole, tokenizer):
    model, its_tokenizer = deployment.load_export(export, whole)
    ours = models.load_adapter(whole, kept_adapter)
    wanted = generate(ours, tokenizer, PROMPTS, 4)
    assert generate(model, its_tokenizer, PROMPTS, 4) == wanted
    with ours.disable_adapter():
        assert generate(ours, tokenizer, PROMPTS, 4) != wanted


def test_an_export_comes_back_from_an_archive(export, wren_config, tmp_path):
    packed = archives.pack(export, tmp_path / "export.zip")
    deployment.check_export(archives.unpack(packed, tmp_path / "new"), wren_config)


def test_a_base_of_the_hub_is_pinned_to_its_commit(wren_config, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    kept = cache / "models--example--wren"
    shutil.copytree(WREN, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    adapter = make_adapter(wren_config, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()  # a run of the hub's model has no inputs
    config = wren_config.change(model="example/wren")
    folder = deployment.export_adapter(adapter, tmp_path / "export", config)
    settings = read_json(folder / "adapter_config.json")
    assert settings["base_model_name_or_path"] == "example/wren"
    assert settings["revision"] == commit
    deployment.check_export(folder, config)
    deployment.check_export(folder, config.change(revision=commit))
    later = "f" * 40
    shutil.copytree(WREN, kept / "snapshots" / later)
    (kept / "refs" / "main").write_text(later)
    with pytest.raises(deployment.MismatchError, match=f"the commit.*{commit}"):
        deployment.check_export(folder, config)
    deployment.check_export(folder, config.change(revision=commit))


def test_on_colab_the_hub_is_asked_without_a_token(export, wren_config, monkeypatch):
    def download(name, token=None, **settings):
        raise OSError(f"{name} asked with token {token}")

    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setattr(deployment, "snapshot_download", download)
    with pytest.raises(OSError, match="example/wren asked with token False"):
        deployment.check_export(export, wren_config.change(model="example/wren"))


# --- what is not exported --------------------------------------------------------


def refuse_export(adapter, folder, config, reason, error=ValueError):
    beside = sorted(folder.parent.rglob("*"))
    with pytest.raises(error, match=reason):
        deployment.export_adapter(adapter, folder, config)
    assert sorted(folder.parent.rglob("*")) == beside


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_an_unfinished_run_is_not_exported(status, adapter, wren_config, tmp_path):
    write_json(adapter.parent / "run.json", {"status": status})
    refuse_export(adapter, tmp_path / "export", wren_config, f"is {status}, not fin")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_exported(
    value, adapter, wren_config, tmp_path
):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[-1]
    weights[name][0, 0] = value
    save_file(weights, path)
    refuse_export(adapter, tmp_path / "export", wren_config, f"{name} is not all")


def test_a_run_on_another_base_is_not_exported(adapter, wren_config, tmp_path):
    record = {"status": "finished", "inputs": {"x/model.safetensors": "0" * 64}}
    write_json(adapter.parent / "run.json", record)
    refuse_export(
        adapter,
        tmp_path / "export",
        wren_config,
        "other weights than",
        deployment.MismatchError,
    )


def test_a_whole_model_and_a_pickle_are_not_exported(adapter, wren_config, tmp_path):
    refuse_export(WREN, tmp_path / "export", wren_config, "no adapter")
    (adapter / "adapter_model.bin").write_bytes(b"")
    refuse_export(adapter, tmp_path / "export", wren_config, "can run code")


@pytest.mark.parametrize("name", ["notes.txt", "README.md", "sub"])
def test_nothing_is_lost_that_no_export_wrote(name, adapter, wren_config, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine") if "." in name else (folder / name).mkdir()
    refuse_export(adapter, folder, wren_config, f"holds {name}", FileExistsError)
    (folder / name).rename(tmp_path / "aside")
    deployment.export_adapter(adapter, folder, wren_config)  # empty, it is taken
    (tmp_path / "aside").rename(folder / "aside.txt")
    kept = {n: p for n, p in list_bytes(folder).items()} if "." in name else None
    refuse_export(adapter, folder, wren_config, "holds aside", FileExistsError)
    assert kept is None or list_bytes(folder) == kept


def test_a_card_rewritten_by_hand_is_not_written_over(adapter, export, wren_config):
    (export / "README.md").write_text("my own words")
    refuse_export(adapter, export, wren_config, "holds README.md", FileExistsError)
    assert (export / "README.md").read_text() == "my own words"


def test_an_export_replaces_an_earlier_one_whole(export, wren_config, tmp_path):
    other = make_adapter(wren_config, tmp_path / "other", seed=2)
    before = list_bytes(export)
    deployment.export_adapter(other, export, wren_config)
    deployment.check_export(export, wren_config)
    weights = "adapter_model.safetensors"
    assert list_bytes(export)[weights] == (other / weights).read_bytes()
    assert list_bytes(export)[weights] != before[weights]


def test_an_export_that_fails_leaves_the_earlier_one(
    adapter, export, wren_config, monkeypatch
):
    before = list_bytes(export)
    beside = sorted(export.parent.iterdir())

    def fail(folder):
        if folder != adapter:
            raise OSError("no space left")

    monkeypatch.setattr(deployment, "refuse_unsafe", fail)
    with pytest.raises(OSError, match="no space"):
        deployment.export_adapter(adapter, export, wren_config)
    assert list_bytes(export) == before
    assert sorted(export.parent.iterdir()) == beside


def test_an_export_that_cannot_be_put_in_its_place_leaves_the_earlier_one(
    adapter, export, wren_config, monkeypatch
):
    before = list_bytes(export)
    rename = Path.rename

    def fail(self, target):
        if self.name == "new":
            raise OSError("the folder is in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="in use"):
        deployment.export_adapter(adapter, export, wren_config)
    assert list_bytes(export) == before


# --- what is not loaded ----------------------------------------------------------


def refuse_load(folder, config, *words):
    with pytest.raises(deployment.MismatchError) as raised:
        deployment.load_export(folder, config)
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_copy_of_the_base_is_the_same_base(export, other_base):
    deployment.check_export(export, other_base)


def test_another_base_is_refused(export, other_base):
    path = f"{other_base.model}/model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    refuse_load(export, other_base, "does not fit base", "the weights differ")


def test_another_setting_of_the_base_is_refused(export, other_base):
    path = f"{other_base.model}/config.json"
    write_json(path, read_json(path) | {"rms_norm_eps": 1e-5})
    refuse_load(export, other_base, "the weights differ")


def test_another_tokenizer_is_refused(export, other_base):
    path = f"{other_base.model}/tokenizer.json"
    kept = read_json(path)
    kept["model"]["merges"].pop()
    write_json(path, kept)
    refuse_load(export, other_base, "does not fit base", "the tokenizer differ")


def test_another_chat_template_is_refused(export, other_base, tmp_path):
    path = tmp_path / "base" / "chat_template.jinja"
    path.write_text(path.read_text().replace("message", "turn"))
    refuse_load(export, other_base, "the chat template differ")
    with pytest.raises(deployment.MismatchError) as raised:
        deployment.check_export(export, other_base)
    assert "weights" not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    ],
)
def test_a_changed_or_missing_file_is_refused(name, export, wren_config):
    data = (export / name).read_bytes()
    at = len(data) - 3  # in a weight, not in the header
    (export / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    refuse_load_of_any_kind(export, wren_config, name)
    (export / name).unlink()
    refuse_load_of_any_kind(export, wren_config, name)
    (export / name).write_bytes(data)
    deployment.check_export(export, wren_config)


def refuse_load_of_any_kind(export, config, name):
    """Refuse what differs, or what does not even parse any more."""
    with pytest.raises((deployment.MismatchError, archives.UnsafeError)) as raised:
        deployment.check_export(export, config)
    assert name in str(raised.value) or "holds no weights" in str(raised.value)


def test_an_adapter_that_names_another_base_is_refused(export, wren_config):
    path = export / "adapter_config.json"
    write_json(path, read_json(path) | {"base_model_name_or_path": "evil/base"})
    refuse_load(export, wren_config, "changed since its export, in adapter_config")
    manifest = read_json(export / "manifest.json")
    manifest["files"]["adapter_config.json"] = hash_file(path)  # and the hash with it
    write_json(export / "manifest.json", manifest)
    refuse_load(export, wren_config, "names 'evil/base' as its base", "data/wren")


def test_a_manifest_that_leaves_files_out_or_leads_away_is_refused(
    export, wren_config, tmp_path
):
    kept = read_json(export / "manifest.json")
    outside = tmp_path / "outside.txt"
    outside.write_text("x")
    for files in (
        {},
        kept["files"] | {"../outside.txt": hash_file(outside)},
        {n: h for n, h in kept["files"].items() if n != "adapter_model.safetensors"},
    ):
        write_json(export / "manifest.json", kept | {"files": files})
        refuse_load(export, wren_config, "changed since its export")


def test_a_folder_without_manifest_is_refused(export, wren_config):
    (export / "manifest.json").unlink()
    refuse_load(export, wren_config, "has no manifest.json")


FOREIGN = {
    "a list": b"[1, 2]",
    "a text": b'"files"',
    "no files": b'{"base": "data/wren"}',
    "files that are a list": b'{"base": "data/wren", "files": ["README.md"]}',
    "no base": b'{"files": {}}',
    "cut": b'{"base": "data/wr',
    "no text": b"\xff\xfe",
    "nested without end": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_manifest_is_refused_and_not_written_over(
    kind, adapter, export, wren_config
):
    path = export / "manifest.json"
    path.write_bytes(FOREIGN[kind])
    refuse_load(export, wren_config, "has no manifest.json of an export")
    reason = r"has no manifest\.json of an export"
    refuse_export(adapter, export, wren_config, reason, FileExistsError)
    assert path.read_bytes() == FOREIGN[kind]


def test_pickles_in_an_export_are_refused(export, wren_config):
    (export / "adapter_model.bin").write_bytes(b"")
    for use in (deployment.check_export, deployment.load_export):
        with pytest.raises(archives.UnsafeError, match="can run code"):
            use(export, wren_config)


# --- several adapters ------------------------------------------------------------


@pytest.fixture(scope="module")
def three(wren_config, kept_adapter, tmp_path_factory):
    """Folders of three adapters, one of another rank."""
    folder = tmp_path_factory.mktemp("three")
    wider = wren_config.change(r=8)
    return {
        "triage": kept_adapter,
        "support": make_adapter(wren_config, folder / "support", seed=2),
        "contracts": make_adapter(wider, folder / "contracts", seed=3),
    }


@pytest.fixture
def exact(monkeypatch):
    """Compute in float32, where no two logits are equal by rounding."""
    monkeypatch.setattr(models, "pick_dtype", lambda: torch.float32)


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_a_mixed_batch_answers_as_each_adapter_alone(three, whole, tokenizer, exact):
    model = deployment.load_adapters(whole, three)
    wanted = {}
    for name, folder in three.items():
        alone = models.load_adapter(whole, folder)
        wanted[name] = generate(alone, tokenizer, PROMPTS, 4)
    wanted["__base__"] = generate(models.load_base(whole), tokenizer, PROMPTS, 4)
    assert len({tuple(answers) for answers in wanted.values()}) == 4
    names = [name for _ in PROMPTS for name in wanted]
    prompts = [prompt for prompt in PROMPTS for _ in wanted]
    for batch_size in (3, 128):
        mixed = generate(model, tokenizer, prompts, 4, batch_size, adapter_names=names)
        assert mixed == [wanted[n][i] for i in range(len(PROMPTS)) for n in wanted]
    for name in three:  # and one after the other
        model.set_adapter(name)
        assert generate(model, tokenizer, PROMPTS, 4) == wanted[name]


def test_the_first_adapter_is_active_and_none_is_trained(three, wren_config):
    model = deployment.load_adapters(wren_config, three)
    assert model.active_adapter == "triage"
    assert list(model.peft_config) == ["triage", "support", "contracts"]
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_names_are_one_a_prompt_and_known(three, whole, tokenizer):
    model = deployment.load_adapters(whole, three)
    with pytest.raises(ValueError, match="1 adapter names for 4 prompts"):
        generate(model, tokenizer, PROMPTS, 2, adapter_names=["triage"])
    with pytest.raises(ValueError, match="no adapter finance: it has triage, support"):
        generate(model, tokenizer, PROMPTS, 2, adapter_names=["finance"] * 4)
    with pytest.raises(ValueError, match="no adapter triage: it has none"):
        generate(
            models.load_base(whole), tokenizer, PROMPTS, 2, adapter_names=["triage"] * 4
        )


@pytest.mark.parametrize("method", ["ia3", "dora"])
def test_what_cannot_be_mixed_is_refused_by_name(method, whole, tokenizer, tmp_path):
    config = whole.change(method=method)
    folder = make_adapter(config, tmp_path / method)
    model = deployment.load_adapters(config, {"other": folder})
    with pytest.raises(ValueError, match="other is no plain LoRA"):
        generate(model, tokenizer, PROMPTS[:1], 2, adapter_names=["other"])


@pytest.mark.parametrize("names", [[], ["a.b"], [""]])
def test_adapters_need_names_that_peft_takes(names, kept_adapter, wren_config):
    with pytest.raises(ValueError, match="a name without a point"):
        deployment.load_adapters(wren_config, dict.fromkeys(names, kept_adapter))


def test_a_second_adapter_that_does_not_fit_is_refused(three, adapter, whole):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({f"wrapped.{name}": w for name, w in weights.items()}, path)
    with pytest.raises(models.NoEffectError, match="adapter not loaded"):
        deployment.load_adapters(whole, three | {"broken": adapter})


def test_an_export_that_was_changed_is_not_loaded_beside_others(
    three, export, wren_config, monkeypatch
):
    folders = three | {"exported": export}
    assert "exported" in deployment.load_adapters(wren_config, folders).peft_config
    (export / "README.md").write_text("changed")
    monkeypatch.setattr(models, "load_base", None)  # refused before anything is loaded
    with pytest.raises(deployment.MismatchError, match=r"changed .* in README\.md"):
        deployment.load_adapters(wren_config, folders)


def test_the_manifest_is_plain_json(export):
    kept = json.loads((export / "manifest.json").read_text())
    assert set(kept) == {
        *("base", "revision", "weights", "tokenizer", "chat_template", "files")
    }
    assert kept["weights"]["model.safetensors"] == hash_file(
        f"{WREN}/model.safetensors"
    )
    assert "manifest.json" not in kept["files"]
