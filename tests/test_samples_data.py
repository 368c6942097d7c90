"""Run alone: pytest tests/test_samples_data.py. Each sample obeys its own rules."""

import ast
import csv
import json
import re
from itertools import combinations

import pyarrow.parquet
import pytest

from data.build import samples
from ftlib import models
from ftlib.config import RunConfig
from ftlib.schema import find_fault, make_example
from ftlib.tokens import encode_example


def read_jsonl(name):
    lines = (samples.FOLDER / name).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_csv(name):
    with (samples.FOLDER / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


SUPPORT = read_jsonl("support_replies.jsonl")
CODE = read_csv("code_snippets.csv")
CHATS = json.loads((samples.FOLDER / "chat_transcripts.json").read_text("utf-8"))
CLAUSES = pyarrow.parquet.read_table(
    samples.FOLDER / "contract_clauses.parquet"
).to_pylist()
BEHAVIOUR = read_jsonl("behaviour.jsonl")
FINANCE = read_jsonl("finance_reports.jsonl")
SHAPES = {
    "support": SUPPORT,
    "code": CODE,
    "chats": CHATS,
    "clauses": CLAUSES,
    "behaviour": BEHAVIOUR,
    "finance": FINANCE,
}
SPEAKERS = {"human": "user", "gpt": "assistant", "system": "system"}


def as_example(row):
    if "conversations" in row:
        turns = row["conversations"]
        return {
            "messages": [
                {"role": SPEAKERS[turn["from"]], "content": turn["value"]}
                for turn in turns
            ]
        }
    if "instruction" in row:
        prompt = f"{row['instruction']}\n\n{row['input']}".strip()
        return make_example(prompt, row["output"])
    if "prompt" in row:
        return make_example(row["prompt"], row["completion"])
    return {"messages": row["messages"]}


def content(row, role):
    return next(m["content"] for m in row["messages"] if m["role"] == role)


# --- all six ---------------------------------------------------------------------


def test_the_shipped_samples_are_those_the_script_makes():
    for name, made in samples.build().items():
        if name.endswith(".parquet"):  # its bytes hang on the version of pyarrow
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(made))
            assert table.to_pylist() == CLAUSES
        else:
            assert made == (samples.FOLDER / name).read_bytes(), name


def test_another_seed_makes_other_rows():
    first = samples.collect("finance", samples.write_finance, 1)
    assert first != FINANCE
    assert len(first) == 180


def test_there_are_as_many_rows_as_told_and_they_are_small():
    counts = {name: len(rows) for name, rows in SHAPES.items()}
    assert counts == {
        "support": 240,
        "code": 240,
        "chats": 150,
        "clauses": 200,
        "behaviour": 240,
        "finance": 180,
    }
    assert sum(path.stat().st_size for path in samples.FOLDER.iterdir()) <= 700_000


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_rows_are_near_duplicates_or_say_the_same(name):
    examples = [as_example(row)["messages"] for row in SHAPES[name]]
    sets = []
    for messages in examples:
        words = re.findall(r"\S+", " ".join(m["content"] for m in messages).lower())
        sets.append({" ".join(words[i : i + 3]) for i in range(len(words) - 2)})
    for a, b in combinations(sets, 2):
        common = len(a & b)
        assert common < 0.8 * (len(a) + len(b) - common)
    prompts = [json.dumps(messages[:-1]) for messages in examples]
    responses = [messages[-1]["content"] for messages in examples]
    # Unequal prompts also mean that no two rows contradict each other.
    assert len(set(prompts)) == len(set(responses)) == len(examples)


def test_every_row_is_an_example_that_fits_a_small_model():
    tokenizer = models.load_tokenizer(RunConfig.for_profile("laptop"))
    for rows in SHAPES.values():
        for row in rows:
            example = as_example(row)
            assert find_fault(example) is None
            assert len(encode_example(example, tokenizer)["input_ids"]) <= 330


def test_every_text_is_plain_and_has_no_slot_left():
    for path in samples.FOLDER.iterdir():
        if path.suffix in (".jsonl", ".json", ".txt", ".md"):
            assert path.read_bytes().isascii(), path.name
    for rows in SHAPES.values():
        for row in rows:
            for message in as_example(row)["messages"]:
                assert not re.search(r"\{\w[\w ]*\}", message["content"])
                assert not re.search(r"\b[Aa] [aeio]", message["content"])
                assert message["content"] == message["content"].strip()


@pytest.mark.parametrize(
    ("rows", "fewest"), [(SUPPORT, 80), (CHATS, 60), (BEHAVIOUR, 10)]
)
def test_groups_are_many_enough_to_split_by(rows, fewest):
    groups = [row["group"] for row in rows]
    assert len(set(groups)) >= fewest
    assert max(map(groups.count, set(groups))) <= len(rows) / 4


# --- the voice -------------------------------------------------------------------

# Topic: sorry or not, when. Copied by hand from the house's table.
PROMISES = """
late parcel | yes | within one working day
broken on arrival | yes | within two working days
wrong item | yes | within two working days
flickering lamp | yes | within three working days
missing part | yes | within two working days
refund | no | within five working days
return | no | within one working day
address change | no | today
invoice copy | no | today
spare bulb | no | within two working days
cancelled order | no | today
gift note | no | today
warranty | no | within three working days
stock question | no | within one working day
""".strip().splitlines()
DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
BLAME = ("your fault", "your mistake", "you forgot", "you should have", "you failed")


def test_the_pages_of_rules_are_numbered():
    for page, count in (("voice.md", 11), ("naming.md", 10)):
        text = (samples.FOLDER / page).read_text("utf-8")
        numbers = re.findall(r"(?m)^(\d+)\. \S", text)
        assert numbers == [str(i) for i in range(1, count + 1)]
    text = (samples.FOLDER / "voice.md").read_text("utf-8")
    assert all(f"| {promise} |" in text for promise in PROMISES)


def broken_voice_rules(mail, reply, topic):
    """Return the numbers of the rules in voice.md that a reply breaks."""
    names = re.findall(r"(?:\n|Regards, |My name is )([A-Z][a-z]+)\.?$", mail)
    sorry, time = next(p for p in PROMISES if p.startswith(topic)).split(" | ")[1:]
    greeting, _, body, _, signature = (reply.split("\n") + [""] * 5)[:5]
    sentences = re.split(r"(?<=[.?!]) ", body)
    numbers = re.findall(r"order \d{5}", mail)
    asks = [s for s in sentences if s.startswith("Please send us your order number")]
    asked_for = set(re.findall(DAYS, mail))
    right = {
        1: greeting == (f"Hi {names[0]}," if names else "Hello,"),
        2: re.findall("thank", reply.lower()) == ["thank"]
        and sentences[0].startswith("Thank you"),
        3: reply.lower().count("sorry") == (sorry == "yes")
        and "apolog" not in reply.lower(),
        4: set(numbers) == set(re.findall(r"order \d+", reply))
        and len(asks) == (not numbers),
        5: [s for s in sentences if s.startswith("Next, we will ")] == sentences[-1:],
        6: sentences[-1].endswith(f" {time}."),
        7: set(re.findall(DAYS, reply)) == asked_for
        and not re.search("tomorrow|next week|January|March|June", reply),
        8: "!" not in reply,
        9: not any(words in reply.lower() for words in BLAME),
        10: signature == "The Lumen team" and reply.endswith("\nThe Lumen team"),
        11: len(reply.split()) <= 60,
    }
    return [number for number, holds in right.items() if not holds]


def test_every_reply_obeys_every_rule_of_the_voice():
    for row in SUPPORT:
        mail, reply = content(row, "user"), content(row, "assistant")
        assert broken_voice_rules(mail, reply, row["topic"]) == [], reply


GOOD_REPLY = """Hi Noor,

Thank you for asking first. Next, we will mail you the bill of order 12345 today.

The Lumen team"""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("Hi Noor,", "Dear Noor,", 1),
        ("first.", "first. Thanks again.", 2),
        ("first.", "first. We are sorry.", 3),
        ("order 12345", "order 54321", 4),
        ("Next, we will", "We will", 5),
        ("today.", "within a year.", 6),
        ("first.", "first. It comes on Friday.", 7),
        ("first.", "first!", 8),
        ("first.", "first. It was your mistake.", 9),
        ("The Lumen team", "Yours, Lumen", 10),
        ("first.", "first." + " Yes." * 40, 11),
    ],
)
def test_a_broken_rule_of_the_voice_would_be_seen(old, new, rule):
    mail = "The bill of order 12345, please. My name is Noor."
    assert broken_voice_rules(mail, GOOD_REPLY, "invoice copy") == []
    broken = GOOD_REPLY.replace(old, new)
    assert rule in broken_voice_rules(mail, broken, "invoice copy")


# --- the names -------------------------------------------------------------------

UNITS = {"s", "ms", "mb", "kg", "mm", "cm", "km", "eur"}
SHORT = {"is", "on", "to", "by"}
VERBS = {
    "load": "Load",
    "is": "Say",
    "on": "Handle",
    "count": "Count",
    "measure": "Measure",
    "find": "Find",
    "save": "Save",
    "to": "Turn",
}


def broken_naming_rules(code):
    """Return the numbers of the rules in naming.md that a snippet breaks."""
    tree = ast.parse(code)
    function = tree.body[0]
    if len(tree.body) != 1 or not isinstance(function, ast.FunctionDef):
        return [1]
    parameters = function.args.args
    types = {p.arg: ast.unparse(p.annotation) for p in parameters if p.annotation}
    result = ast.unparse(function.returns) if function.returns else ""
    prefix = function.name.split("_")[0]
    first = parameters[0].arg
    given = [function.name, *(p.arg for p in parameters)] + [
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    words = [part for name in given for part in name.split("_")]
    told = ast.get_docstring(function) or ""
    right = {
        1: not re.search(r"(?m)^\s*(import|from) ", code),
        2: prefix != "load"
        or (first in ("path", "folder_path") and types[first] == "Path"),
        3: (prefix == "is") == (result == "bool"),
        4: prefix != "on"
        or (types["event"], first, result) == ("Event", "event", "None"),
        5: prefix in VERBS,
        6: all(
            name.split("_")[-1] in UNITS
            for name, kind in types.items()
            if kind == "float"
        ),
        7: all(len(word) >= 3 or word in UNITS | SHORT for word in words),
        8: all(n.endswith("s") for n, kind in types.items() if kind.startswith("list")),
        9: len(types) == len(parameters) and result != "",
        10: re.fullmatch(VERBS.get(prefix, "") + r" [^\n]+\.", told) is not None,
    }
    return [number for number, holds in right.items() if not holds]


def test_every_snippet_parses_and_obeys_every_rule_of_naming():
    for row in CODE:
        assert broken_naming_rules(row["completion"]) == [], row["completion"]
        assert max(map(len, row["completion"].split("\n"))) <= 100


GOOD_CODE = '''def load_orders(path: Path, pause_s: float) -> list[Order]:
    """Load the orders."""
    rows = json.loads(path.read_text())
    return [Order(**row) for row in rows]'''


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("    rows =", "    import json\n    rows =", 1),
        ("path: Path", "path: str", 2),
        ("-> list[Order]", "-> bool", 3),
        ("load_orders(path: Path", "on_orders(events: Event", 4),
        ("load_orders", "get_orders", 5),
        ("pause_s", "pause", 6),
        ("rows", "rs", 7),
        ("pause_s: float", "order: list[Order]", 8),
        ("pause_s: float", "pause_s", 9),
        ("Load the orders.", "Loads orders", 10),
    ],
)
def test_a_broken_rule_of_naming_would_be_seen(old, new, rule):
    assert broken_naming_rules(GOOD_CODE) == []
    if rule == 4:  # a handler whose first parameter has another name
        new = new.replace("events", "event, other")
        code = (
            'def on_orders(other: Order, event: Event) -> None:\n    """Handle it."""'
        )
        assert broken_naming_rules(code) == [4]
        return
    assert rule in broken_naming_rules(GOOD_CODE.replace(old, new))


def test_csv_fields_hold_line_breaks_and_quotes():
    assert list(CODE[0]) == ["prompt", "completion"]
    assert sum("\n" in row["prompt"] for row in CODE) >= 10
    assert sum('"' in row["prompt"] for row in CODE) >= 10
    assert all("\n" in row["completion"] and '"' in row["completion"] for row in CODE)


# --- chats, clauses, policies ----------------------------------------------------


def test_chats_take_turns_and_end_with_the_assistant():
    lengths, with_system = set(), 0
    for row in CHATS:
        speakers = [turn["from"] for turn in row["conversations"]]
        with_system += speakers[0] == "system"
        speakers = speakers[speakers[0] == "system" :]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        lengths.add(len(speakers) // 2)
    assert lengths == {2, 3, 4, 5}
    assert 20 <= with_system <= len(CHATS) - 20


def test_every_clause_is_numbered_and_says_each_point_once():
    empty_inputs = 0
    for row in CLAUSES:
        head, *lines = row["output"].split("\n")
        number, title = head.split(". ")
        empty_inputs += not row["input"]
        notes = row["input"] or row["instruction"].split(" Points: ")[1]
        notes = re.findall(r"(?:- )?([^;\n]+)[;\n]?", notes)
        assert len(notes) == len(lines) >= 2
        assert re.search(rf"\b{number}\b", row["instruction"])
        assert title.lower() in row["instruction"].lower()
        for i, (note, line) in enumerate(zip(notes, lines, strict=True), start=1):
            label, text = line.split(" ", 1)
            assert label == f"{number}.{i}"
            assert re.findall(r"\d+", text) == re.findall(r"\d+", note)
    assert 15 <= empty_inputs <= 60


def test_every_clause_is_in_house_style():
    parties = "Supplier Buyer Lessor Lessee Licensor Licensee Contractor Client Shipper"
    terms = f"{parties} Consultant Carrier Caterer Goods Invoice Defect Party Price"
    for row in CLAUSES:
        for line in row["output"].split("\n")[1:]:
            text = line.split(" ", 1)[1]
            assert re.fullmatch(r"[A-Z][^.;!?]+\.", text)
            assert len(re.findall(r"\b(shall|may)\b", text)) == 1, text
            assert not re.search(r"\b(will|must|herein|thereof|and/or)\b", text)
            for term in terms.split():
                assert not re.search(rf"\b{term.lower()}s?\b", text), text


def test_the_handbook_has_over_a_hundred_titled_sections():
    text = (samples.FOLDER / "policies.txt").read_text("utf-8")
    sections = re.findall(r"(?m)^## (\w[^\n]+)\n\n(\w[^\n]+)$", text)
    assert len(sections) == text.count("#") // 2 >= 100
    assert len({title for title, _ in sections}) == len(sections)
    bodies = {body for _, body in sections}
    assert len(bodies) == len(sections)
    assert all(len(body.split()) >= 6 for body in bodies)


# --- behaviour -------------------------------------------------------------------


def find_kind(system, reply):
    """Tell from the policy and the reply alone what the assistant has done."""
    reason = re.search(r"I cannot (.+?), because ([^.]+)\.", reply)
    if reason and f"Do not {reason[1]}, because {reason[2]}." in system:
        return "refuse"
    if any(missing in reply for missing in re.findall(r"ask for ([^.]+)\.", system)):
        return "ask back" if reply.endswith("?") else "no question"
    person = re.search(r"Leave [^.]+? to (the [^.]+)\.", system)[1].split(" to ")[-1]
    return "hand over" if person in reply else "comply"


def test_every_reply_does_what_its_policy_asks():
    for row in BEHAVIOUR:
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        system, reply = content(row, "system"), content(row, "assistant")
        assert row["group"] in system
        assert find_kind(system, reply) == row["kind"], reply
    kinds = [row["kind"] for row in BEHAVIOUR]
    assert set(kinds) == {"comply", "refuse", "ask back", "hand over"}
    assert min(map(kinds.count, set(kinds))) >= 40


def test_an_answer_is_taken_from_its_policy():
    for row in BEHAVIOUR:
        if row["kind"] == "comply":
            system = content(row, "system")
            said = set(re.findall(r"[a-z-]{3,}", content(row, "assistant").lower()))
            rules = re.findall(r"[^.]+\.", system)
            shared = max(
                len(said & set(re.findall(r"[a-z-]+", r.lower()))) for r in rules
            )
            assert shared >= 2, row


# --- finance ---------------------------------------------------------------------


def tenths(part, whole):
    """Return the tenths of a percent that part is of whole, halves up, in integers."""
    return (2000 * part + whole) // (2 * whole)


def show(n_tenths):
    return f"{n_tenths // 10}.{n_tenths % 10} %"


def grown(before, after):
    n_tenths = tenths(abs(after - before), before)
    if n_tenths == 0:
        return "unchanged"
    return f"{'up' if after > before else 'down'} {show(n_tenths)}"


def test_the_rule_of_growth_is_the_one_worked_by_hand():
    # 30 of 120; 20 of 80; 1 of 8 is 12.5; 1 of 16 is 6.25, which rounds up; 1 of 3,000.
    assert samples.growth(120, 150) == grown(120, 150) == "up 25.0 %"
    assert samples.growth(80, 60) == grown(80, 60) == "down 25.0 %"
    assert samples.growth(8, 9) == grown(8, 9) == "up 12.5 %"
    assert samples.growth(16, 17) == grown(16, 17) == "up 6.3 %"
    assert samples.growth(3000, 3001) == grown(3000, 3001) == "unchanged"


def test_every_report_is_right_line_by_line():
    for row in FINANCE:
        ask, head, *lines = row["prompt"].split("\n")
        one, other = map(int, re.findall(r"\d{4}", head))
        table = {}
        for line in lines:
            name, a, b = re.fullmatch(r"(\w+)\D+(\d+)\D+(\d+)", line).groups()
            table[name] = (int(a), int(b)) if one < other else (int(b), int(a))
        totals = [sum(pair[i] for pair in table.values()) for i in (0, 1)]
        largest = sorted(table, key=lambda name: -table[name][1])[0]
        fastest = sorted(table, key=lambda name: -table[name][1] / table[name][0])[0]
        company, period, *figures = row["completion"].split("\n")
        assert company.removeprefix("Company: ") in ask
        money = re.search(r"All in (.+)\.$", ask)[1]
        year = max(one, other)
        assert period == f"Period: {year} against {year - 1}, {money}"
        share = show(tenths(table[largest][1], totals[1]))
        assert figures == [
            *(f"{name.title()}: {b}, {grown(a, b)}" for name, (a, b) in table.items()),
            f"Total: {totals[1]}, {grown(*totals)}",
            f"Largest: {largest}, {share} of the total",
            f"Fastest: {fastest}",
        ]
