"""Run alone: ``python -m pytest tests/test_layers.py``."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT / "ftlib").with_suffix("").parts): path
    for path in (ROOT / "ftlib").rglob("*.py")
}
BASE = {"schema", "config", "store"}
# Called from notebooks, never from a stage; environment tries the other rooms out.
TOP = {"lesson", "panels", "exercises", "environment", "faults", "project"}
# Three stages may be imported by others, and no more:
# - models, by those that need a model in hand: its dtype, its guard, its loading;
# - tokens, by generation: a prompt must be encoded by the very function that the check
#   before training compares the training rows with;
# - archives, by what loads a folder that came from elsewhere.
# And those that are parts of another: batches and trainer of training, scores of what
# measures and reports; a loss and a KL are measured on batches.
SHARED = {
    "models": {
        "training",
        "trainer",
        "batches",
        "generation",
        "leakage",
        "deployment",
        "forgetting",
        "redaction",
        "retrieval",
        "memory",
    },
    "tokens": {"generation", "deployment"},
    "archives": {"models", "deployment", "serving"},
    "colab": {"models", "training", "deployment"},
    "scale": {"training", "trainer"},
    "deployment": {"release"},
    "forgetting": {"release"},
    "batches": {"forgetting", "memory", "training", "trainer"},
    "machine": {"generation", "training"},
    "methods": {"models", "memory"},
    "progress": {"training", "colab"},
    "trainer": {"training", "memory"},
    "scoring": {
        "reporting",
        "forgetting",
        "leakage",
        "redaction",
        "retrieval",
        "metrics",
        "release",
        "drift",
    },
}
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "presidio_analyzer",
    "spacy",
}
LIMIT = 235  # lines of code a module: about 200


def list_imports(source):
    """Give the modules of ftlib, and the other packages, that a source imports."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "ftlib" if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "ftlib":
                ours.add(rest[0] if rest else "")
            else:
                others.add(first)
    return ours & {name.split(".")[0] for name in MODULES}, others


def find_breaches(name, source):
    """Give what the module `name` imports although its place does not let it."""
    ours, others = list_imports(source)
    if name.split(".")[0] in TOP:
        allowed = {name.split(".")[0] for name in MODULES}
    elif name in BASE:
        allowed = BASE
    else:
        stage = name.split(".")[0]  # a stage that is a folder may import its own files
        shared = {shared for shared, users in SHARED.items() if stage in users}
        allowed = BASE | shared | {stage}
    return sorted((ours - allowed) | (others & {"data", "tests", "run", "trl"}))


def count_code_lines(source):
    """Count the lines that are neither blank, nor comment, nor docstring."""
    documentation = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation |= set(range(node.lineno, node.end_lineno + 1))
    nothing = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_its_place_allows(name):
    assert find_breaches(name, MODULES[name].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source", "breach"),
    [
        ("records", "from ftlib import scoring", ["scoring"]),
        ("records", "import ftlib.scoring", ["scoring"]),
        ("records", "from .scoring import Score", ["scoring"]),
        ("records", "from . import scoring", ["scoring"]),
        ("records", "def f():\n    from ftlib.scoring import Score", ["scoring"]),
        ("records", "from ftlib.models import pick_dtype", ["models"]),
        ("training", "from ftlib.tokens import encode_prompt", ["tokens"]),
        ("generation", "from ftlib import training", ["training"]),
        ("schema", "from ftlib.records import split_by_group", ["records"]),
        ("tokens", "from ftlib.lesson import check", ["lesson"]),
        ("models", "from trl import SFTTrainer", ["trl"]),
        ("models", "from data.build import wren", ["data"]),
        ("redaction.spans", "from ftlib.cleaning import NEAR", ["cleaning"]),
        ("redaction.spans", "from ftlib.redaction.vault import Vault", []),
        ("metrics.chrf.chrf", "from ftlib.metrics import ItemMetric", []),
        ("metrics.chrf.chrf", "from ftlib import scoring", []),
        ("metrics.chrf.chrf", "from ftlib import reporting", ["reporting"]),
        ("scoring.metric", "from ftlib.metrics import ItemMetric", ["metrics"]),
        ("training", "from ftlib.models import pick_dtype", []),
        ("generation", "from ftlib.tokens import encode_prompt", []),
        ("store", "import ftlib\nfrom ftlib.schema import BadRow\nimport json", []),
        ("panels", "from ftlib import training, lesson", []),
    ],
)
def test_a_planted_breach_is_found_and_what_is_allowed_is_not(name, source, breach):
    assert find_breaches(name, source) == breach


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize(
    "statement", ["import ftlib", "from ftlib import schema, config, store"]
)
def test_importing_the_light_half_loads_no_model_library(statement):
    loaded = run_python(f"import sys\n{statement}\nprint(*sys.modules)").split()
    assert "ftlib" in loaded
    assert HEAVY & set(loaded) == set()


def test_importing_ftlib_loads_none_of_its_modules():
    loaded = run_python("import sys, ftlib\nprint(*sys.modules)").split()
    assert [name for name in loaded if name.startswith("ftlib.")] == []


def test_lines_of_code_are_counted_without_blank_comment_and_docstring_lines():
    source = '''"""A module
of two lines."""

import os  # one


# a comment
def f(
    a,
):  # four with the lines above and below
    """Say nothing."""
    text = """not a
docstring"""
    return text


FIELD = 1
"""What FIELD means."""
'''
    # import, def f(, a, ):, two of text, return, FIELD
    assert count_code_lines(source) == 8


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_has_at_most_200_lines_of_code(name):
    assert count_code_lines(MODULES[name].read_text("utf-8")) <= LIMIT


def test_the_whole_package_has_at_most_9250_lines_of_code():
    sources = [path.read_text("utf-8") for path in MODULES.values()]
    assert sum(map(count_code_lines, sources)) <= 9250


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base"}
    assert vague & MODULES.keys() == set()
