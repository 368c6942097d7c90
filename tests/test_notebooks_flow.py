"""Run alone: pytest tests/test_notebooks_flow.py. Nothing is read too early."""

import re

import nbformat
import pytest

from ftlib.config import ROOT
from ftlib.lesson import LESSONS

NUMBERS = list(LESSONS)


def read_source(number):
    path = ROOT / "notebooks" / f"{LESSONS[number].name}.ipynb"
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_lesson_reads_ships_or_was_written_before(number):
    earlier = [
        path for n in NUMBERS[: NUMBERS.index(number)] for path in LESSONS[n].writes
    ]
    for path in LESSONS[number].reads:
        assert path in earlier or path.startswith("data/")
        assert path in earlier or (ROOT / path).exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_table_says_what_the_lesson_declares(number):
    source = read_source(number)
    for row, paths in [
        ("Reads", LESSONS[number].reads),
        ("Writes", LESSONS[number].writes),
    ]:
        told = re.search(rf"\| {row} \|(.*)\|", source).group(1)
        assert tuple(re.findall(r"`(.*?)`", told)) == paths


@pytest.mark.parametrize("number", NUMBERS)
def test_the_lesson_writes_only_under_its_own_folder(number):
    source = read_source(number)
    assert f'lesson.begin("{number}"' in source
    assert set(re.findall(r'run_folder\("(\d\d)"', source)) <= {number}
