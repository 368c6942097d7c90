"""Run alone: ``python -m pytest tests/test_release_panel.py``."""

from datetime import date

import pytest

from ftlib import panels, release, schema, store

TODAY = date(2026, 11, 22)
TERMS = {
    "owner": "security operations",
    "approver": "model risk",
    "purpose": "Suggest a triage.",
    "allowed_uses": ["suggesting", "teaching"],
    "forbidden_uses": ["acting alone"],
    "data_rights": "in house",
    "retention": "400 days",
    "review_date": date(2027, 5, 31),
    "licence": "Apache-2.0",
}


@pytest.fixture
def pack(tmp_path):
    """Give a pack that fails all gates of what was not measured."""
    with store.record_run(tmp_path / "run", {"model": "data/wren"}):
        pass
    splits = {"train": [schema.make_example("a", "b")]}
    return release.gather(tmp_path / "pack", tmp_path / "run", splits, [], {}, {})


@pytest.fixture
def panel(pack):
    return panels.ReleasePanel(pack, TERMS, TODAY)


def test_untouched_its_value_is_the_terms_it_was_given(panel):
    assert panel.value == TERMS
    assert release.find_term_faults(panel.value, TODAY) == []


def test_a_changed_field_changes_the_terms_and_the_gate(panel, pack):
    assert "model risk approves for security operations" in panel.gates.value
    panel.fields["approver"].value = "security operations"
    assert panel.value["approver"] == "security operations"
    assert "approver is the owner" in panel.gates.value
    panel.fields["approver"].value = "model risk"
    panel.fields["forbidden_uses"].value = "one\n\n two "
    assert panel.value["forbidden_uses"] == ["one", "two"]
    panel.fields["review_date"].value = "2026-01-01"
    assert "2026-01-01" in panel.gates.value
    assert "write a day to come" in panel.gates.value


def test_neither_building_nor_editing_it_changes_what_the_pack_keeps(pack):
    assert panels.ReleasePanel(pack, TERMS, TODAY)
    assert pack.read("release") == {}
    release.judge(pack, TERMS, TODAY)
    path = pack.folder / "release.json"
    override = {"by": "model risk", "reason": "a demo"}
    store.write_json(path, store.read_json(path) | {"override": override})
    before = path.read_bytes()
    panel = panels.ReleasePanel(pack, TERMS | {"purpose": "Another."}, TODAY)
    panel.fields["approver"].value = "security operations"
    assert "approver is the owner" in panel.gates.value
    assert path.read_bytes() == before


def test_it_shows_the_verdict_and_every_gate_in_words(panel):
    shown = panel.gates.value
    assert "<b>DO NOT SHIP</b>" in shown
    assert shown.count("FAIL") == 6  # forgetting, and the five that judge scores
    assert shown.count("PASS") == 3


def test_what_is_typed_is_shown_and_does_not_act(panel):
    panel.fields["approver"].value = "<script>alert(1)</script>"
    assert "<script" not in panel.gates.value
    assert "&lt;script&gt;" in panel.gates.value


def test_each_control_has_a_name_that_can_be_read_out(panel):
    names = [field.description for field in panel.fields.values()]
    assert all(names)
    assert len(set(names)) == len(TERMS)
    assert 'aria-label="Gates"' in panel.gates.value
