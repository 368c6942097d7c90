"""The security data: 1,200 alerts, their triage, and the faults a real export has.

`python -m data.build.soc` writes `data/soc/`, the same bytes for the same seed. The
words stand in `data/build/soc_wordings.txt`. An alert is a template with slots; filling
a slot records its span, so the ground truth is exact. Techniques and tactics are those
of ATT&CK v17; one filed under several tactics has the one the house chose.
"""

import json
import re
import unicodedata
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SEED = 0
FOLDER = Path(__file__).parents[1] / "soc"
ROWS = 1200
SHARES = {"train": 0.615, "validation": 0.125, "test": 0.26}
FAULTS = {
    "exact_duplicate": 40,
    "near_duplicate": 40,
    "empty_text": 6,
    "empty_triage": 6,
    "truncated_text": 12,
    "truncated_triage": 8,
    "wrong_label": 30,
}
WRONG = {"severity": 10, "technique": 8, "tactic": 4, "owner": 4, "action": 4}
# What each of the 120 alerts met on its way into the raw export.
RAW_SOUND = {"bom": 1, "crlf": 20, "mojibake": 6, "plain": 76}
RAW_ENCODED = {"latin-1": 6, "cp1252": 6}
RAW_BAD = ("truncated", "list", "trailing comma", "nan", "duplicate key")
RAW_BLANK = 5

SEVERITIES = ("low", "medium", "high", "critical")
ACTIONS = dict(zip(SEVERITIES, ("note", "ticket", "isolate", "page"), strict=True))
ROLES = {"lap": 30, "ws": 20, "srv": 20, "db": 16, "vm": 14}  # percent
SOURCES = {"e": "edr", "g": "mail gateway", "v": "vpn", "c": "cloud", "h": "help desk"}
ENTITIES = {
    "PERSON": "person mate formal first desk",
    "EMAIL_ADDRESS": "mail desk_mail sender",
    "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip lan",
    "HOSTNAME": "host other",
    "EMPLOYEE_ID": "emp",
    "PASSWORD": "pw",
    "API_KEY": "key",
}
ENTITY = {slot: name for name, slots in ENTITIES.items() for slot in slots.split()}
SLOT = re.compile(r"\{(\w+)\}")
Row = dict[str, Any]
Spans = list[dict[str, Any]]


class Kind(NamedTuple):
    """What the house lays down for one technique."""

    tactic: str
    owner: str
    base: str
    phrase: str


KINDS = {
    "T1110.003": Kind("credential-access", "identity", "low", "password spray"),
    "T1003.001": Kind("credential-access", "identity", "critical", "lsass memory read"),
    "T1566.001": Kind("initial-access", "mail", "medium", "attachment lure"),
    "T1114.003": Kind("collection", "mail", "low", "mail forwarding rule"),
    "T1059.001": Kind("execution", "endpoint", "medium", "powershell run"),
    "T1547.001": Kind("persistence", "endpoint", "medium", "run key planted"),
    "T1562.001": Kind("defense-evasion", "endpoint", "high", "antivirus tampering"),
    "T1486": Kind("impact", "endpoint", "critical", "ransom encryption"),
    "T1021.001": Kind("lateral-movement", "network", "medium", "remote desktop hop"),
    "T1071.004": Kind("command-and-control", "network", "medium", "dns beacon"),
    "T1078.004": Kind("initial-access", "cloud", "high", "cloud account misuse"),
    "T1567.002": Kind("exfiltration", "cloud", "high", "upload to a private drive"),
}


def read_wordings() -> dict[str, list[str]]:
    """Return the lines of each part of `soc_wordings.txt`."""
    parts: dict[str, list[str]] = {}
    for line in (
        Path(__file__).with_name("soc_wordings.txt").read_text("utf-8").splitlines()
    ):
        if line.startswith("# "):
            lines = parts[line.split()[1]] = []
        elif not line.startswith(";"):
            lines.append(line.replace("\\n", "\n"))
    return parts


WORDS = read_wordings()


def triage(facts: Row) -> dict[str, str]:
    """
    Apply the house rule to the facts of one incident.

    Parameters
    ----------
    facts : dict
        `technique` (a key of `KINDS`), `host`, and `blocked` (bool).

    Returns
    -------
    dict
        The right triage, keys in the house order.
    """
    kind, host, blocked = KINDS[facts["technique"]], facts["host"], facts["blocked"]
    severity = "low" if blocked else kind.base
    outcome = "blocked" if blocked else "allowed"
    return {
        "host": host,
        "summary": f"{kind.phrase}, {outcome}",
        "tactic": kind.tactic,
        "technique": facts["technique"],
        "owner": kind.owner,
        "severity": severity,
        "action": ACTIONS[severity],
    }


def schema() -> Row:
    """Return the JSON Schema of a triage."""
    properties = {
        "host": {
            "type": "string",
            "pattern": rf"^({'|'.join(ROLES)})-[a-z]{{3,5}}-[0-9]{{2}}$",
        },
        "summary": {"type": "string", "minLength": 1, "maxLength": 80},
        "tactic": {"enum": sorted({kind.tactic for kind in KINDS.values()})},
        "technique": {"type": "string", "pattern": r"^T[0-9]{4}(\.[0-9]{3})?$"},
        "owner": {"enum": sorted({kind.owner for kind in KINDS.values()})},
        "severity": {"enum": list(SEVERITIES)},
        "action": {"enum": list(ACTIONS.values())},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Triage of one alert",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def render(template: str, values: dict[str, str]) -> tuple[str, Spans]:
    """Fill the slots of a template; return the text and the span of each entity."""
    text, spans = "", []
    for i, piece in enumerate(SLOT.split(template)):
        start = len(text)
        text += values[piece] if i % 2 else piece
        if i % 2 and piece in ENTITY:
            entity = {"start": start, "end": len(text), "entity_type": ENTITY[piece]}
            spans.append(entity)
    return text, spans


def syllable(rng: Random) -> str:
    """Make up a word of 3 to 5 letters."""
    onset = rng.choice(["b", "br", "d", "dr", "f", "fl", "g", "k", "kr", "l", "n", "s"])
    coda = rng.choice(["l", "n", "r", "la", "lo", "mi", "mo", "na", "re", "su", "vi"])
    return onset + rng.choice("aeiou") + coda


def new_host(rng: Random, taken: set[str]) -> str:
    """Name a host that no other incident has."""
    while True:
        role = rng.choices(list(ROLES), list(ROLES.values()))[0]
        host = f"{role}-{syllable(rng)}-{rng.randrange(100):02d}"
        if host not in taken:
            taken.add(host)
            return host


def new_person(rng: Random) -> tuple[str, str, str]:
    """Return a given name, a family name and a mail address."""
    region = 2 * rng.randrange(len(WORDS["people"]) // 2)
    given, family = (rng.choice(WORDS["people"][region + i].split(",")) for i in (0, 1))
    local = f"{given}|{family}".translate(str.maketrans("øłßıðŁ", "olsidL"))
    local = unicodedata.normalize("NFKD", local).encode("ascii", "ignore").decode()
    local = re.sub("[ ']", "", local).lower().replace("|", rng.choice("._"))
    return given, family, f"{local}@{rng.choice(WORDS['domains'])}"


def cast(rng: Random, taken: set[str]) -> dict[str, str]:
    """Draw what all alerts of one incident share: people, hosts, addresses, secrets."""
    (given, family, mail), mate, word = new_person(rng), new_person(rng), syllable(rng)
    byte = [str(rng.randrange(1, 255)) for _ in range(4)]
    letters = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ234567", k=8))
    shapes = {
        "phone": WORDS["phones"],
        "emp": ["E-#####", "EMP00####", "P##-####"],
        # Made so that no secret scanner takes them for the real thing.
        "pw": [f"Example-{word}-##!", f"{word.title()}##NotReal?", f"fake.{word}.####"],
        "key": [f"key-example-{rng.getrandbits(40):010x}", f"tok_EXAMPLE{letters}"],
        "file": ["invoice_###.docm", "payslip_###.xlsm", "tender_###.iso"],
    }
    drawn = {
        name: re.sub("#", lambda _: str(rng.randrange(10)), rng.choice(pool))
        for name, pool in shapes.items()
    }
    return drawn | {
        "host": new_host(rng, taken),
        "other": new_host(rng, taken),
        "person": f"{given} {family}",
        "formal": f"{family}, {given}",
        "mail": mail,
        "mate": " ".join(mate[:2]),
        "sender": rng.choice(WORDS["lures"]),
        "ip": f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{byte[0]}",
        "lan": f"10.{byte[1]}.{byte[2]}.{byte[3]}",
        "n": str(rng.randrange(20, 900)),
    }


def fresh(rng: Random, part: str, text: str, count: int) -> list[str]:
    """Draw up to `count` lines of a part, none naming a thing already in the text."""
    chosen: list[str] = []
    for line in rng.sample(WORDS[part], len(WORDS[part])):
        named = set(SLOT.findall(text + " ".join(chosen)))
        if len(chosen) < count and named.isdisjoint(SLOT.findall(line)):
            chosen.append(line)
    return chosen


def compose(rng: Random, source: str, core: str) -> str:
    """Dress one phrasing as a log line, a note or a mail; return the template."""
    aside = [rng.choice(WORDS["asides"])] if rng.random() < 0.08 else []
    if core.startswith("{stamp}"):
        fields = fresh(rng, "fields", core, rng.choice((0, 1, 1, 2)))
        notes = aside or fresh(rng, "filler", core, rng.choice((0, 0, 1)))
        return " | ".join([" ".join([core, *fields]), *notes])
    frame = "@"
    if rng.random() < (0.3 if source == "h" else 0.1):
        frame = rng.choice(WORDS["letters"])
    elif rng.random() < 0.4:
        openers = [line for line in WORDS["openers"] if line.startswith(source)]
        frame = rng.choice(openers).split(": ", 1)[1] + " @"
    extras = fresh(rng, "context", core, rng.choice((0, 0, 1, 1))) + aside
    extras += fresh(rng, "filler", core + frame, rng.choice((0, 0, 0, 1)))
    rng.shuffle(extras)
    return frame.replace("@", " ".join([core, *extras]))


def write_incident(
    rng: Random, technique: str, size: int, taken: set[str]
) -> list[Row]:
    """Write the alerts of one incident, each in its own wording."""
    shared, blocked = cast(rng, taken), rng.random() < 0.5
    facts = {"technique": technique, "host": shared["host"], "blocked": blocked}
    received = datetime(2026, 1, 5) + timedelta(minutes=rng.randrange(120 * 24 * 60))
    rows = []
    for number in rng.sample(range(len(WORDS[technique])), size):
        source, core = WORDS[technique][number].split(": ", 1)
        part = "blocked" if blocked else "through"
        outcome = rng.choice(WORDS[f"{part}-flag" if "{flag}" in core else part])
        seen = received - timedelta(seconds=rng.randrange(60, 1500))
        stamp = rng.choice(("%Y-%m-%dT%H:%M:%SZ", "%d/%m/%Y %H:%M"))
        first, desk = new_person(rng), new_person(rng)
        values = shared | {
            "out": outcome,
            "Out": outcome[0].upper() + outcome[1:],
            "flag": outcome,
            "time": f"{seen:%H:%M}",
            "stamp": f"{seen:{stamp}}",
            "ticket": f"INC-{rng.randrange(20000, 60000)}",
            "subject": rng.choice(WORDS["subjects"]),
            "first": first[0],
            "desk": " ".join(desk[:2]),
            "desk_mail": desk[2],
        }
        text, beside_host = "", 0
        while not 1 <= beside_host <= 5 or len(text.split()) > 110:
            text, spans = render(compose(rng, source, core), values)
            named = [text[span["start"] : span["end"]] for span in spans]
            beside_host = len(named) - named.count(shared["host"])
        row = {"received": received, "source": SOURCES[source], "faults": []}
        row |= {"text": text, "spans": spans, "original": None}
        row |= {"triage": triage(facts), "label": triage(facts)}
        row["facts"] = facts | {"phrasing": f"{technique}/{number}", "outcome": outcome}
        rows.append(row)
        received += timedelta(minutes=rng.randrange(2, 180))
    return rows


def near_copy(rng: Random, text: str, spans: Spans) -> tuple[str, Spans]:
    """Change a clock time, the greeting, the punctuation or the case of an alert."""
    copy, lead = text, ""
    while copy == text:
        edit = rng.choice(("time", "greeting", "punctuation", "case"))
        if edit == "time":
            copy = re.sub(r"\b(\d\d:)\d\d", rf"\g<1>{rng.randrange(10, 60)}", text)
        elif edit == "greeting":
            lead = rng.choice(("FYI: ", "Resent. ", "Again: ", "Hi all, "))
            copy = lead + text
        elif edit == "punctuation":
            copy = text[:-1] + "!" if text.endswith(".") else text + "."
        else:  # lower case, but never inside an entity
            edges = [0, *(s[k] for s in spans for k in ("start", "end")), len(text)]
            parts = [text[a:b] for a, b in pairwise(edges)]
            copy = "".join(p if i % 2 else p.lower() for i, p in enumerate(parts))
    ends = ("start", "end")
    return copy, [span | {end: span[end] + len(lead) for end in ends} for span in spans]


def before_host(row: Row) -> int:
    """Return where to cut a text in mid-sentence to lose its host, 0 if nowhere."""
    start = next(s["start"] for s in row["spans"] if s["entity_type"] == "HOSTNAME")
    kept = row["text"][:start].rstrip()
    return len(kept) if len(kept.split()) > 4 and kept[-1].isalpha() else 0


def plant_faults(rng: Random, rows: list[Row]) -> list[Row]:
    """Spoil some rows, one fault each; return the duplicates that are to be added."""
    free, spoiled = rng.sample(rows, len(rows)), {}
    for fault in sorted(FAULTS, key=lambda name: name != "truncated_text"):
        able = [r for r in free if fault != "truncated_text" or before_host(r)]
        spoiled[fault] = able[: FAULTS[fault]]
        free = [row for row in free if row not in spoiled[fault]]
    for row in spoiled["truncated_text"]:
        end = before_host(row)
        row["text"] = row["text"][:end]
        row["spans"] = [span for span in row["spans"] if span["end"] <= end]
    for row in spoiled["empty_text"]:
        row["text"], row["spans"] = "", []
    for i, row in enumerate(spoiled["empty_triage"]):
        row["label"] = None if i % 2 else ""
    for row in spoiled["truncated_triage"]:
        whole = json.dumps(row["triage"])
        row["label"] = whole[: rng.randrange(40, len(whole) - 10)]
    closed = schema()["properties"] | {"technique": {"enum": list(KINDS)}}
    fields = [field for field, count in WRONG.items() for _ in range(count)]
    for field, row in zip(fields, spoiled["wrong_label"], strict=True):
        wrong = [v for v in closed[field]["enum"] if v != row["triage"][field]]
        row["label"] = row["triage"] | {field: rng.choice(wrong)}
    copies = []
    for fault, chosen in spoiled.items():
        for row in chosen:
            if not fault.endswith("duplicate"):
                row["faults"] = [fault]
                continue
            later = row["received"] + timedelta(minutes=rng.randrange(1, 40))
            copy = row | {"received": later, "faults": [fault], "original": row}
            if fault == "near_duplicate":
                copy["text"], copy["spans"] = near_copy(rng, row["text"], row["spans"])
            copies.append(copy)
    return copies


def alert(row: Row) -> Row:
    """Return what an export shows of a row."""
    names = ("alert_id", "incident_id", "received", "source", "text")
    return {name: row[name] for name in names} | {"triage": row["label"]}


def raw_line(kind: str, row: Row) -> bytes:
    """Write one alert as a careless system would."""
    record = alert(row)
    if kind == "cp1252":  # a word processor's apostrophe
        record["text"] = record["text"].replace("'", "\u2019")
    elif kind == "mojibake":
        record["text"] = record["text"].encode().decode("cp1252", "replace")
    elif kind == "nan":
        record["triage"] = float("nan")
    whole = list(record.values()) if kind == "list" else record
    line = json.dumps(whole, ensure_ascii=False)
    if kind == "truncated":
        line = line[: len(line) * 2 // 3]
    elif kind == "trailing comma":
        line = line[:-1] + ",}"
    elif kind == "duplicate key":
        line = '{"text": "(no body)", ' + line[1:]
    data = line.encode(kind if kind in RAW_ENCODED else "utf-8")
    return (b"\xef\xbb\xbf" if kind == "bom" else b"") + data


def raw_export(rng: Random, rows: list[Row]) -> tuple[bytes, list[Row]]:
    """Return the raw file, made of sound training alerts, and what each line is."""
    fits = {
        "latin-1": lambda text: not text.isascii() and max(text) <= "\xff",
        "cp1252": lambda text: "'" in text and max(text) <= "\xff",
        "mojibake": lambda text: not text.isascii(),
    }
    free = [row for row in rows if row["split"] == "train" and not row["faults"]]
    kinds = {free.pop(0)["alert_id"]: "bom"}  # the mark can only come first
    wanted = RAW_ENCODED | RAW_SOUND | dict.fromkeys(RAW_BAD, 1) | {"bom": 0}
    for kind, count in sorted(wanted.items(), key=lambda item: item[0] not in fits):
        able = [row for row in free if fits.get(kind, bool)(row["text"])]
        chosen = {row["alert_id"]: kind for row in rng.sample(able, count)}
        free = [row for row in free if row["alert_id"] not in chosen]
        kinds |= chosen
    lines: list[tuple[str, Row]] = [
        (kinds[row["alert_id"]], row) for row in rows if row["alert_id"] in kinds
    ]
    for _ in range(RAW_BLANK):
        lines.insert(rng.randrange(1, len(lines)), ("blank", {}))
    data, truth = b"", []
    for number, (kind, row) in enumerate(lines, start=1):
        data += raw_line(kind, row) if row else b""
        data += b"\r\n" if kind == "crlf" else b"\n"
        truth.append({"line": number, "kind": kind, "alert_id": row.get("alert_id")})
    return data, truth


def make_rows(rng: Random) -> list[Row]:
    """Make the alerts of all incidents, faults and splits included, oldest first."""
    wanted = ROWS - FAULTS["exact_duplicate"] - FAULTS["near_duplicate"]
    sizes: list[int] = []
    while sum(sizes) < wanted:
        size = rng.choices((1, 2, 3, 4), (30, 35, 22, 13))[0]
        sizes.append(min(size, wanted - sum(sizes)))
    # Kind after kind, each incident goes to the split that lags most, so that each
    # kind is spread over the splits in the same shares.
    rows: list[Row] = []
    filled, taken = Counter[str](), set[str]()
    for i, size in enumerate(sizes):
        technique = list(KINDS)[i * len(KINDS) // len(sizes)]
        split = min(SHARES, key=lambda name: filled[name] / SHARES[name])
        filled[split] += size
        placed = {"split": split, "incident": i}
        rows += [r | placed for r in write_incident(rng, technique, size, taken)]
    rows += plant_faults(rng, rows)
    rows.sort(key=lambda row: row["received"])
    incidents: dict[int, str] = {}
    for number, row in enumerate(rows, start=1):
        row["alert_id"] = f"A{number:04d}"
        name = incidents.setdefault(row["incident"], f"I{len(incidents) + 1:04d}")
        row["incident_id"] = name
        row["received"] = f"{row['received']:%Y-%m-%dT%H:%M:%SZ}"
        # The original is older, so it has its id by now.
        row["duplicate_of"] = row["original"] and row["original"]["alert_id"]
    return rows


def build(seed: int = SEED) -> dict[str, bytes]:
    """
    Make every file of `data/soc/`.

    Parameters
    ----------
    seed : int
        Same seed, same bytes.

    Returns
    -------
    dict
        Content by file name.
    """
    rng = Random(seed)
    rows = make_rows(rng)
    export, lines = raw_export(rng, rows)
    alerts = [alert(row) | {"spans": row["spans"]} for row in rows]
    names = ("alert_id", "faults", "triage", "duplicate_of", "split", "facts")
    truth = [{name: row[name] for name in names} for row in rows]

    def jsonl(records: list[Row]) -> bytes:
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        return "".join(f"{line}\n" for line in lines).encode()

    return {
        "alerts.jsonl": jsonl(alerts),
        "truth.jsonl": jsonl(truth),
        "raw_export.jsonl": export,
        "raw_export_truth.jsonl": jsonl(lines),
        "schema.json": (json.dumps(schema(), indent=2) + "\n").encode(),
    }


def main(folder: Path = FOLDER, seed: int = SEED) -> None:
    """Write the files of `data/soc/` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in build(seed).items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
