"""The security data is what its description says, fault by fault and byte by byte."""

import json
import re
from collections import Counter, defaultdict
from difflib import SequenceMatcher

import jsonschema
import pytest

from data.build import soc


def read(name):
    lines = (soc.FOLDER / name).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


ALERTS = {row["alert_id"]: row for row in read("alerts.jsonl")}
TRUTH = {row["alert_id"]: row for row in read("truth.jsonl")}
SCHEMA = json.loads((soc.FOLDER / "schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KEYS = ["host", "summary", "tactic", "technique", "owner", "severity", "action"]


def with_fault(fault):
    return [(ALERTS[i], row) for i, row in TRUTH.items() if row["faults"] == [fault]]


CLEAN = [(ALERTS[i], row) for i, row in TRUTH.items() if not row["faults"]]


# --- the house rule, worked by hand -----------------------------------------------


# Technique, host, blocked: severity, tactic, owner, action; summary.
WORKED = """
# medium, not blocked: stays medium
T1566.001 lap-kel-07 no: medium initial-access mail ticket; attachment lure, allowed
# low, blocked: low is the lowest
T1110.003 lap-tasu-40 yes: low credential-access identity note; password spray, blocked
# critical, blocked: low, on a server too
T1003.001 srv-brimo-11 yes: low credential-access identity note; lsass memory read, blocked
# critical, not blocked: stays critical
T1486 db-nor-99 no: critical impact endpoint page; ransom encryption, allowed
# high, blocked: low
T1078.004 vm-dal-03 yes: low initial-access cloud note; cloud account misuse, blocked
# medium, blocked: low
T1021.001 ws-flena-20 yes: low lateral-movement network note; remote desktop hop, blocked
# high, not blocked, on a server: stays high
T1562.001 srv-gul-55 no: high defense-evasion endpoint isolate; antivirus tampering, allowed
# low, not blocked: stays low
T1114.003 db-kavi-31 no: low collection mail note; mail forwarding rule, allowed
# high, not blocked
T1567.002 lap-sul-08 no: high exfiltration cloud isolate; upload to a private drive, allowed
# medium, blocked
T1059.001 srv-dran-62 yes: low execution endpoint note; powershell run, blocked
# medium, not blocked
T1547.001 db-fimo-70 no: medium persistence endpoint ticket; run key planted, allowed
# medium, blocked
T1071.004 lap-gano-18 yes: low command-and-control network note; dns beacon, blocked
"""  # noqa: E501


@pytest.mark.parametrize(
    "line", [line for line in WORKED.strip().splitlines() if not line.startswith("#")]
)
def test_rule(line):
    given, expected = line.split(": ")
    technique, host, blocked = given.split()
    words, summary = expected.split("; ")
    severity, tactic, owner, action = words.split()
    facts = {"technique": technique, "host": host, "blocked": blocked == "yes"}
    assert list(soc.triage(facts).items()) == [
        ("host", host),
        ("summary", summary),
        ("tactic", tactic),
        ("technique", technique),
        ("owner", owner),
        ("severity", severity),
        ("action", action),
    ]


def test_reference_json():
    facts = {"technique": "T1071.004", "host": "db-dro-14", "blocked": True}
    assert json.dumps(soc.triage(facts)) == (
        '{"host": "db-dro-14", "summary": "dns beacon, blocked", '
        '"tactic": "command-and-control", "technique": "T1071.004", '
        '"owner": "network", "severity": "low", "action": "note"}'
    )


def test_right_triage_follows_from_the_facts_and_is_valid():
    for row in TRUTH.values():
        assert row["triage"] == soc.triage(row["facts"])
        assert list(row["triage"]) == KEYS
        VALIDATOR.validate(row["triage"])


@pytest.mark.parametrize(
    "change",
    [
        {"severity": "urgent"},
        {"owner": "helpdesk"},
        {"technique": "T15"},
        {"host": "lap-kel-7"},
        {"host": "mac-kel-07"},
        {"note": "x"},
        {"summary": 3},
    ],
)
def test_schema_refuses(change):
    right = soc.triage({"technique": "T1486", "host": "lap-kel-07", "blocked": True})
    assert VALIDATOR.is_valid(right)
    assert not VALIDATOR.is_valid(right | change)
    assert SCHEMA["required"] == list(SCHEMA["properties"]) == KEYS
    for key in KEYS:
        assert not VALIDATOR.is_valid({k: v for k, v in right.items() if k != key})


# --- rows, faults, splits ---------------------------------------------------------


def test_rows_and_faults():
    assert list(ALERTS) == list(TRUTH) == [f"A{n:04d}" for n in range(1, 1201)]
    assert Counter(len(row["faults"]) for row in TRUTH.values()) == {0: 1058, 1: 142}
    assert Counter(fault for row in TRUTH.values() for fault in row["faults"]) == {
        "exact_duplicate": 40,
        "near_duplicate": 40,
        "empty_text": 6,
        "empty_triage": 6,
        "truncated_text": 12,
        "truncated_triage": 8,
        "wrong_label": 30,
    }
    for alert in ALERTS.values():
        assert list(alert) == [
            "alert_id", "incident_id", "received", "source", "text", "triage", "spans"
        ]  # fmt: skip
    assert {alert["source"] for alert in ALERTS.values()} == {
        "edr", "mail gateway", "vpn", "cloud", "help desk"
    }  # fmt: skip


def test_clean_rows_carry_the_right_triage():
    for alert, truth in CLEAN:
        assert alert["triage"] == truth["triage"]
        assert truth["triage"]["host"] in alert["text"]
        assert truth["duplicate_of"] is None


@pytest.mark.parametrize("fault", ["exact_duplicate", "near_duplicate"])
def test_duplicates(fault):
    for alert, truth in with_fault(fault):
        original = ALERTS[truth["duplicate_of"]]
        assert TRUTH[truth["duplicate_of"]]["faults"] == []
        assert alert["incident_id"] == original["incident_id"]
        assert alert["received"] > original["received"]
        assert alert["triage"] == original["triage"] == truth["triage"]
        if fault == "exact_duplicate":
            assert alert["text"] == original["text"]
            assert alert["spans"] == original["spans"]
        else:
            assert alert["text"] != original["text"]
            texts = alert["text"].casefold(), original["text"].casefold()
            assert SequenceMatcher(None, *texts, autojunk=False).ratio() > 0.9


def test_empty_and_truncated_rows():
    assert [a["text"] for a, _ in with_fault("empty_text")] == [""] * 6
    empty = [a["triage"] for a, _ in with_fault("empty_triage")]
    assert Counter(map(repr, empty)) == {"None": 3, "''": 3}
    for alert, truth in with_fault("truncated_text"):
        assert not re.search(r"\b(lap|ws|srv|db|vm)-", alert["text"])
        assert alert["text"][-1].isalpha()
        assert alert["triage"] == truth["triage"]
    for alert, truth in with_fault("truncated_triage"):
        whole = json.dumps(truth["triage"])
        assert whole.startswith(alert["triage"])
        assert 0 < len(alert["triage"]) < len(whole)


def test_wrong_labels_are_wrong_in_one_valid_field():
    fields = Counter()
    for alert, truth in with_fault("wrong_label"):
        VALIDATOR.validate(alert["triage"])
        pairs = zip(alert["triage"].items(), truth["triage"].items(), strict=True)
        wrong = [given[0] for given, right in pairs if given != right]
        assert len(wrong) == 1
        fields[wrong[0]] += 1
    assert fields == dict(severity=10, technique=8, tactic=4, owner=4, action=4)


def test_splits_by_incident():
    split_of, techniques = defaultdict(set), defaultdict(set)
    for alert_id, truth in TRUTH.items():
        split_of[ALERTS[alert_id]["incident_id"]].add(truth["split"])
        techniques[truth["split"]].add(truth["facts"]["technique"])
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {name: len(found) for name, found in techniques.items()} == {
        "train": 12, "validation": 12, "test": 12
    }  # fmt: skip
    rows = Counter(truth["split"] for truth in TRUTH.values())
    for name, share in {"train": 0.615, "validation": 0.125, "test": 0.26}.items():
        assert rows[name] / 1200 == pytest.approx(share, abs=0.015)
    clean = Counter(truth["split"] for _, truth in CLEAN)
    assert clean["train"] >= 600
    assert clean["test"] >= 260


def test_incidents():
    """One host, one outcome and up to 4 wordings an incident; no host in two."""
    facts, hosts, sizes = defaultdict(set), set(), Counter()
    for alert_id, truth in TRUTH.items():
        incident = ALERTS[alert_id]["incident_id"]
        fact = truth["facts"]
        facts[incident].add((fact["technique"], fact["host"], fact["blocked"]))
        sizes[incident] += truth["duplicate_of"] is None
        if truth["duplicate_of"] is None:
            hosts.add((incident, fact["phrasing"]))
    assert all(len(found) == 1 for found in facts.values())
    assert len({host for ((_, host, _),) in facts.values()}) == len(facts)
    assert set(sizes.values()) == {1, 2, 3, 4}
    assert len(hosts) == sum(sizes.values()) == 1120


def test_no_text_leaks_across_splits():
    texts = Counter(alert["text"] for alert, _ in CLEAN)
    assert texts.most_common(1)[0][1] == 1


# --- the words --------------------------------------------------------------------

SHAPES = {
    "PERSON": r"[^\W\d_][^\d@]*",
    "EMAIL_ADDRESS": r"[a-z0-9._-]+@[a-z.-]+\.example",
    "PHONE_NUMBER": r"[+(]?\d[\d ()-]{7,}\d",
    "IP_ADDRESS": r"(192\.0\.2|198\.51\.100|203\.0\.113|10\.\d{1,3}\.\d{1,3})\.\d{1,3}",
    "HOSTNAME": r"(lap|ws|srv|db|vm)-[a-z]{3,5}-\d\d",
    "EMPLOYEE_ID": r"E-\d{5}|EMP00\d{4}|P\d\d-\d{4}",
    "PASSWORD": r"Example-[a-z]+-\d\d!|[A-Z][a-z]+\d\dNotReal\?|fake\.[a-z]+\.\d{4}",
    "API_KEY": r"key-example-[0-9a-f]{10}|tok_EXAMPLE[A-Z2-7]{8}",
}
# What gives an entity away in text that should hold none.
TRACES = re.compile(
    r"@|\.example|\d+\.\d+\.\d+\.\d+|\b(lap|ws|srv|db|vm)-[a-z]+-\d|\bE-\d|\bEMP\d"
    r"|\bP\d\d-|Example-|NotReal|fake\.|key-example|tok_EXAMPLE"
    r"|\b(7946|07700|555|5550|491 570|465 004|99 00|23125|020 91\d)\b"
)


def test_spans_match_the_text_and_nothing_is_left_out():
    names = {name for line in soc.WORDS["people"] for name in line.split(",")}
    name = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)")
    seen = Counter()
    for alert in ALERTS.values():
        rest, end = alert["text"], 0
        for span in alert["spans"]:
            assert end <= span["start"] < span["end"] <= len(alert["text"])
            end = span["end"]
            found = alert["text"][span["start"] : end]
            assert re.fullmatch(SHAPES[span["entity_type"]], found), found
            rest = rest[: span["start"]] + " " * len(found) + rest[end:]
            seen[span["entity_type"]] += 1
        assert not TRACES.search(rest), rest
        assert not name.search(rest), rest
    assert set(seen) == set(SHAPES)
    assert min(seen.values()) >= 100


def test_one_to_five_spans_beside_the_host():
    for alert, truth in CLEAN:
        found = [alert["text"][s["start"] : s["end"]] for s in alert["spans"]]
        assert truth["facts"]["host"] in found
        assert 1 <= sum(text != truth["facts"]["host"] for text in found) <= 5


def test_people_come_from_many_places():
    given = [n for line in soc.WORDS["people"][::2] for n in line.split(",")]
    family = [n for line in soc.WORDS["people"][1::2] for n in line.split(",")]
    assert len(soc.WORDS["people"]) >= 2 * 12
    assert len(set(given)) >= 120
    assert len(set(family)) >= 120


def test_each_kind_is_told_in_many_ways():
    used = defaultdict(set)
    for _, truth in CLEAN:
        if truth["split"] == "train":
            used[truth["facts"]["technique"]].add(truth["facts"]["phrasing"])
    assert len(used) == 12
    for technique, phrasings in used.items():
        assert len(phrasings) >= 8
        assert len(set(soc.WORDS[technique])) == len(soc.WORDS[technique]) >= 10


def test_blocked_or_not_is_unambiguous():
    said = {
        True: soc.WORDS["blocked"] + soc.WORDS["blocked-flag"],
        False: soc.WORDS["through"] + soc.WORDS["through-flag"],
    }
    assert set(said[True]).isdisjoint(said[False])
    for alert, truth in CLEAN:
        text, blocked = alert["text"].casefold(), truth["facts"]["blocked"]
        assert truth["facts"]["outcome"] in said[blocked]
        assert truth["facts"]["outcome"] in text
        for wording in said[not blocked]:
            assert not re.search(rf"\b{wording}\b", text), (wording, text)


def test_length():
    words = sorted(len(alert["text"].split()) for alert, _ in CLEAN)
    assert max(words) <= 110
    assert sum(10 <= count <= 40 for count in words) >= 0.8 * len(words)
    assert sum(count > 40 for count in words) >= 0.02 * len(words)


# --- the raw export ---------------------------------------------------------------


def strict(line):
    """Parse one JSON object as the standard has it, not as Python is lenient."""

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs), "duplicate key"
        return dict(pairs)

    def refuse(constant):
        raise ValueError(constant)

    row = json.loads(line, object_pairs_hook=unique, parse_constant=refuse)
    assert isinstance(row, dict), "not an object"
    return row


def test_raw_export():
    data = (soc.FOLDER / "raw_export.jsonl").read_bytes()
    lines = data.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == 125
    assert data.startswith(b"\xef\xbb\xbf")
    assert sum(line.endswith(b"\r") for line in lines) == 20
    truth = read("raw_export_truth.jsonl")
    assert [row["line"] for row in truth] == list(range(1, 126))
    result = defaultdict(list)
    for line, row in zip(lines, truth, strict=True):
        alert = ALERTS.get(row["alert_id"])
        if not line.strip():
            result["blank"].append(row["kind"])
            continue
        assert TRUTH[row["alert_id"]]["split"] == "train"
        try:
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError:
            # Bytes 80 to 9f are letters in cp1252 and control codes in latin-1.
            codec = "cp1252" if re.search(rb"[\x80-\x9f]", line) else "latin-1"
            result[codec].append(row["kind"])
            assert (
                strict(line.decode(codec))["text"].replace("\u2019", "'")
                == alert["text"]
            )
            continue
        try:
            found = strict(text)
        except (ValueError, AssertionError):
            result["bad"].append(row["kind"])
            continue
        result["same" if found["text"] == alert["text"] else "garbled"].append(
            row["kind"]
        )
        assert found["triage"] == alert["triage"]
    assert {name: Counter(kinds) for name, kinds in result.items()} == {
        "blank": {"blank": 5},
        "latin-1": {"latin-1": 6},
        "cp1252": {"cp1252": 6},
        "garbled": {"mojibake": 6},
        "same": {"bom": 1, "crlf": 20, "plain": 76},
        "bad": {"truncated": 1, "list": 1, "trailing comma": 1, "nan": 1}
        | {"duplicate key": 1},
    }


# --- the script -------------------------------------------------------------------


def test_same_seed_same_bytes(tmp_path):
    soc.main(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(made) == [
        "alerts.jsonl",
        "raw_export.jsonl",
        "raw_export_truth.jsonl",
        "schema.json",
        "truth.jsonl",
    ]
    for name, content in made.items():
        assert (soc.FOLDER / name).read_bytes() == content, name
    assert soc.build(seed=1)["alerts.jsonl"] != made["alerts.jsonl"]
