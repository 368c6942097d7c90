"""Run alone: ``python -m pytest tests/test_release.py``."""

import json
import re
from datetime import date
from functools import partial

import pytest
import yaml
from huggingface_hub import ModelCard

from ftlib import deployment, release, schema, store
from ftlib.config import ROOT
from ftlib.scoring import Score, Setting

TODAY = date(2026, 11, 22)
TERMS = {
    "owner": "security operations",
    "approver": "model risk",
    "purpose": "Suggest a triage.",
    "allowed_uses": ["suggesting"],
    "forbidden_uses": ["acting alone"],
    "data_rights": "free",
    "retention": "400 days",
    "review_date": "2027-05-31",
    "licence": "Apache-2.0",
}
SILENT = Score("texts with an original", 0.0, 200, 0.0, 0.019, 0)
KEPT = Score("owner_from_list", 1.0, 200, 0.981, 1.0, 200)
GAIN = Score("gain over the base", 0.9, 200, 0.85, 0.94)
GATES = {
    "redaction": [SILENT],
    "leak": [SILENT],
    "gain": [GAIN],
    "format": [KEPT],
    "compliance": [KEPT],
}
BEFORE = {"facts": [True] * 60, "words": [True] * 60}
NAMES = ["fresh", "ownership", "licence", "forgetting", *GATES]


@pytest.fixture
def gather(tmp_path):
    """Give what gathers a pack on a run that passes each gate, with changes."""
    run = tmp_path / "short"
    with store.record_run(run, {"model": "data/wren", "seed": 7}) as record:
        record |= {"steps": 321, "history": [{"step": 1, "loss": 0.5}]}
    store.write_json(run / "adapter" / "adapter_config.json", {"r": 4})
    store.write_jsonl(tmp_path / "alerts.jsonl", [{"text": "disk full"}])
    example = schema.make_example("1234", "56")
    setting = Setting(7, "d" * 64, "m" * 64, "p" * 64, "greedy")
    score = Score("exact", 0.937, 200, 0.895, 0.963, 187, setting)
    given = {
        "splits": {
            "train": [example, schema.make_example("1", "2")],
            "test": [example],
        },
        "sources": [tmp_path / "alerts.jsonl"],
        "licences": {(tmp_path / "alerts.jsonl").as_posix(): "CC0-1.0"},
        "systems": {
            "fine-tuned": [score],
            "majority": [Score("exact", 0.2, 200, 0, 0.3)],
        },
        "gates": GATES,
        "before": BEFORE,
        "after": BEFORE,
        "cost": {"seconds an answer": 0.0425},
        "tested_on": "alerts of test",
        "rerun": "python train.py",
    }
    return partial(release.gather, tmp_path / "pack", run, **given)


@pytest.fixture
def exported(monkeypatch):
    """Give the calls of `deployment.export_adapter`, none of which writes anything."""
    calls = []
    monkeypatch.setattr(
        deployment,
        "export_adapter",
        lambda adapter, folder, config, card: calls.append((adapter, config, card)),
    )
    return calls


def find_failed(pack, **terms):
    decision = release.judge(pack, TERMS | terms, TODAY)
    assert [gate.name for gate in decision.gates] == NAMES
    assert decision.ship == all(gate.passed for gate in decision.gates)
    return {gate.name: gate.reason for gate in decision.gates if not gate.passed}


def test_a_run_that_passes_each_gate_ships(gather):
    pack = gather()
    assert find_failed(pack) == {}
    assert str(release.judge(pack, TERMS, TODAY)) == "SHIP"
    assert pack.read("release")["ship"] is True


def fail(gate, score):
    return {"gates": GATES | {gate: [score]}}


@pytest.mark.parametrize(
    ("changes", "gate", "reason"),
    [
        (fail("redaction", Score("x", 0.005, 200, 0.0, 0.03, 1)), "redaction", "0.01"),
        (fail("leak", Score("x", 0.005, 200, 0.0, 0.03, 1)), "leak", "none may hold"),
        (fail("gain", Score("x", 0.02, 200, -0.01, 0.05)), "gain", "must lie above 0"),
        (fail("gain", Score("x", 0.9, 29, 0.8, 0.95)), "gain", "too few"),
        (fail("format", Score("x", 0.97, 200, 0.94, 0.98)), "format", "reach 0.95"),
        (fail("compliance", Score("x", 1.0, 29, 1.0, 1.0)), "compliance", "too few"),
        (
            fail("compliance", Score("x", 0.96, 200, 0.949, 0.98)),
            "compliance",
            "reach 0.95",
        ),
        (
            {"after": BEFORE | {"words": [True] * 50 + [False] * 10}},
            "forgetting",
            "words is down by 0.17",
        ),
        ({"licences": {}}, "licence", "alerts.jsonl has the licence unknown"),
        ({"licences": {"data/wren": "cc-by-nc-4.0"}}, "licence", "data/wren has the"),
    ],
)
def test_each_gate_fails_alone_and_says_why(gather, changes, gate, reason):
    if changes.get("licences"):
        source = gather().read("licences")
        changes = {"licences": source | changes["licences"]}
    failed = find_failed(gather(**changes))
    assert list(failed) == [gate]
    assert reason in failed[gate]


@pytest.mark.parametrize("gate", GATES)
def test_what_was_not_measured_passes_no_gate(gather, gate):
    rest = {name: scores for name, scores in GATES.items() if name != gate}
    for given in (rest, rest | {gate: []}):
        failed = find_failed(gather(gates=given))
        assert list(failed) == [gate]
        assert failed[gate].startswith("not measured")


def test_a_score_that_is_not_defined_counts_as_not_measured(gather):
    nothing = Score("rule", float("nan"), 0, float("nan"), float("nan"))
    failed = find_failed(gather(gates=GATES | {"compliance": [nothing]}))
    assert failed == {"compliance": "not measured: give its scores"}


def test_forgetting_that_was_not_measured_passes_not(gather):
    assert list(find_failed(gather(after=None))) == ["forgetting"]


def test_an_earlier_pack_lends_no_evidence_to_a_later_one(gather):
    assert find_failed(gather()) == {}
    assert list(find_failed(gather(before=None, after=None))) == ["forgetting"]


def test_data_that_may_not_be_trained_on_fails_the_licence(gather):
    failed = find_failed(gather(), data_rights="no training")
    assert failed == {"licence": "data_rights forbid training"}


def test_terms_that_are_wrong_fail_ownership(gather):
    for approver in ("security  operations", "Security Operations"):
        failed = find_failed(gather(), approver=approver)
        assert failed["ownership"].startswith("approver is the owner")
        assert list(failed) == ["ownership"]


def test_a_gate_that_is_none_and_a_run_that_did_not_finish_are_refused(
    gather, tmp_path
):
    with pytest.raises(ValueError, match="no gate 'gains' judges scores"):
        gather(gates={"gains": [GAIN]})
    run = store.read_json(tmp_path / "short" / "run.json")
    store.write_json(tmp_path / "short" / "run.json", run | {"status": "stopped"})
    with pytest.raises(ValueError, match="this run is stopped: let it finish first"):
        gather()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("owner", None, "owner is missing: write the role"),
        ("approver", "", "approver is missing: write another role"),
        ("purpose", 3, "purpose is '3': write a sentence"),
        ("allowed_uses", "any", "allowed_uses is 'any': write a list"),
        ("forbidden_uses", [], "forbidden_uses is missing: write a list"),
        ("forbidden_uses", [3], "forbidden_uses is '[3]': write a list"),
        ("data_rights", "some", "data_rights is 'some': write one of free"),
        ("retention", "  ", "retention is '  ': write how long"),
        (
            "review_date",
            "2026-11-22",
            "review_date is '2026-11-22': write a day to come",
        ),
        ("review_date", "soon", "review_date is 'soon': write a day to come"),
        ("licence", False, "licence is 'False': write the SPDX name"),
        ("licences", "MIT", "licences is no field: use owner, approver"),
    ],
)
def test_each_wrong_term_is_named_with_what_to_write(field, value, says):
    assert release.find_term_faults(TERMS, TODAY) == []
    [fault] = release.find_term_faults(TERMS | {field: value}, TODAY)
    assert fault.startswith(says)


def test_all_wrong_terms_of_a_file_are_named_at_once(tmp_path):
    path = tmp_path / "release.yaml"
    path.write_text("owner: risk\napprover: no\nreview_date: 2026-11-23\n")
    with pytest.raises(ValueError, match="cannot be used") as error:
        release.read_terms(path, TODAY)
    named = [line.split()[0] for line in str(error.value).splitlines()[1:]]
    rest = ["purpose", "allowed_uses", "forbidden_uses", "data_rights", "retention"]
    assert named == ["approver", *rest, "licence"]
    for text, says in (("a: [", "is no YAML"), ("free", "has no fields")):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            release.read_terms(path, TODAY)


def test_the_shipped_template_is_whole_and_names_roles():
    path = ROOT / "data" / "release.yaml"
    terms = release.read_terms(path, TODAY)
    assert terms["owner"] != terms["approver"]
    assert list(terms) == list(TERMS)
    later = TERMS | {"review_date": date(2030, 1, 1)}
    assert release.find_term_faults(later, TODAY) == []


@pytest.mark.parametrize(
    "file",
    ["alerts.jsonl", "short/run.json", "pack/systems.json", "pack/answered.json"],
)
def test_a_changed_input_makes_the_card_stale_and_the_card_says_so(
    gather, tmp_path, file
):
    pack = gather()
    assert release.find_stale(pack.folder) == []
    assert release.warn_if_stale(pack.folder) == ""
    path = tmp_path / file
    path.write_bytes(path.read_bytes() + b"\n")
    assert release.find_stale(pack.folder) == [path.as_posix()]
    says = f"STALE: {path.name} changed after this was measured; gather it anew first."
    assert release.warn_if_stale(pack.folder) == says
    assert find_failed(pack) == {"fresh": says}
    card = ModelCard.load(release.write_card(pack))
    assert says in card.text.split("# short")[0]
    assert says in release.write_checklist(pack).read_text()
    assert find_failed(gather()) == {}
    card = ModelCard.load(release.write_card(pack))
    assert "STALE" not in card.text


def test_a_file_that_is_gone_makes_the_card_stale(gather, tmp_path):
    pack = gather()
    (tmp_path / "alerts.jsonl").unlink()
    assert "alerts.jsonl" in release.warn_if_stale(pack.folder)


def read_all(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "file", "named"),
    [
        ("short", "short/run.json", "adapter"),
        ("other", "other/run.json", "run.json"),  # of a run whose adapter is elsewhere
        ("pack", "pack/notes.json", "notes.json"),
        ("pack", "pack/tested.json", "tested.json"),  # an input under a part's name
    ],
)
def test_gathering_deletes_nothing_that_no_pack_wrote(
    gather, tmp_path, place, file, named
):
    path = tmp_path / file
    if not path.exists():
        store.write_json(path, {"status": "finished"})
    inputs = [path] if named == "tested.json" else []
    given = {**gather.keywords, "inputs": inputs}
    before = read_all(tmp_path)
    with pytest.raises(FileExistsError, match=f"{place} holds {named}, which is no"):
        release.gather(tmp_path / place, tmp_path / "short", **given)
    assert read_all(tmp_path) == before


def test_a_pack_with_its_card_and_checklist_is_replaced_and_no_part_stays(gather):
    pack = gather()
    release.judge(pack, TERMS, TODAY)
    release.write_card(pack)
    release.write_checklist(pack)
    (pack.folder / ".notes").write_text("kept")
    gather(before=None)
    names = {path.name for path in pack.folder.iterdir()}
    assert not names & {"release.json", "answered.json", "forgetting.json"}
    assert {"README.md", "checklist.html", "manifest.json", ".notes"} <= names


def test_what_a_base_is_used_with_and_where_licences_stand_is_evidence_too(
    gather, tmp_path
):
    hashes = store.read_json(gather().folder / "manifest.json")
    small = ["config", "tokenizer", "tokenizer_config", "generation_config"]
    wanted = {f"data/wren/{name}.json" for name in small} | {"data/README.md"}
    wanted |= {"data/wren/chat_template.jinja", "data/wren/README.md"}
    assert wanted <= hashes.keys()
    run = store.read_json(tmp_path / "short" / "run.json")
    run["config"]["model"] = str(tmp_path / "base")
    store.write_json(tmp_path / "short" / "run.json", run)
    template = tmp_path / "base" / "chat_template.jinja"
    template.parent.mkdir()
    template.write_text("before")
    pack = gather()
    template.write_text("after")
    assert release.find_stale(pack.folder) == [template.as_posix()]


def test_a_pack_that_was_cut_off_is_no_pack(gather, tmp_path, monkeypatch):
    pack = gather()

    def refuse(path, value):
        raise OSError("disk full")

    monkeypatch.setattr(store, "write_json", refuse)
    with pytest.raises(OSError, match="disk full"):
        gather()
    with pytest.raises(FileNotFoundError, match="pack is no whole pack: gather it"):
        release.find_stale(pack.folder)


def test_the_card_has_the_metadata_that_the_hub_reads(gather):
    pack = gather()
    release.judge(pack, TERMS, TODAY)
    data = ModelCard.load(release.write_card(pack)).data
    assert data.base_model == "data/wren"
    assert data.base_model_relation == "adapter"
    assert data.library_name == "peft"
    assert data.license == "apache-2.0"
    assert data.datasets == ["alerts.jsonl"]
    [result] = data.eval_results
    assert (result.dataset_name, result.metric_type) == ("alerts of test", "exact")
    assert result.metric_value == 0.937


def test_each_section_of_the_card_has_its_numbers(gather):
    pack = gather()
    release.judge(pack, TERMS, TODAY)
    text = ModelCard.load(release.write_card(pack)).text
    for line in (
        "| train | 2 | 2 | 4.0 | 6 |",  # "1" + "2", and "1234" + "56"
        "| alerts.jsonl | CC0-1.0 |",
        "| data/wren | apache-2.0 |",
        "| fine-tuned | exact | 0.937 | 0.895 to 0.963 | 200 |",
        "| majority | exact | 0.200 | 0.000 to 0.300 | 200 |",
        "| leak | texts with an original | 0.000 | 0.000 to 0.019 | 200 |",
        "| summary | retention | 1.000 | 1.000 to 1.000 | 120 |",
        "| seconds an answer | 0.0425 |",
        "| steps | 321 |",
        "| seed | 7 |",
        "| gain | PASS | gain over the base 0.90 [0.85, 0.94], n=200 |",
        "| forbidden_uses | acting alone |",
        "python train.py",
    ):
        assert line in text
    assert store.list_versions()["torch"] in text
    assert "**SHIP.** Suggest a triage." in text


def test_every_number_of_the_card_stands_in_a_file_whose_hash_it_gives(gather):
    pack = gather()
    text = ModelCard.load(release.write_card(pack)).text
    hashes = store.read_json(pack.folder / "manifest.json")
    told, kept = text.split("## Where each number comes from")
    for name, digest in hashes.items():
        assert (
            f"| {name.split('/')[-1] if name[0] == '/' else name} | {digest} |" in kept
        )
    parts = [path for path in hashes if "/pack/" in path]
    names = ["run", "environment", "splits", "licences", "systems", "gates", "cost"]
    names += ["tested", "answered", "forgetting"]
    assert {path.split("/")[-1] for path in parts} == {f"{n}.json" for n in names}
    numbers = re.findall(r"[-\w.]+", " ".join(store.Path(p).read_text() for p in parts))
    known = set()
    for number in numbers:
        known.add(number)
        if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", number):
            known.add(f"{float(number):.3f}")
    told = told.replace("95 % interval", "")
    assert [
        n for n in re.findall(r"(?<![\w.-])\d[\d.]*\b", told) if n not in known
    ] == []


def test_a_card_publishes_no_path_of_this_computer(gather, tmp_path):
    pack = gather()
    release.judge(pack, TERMS, TODAY)
    for path in (release.write_card(pack), release.write_checklist(pack)):
        text = path.read_text(encoding="utf-8")
        assert tmp_path.as_posix() not in text
        assert ROOT.as_posix() not in text


def test_nothing_acts_in_a_card_or_a_checklist(gather):
    pack = gather()
    evil = "<script>alert(1)</script> | x"
    release.judge(pack, TERMS | {"purpose": evil, "retention": evil}, TODAY)
    for path in (release.write_card(pack), release.write_checklist(pack)):
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    card = release.write_card(pack).read_text(encoding="utf-8")
    assert "| retention | &lt;script&gt;alert(1)&lt;/script&gt; &#124; x |" in card


def test_a_card_that_nobody_judged_says_so(gather):
    assert "NOT JUDGED" in release.write_card(gather()).read_text(encoding="utf-8")


def test_the_checklist_has_each_gate_in_words_and_room_to_sign(gather):
    pack = gather(**fail("gain", Score("lead", 0.02, 200, -0.01, 0.05)))
    release.judge(pack, TERMS, TODAY)
    text = release.write_checklist(pack).read_text(encoding="utf-8")
    assert "DO NOT SHIP" in text
    assert "<td>gain</td><td>FAIL</td><td>lead 0.02" in text
    assert text.count("<td>PASS</td>") == len(NAMES) - 1
    assert "size: A4" in text
    assert "Approver, date" in text
    assert "<td>review_date</td><td>2027-05-31</td>" in text
    assert not re.search(
        r"color: *(red|green)|#[0-7][0-9a-f]{2}[^0-9a-f]*;? *red", text
    )


def test_a_long_text_without_spaces_is_clipped_and_not_dropped(gather):
    pack = gather()
    release.judge(
        pack, TERMS | {"purpose": "&" + "x" * 400, "retention": "<" * 170}, TODAY
    )
    text = release.write_checklist(pack).read_text(encoding="utf-8")
    assert f"<td>purpose</td><td>&amp;{'x' * 164}[...]</td>" in text
    assert f"<td>retention</td><td>{'&lt;' * 170}</td>" in text


def test_export_hands_over_the_adapter_the_base_and_the_card(
    gather, exported, tmp_path
):
    pack = gather()
    with pytest.raises(release.RefusedError, match="was not judged: call judge first"):
        release.export(pack, tmp_path / "out", today=TODAY)
    release.judge(pack, TERMS, TODAY)
    release.export(pack, tmp_path / "out", today=TODAY)
    [(adapter, config, card)] = exported
    assert adapter == tmp_path / "short" / "adapter"
    assert config.model == str(ROOT / "data/wren")
    assert config.seed == 7
    assert "**SHIP.**" in card
    assert "OVERRIDE" not in card


def test_export_is_refused_without_ship_with_every_reason(gather, exported, tmp_path):
    pack = gather(after=None, gates=GATES | {"leak": []})
    release.judge(pack, TERMS, TODAY)
    for override in (None, ("", "because"), ("model risk", " ")):
        with pytest.raises(release.RefusedError) as error:
            release.export(pack, tmp_path / "out", override, today=TODAY)
        for words in ("DO NOT SHIP", "- forgetting:", "- leak:", "give who decides"):
            assert words in str(error.value)
    assert exported == []


def test_an_override_lands_in_the_card_and_in_release_json(gather, exported, tmp_path):
    pack = gather(after=None)
    release.judge(pack, TERMS, TODAY)
    release.export(
        pack, tmp_path / "out", ("model risk", "for a <b>demo</b> only"), today=TODAY
    )
    [(*_, card)] = exported
    told = "OVERRIDE: model risk ships it against the gates: for a &lt;b&gt;demo"
    assert told in card.split("# short")[0]
    assert "DO NOT SHIP" in card
    kept = json.loads((pack.folder / "release.json").read_text())["override"]
    assert kept == {"by": "model risk", "reason": "for a <b>demo</b> only"}
    release.judge(gather(), TERMS, TODAY)
    release.export(pack, tmp_path / "out", ("model risk", "not needed"), today=TODAY)
    assert "OVERRIDE" not in exported[-1][-1]


def test_judging_again_does_not_forget_who_overrode(gather, exported, tmp_path):
    pack = gather(after=None)
    release.judge(pack, TERMS, TODAY)
    release.export(pack, tmp_path / "out", ("model risk", "a demo"), today=TODAY)
    before = pack.read("release")
    assert not release.decide(pack, TERMS | {"owner": ""}, TODAY).ship
    assert pack.read("release") == before
    release.judge(pack, TERMS | {"purpose": "Another."}, TODAY)
    assert pack.read("release")["terms"]["purpose"] == "Another."
    assert pack.read("release")["override"] == {"by": "model risk", "reason": "a demo"}
    assert "OVERRIDE: model risk" in release.write_card(pack).read_text("utf-8")


@pytest.mark.parametrize("day", [date(2027, 5, 31), date(2030, 1, 1)])
def test_a_review_that_is_due_on_the_day_of_export_stops_it(
    gather, exported, tmp_path, day
):
    pack = gather()
    assert release.judge(pack, TERMS, TODAY).ship
    with pytest.raises(release.RefusedError, match="review_date is '2027-05-31'"):
        release.export(pack, tmp_path / "out", today=day)
    release.judge(pack, TERMS, day)
    with pytest.raises(release.RefusedError, match="review_date is '2027-05-31'"):
        release.export(pack, tmp_path / "out", today=TODAY)  # a clock set back
    assert exported == []


def test_export_judges_again_so_that_neither_staleness_nor_an_edit_slips_by(
    gather, exported, tmp_path
):
    pack = gather(after=None)
    release.judge(pack, TERMS, TODAY)
    path = pack.folder / "release.json"
    store.write_json(path, store.read_json(path) | {"ship": True})
    with pytest.raises(release.RefusedError, match="forgetting"):
        release.export(pack, tmp_path / "out", today=TODAY)
    pack = gather()
    release.judge(pack, TERMS, TODAY)
    (tmp_path / "alerts.jsonl").write_text("{}")
    with pytest.raises(release.RefusedError, match="STALE: alerts.jsonl changed"):
        release.export(pack, tmp_path / "out", today=TODAY)
    assert exported == []


def test_terms_survive_the_way_through_yaml_and_back(gather, exported, tmp_path):
    path = tmp_path / "release.yaml"
    path.write_text(yaml.safe_dump(TERMS | {"review_date": date(2027, 5, 31)}))
    pack = gather()
    assert release.judge(pack, release.read_terms(path, TODAY), TODAY).ship
    release.export(pack, tmp_path / "out", today=TODAY)
    assert len(exported) == 1
