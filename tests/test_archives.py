"""Run alone: ``python -m pytest tests/test_archives.py``."""

import gzip
import io
import json
import os
import pickle
import random
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftlib import archives, models
from ftlib.config import WREN

LINK = stat.S_IFLNK | 0o777
DEVICE = stat.S_IFCHR | 0o666


@pytest.fixture
def adapter(tmp_path):
    """A small adapter folder as PEFT writes it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    weights = {"a.lora_A.weight": np.arange(8, dtype=np.float32).reshape(4, 2)}
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "auto_mapping": None, "rank_pattern": {}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# Adapter\n")
    return folder


@pytest.fixture
def low_limit(monkeypatch):
    """Let a small archive unpack to a hundred times its size, not to 100 MB."""
    monkeypatch.setattr(archives, "MIN_LIMIT", 100_000)


def list_tree(folder):
    """Give each file below a folder with its bytes, and each link with its target."""
    return {
        path.relative_to(folder).as_posix(): (
            path.readlink()
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
        for path in folder.rglob("*")
    }


def write_zip(path, members, adapter):
    """Write a zip of an adapter and of members: (name, bytes, mode)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in adapter.iterdir():
            archive.write(file, file.name)
        for name, data, mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor tidies it
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


def write_tar(path, members, adapter):
    """Write a tar.gz of an adapter and of members: (name, bytes, changes)."""
    with tarfile.open(path, "w:gz") as archive:
        for file in adapter.iterdir():
            archive.add(file, file.name)
        for name, data, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


PLAIN = stat.S_IFREG | 0o644
ZIPS = {
    "a parent": ([("../evil.txt", b"x", PLAIN)], "leads out"),
    "a parent further in": ([("a/../../evil.txt", b"x", PLAIN)], "leads out"),
    "an absolute name": ([("/tmp/evil.txt", b"x", PLAIN)], "leads out"),
    "a parent by backslash": ([("..\\evil.txt", b"x", PLAIN)], "leads out"),
    "a drive": ([("C:/evil.txt", b"x", PLAIN)], "no name on every system"),
    "a share": ([("//host/evil.txt", b"x", PLAIN)], "leads out"),
    "a backslash": ([("a\\evil.txt", b"x", PLAIN)], "no name on every system"),
    "a stream": ([("a.txt:hidden", b"x", PLAIN)], "no name on every system"),
    "a device's name": ([("nul.txt", b"x", PLAIN)], "no name on every system"),
    "a point at the end": ([("a.txt.", b"x", PLAIN)], "no name on every system"),
    "a line break": ([("a\nb.txt", b"x", PLAIN)], "no name on every system"),
    "a long name": ([("a" * 201, b"x", PLAIN)], "no name on every system"),
    "a link": ([("link", b"/etc/passwd", LINK)], "link or a device"),
    "a link and through it": (
        [("link", b"..", LINK), ("link/evil.txt", b"x", PLAIN)],
        "link or a device",
    ),
    "a device": ([("null", b"", DEVICE)], "link or a device"),
    "a file twice": ([("README.md", b"x", PLAIN)], "one file on some systems"),
    "a file in two cases": ([("readme.MD", b"x", PLAIN)], "one file on some systems"),
    "a folder in two cases": (
        [("a/1.txt", b"x", PLAIN), ("A/2.txt", b"x", PLAIN)],
        "one file on some systems",
    ),
    "two accents": (
        [("\u00e9.txt", b"x", PLAIN), ("e\u0301.txt", b"x", PLAIN)],
        "one file on some systems",
    ),
    "a file as a folder": (
        [("README.md/x.txt", b"x", PLAIN)],
        "one file on some systems",
    ),
    "a bomb": ([("zeros.txt", bytes(5_000_000), PLAIN)], "100 times its size"),
    "code": ([("modeling.py", b"print(1)", PLAIN)], "can run code"),
    "a pickle": ([("adapter_model.bin", pickle.dumps({}), PLAIN)], "can run code"),
}
TARS = {
    "a parent": ([("../evil.txt", b"x", {})], "leads out"),
    "an absolute name": ([("/tmp/evil.txt", b"x", {})], "leads out"),
    "a drive": ([("C:\\evil.txt", b"x", {})], "no name on every system"),
    "a link": (
        [("link", b"", {"type": tarfile.SYMTYPE, "linkname": "../.."})],
        "link or a device",
    ),
    "a hard link": (
        [("link", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})],
        "link or a device",
    ),
    "a device": ([("null", b"", {"type": tarfile.CHRTYPE})], "link or a device"),
    "a pipe": ([("pipe", b"", {"type": tarfile.FIFOTYPE})], "link or a device"),
    "a file twice": ([("README.md", b"x", {})], "one file on some systems"),
    "a file in two cases": ([("Readme.md", b"x", {})], "one file on some systems"),
    "a bomb": ([("zeros.txt", bytes(5_000_000), {})], "100 times its size"),
    "a bomb in a header": (
        [("a.txt", b"", {"pax_headers": {"comment": "0" * 5_000_000}})],
        "100 times its size",
    ),
    "code": ([("modeling.py", b"print(1)", {})], "can run code"),
}


def refuse(path, reason):
    """Unpack what must be refused, and see that nothing was left anywhere."""
    before = list_tree(path.parent)
    with pytest.raises(archives.UnsafeError, match=reason) as raised:
        archives.unpack(path, path.parent / "new")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
    assert list_tree(path.parent) == before


@pytest.mark.parametrize("kind", ZIPS)
def test_a_hostile_zip_is_refused_and_nothing_is_written(
    kind, adapter, tmp_path, low_limit
):
    members, reason = ZIPS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of the double name
        path = write_zip(tmp_path / "a.zip", members, adapter)
    refuse(path, reason)


@pytest.mark.parametrize("kind", TARS)
def test_a_hostile_tar_is_refused_and_nothing_is_written(
    kind, adapter, tmp_path, low_limit
):
    members, reason = TARS[kind]
    refuse(write_tar(tmp_path / "a.tar.gz", members, adapter), reason)


def patch_zip(path, change):
    """Change the first member's entries, local and central: flags at 6, size at 22."""
    data = bytearray(path.read_bytes())
    local = data.index(b"PK\x03\x04")
    central = data.index(b"PK\x01\x02")
    change(data, local, central)
    path.write_bytes(data)
    return path


def test_a_zip_with_a_password_is_refused(adapter, tmp_path):
    def encrypt(data, local, central):
        data[local + 6] |= 1
        data[central + 8] |= 1

    path = write_zip(tmp_path / "a.zip", [], adapter)
    refuse(patch_zip(path, encrypt), "password")


def test_a_zip_that_holds_more_than_it_declares_is_refused(adapter, tmp_path):
    def declare_less(data, local, central):
        data[central + 24 : central + 28] = (3).to_bytes(4, "little")

    path = write_zip(tmp_path / "a.zip", [], adapter)
    refuse(patch_zip(path, declare_less), "no whole archive")


def test_a_name_cut_at_a_nul_is_seen_whole(adapter, tmp_path):
    path = write_zip(tmp_path / "a.zip", [("fine.txt#../x", b"x", PLAIN)], adapter)
    path.write_bytes(path.read_bytes().replace(b"fine.txt#", b"fine.txt\0"))
    refuse(path, "leads out|no name on every system")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_archive_cut_short_is_refused(name, share, adapter, tmp_path):
    whole = archives.pack(adapter, tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    refuse(tmp_path / name, "no whole archive|holds no weights")


def test_a_member_of_broken_lzma_is_refused(adapter, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(adapter / "README.md", "README.md")
    data = bytearray(path.read_bytes())
    at = 30 + len("README.md") + 4  # the coder's properties: 225 and more are none
    data[at] = 255
    path.write_bytes(data)
    refuse(path, "no whole archive")


def test_a_tar_dated_out_of_all_time_is_refused(adapter, tmp_path):
    dated = [("notes.txt", b"x", {"pax_headers": {"mtime": "1e300"}})]
    refuse(write_tar(tmp_path / "a.tar.gz", dated, adapter), "no whole archive")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_is_refused_or_gives_the_same_bytes(name, adapter, tmp_path):
    whole = archives.pack(adapter, tmp_path / name).read_bytes()
    draw = random.Random(0)
    n_refused = 0
    for _ in range(60):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (tmp_path / name).write_bytes(data)
        try:
            folder = archives.unpack(tmp_path / name, tmp_path / "new")
        except archives.UnsafeError:
            n_refused += 1
            assert not (tmp_path / "new").exists()
        else:
            assert set(list_tree(folder).values()) == set(list_tree(adapter).values())
            shutil.rmtree(folder)
    assert n_refused > 30


def test_too_many_files_are_refused(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 5)
    members = [(f"{i}.txt", b"", PLAIN) for i in range(3)]
    refuse(write_zip(tmp_path / "a.zip", members, adapter), "more than 5 files")
    fewer = write_zip(tmp_path / "b.zip", members[:2], adapter)
    assert archives.unpack(fewer, tmp_path / "new").is_dir()


def test_another_kind_of_archive_is_refused(adapter, tmp_path):
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    refuse(tmp_path / "a.rar", r"use \.zip or \.tar\.gz")


def test_what_is_there_already_is_not_touched(adapter, tmp_path):
    path = archives.pack(adapter, tmp_path / "a.zip")
    before = list_tree(adapter)
    with pytest.raises(FileExistsError, match="name a new folder"):
        archives.unpack(path, adapter)
    assert list_tree(adapter) == before


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "A.ZIP"])
def test_a_folder_comes_back_byte_by_byte(name, adapter, tmp_path):
    (adapter / "sub").mkdir()
    (adapter / "sub" / "notes \u00e9 (1).txt").write_bytes(os.urandom(3000))
    (adapter / ".gitattributes").write_text("*.safetensors filter=lfs")
    path = archives.pack(adapter, tmp_path / "out" / name)
    assert [file.name for file in path.parent.iterdir()] == [name]
    folder = archives.unpack(path, tmp_path / "deep" / "new")
    assert folder == tmp_path / "deep" / "new"
    assert list_tree(folder) == list_tree(adapter)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_the_same_folder_gives_the_same_bytes(name, adapter, tmp_path, monkeypatch):
    first = archives.pack(adapter, tmp_path / "1" / name).read_bytes()
    copy = shutil.copytree(adapter, tmp_path / "copy")  # with other times
    os.utime(copy / "README.md", (1, 1))
    (copy / "README.md").chmod(0o600)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert archives.pack(copy, tmp_path / "2" / name).read_bytes() == first


def test_what_other_tools_pack_is_taken(adapter, tmp_path):
    made = shutil.make_archive(tmp_path / "made", "gztar", adapter)  # with "./"
    assert list_tree(archives.unpack(made, tmp_path / "1")) == list_tree(adapter)
    made = shutil.make_archive(tmp_path / "made", "zip", tmp_path, "adapter")
    assert list_tree(archives.unpack(made, tmp_path / "2") / "adapter") == list_tree(
        adapter
    )


def test_an_archive_in_an_archive_is_a_file_like_another(adapter, tmp_path):
    bomb = gzip.compress(bytes(20_000_000))
    (adapter / "more.gz").write_bytes(bomb)  # of a thousand times its size
    path = archives.pack(adapter, tmp_path / "a.zip")
    assert (archives.unpack(path, tmp_path / "new") / "more.gz").read_bytes() == bomb


def test_a_harmless_archive_of_zeros_is_taken(adapter, tmp_path):
    save_file({"a": np.zeros((1000, 1000))}, adapter / "adapter_model.safetensors")
    path = archives.pack(adapter, tmp_path / "a.zip")  # a thousandth of its size
    assert list_tree(archives.unpack(path, tmp_path / "new")) == list_tree(adapter)


# --- folders ---------------------------------------------------------------------


def set_config(name, **settings):
    """Give what writes settings into a file of the folder."""

    def write(folder):
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | settings))

    return write


def put(name, data):
    """Give what writes a file into the folder."""
    return lambda folder: (folder / name).write_bytes(data)


def break_weights(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def claim_more(folder):
    """Write a header that claims more than the file has: eight terabytes."""
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [2 * 10**12], "data_offsets": [0, 8 * 10**12]}}
    ).encode()
    path = folder / "adapter_model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def huge_header(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def link(name, target):
    return lambda folder: (folder / name).symlink_to(target)


CODE = {"AutoModelForCausalLM": "evil.Model"}
FOLDERS = {
    "a pickle": (put("pytorch_model.bin", pickle.dumps({})), "can run code"),
    "a pickle by another name": (put("weights.PT", b""), "can run code"),
    "an array of objects": (put("extra.npy", b""), "can run code"),
    "a pickle called safetensors": (
        put("model.safetensors", pickle.dumps({})),
        "no whole safetensors",
    ),
    "code": (put("modeling_evil.py", b"print(1)"), "can run code"),
    "a library": (put("evil.so", b"\x7fELF"), "can run code"),
    "a model's code": (set_config("config.json", auto_map=CODE), "calls for code"),
    "a part's code": (
        set_config("config.json", text_config={"auto_map": CODE}),
        "calls for code",
    ),
    "a tokenizer's code": (
        set_config("tokenizer_config.json", auto_map={"AutoTokenizer": ["e.T", None]}),
        "calls for code",
    ),
    "an adapter's code": (
        set_config("adapter_config.json", auto_map=CODE),
        "calls for code",
    ),
    "an adapter's code in another case": (
        set_config("Adapter_Config.JSON", auto_map=CODE),
        "calls for code",
    ),
    "a pipeline's code": (
        set_config("config.json", custom_pipelines={"x": {"impl": "evil.P"}}),
        "custom_pipelines",
    ),
    "trust asked for": (
        set_config("config.json", trust_remote_code=True),
        "trust_remote_code",
    ),
    "a module to import": (
        set_config(
            "adapter_config.json",
            auto_mapping={"base_model_class": "system", "parent_library": "os"},
        ),
        "auto_mapping",
    ),
    "a module of megatron's name": (
        set_config("adapter_config.json", megatron_config={"a": 1}),
        "megatron_config",
    ),
    "a cache that is a pickle": (
        set_config("adapter_config.json", corda_config={"cache_file": "/tmp/x"}),
        "cache_file",
    ),
    "a rank of a billion": (
        set_config("adapter_config.json", r=10**9),
        "larger weights",
    ),
    "a rank of a billion in one layer": (
        set_config("adapter_config.json", rank_pattern={"q_proj": 10**9}),
        "larger weights",
    ),
    "a rank that is no integer": (
        set_config("adapter_config.json", r=1e9),
        "larger weights",
    ),
    "a rank that is text": (
        set_config("adapter_config.json", r="1000000000"),
        "larger weights",
    ),
    "a list of ranks": (
        set_config("adapter_config.json", rank_pattern={"q_proj": [10**9]}),
        "larger weights",
    ),
    "an encoder of a billion": (
        set_config("adapter_config.json", encoder_hidden_size=10**9),
        "larger weights",
    ),
    "tokens of a billion": (
        set_config("adapter_config.json", token_dim=10**9),
        "larger weights",
    ),
    "a link out": (link("notes.txt", "/etc/passwd"), "a link or a device"),
    "a link to a folder": (link("sub", ".."), "a link or a device"),
    "a link to nothing": (link("notes.txt", "nowhere"), "a link or a device"),
    "weights elsewhere": (
        set_config("model.safetensors.index.json", weight_map={"a": "../../x"}),
        "leads to",
    ),
    "weights elsewhere on Windows": (
        set_config("model.safetensors.index.json", weight_map={"a": "..\\x"}),
        "leads to",
    ),
    "weights cut short": (break_weights, "no whole safetensors"),
    "weights that claim more": (claim_more, "no whole safetensors"),
    "a header without end": (huge_header, "no whole safetensors"),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "holds no weights",
    ),
    "settings that are none": (put("config.json", b"\xff{"), "holds no settings"),
    "settings nested without end": (
        put("config.json", b'{"a":' * 100_000 + b"1"),
        "holds no settings",
    ),
    "settings without end": (
        put("config.json", b'{"a": "' + b"x" * 10_000_000 + b'"}'),
        "holds no settings",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_hostile_folder_is_refused(kind, adapter):
    archives.refuse_unsafe(adapter)  # before: harmless
    spoil, reason = FOLDERS[kind]
    spoil(adapter)
    with pytest.raises(archives.UnsafeError, match=reason) as raised:
        archives.refuse_unsafe(adapter)
    assert "\n" not in str(raised.value)


def test_what_is_hostile_further_in_is_refused_too(adapter):
    (adapter / "sub").mkdir()
    put("sub/evil.py", b"")(adapter)
    with pytest.raises(archives.UnsafeError, match=r"sub/evil\.py can run code"):
        archives.refuse_unsafe(adapter)


def test_harmless_folders_are_taken(adapter):
    archives.refuse_unsafe(WREN)
    set_config("tokenizer_config.json", auto_map=None, model_max_length=10**30)(adapter)
    set_config(
        "adapter_config.json",
        auto_mapping={
            "base_model_class": "Qwen3ForCausalLM",
            "parent_library": "transformers.models.qwen3.modeling_qwen3",
        },
    )(adapter)
    kept = {"q_proj.lora_E": [True, False, True]}  # as AdaLoRA writes it
    widths = {"token_dim": 4, "encoder_hidden_size": 32, "num_layers": None}
    set_config("adapter_config.json", rank_pattern=kept, target_r=None, **widths)(
        adapter
    )
    put("tokenizer.json", b'{"model": {"vocab": {"auto_map": 1}}}')(adapter)
    archives.refuse_unsafe(adapter)


def test_a_folder_that_would_be_refused_is_not_packed(adapter, tmp_path):
    put("evil.py", b"")(adapter)
    with pytest.raises(archives.UnsafeError, match=r"evil\.py"):
        archives.pack(adapter, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


# --- what loads a model ----------------------------------------------------------


@pytest.fixture
def wren_copy(tmp_path):
    return shutil.copytree(WREN, tmp_path / "wren")


class Evil:
    """What leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


def test_a_base_of_pickles_is_refused_and_not_loaded(wren_copy, wren_config, tmp_path):
    (wren_copy / "model.safetensors").unlink()
    (wren_copy / "pytorch_model.bin").write_bytes(
        pickle.dumps({"a": Evil(tmp_path / "mark")})
    )
    config = wren_config.change(model=str(wren_copy))
    for load in (models.load_base, models.load_random):
        with pytest.raises(archives.UnsafeError, match="pytorch_model"):
            load(config)
    assert not (tmp_path / "mark").exists()


def test_a_base_with_its_own_code_is_refused_and_nothing_runs(
    wren_copy, wren_config, tmp_path
):
    mark = tmp_path / "mark"
    (wren_copy / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: ...\n")
    set_config("config.json", auto_map={"AutoConfig": "evil.Model", **CODE})(wren_copy)
    set_config("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Model"] * 2})(
        wren_copy
    )
    config = wren_config.change(model=str(wren_copy))
    with pytest.raises(archives.UnsafeError, match="code"):
        models.load_base(config)
    models.load_tokenizer(config)  # transformers' own, not the folder's
    assert not mark.exists()


def test_an_adapter_of_pickles_is_refused_and_not_loaded(
    adapter, wren_config, tmp_path
):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    with pytest.raises(archives.UnsafeError, match="adapter_model"):
        models.load_adapter(wren_config, adapter)
    assert not (tmp_path / "mark").exists()


def test_an_adapter_that_is_not_there_is_not_asked_for_on_the_hub(
    wren_config, tmp_path
):
    with pytest.raises(archives.UnsafeError, match="is no folder"):
        models.load_adapter(wren_config, tmp_path / "nothing")


def test_the_hub_gives_safetensors_alone_and_no_code(wren_config, monkeypatch):
    asked = []

    def refuse_all(name, **settings):
        asked.append((settings["use_safetensors"], settings["trust_remote_code"]))
        raise OSError("no network")

    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", refuse_all)
    for load in (models.load_base, models.load_random):
        with pytest.raises(OSError, match="no network"):
            load(wren_config.change(model="example/model"))
    assert asked == [(True, False)] * 2
