"""
Run alone: pytest tests/test_reference_runs.py. What the lessons say of recorded runs.

Each finding must hold for seeds 0, 1 and 2; `data/reference_runs` is what the benches
of tests/bench wrote, and is not made again here.
"""

import importlib

import pytest

from ftlib import store
from ftlib.config import ROOT

RECORDED = ROOT / "data" / "reference_runs"
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


def read(folder, name, seed):
    """Read one recorded run."""
    return store.read_json(RECORDED / folder / f"{name}_{seed}.json")


def share(right):
    """Give the share of ones."""
    return sum(right) / len(right)


def lost(run):
    """Give by ability how much less of it a run has than the base."""
    base = read("forgetting", "base", 0)["probes"]
    return {name: share(base[name]) - share(run["probes"][name]) for name in base}


@SEEDS
def test_the_careless_run_forgets_ten_points_of_two_abilities_and_more(seed):
    run = read("forgetting", "careless", seed)
    assert sum(points >= 0.10 for points in lost(run).values()) >= 2


@SEEDS
def test_a_remedy_keeps_the_gain_and_every_ability(seed):
    run = read("forgetting", "rate_8_replay_100_KL", seed)
    folder = RECORDED / "forgetting"
    best = max(
        share(store.read_json(path)["triage"]) for path in folder.glob(f"*_{seed}.json")
    )
    assert share(run["triage"]) >= 0.9 * best > 0.8  # the base has none right
    assert max(lost(run).values()) <= 0.05 + 1e-9  # three probes of sixty


@SEEDS
def test_the_second_task_takes_the_place_of_the_first(seed):
    before, after = (
        share(read("forgetting", name, seed)["triage"])
        for name in ("careless", "then_support")
    )
    assert after < before / 3


@SEEDS
def test_an_adapter_does_not_forget_less_than_full_fine_tuning_as_such(seed):
    full = sum(lost(read("forgetting", "full_fine_tuning", seed)).values())
    assert sum(lost(read("forgetting", "careless", seed)).values()) > 2 * full
    assert sum(lost(read("forgetting", "orthogonal_OSF", seed)).values()) < full


@SEEDS
def test_full_fine_tuning_scores_highest_of_the_methods(seed):
    paths = (RECORDED / "methods").glob(f"*_{seed}.json")
    runs = {path.stem.rsplit("_", 1)[0]: store.read_json(path) for path in paths}
    scores = {
        name: run["score"]["exact"]["value"]
        for name, run in runs.items()
        if not name.startswith(("rank_", "base_", "rate_"))
    }
    assert len(scores) == 11
    assert max(scores, key=scores.get) == "full"


@SEEDS
def test_few_trained_parameters_are_no_shelter_from_forgetting(seed):
    of = {
        arm: read("methods", arm, seed)["abilities"]["forgetting"]["value"]
        for arm in ("ia3", "ln_tuning", "rslora", "full", "prompt")
    }
    assert min(of["ia3"], of["ln_tuning"]) > of["full"] > of["rslora"] > of["prompt"]


def end(arm, seed):
    """Give the last validation loss of a run of lesson 07."""
    rows = read("overfitting", arm, f"seed{seed}")["history"]
    return [row["validation_loss"] for row in rows if "validation_loss" in row][-1]


@SEEDS
def test_up_to_a_hundred_alerts_each_seed_gains(seed):
    ten, thirty, hundred = (
        read("overfitting", f"curve_{n}", f"seed{seed}")["loss"] for n in (10, 30, 100)
    )
    assert ten["value"] > thirty["value"] > hundred["value"]
    assert thirty["low"] > hundred["high"]


@SEEDS
def test_alike_alerts_wrong_labels_and_wrong_rates_cost_more_than_a_seed_does(seed):
    steady, clean = (
        max(end(arm, s) for s in (0, 1, 2)) for arm in ("steady_300", "long_300")
    )
    for arm in ("two_techniques", "steady_10", "rate_0.0005", "rate_0.03"):
        assert end(arm, seed) > steady, arm
    for arm in ("noise_10", "noise_20", "noise_40"):
        assert end(arm, seed) > clean, arm


BENCHES = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", BENCHES)
def test_each_bench_finds_what_it_imports(name):
    assert callable(importlib.import_module(f"tests.bench.{name}").main)
