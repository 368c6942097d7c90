"""Run alone: ``python -m pytest tests/test_docstrings.py``."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from numpydoc.hooks.validate_docstrings import parse_config, process_file

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "ftlib").rglob("*.py"))
SETTINGS = parse_config(ROOT)


def name_module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def list_public_functions():
    """Give the public functions and methods of ftlib, by full name."""
    found = {}
    for path in MODULES:
        module = importlib.import_module(name_module(path))
        for name, thing in vars(module).items():
            if (
                name.startswith("_")
                or getattr(thing, "__module__", "") != module.__name__
            ):
                continue
            if inspect.isfunction(thing):
                found[f"{module.__name__}.{name}"] = thing
            if inspect.isclass(thing):
                for method, function in vars(thing).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        found[f"{module.__name__}.{name}.{method}"] = function
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_module)
def test_docstrings_pass_numpydocs_checks(path):
    findings = process_file(path, SETTINGS)
    assert [": ".join(finding[1:]) for finding in findings] == []


def test_the_checks_find_a_planted_fault(tmp_path):
    path = tmp_path / "planted.py"
    path.write_text(
        '"""A module."""\n\n\n'
        "def double(number: int) -> int:\n"
        '    """\n    Double a number.\n\n'
        "    Parameters\n    ----------\n    numer : int\n        What to double.\n"
        '    """\n    return 2 * number\n\n\n'
        "def bare():\n    return 1\n"
    )
    found = {(finding[1], finding[2]) for finding in process_file(path, SETTINGS)}
    assert ("planted.double", "PR01") in found  # number is not described
    assert ("planted.double", "PR02") in found  # numer is no parameter
    assert ("planted.bare", "GL08") in found  # no docstring at all


def test_every_public_function_is_typed_and_documented():
    bare = []
    for name, function in list_public_functions().items():
        parameters = inspect.signature(function).parameters.values()
        typed = all(
            p.annotation is not p.empty for p in parameters if p.name not in ("self",)
        )
        if not (function.__doc__ and typed and "return" in function.__annotations__):
            bare.append(name)
    assert bare == []


@pytest.mark.parametrize("path", MODULES, ids=name_module)
def test_examples_in_docstrings_give_what_they_show(path):
    module = importlib.import_module(name_module(path))
    assert doctest.testmod(module).failed == 0


def test_the_base_and_the_stages_show_examples():
    tried = 0
    for path in MODULES:
        tests = doctest.DocTestFinder().find(importlib.import_module(name_module(path)))
        tried += sum(len(test.examples) for test in tests)
    assert tried >= 20
