"""Archives: a model's folder packed, unpacked, and refused where it could harm."""

import errno
import gzip
import json
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

MAX_FILES = 10_000
"""The most files in an archive."""
MAX_GROWTH = 100
"""How many times its own size an archive may unpack to; weights hardly compress."""
MIN_LIMIT = 100_000_000
"""What even the smallest archive may unpack to, in bytes."""
MAX_CONFIG = 10_000_000
"""The largest configuration file, in bytes."""
_RUNS = re.compile(
    r"(?i)\.(bin|pt|pth|ckpt|pkl|pickle|joblib|dill|npy|npz|h5|keras|"  # pickles
    r"py|pyc|pyd|so|dll|dylib|exe)$"
)
_CALLS = (
    *("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code"),
    *("megatron_config", "cache_file", "covariance_file"),
    "prompt_tuning_init_state_dict_path",
)
"""Settings that have transformers or PEFT import code, or load a pickle."""
_RANKS = ("r", "init_r", "target_r", "num_virtual_tokens")
_WIDTHS = ("token_dim", "encoder_hidden_size", "num_layers")
"""Sizes that PEFT sets up before it loads weights."""
_FOREIGN = re.compile(
    r'[\\:<>"|?*\x00-\x1f\x7f\ud800-\udfff]|[. ](/|$)|'
    r"(?i:(^|/)(con|prn|aux|nul|com\d|lpt\d)(?=[./]|$))"
)
"""What a file's name cannot hold on Windows, or in UTF-8."""
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError),
    *(lzma.LZMAError, ValueError, ArithmeticError, NotImplementedError, OSError),
)
"""What reading a damaged archive raises."""
_Seen = dict[str, tuple[str, bool]]


class UnsafeError(ValueError):
    """An archive or a model's folder that could do harm; the message says how."""


def pack(folder: str | os.PathLike, path: str | os.PathLike) -> Path:
    """
    Pack a model or adapter folder, the same folder into the same bytes.

    Parameters
    ----------
    folder : path
        What to pack, with the folders in it.
    path : path
        Where to, a name that ends in ``.zip``, ``.tar.gz`` or ``.tgz``. Written whole
        or not at all.

    Returns
    -------
    Path
        The archive.

    Raises
    ------
    UnsafeError
        When the folder is one that `unpack` would refuse.
    """
    folder, path = Path(folder), Path(path)
    is_zip = _is_zip(path)
    refuse_unsafe(folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as raw:
            (_write_zip if is_zip else _write_tar)(raw, folder, files)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _write_zip(raw: Any, folder: Path, files: list[Path]) -> None:
    """Write a zip in which nothing is dated."""
    with zipfile.ZipFile(raw, "w") as archive:
        for file in files:
            member = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            with (
                file.open("rb") as source,
                archive.open(member, "w", force_zip64=True) as target,
            ):
                shutil.copyfileobj(source, target)


def _write_tar(raw: Any, folder: Path, files: list[Path]) -> None:
    """Write a tar in which nothing is dated, nor owned by anyone."""
    with (
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for file in files:
            member = tarfile.TarInfo(file.relative_to(folder).as_posix())
            member.size = file.stat().st_size
            with file.open("rb") as source:
                archive.addfile(member, source)


def unpack(path: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """
    Unpack a model or adapter into a new folder, whole or not at all.

    Parameters
    ----------
    path : path
        A ``.zip``, ``.tar.gz`` or ``.tgz``, from wherever.
    folder : path
        Where to; it must not be there yet.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UnsafeError
        In one sentence: when the archive would write outside the folder, holds a link
        or a device, two files of one name, more than it seems to, or is broken; or when
        what it holds is refused by `refuse_unsafe`.
    FileExistsError
        When the folder is there.
    """
    path, folder = Path(path), Path(folder)
    extract = _extract_zip if _is_zip(path) else _extract_tar
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} is there already: name a new folder")
    limit = max(MIN_LIMIT, MAX_GROWTH * path.stat().st_size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack.", dir=folder.parent) as draft:
        inside = Path(draft) / "inside"
        inside.mkdir()
        try:
            extract(path, inside, limit)
        except UnsafeError:
            raise
        except _BROKEN as error:
            if getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise  # such as a full disk
            raise UnsafeError(
                f"{path.name} is no whole archive ({error}): fetch it again"
            ) from None
        refuse_unsafe(inside)
        inside.rename(folder)
    return folder


def _is_zip(path: Path) -> bool:
    """Say whether a name is a zip's or a tar's; others are refused."""
    if not path.name.lower().endswith((".zip", ".tar.gz", ".tgz")):
        raise UnsafeError(f"{path.name} is no archive known here: use .zip or .tar.gz")
    return path.suffix.lower() == ".zip"


def _extract_zip(path: Path, inside: Path, limit: int) -> None:
    """Extract a zip once all its members are seen; none gives more than it declares."""
    seen: _Seen = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _refuse_bomb(sum(member.file_size for member in members), limit)
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            # The name as written: zipfile's other one is cut at a NUL.
            _check_member(member.orig_filename, is_plain, not member.is_dir(), seen)
            if member.flag_bits & 1:
                raise UnsafeError("the archive has a password: unpack it yourself")
        archive.extractall(inside)


def _extract_tar(path: Path, inside: Path, limit: int) -> None:
    """Extract a tar in one reading."""
    seen: _Seen = {}
    with gzip.open(path) as packed:
        stream = _Limited(packed, limit)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            # Python 3.11.3 has none, and with plain files needs none.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in archive:
                is_plain = (member.isreg() or member.isdir()) and not member.issparse()
                _check_member(member.name, is_plain, member.isreg(), seen)
                member.mode = 0o755 if member.isdir() else 0o644
                archive.extract(member, inside)
        while stream.read(1 << 20):  # on to gzip's own checksum
            pass


class _Limited:
    """A stream that gives no more than it may, a tar's own headers included."""

    def __init__(self, stream: Any, limit: int) -> None:
        self.stream, self.limit, self.n_read = stream, limit, 0

    def read(self, size: int) -> bytes:
        """Read on, up to the limit."""
        data = self.stream.read(size)
        self.n_read += len(data)
        _refuse_bomb(self.n_read, self.limit)
        return data


def _refuse_bomb(size: int, limit: int) -> None:
    """Refuse what is larger than an archive of weights can be."""
    if size > limit:
        raise UnsafeError(
            f"the archive unpacks to over {MAX_GROWTH} times its size: weights do not"
        )


def _check_member(name: str, is_plain: bool, is_file: bool, seen: _Seen) -> None:
    """Refuse a member that some system would not write as one file in the folder."""
    place = PurePosixPath(name)
    if not is_plain:
        raise UnsafeError(f"{name!r:.80} is a link or a device: pack plain files alone")
    if place.is_absolute() or ".." in re.split(r"[/\\]", name):
        raise UnsafeError(f"{name!r:.80} leads out of the folder: trust none of it")
    is_foreign = _FOREIGN.search("/".join(place.parts)) or is_file > len(place.parts)
    if is_foreign or len(name.encode()) > 200:
        raise UnsafeError(f"{name!r:.80} is no name on every system: rename the file")
    for part in [place, *place.parents][:-1]:
        is_end = is_file and part == place
        folded = unicodedata.normalize("NFC", str(part)).casefold()
        if folded in seen and (is_end or seen[folded] != (str(part), False)):
            raise UnsafeError(
                f"{name!r:.80} and {seen[folded][0]!r:.80} are one file on some "
                "systems: rename one"
            )
        seen[folded] = (str(part), is_end)
    if len(seen) > MAX_FILES:
        raise UnsafeError(f"more than {MAX_FILES} files: it is no archive of a model")


def refuse_unsafe(folder: str | os.PathLike) -> None:
    """
    Refuse a model or adapter folder that runs code, leads elsewhere, or is broken.

    Parameters
    ----------
    folder : path
        Of a model or an adapter, as ``save_pretrained`` writes it.

    Raises
    ------
    UnsafeError
        In one sentence, naming the file: weights that are pickles, code, settings that
        call for code, links, weights that are no safetensors or whose header is broken,
        and an adapter's ranks and widths that the weights do not bear out.

    Notes
    -----
    No weight is loaded: whether they are good is another question. The sizes in a whole
    model's ``config.json`` are not compared with them: layers may share their weights.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UnsafeError(f"{folder} is no folder: name that of a model or an adapter")
    paths = sorted(folder.rglob("*"))
    longest = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        kind = path.lstat().st_mode
        is_junction = getattr(path, "is_junction", bool)()  # Python 3.12, Windows
        if is_junction or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UnsafeError(f"{name} is a link or a device: copy what it stands for")
        if _RUNS.search(path.name):
            raise UnsafeError(f"{name} can run code: keep safetensors and settings")
        if path.suffix.lower() == ".safetensors":
            longest = max(longest, _measure_sides(path, name))
    if not longest:
        raise UnsafeError(f"{folder.name} holds no weights: give it safetensors")
    for path in paths:
        if path.name.lower().endswith(("config.json", ".index.json")):
            _check_settings(path, longest)


def _measure_sides(path: Path, name: str) -> int:
    """Give the longest side of the tensors in a file, whose header must be whole."""
    try:
        with safe_open(path, "numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UnsafeError(
            f"{name} is no whole safetensors file ({error}): fetch it again"
        ) from None
    return max((side for shape in shapes for side in shape), default=0)


def _check_settings(path: Path, longest: int) -> None:
    """Refuse settings that call for code or files, or are larger than the weights."""

    def look(found: dict[str, Any]) -> dict[str, Any]:
        calls = [key for key in _CALLS if found.get(key)]
        library = (found.get("auto_mapping") or {}).get("parent_library", "")
        if calls or library.split(".")[0] not in ("", "transformers"):
            name = (*calls, "auto_mapping")[0]
            raise UnsafeError(f"{path.name} calls for code ({name}): take that out")
        is_peft = "peft_type" in found
        ranks = [found.get(key) or 0 for key in _RANKS] * is_peft
        # AdaLoRA's pattern lists which of its ranks are kept.
        pattern = (found.get("rank_pattern") or {}).values()
        ranks += [sum(rank) if isinstance(rank, list) else rank for rank in pattern]
        widths = [found.get(key) or 0 for key in _WIDTHS] * is_peft
        is_odd = any(not isinstance(size, int) for size in ranks + widths)
        # Weights are saved without the encoder that made them, which may be wider.
        if is_odd or max([0, *ranks]) > longest or max([0, *widths]) > 8 * longest:
            raise UnsafeError(f"{path.name} is for larger weights: it is not their own")
        for file in (found.get("weight_map") or {}).values():
            if Path(file).name != file or "\\" in file:
                raise UnsafeError(f"{path.name} leads to {file!r:.80}: take that out")
        return found

    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError("too large")
        json.loads(path.read_text("utf-8"), object_hook=look)
    except UnsafeError:
        raise
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise UnsafeError(f"{path.name} holds no settings: fetch it again") from None
