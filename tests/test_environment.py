"""Run alone: ``python -m pytest tests/test_environment.py -m ""``."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import run

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def read_pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def read_conda_list() -> list[str]:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    return conda["dependencies"][-1]["pip"]


def list_direct(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += EXTRAS[extra]
    return [Requirement(line) for line in lines]


def test_every_direct_dependency_has_a_pin_that_its_bounds_admit():
    pins = read_pins()
    for requirement in list_direct(*EXTRAS):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} has no line in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} refuses {pin}"


def test_torch_is_pinned_without_a_local_label():
    assert read_pins()["torch"] == "2.13.0"


def test_each_constraint_is_one_exact_public_version():
    for name, version in read_pins().items():
        assert name == canonicalize_name(name), f"write {name} in its normal form"
        assert Requirement(f"{name}=={version}").url is None
        assert "+" not in version, f"{name}=={version} is a local build"


def test_the_conda_environment_has_the_pins_of_constraints_and_nothing_else():
    pins = read_pins()
    expected = {"-e ."}
    for each in list_direct(*run.EXTRAS["test"]):
        marker = f"; {each.marker}".replace('"', "'") if each.marker else ""
        expected.add(f"{each.name}=={pins[each.name]}{marker}")
    listed = read_conda_list()
    assert set(listed) == expected
    assert len(listed) == len(expected)


@pytest.mark.notebook
def test_the_conda_environments_pip_list_resolves(tmp_path, open_environment):
    lines = [line for line in read_conda_list() if line != "-e ."]
    wanted = tmp_path / "pip-list.txt"
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    dry_run = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
    ]
    # One small package first: where even that has no answer, there is no index.
    probe = [
        *dry_run,
        "--no-deps",
        "--retries=0",
        f"iniconfig=={read_pins()['iniconfig']}",
    ]
    # pip alone may use the network; no other test may.
    open_to = {"env": open_environment, "check": False, "capture_output": True}
    if subprocess.run(probe, **open_to).returncode:
        pytest.skip("no package index can be reached, and pip needs one to resolve")
    done = subprocess.run(
        [*dry_run, "-r", str(wanted), "-e", str(ROOT)], text=True, **open_to
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"torch-{read_pins()['torch']}" in done.stdout
