"""Evidence: what was measured of a run, in files whose hashes tell when it is stale."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from huggingface_hub import ModelCard

from ftlib import store
from ftlib.config import ROOT
from ftlib.forgetting import Right, compare_abilities, summarise
from ftlib.schema import Example
from ftlib.scoring import Score, Setting

MANIFEST = "manifest.json"
"""The file with the hash of each part and of each file that the parts rest on."""
VERDICT = "release.json"
"""The file of a pack that keeps how it was judged, by which terms, and who overrode."""
PARTS = ("run", "environment", "splits", "licences", "systems", "gates", "cost")
PARTS += ("tested", "answered", "forgetting")
_JSON = {*(f"{part}.json" for part in PARTS), MANIFEST, VERDICT}
MEASURED = ("redaction", "leak", "gain", "format", "compliance")
"""The gates that judge scores."""
_TABLE = ROOT / "data" / "README.md"
Scores = Mapping[str, Sequence[Score]]


@dataclass(frozen=True)
class Pack:
    """The evidence on one run: a folder with a JSON file a part, and a manifest."""

    folder: Path

    def read(self, part: str) -> Any:
        """
        Read one part as it stands in its file.

        Parameters
        ----------
        part : str
            Such as "data".

        Returns
        -------
        object
            What was gathered; an empty dict where nothing was.
        """
        path = self.folder / f"{part}.json"
        return store.read_json(path) if path.exists() else {}

    def read_scores(self, part: str) -> dict[str, list[Score]]:
        """
        Read the scores of one part.

        Parameters
        ----------
        part : {"systems", "gates", "forgetting"}
            Which.

        Returns
        -------
        dict of str to list of Score
            As they were gathered.
        """
        return {
            name: [
                Score(**row | {"setting": row["setting"] and Setting(**row["setting"])})
                for row in rows
            ]
            for name, rows in self.read(part).items()
        }


def gather(
    folder: str | os.PathLike,
    run_folder: str | os.PathLike,
    splits: Mapping[str, Sequence[Example]],
    sources: Sequence[str | os.PathLike],
    systems: Scores,
    gates: Scores,
    before: Right | None = None,
    after: Right | None = None,
    cost: Mapping[str, float | str] | None = None,
    inputs: Sequence[str | os.PathLike] = (),
    licences: Mapping[str, str] | None = None,
    tested_on: str = "test",
    rerun: str = "",
) -> Pack:
    """
    Write what was measured of a run into a folder, each part with its hash.

    Parameters
    ----------
    folder : path
        Where to; an earlier pack there is replaced.
    run_folder : path
        The finished run: ``run.json`` and ``adapter``.
    splits : mapping of str to sequence of Example
        The examples that it was trained and tested on, by split.
    sources : sequence of path
        The data files that these were made of.
    systems : mapping of str to sequence of Score
        The evaluation, by system: "fine-tuned" and the baselines.
    gates : mapping of str to sequence of Score
        What the gates judge, by `MEASURED`: for "redaction" and "leak" the share of
        training texts, and of answers, that hold an original (`redaction.leaks`); for
        "gain" what it gains over others, paired; for "format" and "compliance" the
        share of answers in form, and keeping each rule.
    before, after : mapping of str to sequence of bool, optional
        As `forgetting.answer_probes` gives them.
    cost : mapping of str to float or str, optional
        By what it is, with its unit.
    inputs : sequence of path
        What else the figures rest on: rules, probes, the record of an audit.
    licences : mapping of str to str, optional
        Of a source or of the base model, by its name, where neither
        ``data/README.md`` nor the base model's card says it.
    tested_on : str
        What the scores were measured on.
    rerun : str
        The command that makes the run and its evidence again.

    Returns
    -------
    Pack
        The folder. What was not measured has no figures, and passes no gate.

    Raises
    ------
    ValueError
        When the run is not finished, or a gate judges no scores.
    FileExistsError
        When the folder is the run's, or holds anything that is of no pack.

    Notes
    -----
    Each file is written whole, the manifest last: without it there is no pack.
    """
    folder, run_folder = Path(folder), Path(run_folder)
    run = store.read_json(run_folder / store.RUN_FILE)
    if run["status"] != "finished":
        raise ValueError(f"this run is {run['status']}: let it finish first")
    if unknown := sorted(gates.keys() - set(MEASURED)):
        raise ValueError(f"no gate {unknown[0]!r} judges scores: use {MEASURED}")
    files = [run_folder / store.RUN_FILE, *sources, *inputs]
    files += (run_folder / store.ADAPTER_FOLDER).glob("*")
    _refuse_loss(folder, files)
    base, local = run["config"]["model"], ROOT / run["config"]["model"]
    base = _name(local) if local.exists() else base
    known = _list_licences(base) | dict(licences or {})
    parts: dict[str, Any] = {
        "run": {key: value for key, value in run.items() if key != "history"}
        | {"folder": _name(run_folder), "base": base, "rerun": rerun},
        "environment": {"trained": run["versions"], "measured": store.list_versions()},
        "splits": {name: _measure_lengths(rows) for name, rows in splits.items()},
        "licences": {n: known.get(n, "unknown") for n in [*map(_name, sources), base]},
        "systems": {name: _keep(scores) for name, scores in systems.items()},
        "gates": {name: _keep(scores) for name, scores in gates.items()},
        "cost": dict(cost or {}),
        "tested": {"on": tested_on},
    }
    if before and after:
        parts["answered"] = {"before": dict(before), "after": dict(after)}
        summary = list(summarise(before, after).values())
        lost = {"summary": summary, "abilities": compare_abilities(before, after)}
        parts["forgetting"] = {name: _keep(scores) for name, scores in lost.items()}
    for name in (MANIFEST, *_JSON):  # the manifest first: from here on it is no pack
        (folder / name).unlink(missing_ok=True)
    for name, part in parts.items():
        store.write_json(folder / f"{name}.json", part)
    files += [path for path in local.glob("[!.]*") if path.is_file()]
    files += [_TABLE, *(folder / f"{name}.json" for name in parts)]
    hashes = {_name(path): store.hash_file(path) for path in files}
    store.write_json(folder / MANIFEST, hashes)
    return Pack(folder)


def _refuse_loss(folder: Path, files: Sequence[str | os.PathLike]) -> None:
    """Refuse a folder that holds what no pack wrote, or a file that one rests on."""
    place, ours = folder.resolve(), {*_JSON, "README.md", "checklist.html"}
    found = [path for path in folder.glob("[!.]*") if path.name not in ours]
    found += [path for path in map(Path, files) if place in path.resolve().parents]
    run = Pack(folder).read("run")
    found += [folder / store.RUN_FILE] if run and "rerun" not in run else []
    if found:
        raise FileExistsError(
            f"{place.name} holds {found[0].name}, which is no part of a pack and "
            "could be lost: give a folder of its own"
        )


def _name(path: str | os.PathLike) -> str:
    """Name a file by its path in the course, or in full where it lies elsewhere."""
    full = Path(path).resolve()
    return (full.relative_to(ROOT) if full.is_relative_to(ROOT) else full).as_posix()


def _keep(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Give scores as what JSON can hold; what is not defined is not measured."""
    return [asdict(score) for score in scores if score.n]


def _measure_lengths(examples: Sequence[Example]) -> dict[str, float]:
    """Give how many examples there are, and how long they are in characters."""
    sizes = [sum(len(m["content"]) for m in row["messages"]) for row in examples]
    lengths = {"shortest": min, "median": median, "longest": max} if sizes else {}
    return {"rows": len(sizes)} | {name: f(sizes) for name, f in lengths.items()}


def _list_licences(base: str) -> dict[str, str]:
    """Give the licences that the table of ``data/`` and the base's card tell."""
    text = _TABLE.read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    known = {f"data/{row[1].strip(' `')}": row[3].strip() for row in rows}
    card = ROOT / base / "README.md"
    told = ModelCard.load(card).data.get("license") if card.exists() else None
    return known | ({base: told} if told else {})


def find_stale(folder: str | os.PathLike) -> list[str]:
    """
    Find what has changed since a pack was gathered.

    Parameters
    ----------
    folder : path
        The pack's.

    Returns
    -------
    list of str
        The files, by name, that have another hash by now or are gone.

    Raises
    ------
    FileNotFoundError
        When the folder has no manifest.
    """
    manifest = Path(folder) / MANIFEST
    if not manifest.exists():
        raise FileNotFoundError(f"{manifest.parent.name} is no whole pack: gather it")
    return [
        name
        for name, sha256 in store.read_json(manifest).items()
        if not (ROOT / name).is_file() or store.hash_file(ROOT / name) != sha256
    ]


def warn_if_stale(folder: str | os.PathLike) -> str:
    """
    Say that a card no longer tells the truth, where that is so.

    Parameters
    ----------
    folder : path
        The pack's.

    Returns
    -------
    str
        A sentence that names what has changed; empty where nothing has.
    """
    changed = ", ".join(Path(name).name for name in find_stale(folder))
    says = f"STALE: {changed} changed after this was measured; gather it anew first."
    return says if changed else ""
