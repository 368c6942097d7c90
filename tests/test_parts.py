"""Run alone: ``python -m pytest tests/test_parts.py``."""

import json
import subprocess
import sys

import pytest

from ftlib.config import ROOT
from tests.parts import PARTS, name_part

FTLIB = "/home/a/ftlib/ftlib"


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ([f"{FTLIB}/trainer.py", f"{FTLIB}/training.py"], "training"),
        # The validation in a training, and a model's file within.
        (["/lib/torch.py", f"{FTLIB}/batches.py", f"{FTLIB}/trainer.py"], "evaluation"),
        ([f"{FTLIB}/redaction/ner.py", f"{FTLIB}/project.py"], "data"),
        ([f"{FTLIB}/leakage/auditing.py"], "evaluation"),
        ([f"{FTLIB}/leakage/canaries.py"], "data"),
        (["C:\\a\\ftlib\\models.py"], "models"),
        # An import wherever there is one; but not within another call of ours.
        (["/lib/a.py", "<frozen importlib._bootstrap>", "/lib/cell.py"], "imports"),
        ([f"{FTLIB}/panels/mask.py", f"{FTLIB}/tokens.py"], "data"),
        ([f"{FTLIB}/lesson.py", "/lib/ipykernel.py"], None),
        (["/lib/select.py"], None),
        ([], None),
    ],
)
def test_a_part_is_that_of_the_innermost_call_in_a_room_that_has_one(files, part):
    assert name_part(files) == part


def test_every_room_named_is_there():
    rooms = {path.stem for path in (ROOT / "ftlib").rglob("*.py")}
    rooms |= {path.name for path in (ROOT / "ftlib").iterdir() if path.is_dir()}
    assert {name for names in PARTS.values() for name in names.split()} <= rooms


def test_the_parts_add_up_to_all_that_was_watched(tmp_path):
    file = tmp_path / "parts.json"
    code = f"from tests.parts import watch; watch({str(file)!r}); sum(range(10**7))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    parts = json.loads(file.read_text("utf-8"))
    assert list(parts) == ["all", *PARTS]
    watched = parts.pop("all")
    assert watched > 0
    assert abs(sum(parts.values()) - watched) < 0.1
