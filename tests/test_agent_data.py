"""Run alone: ``python -m pytest tests/test_agent_data.py``."""

import json
from collections import Counter

from data.build import agent
from ftlib import agents, schema, store
from ftlib.records import load_reviewed
from ftlib.retrieval import load_handbook

ROWS, BAD_ROWS = store.read_jsonl(agent.FOLDER / "calls.jsonl")
TRAIN = [row for row in ROWS if row["split"] == "train"]
TEST = [row for row in ROWS if row["split"] == "test"]
PASSAGES = {p.title.split(",")[0]: p.text for p in load_handbook("v2")}


def list_calls(row):
    turns = [turn for turn in row["messages"] if turn["role"] == "assistant"]
    return [json.loads(turn["content"]) for turn in turns]


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    agent.main(tmp_path)
    made = (tmp_path / "calls.jsonl").read_bytes()
    assert made == (agent.FOLDER / "calls.jsonl").read_bytes()
    agent.main(tmp_path, seed=1)
    assert made != (tmp_path / "calls.jsonl").read_bytes()


def test_the_parts_have_so_many_alerts_of_each_severity():
    def count(rows):
        return Counter(row["alert"]["severity"] for row in rows)

    assert BAD_ROWS == []
    assert count(TRAIN) == {"low": 75, "medium": 110, "high": 60, "critical": 55}
    plain = [row for row in TEST if not row["planted_in"]]
    assert count(plain) == {"low": 12, "medium": 20, "high": 14, "critical": 14}
    assert Counter(row["planted_in"] for row in TEST) == {
        None: 60,
        "alert": 15,
        "passage": 15,
    }


def test_no_incident_and_no_service_is_in_both_parts():
    for split, rows in (("train", TRAIN), ("test", TEST)):
        reviewed = {alert["alert_id"]: alert for alert in load_reviewed(split)}
        for row in rows:
            triage = reviewed[row["alert"]["alert_id"]]["triage"]
            for field in ("host", "severity"):
                assert row["alert"][field] == triage[field]
    services = [{row["alert"]["service"] for row in rows} for rows in (TRAIN, TEST)]
    assert len(services[0]) == 300  # each is met once: nothing to learn by heart
    assert services[1] <= set(PASSAGES)
    assert not services[0] & set(PASSAGES)


def test_no_alert_names_a_person_or_holds_a_secret():
    for split in ("train", "test"):
        for alert in load_reviewed(split):
            for row in ROWS:
                if row["alert"]["alert_id"] != alert["alert_id"]:
                    continue
                for span in alert["spans"]:
                    if span.entity_type != "HOSTNAME":
                        secret = alert["text"][span.start : span.end]
                        assert secret not in row["alert"]["text"]


def play(row):
    """Let an agent give the answers of a conversation; return what came of it."""
    answers = iter(t["content"] for t in row["messages"] if t["role"] == "assistant")
    found = [t["content"] for t in row["messages"] if t["role"] == "tool"]
    journal, turns = [], []

    def ask(messages):
        turns[:] = messages
        return next(answers)

    tools = agents.make_soc_tools(lambda query: found[0], row["alert"], journal)
    trace = agents.run_agent(ask, tools, row["messages"][0]["content"])
    return trace, turns, journal


def test_each_conversation_is_what_its_agent_would_do():
    for row in ROWS:
        assert schema.find_fault(row) is None
        trace, turns, journal = play(row)
        verdicts = [step.verdict for step in trace.steps]
        assert verdicts == ["done"] * (len(verdicts) - 1) + ["finished"]
        assert turns == row["messages"][:-1]
        assert journal == row["actions"]


def test_a_ticket_goes_to_the_queue_that_the_passage_tells():
    for row in ROWS:
        calls = list_calls(row)
        if calls[0]["tool"] == "look_up":
            service, passage = row["alert"]["service"], row["messages"][2]["content"]
            assert calls[0]["arguments"] == {"query": f"queue of {service}"}
            assert service in passage
            assert calls[1]["arguments"]["queue"] in passage
            if row["split"] == "test":
                assert PASSAGES[service] == passage.removesuffix(f" {row['planted']}")


def test_what_is_planted_stands_in_one_place_and_never_in_the_training_part():
    for row in ROWS:
        request = row["messages"][0]["content"]
        places = {"alert": request, "passage": row["messages"][2:3]}
        if row["planted_in"]:
            assert row["split"] == "test"
            assert row["planted"]
            assert row["planted"] in str(places[row["planted_in"]]).replace("\\'", "'")
            twin = next(r for r in TEST if r["alert"]["alert_id"] in str(row["alert"]))
            assert twin["actions"] == row["actions"]
        else:
            assert row["planted"] == ""
    words = [planted.split("{")[0] for planted in agent.PLANTED]
    text = json.dumps([row["messages"] for row in TRAIN])
    assert not [w for w in words if w and w in text]


def test_a_conversation_is_short_for_wren(tokenizer):
    def count(row):
        return len(tokenizer.apply_chat_template(row["messages"], return_dict=False))

    lengths = [count(row) for row in TRAIN]
    assert max(lengths) <= 380
    assert sum(lengths[:200]) <= 50_000  # what a lesson can train on in half a minute
