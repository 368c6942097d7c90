"""Run alone: pytest tests/test_notebooks_form.py. Every notebook has the anatomy."""

import ast
import re
import statistics

import nbformat
import pytest

from ftlib import exercises
from ftlib.config import ROOT
from ftlib.lesson import LESSONS

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]


@pytest.fixture(params=PATHS, ids=NAMES)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return nbformat.read(path, as_version=4).cells


def code_of(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def is_setup(cell):
    return "setup" in cell.metadata.get("tags", [])


def test_there_is_a_notebook_for_each_lesson():
    assert [lesson.name for lesson in LESSONS.values()] == NAMES


def test_it_opens_with_title_question_flow_and_table(path, cells):
    title = path.stem.replace("_", " ").capitalize().lower()
    first = cells[0].source
    heading = first.splitlines()[0].lower().replace("-", " ")
    assert heading == f"# {title}"
    assert re.search(r"^> .*\?$", first, flags=re.MULTILINE)
    flow = re.sub(r"\*", "", first)
    assert (
        "records -> redacted records -> examples -> tokens -> adapter -> predictions "
        "-> scores -> report"
    ) in flow
    for row in ("Goals", "Before", "Minutes", "Reads", "Writes"):
        assert f"| {row} |" in first


def test_the_set_up_cell_is_the_same_everywhere(cells):
    reference = nbformat.read(PATHS[0], as_version=4).cells
    assert [c.source for c in cells if is_setup(c)] == [
        c.source for c in reference if is_setup(c)
    ]
    assert sum(is_setup(cell) for cell in cells) == 1


def test_it_has_25_to_35_cells_short_ones(cells):
    assert 25 <= len(cells) <= 35
    lengths = [len(cell.source.splitlines()) for cell in code_of(cells)]
    assert max(lengths) <= 12
    assert statistics.median(lengths) <= 4


def test_lines_are_at_most_88_characters(cells):
    for cell in code_of(cells):
        assert max(map(len, cell.source.splitlines())) <= 88, cell.source


def test_it_defines_nothing(cells):
    for cell in code_of(cells):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            )


def test_it_is_committed_without_outputs_or_widget_state(path, cells):
    for cell in code_of(cells):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_it_predicts_once_and_notices_often(cells):
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert text.count("**Predict**") == 1
    assert text.count("*Notice:*") >= 4
    assert len(re.findall(r"(?i)the wrong way.*right", text)) >= 1


def test_no_measured_number_is_typed_into_its_prose(cells):
    for cell in cells:
        if cell.cell_type == "markdown" and "*Notice:*" in cell.source:
            notice = cell.source.split("*Notice:*", 1)[1].split("\n\n")[0]
            assert not re.search(r"\d+ ?%|\b[01]\.\d+|\d+ (s|seconds)\b", notice)


def test_whys_are_at_most_80_words(cells):
    for cell in cells[1:]:
        if cell.cell_type == "markdown":
            for paragraph in cell.source.split("\n\n"):
                if not paragraph.startswith(("#", "|", "Sources")):
                    assert len(paragraph.split()) <= 80, paragraph


def test_each_exercise_is_blank_then_solved(path, cells):
    number = path.stem[:2]
    kinds = {"exercise": [], "solution": []}
    for cell in code_of(cells):
        for tag in kinds:
            if tag in cell.metadata.get("tags", []):
                kinds[tag] += re.findall(r'lesson\.check\("([\d.]+)"', cell.source)
                assert tag == "exercise" or cell.metadata.jupyter.source_hidden
                assert tag == "solution" or "answer = ..." in cell.source
    wanted = [name for name in exercises.CHECKS if name.startswith(number)]
    assert kinds["exercise"] == kinds["solution"] == wanted
    assert len(wanted) == 3


def test_it_ends_with_what_we_saw_next_and_sources(cells):
    text = "\n".join(cell.source for cell in cells[-3:])
    assert "## What we saw" in text
    assert "**Next:**" in text
    assert "Sources:" in text


def test_it_has_a_control_whose_value_a_later_cell_reads(cells):
    sources = [cell.source for cell in code_of(cells)]
    made = next(i for i, source in enumerate(sources) if "panels." in source)
    assert any("panel.value" in source for source in sources[made + 1 :])
