"""
How the time and the memory of preparing data grow with its rows.

``python -m tests.bench.scaling`` measures each stage on 1e3, 1e4, 1e5 and 1e6 made-up
alerts, each measurement in a process of its own, prints a table and writes
``data/reference_runs/scaling_cpu.json`` with a figure beside it. What is there already,
of the same settings, is kept, so a long run can be done part by part; delete the file
to measure anew. What would take over `MOST_SECONDS`, by the measurement before it, or
more memory than the machine has, is left out and stands as not measured;
``--rows 1e5`` asks for it all the same, and ``--stages load,tokenise`` for a part.
``--quick`` stops at 1e4 and writes under ``runs/``: a test of the bench itself. The
table is Markdown, for CONTRIBUTING.md, which a test compares with the file.

Streamed stages after loading read the file as a `datasets.IterableDataset` and write
what comes out row by row; a `Dataset` on disk would count its mapped pages as memory.
Those "in memory" take a list of all rows, as the lessons do with their small files.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from data.build import soc
from ftlib import schema, store
from ftlib.config import ROOT, RunConfig

RESULT = ROOT / "data" / "reference_runs" / "scaling_cpu.json"
FOLDER = store.RUNS / "bench" / "scaling"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
SETTINGS = {"seed": 0, "rows_to_a_duplicate": 20}
BOUND_MB = 1_000
"""What a streamed stage may hold of 1e6 rows."""
MOST_SECONDS = 900
FIT_FROM = 10_000
"""The rows from which time is fitted: below, what is done once weighs too much."""
NOT_MEASURED = "not measured"
Row = dict[str, Any]


# --- the rows ----------------------------------------------------------------------


def make_rows(n_rows: int) -> Iterator[Row]:
    """Make `n_rows` alerts: each 20th repeats an earlier one, the others all differ."""
    rng, every = Random(SETTINGS["seed"]), SETTINGS["rows_to_a_duplicate"]
    waiting: deque[Row] = deque()
    recent: deque[Row] = deque(maxlen=1_000)
    for number in range(1, n_rows + 1):
        if number % every == 0:
            yield rng.choice(recent)
            continue
        if not waiting:
            technique = rng.choice(list(soc.KINDS))
            # A set of its own: there are not hosts enough for a million alerts.
            waiting.extend(soc.write_incident(rng, technique, rng.randint(1, 4), set()))
        alert = waiting.popleft()
        # The number makes sure that no two alerts are equal by chance.
        row = {
            "text": f"[A{number:07d}] {alert['text']}",
            "response": json.dumps(alert["triage"]),
        }
        recent.append(row)
        yield row


def write_rows(n_rows: int) -> Path:
    """Write the rows to a file, one by one, unless it is there; give its path."""
    path = FOLDER / f"{n_rows}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            for row in make_rows(n_rows):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        draft.replace(path)
    return path


def _to_example(row: Mapping[str, str]) -> schema.Example:
    """Give the conversation of a row."""
    return schema.make_example(row["text"], row["response"])


# --- the stages: each is set up with a file, then run and timed ---------------------

Stage = Callable[[], int]  # gives the rows that come out


def _open_dataset(path: Path, cache: Path, streaming: bool = True) -> Any:
    """Open a file as a dataset: row by row, or whole on disk as Arrow."""
    from datasets import Dataset

    return Dataset.from_json(str(path), cache_dir=str(cache), streaming=streaming)


def load(path: Path, cache: Path) -> Stage:
    """Read the file once and write it to disk as Arrow."""
    import datasets  # noqa: F401, its import is not to be timed

    return lambda: len(_open_dataset(path, cache, streaming=False))


def is_first(row: Mapping[str, str], seen: set[bytes]) -> bool:
    """Say whether no row before was equal to this one, and remember it by its hash."""
    folded = schema.fold_messages(_to_example(row)["messages"])
    # Python's own hash has 64 bits, of which two of many rows may agree.
    digest = hashlib.blake2b(folded.encode("utf-8"), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def write_out(rows: Iterable[Row], cache: Path) -> int:
    """Write rows one by one, as they come, and count them."""
    cache.mkdir(parents=True, exist_ok=True)
    n_rows = 0
    with (cache / "out.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n_rows += 1
    return n_rows


def deduplicate(path: Path, cache: Path) -> Stage:
    """Keep the first of equal rows."""
    dataset = _open_dataset(path, cache)

    def run() -> int:
        seen: set[bytes] = set()
        return write_out(dataset.filter(lambda row: is_first(row, seen)), cache)

    return run


def redact(
    path: Path, cache: Path, entity_types: frozenset[str] | None = None
) -> Stage:
    """Redact the text of each row."""
    from ftlib import redaction

    dataset = _open_dataset(path, cache)
    change = functools.partial(redaction.redact, entity_types=entity_types)
    change({"text": "Ana called from 10.0.0.5"})  # loads the patterns and the model
    return lambda: write_out(dataset.map(change), cache)


def redact_formats(path: Path, cache: Path) -> Stage:
    """Redact what has a fixed format, without the model that finds names."""
    from ftlib.redaction import engine

    known = engine.build_engine(None, names=False).get_supported_entities("en")
    model_types = {"PERSON", "LOCATION", "ORGANIZATION", "STREET_ADDRESS", "USERNAME"}
    return redact(path, cache, frozenset(known) - model_types)


def _load_tokenizer() -> Any:
    """Load Wren's tokenizer."""
    from ftlib import models

    return models.load_tokenizer(RunConfig.for_profile("laptop"))


def tokenise(path: Path, cache: Path) -> Stage:
    """Encode each row: input_ids and labels."""
    from ftlib import tokens

    dataset, tokenizer = _open_dataset(path, cache), _load_tokenizer()

    def encode(row: Row) -> dict[str, list[int]]:
        return tokens.encode_example(_to_example(row), tokenizer)

    columns = ["text", "response"]
    return lambda: write_out(dataset.map(encode, remove_columns=columns), cache)


def load_in_memory(path: Path, cache: Path) -> Stage:
    """Read the file as examples."""
    from ftlib import formats

    return lambda: len(formats.load_examples(path).examples)


def read_in_memory(path: Path, cache: Path) -> Stage:
    """Read the file as plain rows."""
    return lambda: len(store.read_jsonl(path)[0])


def deduplicate_in_memory(path: Path, cache: Path) -> Stage:
    """Find the groups of equal rows."""
    from ftlib import cleaning

    examples = [_to_example(row) for row in store.read_jsonl(path)[0]]

    def run() -> int:
        groups = cleaning.find_exact_duplicates(examples)
        return len(examples) - sum(len(group) - 1 for group in groups)

    return run


def find_near_in_memory(path: Path, cache: Path) -> Stage:
    """Find the pairs of nearly equal texts."""
    from ftlib import cleaning

    texts = [row["text"] for row in store.read_jsonl(path)[0]]

    def run() -> int:
        pairs = cleaning.find_near_duplicates(texts)
        return len(texts) - len({later for _, later, _ in pairs})

    return run


def tokenise_in_memory(path: Path, cache: Path) -> Stage:
    """Encode each row of a list."""
    from ftlib import tokens

    rows, tokenizer = store.read_jsonl(path)[0], _load_tokenizer()

    def run() -> int:
        encoded = [tokens.encode_example(_to_example(row), tokenizer) for row in rows]
        return len(encoded)

    return run


STAGES: dict[str, tuple[Callable[[Path, Path], Stage], str]] = {
    "load": (load, "streamed"),
    "deduplicate": (deduplicate, "streamed"),
    "redact": (redact, "streamed"),
    "redact formats": (redact_formats, "streamed"),
    "tokenise": (tokenise, "streamed"),
    "load examples": (load_in_memory, "in memory"),
    "read rows": (read_in_memory, "in memory"),
    "find equal rows": (deduplicate_in_memory, "in memory"),
    "find near-duplicates": (find_near_in_memory, "in memory"),
    "tokenise a list": (tokenise_in_memory, "in memory"),
}


# --- one measurement ---------------------------------------------------------------


def read_memory_mb() -> dict[str, float]:
    """Give resident memory now, its peak, and its part that no file is behind."""
    status = Path("/proc/self/status")
    if not status.is_file():  # not Linux: the peak is all that can be told
        return {"VmHWM": store.measure_peak_mb()}
    # Not getrusage's peak: that one is inherited from the process which started this.
    lines = (line.split(":") for line in status.read_text("ascii").splitlines())
    kept = {"VmHWM", "VmRSS", "RssAnon"}
    return {k: int(v.split()[0]) * 1024 / 1e6 for k, v in lines if k in kept}


def measure(stage: str, n_rows: int) -> Row:
    """Run one stage in this very process and give what it took."""
    cache = FOLDER / f"cache-{os.getpid()}"
    run = STAGES[stage][0](write_rows(n_rows), cache)
    start, done, anonymous_mb = read_memory_mb(), threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.05):  # the system keeps no peak of this part
            anonymous_mb.append(read_memory_mb().get("RssAnon", math.nan))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began, began_cpu = time.perf_counter(), time.process_time()
    n_out = run()
    seconds = time.perf_counter() - began
    cpu_seconds = time.process_time() - began_cpu
    done.set()
    watcher.join()
    end = read_memory_mb()
    shutil.rmtree(cache, ignore_errors=True)
    anonymous_mb.append(end.get("RssAnon", math.nan))
    return {
        "stage": stage,
        "way": STAGES[stage][1],
        "rows": n_rows,
        "rows_out": n_out,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),  # what other processes hardly change
        "rows_per_second": round(n_rows / seconds, 1),
        "start_mb": round(start.get("VmRSS", math.nan), 1),
        "peak_mb": round(end["VmHWM"], 1),
        "peak_anonymous_mb": round(max(anonymous_mb), 1),
    }


def measure_apart(stage: str, n_rows: int) -> Row:
    """Measure in a process of its own, which nothing before has grown."""
    command = [sys.executable, "-m", "tests.bench.scaling"]
    command += ["--one", stage, str(n_rows)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{stage} of {n_rows} rows failed:\n{done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- all measurements, the table and the figure ------------------------------------


def fit_exponent(n_rows: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Give e of seconds = a * rows**e by least squares of logs; None below two."""
    if len(n_rows) < 2:
        return None
    logs = [[math.log(number) for number in numbers] for numbers in (n_rows, seconds)]
    return statistics.linear_regression(*logs).slope


def is_too_much(before: Row | None, n_rows: int, memory_mb: float) -> bool:
    """Say whether a measurement would, in proportion to the one before, be too long."""
    if before is None:
        return False
    growth = n_rows / before["rows"]
    grown_mb = before["peak_mb"] + (before["peak_mb"] - before["start_mb"]) * growth
    return growth * before["seconds"] > MOST_SECONDS or grown_mb > 0.8 * memory_mb


def make_table(runs: Sequence[Row], sizes: Sequence[int] = SIZES) -> list[Row]:
    """Give a row a stage: seconds and peak by size, the exponent, what fits in 1 GB."""
    table = []
    for stage, (_, way) in STAGES.items():
        found = {run["rows"]: run for run in runs if run["stage"] == stage}
        row: Row = {"stage": stage, "way": way}
        for n_rows in sizes:
            run = found.get(n_rows)
            shown = run and f"{run['seconds']:.1f} s, {run['peak_mb']:,.0f} MB"
            row[f"{n_rows:,}"] = shown or NOT_MEASURED
        fitted = sorted(n_rows for n_rows in found if n_rows >= FIT_FROM)
        exponent = fit_exponent(fitted, [found[n]["seconds"] for n in fitted])
        row["exponent"] = NOT_MEASURED if exponent is None else f"{exponent:.2f}"
        fits = [n_rows for n_rows in found if found[n_rows]["peak_mb"] <= BOUND_MB]
        row["rows in 1 GB"] = f"{max(fits):,}" if fits else NOT_MEASURED
        table.append(row)
    return table


def write_markdown(table: Sequence[Row]) -> str:
    """Give a table as CONTRIBUTING.md has it."""
    lines = [list(table[0]), ["---"] * len(table[0])]
    lines += [list(map(str, row.values())) for row in table]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def draw(runs: Sequence[Row], path: Path) -> None:
    """Draw seconds and peak memory over rows, both axes logarithmic."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # equal numbers, equal file
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for i, (stage, (_, way)) in enumerate(STAGES.items()):
        found = sorted(
            (run for run in runs if run["stage"] == stage), key=lambda run: run["rows"]
        )
        for one, field in zip(axes, ("seconds", "peak_mb"), strict=True):
            one.loglog(
                [run["rows"] for run in found],
                [run[field] for run in found],
                marker="os^Dv"[i % 5],
                linestyle="-" if way == "streamed" else "--",
                color=f"C{i}",
                label=f"{stage} ({way})",
            )
    axes[1].axhline(BOUND_MB, color="black", linewidth=0.8)
    axes[1].annotate("1 GB", (1_000, BOUND_MB), va="bottom")
    for one, label in zip(axes, ("seconds", "peak memory, MB"), strict=True):
        one.set(xlabel="rows", ylabel=label)
        one.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(
    sizes: Sequence[int] = SIZES,
    stages: Sequence[str] = tuple(STAGES),
    result: Path = RESULT,
    is_asked_for: bool = False,
) -> None:
    """Measure what is not measured yet, write it down, draw it, print the table."""
    import psutil

    head = {
        "hardware": {"machine": platform.machine(), "cpu_cores": os.cpu_count()},
        "versions": store.list_versions(),
        "unit": "seconds, rows a second, and MB (10^6 bytes) of resident memory",
        "settings": SETTINGS | {"threads": os.environ.get("OMP_NUM_THREADS", "all")},
    }
    kept = store.read_json(result) if result.is_file() else {}
    same = all(kept.get(name) == value for name, value in head.items())
    runs: list[Row] = kept["runs"] if same else []
    memory_mb = psutil.virtual_memory().total / 1e6
    for stage in stages:
        before = None
        for n_rows in sorted(sizes):
            found = [r for r in runs if (r["stage"], r["rows"]) == (stage, n_rows)]
            if not found:
                if not is_asked_for and is_too_much(before, n_rows, memory_mb):
                    break
                write_rows(n_rows)
                found = [measure_apart(stage, n_rows)]
                runs += found
                store.write_json(result, head | {"runs": runs})
                print(json.dumps(found[0]), flush=True)
            before = found[0]
    draw(runs, result.with_suffix(".svg"))
    print(write_markdown(make_table(runs)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time and memory over rows.")
    parser.add_argument("--rows", help="sizes, such as 1e3,1e6", default="")
    parser.add_argument("--stages", help=", ".join(STAGES), default=",".join(STAGES))
    parser.add_argument("--quick", action="store_true", help="up to 1e4, under runs/")
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "N"), help="measure here")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one[0], int(chosen.one[1]))))
    else:
        asked = [int(float(number)) for number in chosen.rows.split(",") if number]
        main(
            asked or (SIZES[:2] if chosen.quick else SIZES),
            chosen.stages.split(","),
            FOLDER / "quick.json" if chosen.quick else RESULT,
            bool(asked),
        )
