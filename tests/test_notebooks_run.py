"""Run alone: pytest -m notebook tests/test_notebooks_run.py. Every lesson runs."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from ftlib.config import ROOT
from ftlib.lesson import LESSONS

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(1_800)]
GB = 1_000  # megabytes


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of what ships, in which the course has been run as a learner runs it."""
    copy = tmp_path_factory.mktemp("course") / "a copy"
    copy.mkdir()
    for name in ("run.py", "ftlib", "data", "notebooks"):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(copy), *filter(None, [environment.get("PYTHONPATH")])]
    )
    environment["FTLIB_PROFILE"] = "laptop"
    done = subprocess.run(
        [sys.executable, str(copy / "run.py"), "_course", "laptop"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    return copy


@pytest.fixture(scope="module")
def results(course):
    summary = json.loads((course / "runs" / "course" / "summary.json").read_text())
    return {result["notebook"]: result for result in summary["notebooks"]}


def test_every_lesson_passes_with_its_exercises_solved(results):
    assert list(results) == [lesson.name for lesson in LESSONS.values()]
    for name, result in results.items():
        assert result["status"] == "passed"
        assert list(result["checks"].values()) == ["passed"] * 3, name
        assert result["headline"]


def test_no_lesson_needs_more_than_two_gigabytes(results):
    for name, result in results.items():
        assert result["peak_rss_mb"] <= 2 * GB, name


def test_the_lessons_write_under_runs_and_nowhere_else(course):
    before = {
        path.relative_to(ROOT)
        for name in ("ftlib", "data", "notebooks")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    after = {
        path.relative_to(course)
        for path in course.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    written = {path for path in after - before if path.parts[0] != "runs"}
    assert {path.as_posix() for path in written} == {"run.py"}


def test_no_cell_of_an_executed_lesson_warns(course):
    for path in (course / "runs" / "course").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert output.get("name") != "stderr", (path.stem, output["text"])
