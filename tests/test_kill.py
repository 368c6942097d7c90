"""Run alone: ``python -m pytest -m kill tests/test_kill.py``."""

import pytest

from ftlib.store import read_json
from tests import kill_worker

pytestmark = pytest.mark.kill


def test_twenty_points_lie_at_twenty_steps_and_in_every_stage_of_a_save():
    points = kill_worker.list_points()
    steps = {int(point.split()[1]) for point in points}
    assert len(points) == len(steps) == 20
    stages = {point.split(maxsplit=2)[2] for point in points if point[:4] == "save"}
    assert stages > set(kill_worker.STAGES)
    assert points == kill_worker.list_points()


def test_a_run_killed_three_times_ends_with_the_bytes_of_one_never_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert kill_worker.run_worker(whole) == (0, "finished")
    began = []
    for point in ("step 7", "save 12 half of optimizer.pt", "save 18 complete"):
        after, said = kill_worker.run_worker(killed, point)
        assert said == point
        assert read_json(killed / "run.json")["status"] == "running"
        began.append(after)
    after, said = kill_worker.run_worker(killed)
    assert said == "finished"
    # The save of every second step that was whole when the kill came.
    assert [*began, after] == [0, 6, 10, 16]
    assert kill_worker.hash_adapter(killed) == kill_worker.hash_adapter(whole)
