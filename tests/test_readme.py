"""Run alone: pytest tests/test_readme.py -m ''. The README's flow runs as written."""

import re

import pytest

from ftlib.config import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_flow_is_eight_lines():
    flow = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    assert len(flow.strip().splitlines()) == 8


@pytest.mark.notebook
def test_the_eight_lines_run_and_print_a_score(capsys, tmp_path, monkeypatch):
    from ftlib import store

    monkeypatch.setattr(store, "RUNS", tmp_path)
    flow, before = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(before + flow, "README.md", "exec"), names)
    assert re.fullmatch(
        r"exact [01]\.\d\d \[.*\], n=8 \(too few\)\n", capsys.readouterr().out
    )
    assert names["run"].status == "finished"
    assert (tmp_path / "readme" / "adapter" / "adapter_config.json").exists()


def test_every_lesson_is_in_the_table_and_every_link_leads_somewhere():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"(notebooks/{path.name})" in README
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / target).exists(), target
