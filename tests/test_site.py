"""Run alone: ``python -m pytest tests/test_site.py``. docs/build_site.py."""

import base64
import csv
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from docs import build_site
from ftlib.figures import FIGURE_DATA

ROOT = Path(__file__).resolve().parent.parent
PICTURE = base64.b64encode(b"a picture's bytes").decode()
BADGE = "[![Open in Colab](https://colab.example/b.svg)](https://colab.example/x)"


def make_output(**data):
    bundle = {name.replace("__", "/"): value for name, value in data.items()}
    return v4.new_output("display_data", {"text/plain": "a thing", **bundle})


def make_lesson(number, *cells):
    title = f"# {number} Lesson\n\n{BADGE}\n\n> Why?"
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(title), *cells])
    notebook.metadata.language_info = {"name": "python"}
    return notebook


@pytest.fixture(scope="module")
def two_lessons():
    table = (
        "<div><table><thead><tr><th>score</th><th>n</th></tr></thead><tbody>"
        "<tr><td>0.50 [0.35, 0.65]</td><td>40</td></tr></tbody></table></div>"
    )
    rows = [
        {"series": "loss", "x": 1.0, "y": 2.5},
        {"series": "loss, interval", "x": 1.0, "y": 2.0, "x_to": 1.0, "y_to": 3.0},
    ]
    # One transparent dot.
    png = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6"
        "kgAAAABJRU5ErkJggg=="
    )
    first = make_lesson(
        "00",
        v4.new_code_cell("plot()", outputs=[make_output(image__png=png)]),
        v4.new_code_cell("show()", outputs=[make_output(text__html=table)]),
        v4.new_markdown_cell("**Next:** [01](01_second.ipynb#why-it-is)"),
    )
    first.cells[1].outputs[0].data[FIGURE_DATA] = rows
    second = make_lesson(
        "01",
        v4.new_markdown_cell("## Why it is\n\nSee [the start](00_first.ipynb)."),
        v4.new_code_cell(
            "panel",
            outputs=[v4.new_output("display_data", {"text/plain": "Panel()"})],
        ),
        v4.new_code_cell("answer = 42", metadata={"jupyter": {"source_hidden": True}}),
    )
    view = {"model_id": "box", "version_major": 2, "version_minor": 0}
    second.cells[2].outputs[0].data[build_site.PANEL] = view
    box = {"children": ["IPY_MODEL_text", "IPY_MODEL_image"]}
    image = {
        "model_name": "ImageModel",
        "state": {},
        "buffers": [{"path": ["value"], "encoding": "base64", "data": PICTURE}],
    }
    models = {
        "box": {"model_name": "VBoxModel", "state": box},
        "text": {"model_name": "HTMLModel", "state": {"value": "no picture"}},
        "image": image,
    }
    second.metadata.widgets = {build_site.STATE: {"state": models}}
    return {"00_first": first, "01_second": second}


@pytest.fixture(scope="module")
def root(two_lessons, tmp_path_factory):
    """A repository of two executed lessons, with its site built."""
    root = tmp_path_factory.mktemp("a course")
    readme = "# The course\n\n| lesson |\n|---|\n| [00](notebooks/00_first.ipynb) |\n"
    (root / "README.md").write_text(
        readme + "\nTo help: [here](CONTRIBUTING.md#how).\n", encoding="utf-8"
    )
    (root / "CONTRIBUTING.md").write_text("# Contributing\n\n## How\n\nSo.\n")
    (root / "CHANGELOG.md").write_text("# Changelog\n\nAll.\n")
    (root / "runs" / "course").mkdir(parents=True)
    for name, notebook in two_lessons.items():
        nbformat.write(notebook, root / "runs" / "course" / f"{name}.ipynb")
    assert build_site.build(root) == 0
    return root


@pytest.fixture
def site(root):
    return root / "runs" / "site" / "html"


def read_page(site, name):
    return (site / name).read_text("utf-8")


def test_the_front_page_leads_to_the_lessons(site):
    page = read_page(site, "index.html")
    assert 'href="lessons/00_first.html"' in page
    assert "The course" in page


def test_the_figure_is_shown_and_its_numbers_are_a_file(site):
    page = build_site._Page(read_page(site, "lessons/00_first.html"))
    assert any(address.endswith(".png") for address in page.fetched)
    files = [link for link in page.links if link.endswith(".csv")]
    assert [link.rsplit("/", 1)[1] for link in files] == ["figure_1.csv", "table_1.csv"]
    tables = []
    for link in files:
        with (site / "lessons" / link).open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.reader(file)))
    assert tables[0] == [
        ["series", "x", "y", "x_to", "y_to"],
        ["loss", "1.0", "2.5", "", ""],
        ["loss, interval", "1.0", "2.0", "1.0", "3.0"],
    ]
    assert tables[1] == [["score", "n"], ["0.50 [0.35, 0.65]", "40"]]


def test_a_panel_is_a_sentence_and_the_picture_it_showed(site):
    page = read_page(site, "lessons/01_second.html")
    assert "alive in a running notebook only" in page
    assert f'src="data:image/png;base64,{PICTURE}"' in page
    assert "Panel()" not in page
    assert "widget-view" not in page


def test_a_panel_without_a_picture_is_a_sentence():
    shown = build_site.show_still("box", {"box": {"state": {"children": ["lost"]}}})
    assert list(shown) == ["text/markdown"]
    assert shown["text/markdown"].endswith("`python run.py lab`.*")


def test_a_solution_is_folded(site):
    page = read_page(site, "lessons/01_second.html")
    assert page.index("<details") < page.index("42") < page.index("</details>")


def test_the_search_finds_a_word_of_a_lesson(site):
    index = (site / "searchindex.js").read_text("utf-8")
    assert "lessons/01_second" in index
    assert '"answer"' in index or "answer:" in index


def test_a_badge_becomes_a_link_because_its_picture_would_be_fetched(site):
    page = read_page(site, "lessons/00_first.html")
    assert 'href="https://colab.example/x"' in page
    assert "colab.example/b.svg" not in page


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">x</a>', "page.html leads to gone.html, which is not"),
        ('<a href="other.html#b">x</a>', "page.html: no such place as other.html#b"),
        ('<a href="#b">x</a>', "page.html: no such place as #b"),
        ('<script src="https://cdn.example/a.js"></script>', "page.html fetches https"),
        ('<img src="//cdn.example/a.png">', "page.html fetches //cdn"),
        ('<link rel="stylesheet" href="http://cdn.example/a.css">', "page.html fetch"),
        ("<style>@import 'https://cdn.example/a'</style>", "page.html has a style"),
        ("<b style='background:url(//cdn.example/a)'>x</b>", "page.html has a style"),
    ],
)
def test_a_broken_link_and_a_thing_from_elsewhere_are_faults(tmp_path, body, fault):
    good = (
        '<p id="a"></p><a href="https://far.example/">x</a><a href="other.html#a">x</a>'
    )
    (tmp_path / "other.html").write_text(good, encoding="utf-8")
    (tmp_path / "page.html").write_text(good, encoding="utf-8")
    assert build_site.find_faults(tmp_path) == []
    (tmp_path / "page.html").write_text(good + body, encoding="utf-8")
    (found,) = build_site.find_faults(tmp_path)
    assert found.startswith(fault)


def test_a_link_to_a_lesson_that_is_not_there_fails_the_build(root, tmp_path, capfd):
    copy = tmp_path / "course"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("site"))
    (copy / "runs" / "course" / "01_second.ipynb").unlink()
    assert build_site.build(copy) == 1
    assert "01_second.ipynb" in capfd.readouterr().err


def test_a_lesson_that_ended_in_an_error_makes_no_page(root, tmp_path):
    error = v4.new_output("error", ename="E", evalue="e", traceback=[])
    failed = make_lesson("01", v4.new_code_cell("1 / 0", outputs=[error]))
    copy = tmp_path / "course"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("site"))
    nbformat.write(failed, copy / "runs" / "course" / "01_second.ipynb")
    with pytest.raises(SystemExit, match="Lesson 01 ended in an error"):
        build_site.build(copy)


def test_lessons_that_are_missing_or_were_changed_are_executed_again(
    tmp_path, two_lessons
):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for name, notebook in two_lessons.items():
        nbformat.write(notebook, notebooks / f"{name}.ipynb")
    executed = shutil.copytree(notebooks, tmp_path / "executed")
    paths = sorted(notebooks.iterdir())
    assert build_site.list_outdated(paths, executed) == []
    text = paths[1].read_text("utf-8")
    paths[1].write_text(text.replace("answer = 42", "answer = 43"), encoding="utf-8")
    (executed / "00_first.ipynb").unlink()
    assert build_site.list_outdated(paths, executed) == ["00", "01"]
