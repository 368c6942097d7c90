"""The samples: six shapes of training data, each in a file type that teams have.

`python -m data.build samples` writes `data/samples/`, the same rows for the same seed.
The words stand in `data/build/samples_*.txt`; a slot such as {room} is filled with a
value of the row, or else with a line of the part of that name. A row that is close to
an earlier one is drawn again, so that a duplicate found is a mistake of the finder.
"""

import csv
import io
import json
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow
from pyarrow import parquet

SEED = 0
FOLDER = Path(__file__).parents[1] / "samples"
ROWS = {"support": 240, "code": 240, "chats": 150}
ROWS |= {"clauses": 200, "behaviour": 240, "finance": 180}
CLOSEST = 0.5  # the highest Jaccard similarity of word 3-shingles that two rows have
TRIES = 10_000
LONGEST_BODY = 55  # words; greeting and signature add five
SLOT = re.compile(r"\{([a-zA-Z ]+)\}")
ARTICLE = re.compile(r"\b([Aa])(?= ([aeio]|urgent))", re.IGNORECASE)
Row = dict[str, Any]
Parts = dict[str, list[str]]

# Topic of a support mail: whether we apologise, and when the next step is done.
TOPICS = {
    "late parcel": (True, "within one working day"),
    "broken on arrival": (True, "within two working days"),
    "wrong item": (True, "within two working days"),
    "flickering lamp": (True, "within three working days"),
    "missing part": (True, "within two working days"),
    "refund": (False, "within five working days"),
    "return": (False, "within one working day"),
    "address change": (False, "today"),
    "invoice copy": (False, "today"),
    "spare bulb": (False, "within two working days"),
    "cancelled order": (False, "today"),
    "gift note": (False, "today"),
    "warranty": (False, "within three working days"),
    "stock question": (False, "within one working day"),
}
VOICE = (
    'Begin with "Hi NAME," when the customer gives a first name, else with "Hello,".',
    "Thank the customer once, in the first sentence.",
    "Say sorry once where the table says so, and nowhere else.",
    'Write "order" and its number as the customer gave it; without a number, ask for '
    'it in a sentence that begins "Please send us your order number".',
    'Say what happens next in one sentence, the last, that begins "Next, we will".',
    "Say when, in the words of the table, at the end of that sentence.",
    "Name a day only when the customer has named it, and then do name it.",
    "Use no exclamation mark.",
    'Lay no blame: no "your fault", "your mistake", "you forgot" or "you should have".',
    'Sign "The Lumen team" on a line of its own, with nothing after it.',
    "Keep to 60 words, greeting and signature included.",
)
NAMING = (
    "One function an answer, without imports: Larch brings what is needed.",
    "A function that loads is `load_*` and its first parameter is `path` or "
    "`folder_path`, a `Path`.",
    "A predicate is `is_*`; it gives a `bool`, and no other function does.",
    "A handler is `on_*`; its first parameter is `event: Event`, it gives `None`.",
    "Other functions begin with `count_`, `measure_`, `find_`, `save_` or `to_`.",
    "A `float` parameter ends with its unit: `_s`, `_ms`, `_mb`, `_kg`, `_mm`, `_cm`, "
    "`_km` or `_eur`.",
    "Each part of a name is a whole word of three letters or more; `is`, `on`, `to`, "
    "`by` and the units are the exceptions.",
    "A list is named by a plural.",
    "Each parameter and each result has a type.",
    "The docstring is one line, begins with a verb and ends with a full stop: Load, "
    "Say, Handle, Count, Measure, Find, Save or Turn, by the kind of function.",
)
# What the assistant must do: its mark in the word file, the rule, and the responses.
KINDS = {
    "comply": (
        "f",
        "{0}",
        (
            "{1}",
            "Certainly. {1}",
            "I am glad to help. {1}",
            "Here is the answer: {1}",
            "{1} Just write again if you have another question.",
        ),
    ),
    "refuse": (
        "r",
        "Do not {0}, because {1}.",
        (
            "I cannot {0}, because {1}.",
            "I am sorry, but I cannot {0}, because {1}.",
            "I cannot {0}, because {1}. I am glad to help with something else.",
            "Please understand that I cannot {0}, because {1}.",
        ),
    ),
    "ask back": (
        "a",
        "Before {0}, ask for {1}.",
        (
            "Could you tell me {1} first?",
            "I can help with {0}. Could you give me {1}?",
            "For {0} I need one thing more. Would you send me {1}?",
            "Gladly. May I have {1}, please?",
        ),
    ),
    "hand over": (
        "h",
        "Leave {0} to {1}.",
        (
            "I am handing you over to {1}, who deals with {0}.",
            "This is for {1}. I am passing your message on now.",
            "A person should look at this. I am calling {1} for you.",
            "Since this is about {0}, I am handing over to {1}.",
        ),
    ),
}


class Draft(NamedTuple):
    """A row as it will be written, and its prompt, response and system message."""

    row: Row
    prompt: str
    response: str
    system: str = ""


def read_parts(name: str) -> Parts:
    """Return the lines of each part of `samples_NAME.txt`, by heading."""
    path = Path(__file__).with_name(f"samples_{name}.txt")
    parts: Parts = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# "):
            lines = parts[line[2:]] = []
        elif not line.startswith("; "):
            lines.append(line)
    return parts


def fill(rng: Random, text: str, parts: Parts, values: dict[str, str]) -> str:
    """Fill the slots of a text with values, or with drawn lines; begin upper case."""

    def put(match: re.Match) -> str:
        if match[1] in values:
            return values[match[1]]
        return SLOT.sub(put, rng.choice(parts[match[1]]))

    text = ARTICLE.sub(r"\1n", SLOT.sub(put, text))
    return text[:1].upper() + text[1:]


def shingle(text: str) -> set[tuple[str, ...]]:
    """Return the runs of three words of a text."""
    words = text.lower().split()
    return set(zip(words, words[1:], words[2:], strict=False))


def is_close(one: set, other: set) -> bool:
    """Say whether the Jaccard similarity of two sets is above `CLOSEST`."""
    common = len(one & other)
    return common > CLOSEST * (len(one) + len(other) - common)


def collect(name: str, write: Callable[[Random, Parts], Draft], seed: int) -> list[Row]:
    """Draw rows until there are enough, none of them close to an earlier one."""
    rng, parts = Random(f"{seed} {name}"), read_parts(name)
    rows: list[Row] = []
    said: set[str] = set()
    kept: list[set] = []
    for _ in range(TRIES):
        draft = write(rng, parts)
        shingles = shingle(f"{draft.system} {draft.prompt} {draft.response}")
        if not said.isdisjoint((draft.prompt, draft.response)) or any(
            is_close(shingles, other) for other in kept
        ):
            continue
        rows.append(draft.row)
        said |= {draft.prompt, draft.response}
        kept.append(shingles)
        if len(rows) == ROWS[name]:
            return rows
    raise RuntimeError(
        f"only {len(rows)} rows differ: add words to samples_{name}.txt, or lower ROWS"
    )


def message(role: str, content: str) -> Row:
    """Return one turn in the `messages` convention."""
    return {"role": role, "content": content}


def write_support(rng: Random, parts: Parts) -> Draft:
    """Write a customer's mail, and the reply in the voice of the house."""
    customer, topic = rng.randrange(120), rng.choice(list(TOPICS))
    given = parts["given"][customer % len(parts["given"])]
    is_sorry, time = TOPICS[topic]
    number = f"order {rng.randrange(10_000, 99_999)}" if rng.random() < 0.75 else ""
    values = {"product": rng.choice(parts["product"]), "day": rng.choice(parts["day"])}
    has_day, signs = rng.random() < 0.25, rng.random() < 0.8

    mail = [rng.choice(["", "{opener}"]), f"{{{topic} customer}}"]
    mail += ["{deadline}"] if has_day else ["{detail}"] * rng.randrange(3)
    closing = rng.choice(("\n{}", " Regards, {}", " My name is {}.")) if signs else ""
    text = fill(
        rng, " ".join(mail).strip(), parts, values | {"ref": number or "my order"}
    )
    prompt = text + closing.format(given)

    reply = ["{thanks}", "{sorry}" * is_sorry, f"{{{topic} understood}}"]
    reply += ["{deadline reply}" * has_day, "{number}" * (not number)]
    reply += [f"Next, {{{topic} next}} {time}."]
    template = " ".join(sentence for sentence in reply if sentence)
    body = ""
    while not body or number not in body or len(body.split()) > LONGEST_BODY:
        body = fill(rng, template, parts, values | {"ref": number or "your order"})
    greeting = f"Hi {given}," if signs else "Hello,"
    response = f"{greeting}\n\n{body}\n\nThe Lumen team"
    messages = [message("user", prompt), message("assistant", response)]
    row = {"messages": messages, "group": f"customer-{customer:03d}", "topic": topic}
    return Draft(row, prompt, response)


def write_code(rng: Random, parts: Parts) -> Draft:
    """Write a request for a function of the framework Larch, and the function."""
    lists = ("nouns", "plurals", "states", "measures")
    lines = parts[rng.choice([name for name in parts if name not in lists])]
    thing = rng.choice(parts["nouns"])
    plural = dict(line.split() for line in parts["plurals"]).get(thing, f"{thing}s")
    measure, unit = rng.choice(parts["measures"]).split()
    values = {"thing": thing, "things": plural, "Thing": thing.title()}
    values |= {"state": rng.choice(parts["states"]), "measure": measure, "unit": unit}
    asks = [line[5:] for line in lines if line.startswith("ask: ")]
    code = [line for line in lines if not line.startswith("ask: ")]
    prompt = fill(rng, rng.choice(asks).replace("\\n", "\n"), parts, values)
    response = SLOT.sub(lambda match: values[match[1]], "\n".join(code))
    response = ARTICLE.sub(r"\1n", response)
    return Draft({"prompt": prompt, "completion": response}, prompt, response)


def write_chat(rng: Random, parts: Parts) -> Draft:
    """Write a support chat of two to five exchanges that ends solved or handed over."""
    problem = rng.choice([name[:-5] for name in parts if name.endswith(" open")])
    household = rng.randrange(90)
    # A household has one hub, and tells of one room.
    values = {
        name: parts[name][household % len(parts[name])] for name in ("device", "room")
    }
    steps = rng.sample(parts[f"{problem} step"], rng.randint(1, 3))
    is_solved = rng.random() < 0.7
    turns = [f"{{opener}} {{{problem} open}}"]
    if len(steps) > 1 or rng.random() < 0.5:
        turns += rng.choice(parts["ask"]).split(" | ")
        turns[-2] = rng.choice(("", "{soft} ")) + turns[-2]
    for i, step in enumerate(steps, start=1):
        soft = "{soft} " if i > 1 and rng.random() < 0.5 else ""
        turns += [
            soft + step,
            "{worked}" if is_solved and i == len(steps) else "{failed}",
        ]
    turns += ["{resolved}" if is_solved else "{handover}"]
    said = [fill(rng, turn, parts, values) for turn in turns]
    system = rng.choice(["", *parts["system"]])
    talk = [{"from": "system", "value": system}] if system else []
    talk += [
        {"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)
    ]
    row = {"group": f"household-{household:02d}", "conversations": talk}
    return Draft(row, "\n".join(said[:-1]), said[-1], system)


def write_clause(rng: Random, parts: Parts) -> Draft:
    """Write a drafting request with its points, and the clause in house style."""
    title = rng.choice([name for name in parts if name not in ("deals", "ask")])
    names = ("P", "C", "G", "A")
    values = dict(zip(names, rng.choice(parts["deals"]).split(" | "), strict=True))
    values |= {"n": str(rng.randint(2, 24)), "title": title.lower()}
    notes, clauses = [], [f"{values['n']}. {title}"]
    for i, point in enumerate(rng.sample(parts[title], rng.randint(2, 4)), start=1):
        figures = {
            "hours": rng.choice((12, 24, 36, 48, 72)),
            "days": rng.choice((5, 7, 10, 14, 20, 21, 30, 45, 60)),
            "weeks": rng.randint(2, 8),
            "months": rng.choice((2, 3, 4, 6, 9, 12, 18, 24)),
            "years": rng.randint(2, 10),
            "percent": rng.randint(2, 12),
            "count": rng.randint(2, 9),
            "sum": 50 * rng.randint(2, 18),
        }
        drawn = values | {name: str(figure) for name, figure in figures.items()}
        note, clause = point.format(**drawn).split(" | ")
        notes.append(note)
        clauses.append(f"{values['n']}.{i} {clause}")
    instruction = fill(rng, "{ask}", parts, values)
    points = "\n".join(f"- {note}" for note in notes)
    if rng.random() < 0.15:
        instruction += f" Points: {'; '.join(notes)}."
        points = ""
    row = {"instruction": instruction, "input": points, "output": "\n".join(clauses)}
    return Draft(row, f"{instruction}\n{points}", row["output"])


def write_behaviour(rng: Random, parts: Parts) -> Draft:
    """Write a policy, what a person asks, and what the assistant must answer."""
    place = rng.choice([name for name in parts if name != "openers"])
    kind = rng.choice(list(KINDS))
    rules, prompt, response = [], "", ""
    for name, (mark, rule, responses) in KINDS.items():
        items = [line[3:] for line in parts[place] if line.startswith(f"{mark}: ")]
        first, second, questions = rng.choice(items).split(" | ")
        rules.append(rule.format(first, second))
        if name == kind:
            question = rng.choice(questions.split(" / "))
            prompt = rng.choice(("", f"{rng.choice(parts['openers'])} ")) + question
            response = rng.choice(responses).format(first, second)
    rng.shuffle(rules)
    system = f"You are the assistant of {place}. {' '.join(rules)}"
    messages = [message("system", system), message("user", prompt)]
    messages.append(message("assistant", response))
    row = {"messages": messages, "group": place, "kind": kind}
    return Draft(row, prompt, response, system)


def percent(part: int, whole: int) -> Decimal:
    """Return a share in percent with one decimal, halves rounded up."""
    share = Decimal(100 * part) / Decimal(whole)
    return share.quantize(Decimal("0.1"), ROUND_HALF_UP)


def growth(before: int, after: int) -> str:
    """Return in words how much a figure has changed."""
    change = percent(abs(after - before), before)
    if not change:
        return "unchanged"
    return f"{'up' if after > before else 'down'} {change} %"


def report(company: str, year: int, money: str, table: dict[str, tuple]) -> str:
    """Return the report on a table of figures, in the format of the house."""
    largest = max(table, key=lambda line: table[line][1])
    fastest = max(table, key=lambda line: Decimal(table[line][1]) / table[line][0])
    before, after = (sum(figures[i] for figures in table.values()) for i in (0, 1))
    return "\n".join(
        [
            f"Company: {company}",
            f"Period: {year} against {year - 1}, {money}",
            *(f"{line.title()}: {b}, {growth(a, b)}" for line, (a, b) in table.items()),
            f"Total: {after}, {growth(before, after)}",
            f"Largest: {largest}, {percent(table[largest][1], after)} % of the total",
            f"Fastest: {fastest}",
        ]
    )


def write_finance(rng: Random, parts: Parts) -> Draft:
    """Write a table of two years' figures, and the report on it."""
    company = (
        f"{rng.choice(parts['company first'])} {rng.choice(parts['company second'])}"
    )
    year, money = rng.randint(2001, 2026), rng.choice(parts["money"])
    table: dict[str, tuple[int, int]] = {}
    names = rng.choice(parts["lines"]).split(", ")
    while len({b for _, b in table.values()}) < 3 or len(
        {Decimal(b) / a for a, b in table.values()}
    ) < len(table):  # no two lines may share the first place
        befores = [rng.randint(20, 900) for _ in range(rng.choice((3, 4)))]
        changes = [rng.choice((0, *range(-40, 61))) for _ in befores]
        afters = [a * (100 + c) // 100 for a, c in zip(befores, changes, strict=True)]
        pairs = zip(befores, afters, strict=True)
        table = dict(zip(rng.sample(names, len(befores)), pairs, strict=True))
    head, line = rng.choice(
        (
            ("line, {0}, {1}", "{2}, {3}, {4}"),
            ("line | {0} | {1}", "{2} | {3} | {4}"),
            ("line; {1}; {0}", "{2}; {4}; {3}"),
            ("Figures of {0} and {1}:", "{2} {3}, then {4}"),
        )
    )
    rows = [
        head,
        *(line.format("", "", name, *figures) for name, figures in table.items()),
    ]
    ask = fill(rng, "{order}", parts, {"company": company})
    prompt = "\n".join([f"{ask} All in {money}.", *rows]).format(year - 1, year)
    response = report(company, year, money, table)
    return Draft({"prompt": prompt, "completion": response}, prompt, response)


def number_rules(title: str, lead: str, rules: tuple[str, ...]) -> str:
    """Return a page of numbered rules."""
    lines = [f"{i}. {rule}" for i, rule in enumerate(rules, start=1)]
    return "\n".join([f"# {title}", "", lead, "", *lines, ""])


def voice_page() -> str:
    """Return the rules of the voice, with the table that they speak of."""
    page = number_rules("The voice of Lumen", "Every reply obeys every rule.", VOICE)
    page += "\n| topic | say sorry | when |\n|---|---|---|\n"
    return page + "".join(
        f"| {topic} | {'yes' if is_sorry else 'no'} | {time} |\n"
        for topic, (is_sorry, time) in TOPICS.items()
    )


def handbook() -> str:
    """Return the policy handbook, each section under its heading."""
    text = []
    for chapter, sections in read_parts("policies").items():
        for section in sections:
            title, body = section.split(" | ")
            text.append(f"## {chapter}: {title}\n\n{body}\n")
    return "\n".join(text)


def build(seed: int = SEED) -> dict[str, bytes]:
    """
    Make every file of `data/samples/`.

    Parameters
    ----------
    seed : int
        Same seed, same rows; and the same bytes from one version of pyarrow.

    Returns
    -------
    dict
        Content by file name.
    """

    def jsonl(rows: list[Row]) -> str:
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)

    table = io.StringIO()
    writer = csv.DictWriter(table, ["prompt", "completion"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(collect("code", write_code, seed))
    clauses = io.BytesIO()
    rows = collect("clauses", write_clause, seed)
    parquet.write_table(pyarrow.Table.from_pylist(rows), clauses)
    chats = collect("chats", write_chat, seed)
    lead = "Every function of the framework Larch obeys every rule."
    texts = {
        "support_replies.jsonl": jsonl(collect("support", write_support, seed)),
        "voice.md": voice_page(),
        "code_snippets.csv": table.getvalue(),
        "naming.md": number_rules("The names of Larch", lead, NAMING),
        "chat_transcripts.json": json.dumps(chats, indent=1) + "\n",
        "policies.txt": handbook(),
        "behaviour.jsonl": jsonl(collect("behaviour", write_behaviour, seed)),
        "finance_reports.jsonl": jsonl(collect("finance", write_finance, seed)),
    }
    files = {name: text.encode() for name, text in texts.items()}
    return files | {"contract_clauses.parquet": clauses.getvalue()}


def main(folder: Path = FOLDER, seed: int = SEED) -> None:
    """Write the files of `data/samples/` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in build(seed).items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
