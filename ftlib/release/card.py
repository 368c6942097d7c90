"""The model card and a checklist to sign, written from a pack's files alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ftlib.release.evidence import MANIFEST, Pack, warn_if_stale
from ftlib.schema import make_safe
from ftlib.store import read_json

CLIP = 170
"""Characters of a text on the checklist, at most, so that it stays one page."""
Rows = list[Sequence[Any]]


def write_card(pack: Pack) -> Path:
    """
    Write the model card of a pack: ``README.md``.

    Parameters
    ----------
    pack : Pack
        As `gather` gives it; where it was not judged, the card says so.

    Returns
    -------
    Path
        The card. It begins with what has changed since, and with who overrode a gate.
    """
    run, licences, kept = map(pack.read, ("run", "licences", "release"))
    systems, gates = pack.read_scores("systems"), pack.read_scores("gates")
    terms, tested_on = kept.get("terms", {}), pack.read("tested")["on"]
    metadata = ModelCardData(
        model_name=Path(run["folder"]).name,
        base_model=run["base"],
        base_model_relation="adapter",
        library_name="peft",
        license=str(terms.get("licence", "unknown")).lower(),
        datasets=[name for name in licences if name != run["base"]],
        eval_results=[
            EvalResult("text-generation", tested_on, tested_on, s.name, s.value)
            for s in systems.get("fine-tuned", [])
        ],
    )
    training = {key: run.get(key) for key in ("steps", "seconds", "peak_mb")}
    training |= run["config"] | {"model": run["base"]} | run["versions"]
    splits = [[name, *s.values()] for name, s in pack.read("splits").items()]
    hashes = read_json(pack.folder / MANIFEST)
    parts = _describe(pack, _draw) | {
        "base": _write(run["base"]),
        "purpose": _write(terms.get("purpose", "")),
        "splits": _draw([["split", "rows", "shortest", "median", "longest"], *splits]),
        "sources": _draw([["source", "licence"], *licences.items()]),
        "gates_on": _draw_scores("gate", gates),
        "tested_on": _write(tested_on),
        "evaluation": _draw_scores("system", systems),
        "forgetting": _draw_scores("part", pack.read_scores("forgetting")),
        "cost": _draw([["cost", "figure"], *pack.read("cost").items()]),
        "training": _draw([["setting", "value"], *training.items()]),
        "rerun": run["rerun"] or "not given",
        "files": _draw([["file", "SHA-256"], *hashes.items()]),
    }
    text = f"---\n{metadata.to_yaml()}\n---\n\n{_fill('card.md', parts)}"
    for name in filter(lambda name: Path(name).is_absolute(), [*hashes, run["base"]]):
        text = text.replace(name, Path(name).name)  # where it lies is nobody's business
    ModelCard(text).save(pack.folder / "README.md")
    return pack.folder / "README.md"


def write_checklist(pack: Pack) -> Path:
    """
    Write the one-page checklist of a pack, to print and to sign.

    Parameters
    ----------
    pack : Pack
        As `judge` has judged it.

    Returns
    -------
    Path
        ``checklist.html``: one sheet of A4, on which nothing rests on colour.
    """
    hashes = read_json(pack.folder / MANIFEST)
    files = [f"{Path(name).name} {sha256[:12]}" for name, sha256 in hashes.items()]
    parts = _describe(pack, _draw_html) | {"files": make_safe(" · ".join(files))}
    path = pack.folder / "checklist.html"
    path.write_text(_fill("checklist.html", parts), encoding="utf-8")
    return path


def _describe(pack: Pack, draw: Any) -> dict[str, str]:
    """Give what card and checklist share: notices, verdict, gates and terms."""
    kept = pack.read("release")
    notices = [warn_if_stale(pack.folder)]
    if by := kept.get("override"):
        notices.append(
            f"OVERRIDE: {by['by']} ships it against the gates: {by['reason']}"
        )
    verdicts = {True: "SHIP", False: "DO NOT SHIP", None: "NOT JUDGED"}
    words = {True: "PASS", False: "FAIL"}
    rows = [[g["name"], words[g["passed"]], g["reason"]] for g in kept.get("gates", [])]
    return {
        "name": _write(Path(pack.read("run")["folder"]).name),
        "notices": "".join(f"<p><b>{_write(n)}</b></p>\n" for n in notices if n),
        "verdict": verdicts[kept.get("ship")],
        "gates": draw([["gate", "passed", "why"], *rows]),
        "terms": draw([["term", "says"], *kept.get("terms", {}).items()]),
    }


def _fill(template: str, parts: Mapping[str, str]) -> str:
    text = (Path(__file__).parent / template).read_text(encoding="utf-8")
    return Template(text).substitute(parts)


def _write(value: Any, length: int | None = None) -> str:
    """Give a value as one line in which nothing acts, in Markdown or HTML."""
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    if length and len(text) > length:
        text = f"{text[: length - 5]}[...]"  # before escaping, which makes it longer
    return " ".join(make_safe(text).replace("|", "&#124;").split())


def _draw(rows: Rows) -> str:
    """Draw rows as a Markdown table, the first of them its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(_write, line))} |" for line in lines)


def _draw_scores(what: str, scores: Mapping[str, Sequence[Any]]) -> str:
    """Draw scores as a Markdown table: value, interval and n."""
    rows = [
        [name, s.name, f"{s.value:.3f}", f"{s.low:.3f} to {s.high:.3f}", s.n]
        for name, part in scores.items()
        for s in part
    ]
    return _draw([[what, "score", "value", "95 % interval", "n"], *rows])


def _draw_html(rows: Rows) -> str:
    """Draw rows as an HTML table of clipped texts."""
    lines = [
        "".join(f"<td>{_write(value, CLIP)}</td>" for value in row) for row in rows
    ]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
