"""
Make the executed lessons a static site in runs/site/html.

    python run.py site [--linkcheck]

A lesson that has not been executed, or that was changed since, is executed first. The
site needs no network, neither to be made nor to be read: the build ends with a search
for broken links and for anything fetched from elsewhere. ``--linkcheck`` also asks for
every address on the network.
"""

import csv
import re
import shutil
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for run.py

import run  # noqa: E402

FIGURE_DATA = "application/vnd.ftlib.figure+json"  # as in ftlib/figures.py
PANEL = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
STILL = (
    "*A panel stands here. It is alive in a running notebook only: `python run.py lab`"
    "{picture}*"
)
BADGE = re.compile(r"^\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)", re.MULTILINE)


def list_outdated(notebooks: list[Path], executed: Path) -> list[str]:
    """
    List the lessons that have to be executed, or executed again.

    Parameters
    ----------
    notebooks : list of Path
        All lessons.
    executed : Path
        The folder of the executed ones.

    Returns
    -------
    list of str
        Numbers of those that are missing, or whose code has changed since.
    """

    def read_code(path: Path) -> list[str]:
        # The set-up cell does nothing but on Colab.
        return [
            cell.source
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])
        ]

    return [
        path.name[:2]
        for path in notebooks
        if not (executed / path.name).exists()
        or read_code(executed / path.name) != read_code(path)
    ]


def make_page(notebook: NotebookNode, data: Path) -> NotebookNode:
    """
    Make an executed lesson a page: still panels, and files of all numbers.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        The executed lesson; it is changed.
    data : Path
        The folder, beside the page, for what its tables and figures hold.

    Returns
    -------
    nbformat.NotebookNode
        The page.
    """
    models = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    kept: list[tuple[str, str]] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub(r"[Open in Colab](\1)", cell.source)
            continue
        if cell.metadata.get("jupyter", {}).get("source_hidden"):  # a solution
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        for output in cell.outputs:
            bundle = output.get("data", {})
            if PANEL in bundle:
                output["data"] = show_still(bundle.pop(PANEL)["model_id"], models)
            for kind, rows in list_numbers(bundle):
                number = 1 + sum(k == kind for k, _ in kept)
                kept.append((kind, f"{kind}_{number}.csv"))
                write_csv(data / kept[-1][1], rows)
    if kept:
        links = "\n".join(f"- [{name}]({data.name}/{name})" for _, name in kept)
        text = f"## The numbers on this page\n\nIn the order they appear:\n\n{links}"
        notebook.cells.append(new_markdown_cell(text))
    return notebook


def show_still(model_id: str, models: dict) -> dict[str, str]:
    """
    Give what stands for a panel: a sentence, and the picture that it showed last.

    Parameters
    ----------
    model_id : str
        The panel's widget.
    models : dict
        The notebook's widgets by id.

    Returns
    -------
    dict of str
        Outputs by type.
    """
    waiting, picture = [model_id], ""
    while waiting and not picture:
        state = models.get(waiting.pop(0), {})
        for buffer in state.get("buffers", []):
            if state.get("model_name") == "ImageModel" and buffer["path"] == ["value"]:
                picture = buffer["data"]
        children = state.get("state", {}).get("children", [])
        waiting += [child.removeprefix("IPY_MODEL_") for child in children]
    if not picture:
        return {"text/markdown": STILL.format(picture=".")}
    source = f"data:image/png;base64,{picture}"
    note = STILL.format(picture=". This is what its picture showed in the end.")
    return {"text/markdown": f'{note}\n\n<img src="{source}" alt="the panel, still">'}


def list_numbers(bundle: dict) -> list[tuple[str, list[dict]]]:
    """
    List the tables, and the figures whose numbers were kept, in one output.

    Parameters
    ----------
    bundle : dict
        The output by type.

    Returns
    -------
    list of tuple of str and list of dict
        "table" or "figure", and the rows; a table's are as the page shows them.
    """
    found = []
    if "<table" in bundle.get("text/html", ""):
        tables = pd.read_html(StringIO(bundle["text/html"]), keep_default_na=False)
        found += [("table", table.to_dict("records")) for table in tables]
    if FIGURE_DATA in bundle:
        found.append(("figure", bundle.pop(FIGURE_DATA)))
    return found


def write_csv(path: Path, rows: list[dict]) -> None:
    """
    Write rows as a CSV file.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    rows : list of dict
        They may have different columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def gather(root: Path, source: Path) -> None:
    """
    Lay the pages out as Sphinx wants them: README in front, then the lessons.

    Parameters
    ----------
    root : Path
        The repository, with executed lessons in ``runs/course``.
    source : Path
        The folder for the pages; what it held is lost.
    """
    shutil.rmtree(source, ignore_errors=True)
    lessons = source / "lessons"
    lessons.mkdir(parents=True)
    names = []
    for path in sorted((root / "runs" / "course").glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        errors = [o for c in notebook.cells for o in c.get("outputs", [])]
        if any(output["output_type"] == "error" for output in errors):
            number = path.name[:2]
            sys.exit(f"Lesson {number} ended in an error: run.py course {number}.")
        page = make_page(notebook, lessons / f"{path.stem}_data")
        nbformat.write(page, lessons / path.name)
        names.append(path.stem)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (root / name).read_text("utf-8").replace("](notebooks/", "](lessons/")
        if name == "README.md":
            pages = "\n".join([f"lessons/{name}" for name in names])
            more = "\nCONTRIBUTING\nCHANGELOG"
            text += f"\n```{{toctree}}\n:hidden:\n\n{pages}{more}\n```\n"
        target = "index.md" if name == "README.md" else name
        (source / target).write_text(text, encoding="utf-8", newline="\n")


class _Page(HTMLParser):
    """What one page fetches, where it leads, and which places it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.places |= {found.get("id", ""), found.get("name", "")}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("href"):
            self.fetched.append(found["href"])
        elif found.get("src"):
            self.fetched.append(found["src"])


def find_faults(site: Path) -> list[str]:
    """
    Find broken links in a built site, and what it would fetch from elsewhere.

    Parameters
    ----------
    site : Path
        The folder of HTML pages.

    Returns
    -------
    list of str
        A sentence each.
    """
    texts = {p: p.read_text("utf-8") for p in sorted(site.rglob("*.html"))}
    pages = {path: _Page(text) for path, text in texts.items()}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for target in page.fetched + page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.fetched and parts.scheme != "data":
                    faults.append(f"{name} fetches {target}")
                continue
            other = (
                (path.parent / unquote(parts.path)).resolve() if parts.path else path
            )
            if not other.exists():
                faults.append(f"{name} leads to {target}, which is not there")
            elif parts.fragment and other in pages:
                place = unquote(parts.fragment)
                found = place in pages[other].places
                faults += [] if found else [f"{name}: no such place as {target}"]
    for path in sorted([*texts, *site.rglob("*.css")]):
        styles = re.findall(
            r"(?:url\(|@import )['\"]?(?:https?:)?//", path.read_text("utf-8")
        )
        faults += [f"{path.name} has a style that is fetched" for _ in styles]
    return faults


def build(root: Path, builder: str = "html") -> int:
    """
    Build the site from the executed lessons.

    Parameters
    ----------
    root : Path
        The repository.
    builder : {"html", "linkcheck"}
        Sphinx's builder.

    Returns
    -------
    int
        0 when it is whole: Sphinx had nothing to warn of and no link is broken.
    """
    site = root / "runs" / "site"
    gather(root, site / "source")
    shutil.rmtree(site / builder, ignore_errors=True)
    settings = ["-c", str(Path(__file__).parent), "-d", str(site / "doctrees")]
    folders = [str(site / "source"), str(site / builder)]
    status = build_main(
        ["-q", "-W", "--keep-going", "-E", "-b", builder, *settings, *folders]
    )
    faults = find_faults(site / "html") if builder == "html" else []
    print("\n".join(faults) or f"The site is in {site / builder}.")
    return status or int(bool(faults))


def main(argv: list[str]) -> int:
    """
    Execute what is missing, build the site, and on request check outer links.

    Parameters
    ----------
    argv : list of str
        The arguments.

    Returns
    -------
    int
        The exit status.
    """
    notebooks = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    outdated = list_outdated(notebooks, ROOT / "runs" / "course")
    if outdated and run.run_course(ROOT, "laptop", outdated):
        return 1
    status = build(ROOT)
    return build(ROOT, "linkcheck") if not status and "--linkcheck" in argv else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
