"""Run alone: ``python -m pytest tests/test_badges.py``. docs/badges.py."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs import badges

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "remote",
    [
        "git@github.com:owner/the.course.git",
        "https://github.com/owner/the.course.git",
        "https://github.com/owner/the.course/",
        "https://someone:secret@github.com/owner/the.course",
        "ssh://git@github.com/owner/the.course.git\n",
    ],
)
def test_every_form_of_a_remote_gives_the_pages_address(remote):
    assert badges.read_address(remote) == "https://github.com/owner/the.course"


@pytest.mark.parametrize(
    "remote",
    [
        "",
        "/home/ana/course",
        "https://gitlab.example/owner/course.git",
        "https://github.com.example/owner/course",
        "https://github.com/owner",
    ],
)
def test_a_place_that_colab_cannot_open_gives_none(remote):
    assert badges.read_address(remote) == ""


@pytest.fixture
def copy(tmp_path):
    """A copy of what the badges are written into, with its own git."""
    folder = tmp_path / "a course"
    (folder / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "badges.py", folder / "docs")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def write_badges(copy, remote=""):
    if remote:
        add = ["git", "remote", "add", "origin", remote]
        subprocess.run(add, cwd=copy, check=True)
    command = [sys.executable, str(copy / "docs" / "badges.py")]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def read_files(folder):
    files = [folder / "pyproject.toml", *sorted(folder.glob("notebooks/*.ipynb"))]
    return {path.name: path.read_text("utf-8") for path in files}


def test_the_address_and_the_badge_are_all_that_changes(copy):
    before = read_files(copy)
    done = write_badges(copy, "git@github.com:owner/course.git")
    assert done.returncode == 0, done.stderr
    after = read_files(copy)
    address = "https://github.com/owner/course"
    project = tomllib.loads(after["pyproject.toml"])["project"]
    assert project["urls"] == {"Repository": address}
    del project["urls"]
    was = tomllib.loads(before["pyproject.toml"])["project"]
    was.pop("urls", None)
    assert project == was
    for name in sorted(set(after) - {"pyproject.toml"}):
        cells = json.loads(after[name])["cells"]
        lines = "".join(cells[0]["source"]).splitlines()
        colab = "https://colab.research.google.com"
        assert lines[2] == (
            f"[![Open in Colab]({colab}/assets/colab-badge.svg)]"
            f"({colab}/github/owner/course/blob/main/notebooks/{name})"
        )
        old = json.loads(before[name])["cells"]
        for first in (cells[0], old[0]):
            first["source"] = badges.BADGE.sub("", "".join(first["source"]))
        for cell, old_cell in zip(cells, old, strict=True):
            if "setup" in cell["metadata"].get("tags", []):
                assert f'REPOSITORY = "{address}"\n' in cell["source"]
                for each in (cell, old_cell):
                    each["source"] = [s for s in each["source"] if s[:5] != "REPOS"]
        assert cells == old


def test_a_second_time_changes_nothing_and_another_address_takes_the_firsts_place(
    copy,
):
    write_badges(copy, "https://github.com/owner/course")
    first = read_files(copy)
    write_badges(copy)
    assert read_files(copy) == first
    move = ["git", "remote", "set-url", "origin", "https://github.com/other/place"]
    subprocess.run(move, cwd=copy, check=True)
    write_badges(copy)
    moved = read_files(copy)
    assert moved == {
        name: text.replace("owner/course", "other/place")
        for name, text in first.items()
    }


@pytest.mark.parametrize("remote", ["", "https://gitlab.example/owner/course.git"])
def test_without_a_remote_on_github_nothing_is_written(copy, remote):
    before = read_files(copy)
    done = write_badges(copy, remote)
    assert done.returncode == 1
    assert "There is no remote called origin on GitHub" in done.stderr
    assert read_files(copy) == before
