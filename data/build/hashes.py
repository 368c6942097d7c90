"""Write the table of ``data/README.md``: file, rows, licence, how made, SHA-256."""

from pathlib import Path

from ftlib.store import hash_file

DATA = Path(__file__).resolve().parents[1]
LICENCES = {"adapters": "Apache-2.0", "wren": "Apache-2.0", "redactor": "Apache-2.0"}
# The part of data/ that each command makes; the cards have their own.
COMMANDS = {
    "adapters": "adapter",
    "agent": "agent",
    "handbook": "handbook",
    "pii": "pii",
    "probes": "probes",
    "redactor": "redactor",
    "replay": "replay",
    "samples": "samples",
    "soc": "soc",
    "wren": "wren",
}
BENCHMARK = ("benchmark.jsonl", "rules.json", "voice.json")  # of soc, made apart
BY_HAND = ("architectures.json", "prices.csv", "release.yaml")
HEAD = """# Data

All of it but `prices.csv` and `architectures.json` is synthetic: seeded scripts in
`data/build/` wrote it, from word lists of their own. No row is about a real person,
company or incident. Hosts, addresses and keys are made up; IP addresses are from the
ranges reserved for documentation or from 10/8, domains end in `.example`.

Make a part again with the command in its row, then `python -m data.build hashes` for
this table; `tests/test_data.py` compares it with the files.

- `samples/`: training data of six shapes, each file in another type and convention:
  support replies (`voice.md` has the house's rules), code (`naming.md`), chats,
  contract clauses, a policy handbook, behaviour under a policy, financial reports.
- `pii/`: labelled text that redaction is measured on. Its templates, names and rules
  are not those that the redactor was trained on; they were written without sight of it
  or of the patterns. `technical.jsonl` holds nobody's data. In `secrets.jsonl` the
  first character of each secret is written as an escape, so that no scanner takes it
  for a real one.
- `handbook/`: a security team's handbook in two versions, and questions about it: the
  answer under each version, null where no passage has it.
- `agent/`: conversations in which an agent acts on reviewed alerts by calls of tools,
  split as their incidents are. The training part looks up services that are made up
  anew, the held-out part those of the handbook; 30 held-out alerts come a second time
  with an instruction planted, in the alert or in what is looked up.
- `redactor/`: the adapter that finds names; its card is `redactor/README.md`.
- `wren/`: the embedded base model; its card is `wren/README.md`.
- `probes/`: held-out items, one file an ability, that measure what Wren can do.
- `adapters/`: two adapters for Wren, each with its run: one gives owner, severity and
  action of an alert and forgets next to nothing, its rank chosen by alerts of
  validation and probes after the 60th of each ability; one is the agent of lesson 10,
  trained on the training part of `agent/`.
- `release.yaml`: a template of the terms that a release needs, with roles and no names;
  written by hand.
- `replay/`: conversations drawn as Wren's training was, none of them a probe, to learn
  again beside a new task; and documents, as neutral text to take a loss on.
- `prices.csv`: prices that lesson 04 reckons with, each with its date and the address
  where it stood; written by hand, edit it to use your own.
- `architectures.json`: the shapes of hub models, from their configuration, with where
  each was read; lesson 05 reckons the memory of a run with them.
- `reference_runs/`: what longer runs gave, with settings and versions: a file a run in
  `methods/`, `overfitting/` and `forgetting/`. Scripts in `tests/bench` made them,
  lessons show them, and `tests/test_reference_runs.py` holds the lessons to them.
- `soc/`: raw security alerts with the analysts' triage; `truth.jsonl` says which rows
  have a planted fault, what the right triage is and which split an incident belongs
  to; `raw_export.jsonl` is a part of it as an export would have it, faulty lines
  included, and `raw_export_truth.jsonl` says what each line is. `benchmark.jsonl` asks
  for the same triage in other words, in four slices: typical, rare, adversarial and
  out of scope; `rules.json` has the rules that an answer must keep and `voice.json` the
  house's checks of a summary.

| file | rows | licence | made by | SHA-256 |
|---|---|---|---|---|
"""


def list_files() -> list[Path]:
    """List the shipped data files in the order of the table."""
    folders = [DATA / name for name in COMMANDS]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [DATA / name for name in BY_HAND]
    return sorted(path for path in files if not path.name.startswith("."))


def make_row(path: Path) -> str:
    """Give the line of the table for one file."""
    part = path.relative_to(DATA).parts[0]
    n_rows = len(path.read_bytes().splitlines()) if path.suffix == ".jsonl" else "-"
    licence = LICENCES.get(part, "CC0-1.0")
    is_card = part == "wren" and path.suffix == ".md"
    made_by = "benchmark" if path.name in BENCHMARK else COMMANDS.get(part)
    command = f"python -m data.build {'card' if is_card else made_by}"
    made = f"`{command}`" if made_by else "hand"
    name = path.relative_to(DATA).as_posix()
    return f"| `{name}` | {n_rows} | {licence} | {made} | `{hash_file(path)}` |"


def write_table() -> None:
    """Write ``data/README.md``."""
    rows = "\n".join(make_row(path) for path in list_files())
    (DATA / "README.md").write_text(HEAD + rows + "\n", encoding="utf-8")
