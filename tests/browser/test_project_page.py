"""Run alone: ``python -m pytest tests/browser/test_project_page.py -m browser``."""

import csv
import json
import re
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing")

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "runs" / "browser"
PATIENCE_MS = 400_000  # two cores load, redact, answer and train
pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]

RUN = "top.ran=1;document.title='ran'"
HOSTILE = [
    f'<img src=x onerror="{RUN}"> Handle the picture and save it.',
    f"<script>{RUN}</script> Handle the script and save it.",
    '=HYPERLINK("http://evil.example/a","click") Handle the formula and save it.',
    "+cmd|' /C calc'!A0 Handle the command and save it.",
    "\x1b[31mred\x1b]0;ran\x07 Handle the \u202ecolour\u202c and save it.",
    "$\\href{javascript:top.ran=1}{a}$ Handle the mathematics and save it.",
]
CELLS = [
    """
from ftlib import panels
from ftlib.config import RunConfig

config = RunConfig.for_profile("laptop", load_in_4bit=False, max_steps=3, r=4)
panel = panels.ProjectPanel("project", config, n_rows=30, n_probes=2)
panel
""",
]


def write_csv(path):
    """Write a table of two columns: good rows, hostile ones, and three with faults."""
    with (ROOT / "data/samples/code_snippets.csv").open(encoding="utf-8") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)][:40]
    hostile = [[text, f"def handle() -> None:\n    {text!r}"] for text in HOSTILE]
    rows = [*hostile, rows[0], ["What is missing?", ""], *rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], *rows])


def test_from_an_uploaded_csv_to_an_exported_adapter(lab, page, tmp_path):
    address, folder = lab
    table = tmp_path / "my <b>rows<b>.csv"
    write_csv(table)
    page.goto(address)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    output = page.locator(".jp-OutputArea-output")
    expect = playwright.expect

    def button(name):
        return output.get_by_role("button", name=name, exact=True)

    def region(name):
        return output.get_by_role("region", name=name)

    def photograph(name, thing):
        thing.scroll_into_view_if_needed()
        page.screenshot(path=PICTURES / f"project_{name}.png")

    def places():
        """Give where each heading stands, measured from the first."""
        tops = [h.bounding_box()["y"] for h in output.locator("h3").all()]
        return [round(top - tops[0]) for top in tops]

    def press(name, title):
        button(name).click()
        expect(region(title)).to_be_visible(timeout=PATIENCE_MS)
        assert places() == at_first, "nothing jumps"
        photograph(title.split(".")[0], region(title))

    expect(output.locator("h3")).to_have_count(8, timeout=PATIENCE_MS)
    page.wait_for_timeout(1000)
    at_first = places()
    steps = ["Load", "Find problems", "Find names", "Redact and split", "Measure"]
    assert [button(name).is_enabled() for name in steps] == [True] + 4 * [False]
    photograph("0", output.locator("h3").first)

    with page.expect_file_chooser() as chooser:
        output.get_by_role("button", name=re.compile("Upload")).click()
    chooser.value.set_files(table)
    expect(output.get_by_label("File", exact=True)).to_contain_text("upload-my")
    press("Load", "1. Data and model")
    expect(region("1. Data")).to_contain_text("prompt-completion")
    expect(region("1. Data")).to_contain_text("<img src=x onerror=")
    press("Find problems", "2. Problems by row")
    expect(region("2. Problems")).to_contain_text("the same as an earlier row")
    press("Find names", "3. Names and secrets")
    expect(region("Record")).to_be_visible()
    for _ in range(3):
        button("Accept").click()
    expect(output.get_by_text("3 of 12 records accepted")).to_be_visible()
    press("Redact and split", "4. Redact and split")
    press("Measure", "5. Before training")
    expect(region("5. Before")).to_contain_text("most common")
    assert not button("Evaluate").is_enabled()

    button("Start").click()
    expect(output.get_by_text(re.compile("^Finished"))).to_be_visible(
        timeout=PATIENCE_MS
    )
    assert places() == at_first, "nothing jumps"
    photograph("6", button("Start"))
    press("Evaluate", "7. After training")
    expect(region("7. After")).to_contain_text("do not ship")

    button("Export").click()
    expect(output.get_by_text("to export it, give a reason")).to_be_visible(
        timeout=PATIENCE_MS
    )
    photograph("8_refused", button("Export"))
    reason = "<b>a trial</b> of the page"
    output.get_by_label("Override, for").fill(reason)
    output.get_by_label("Override, for").press("Tab")
    press("Export", "8. Export")

    exported = folder / "project" / "export"
    expect(region("8. Export")).to_contain_text("adapter_model.safetensors")
    manifest = json.loads((exported / "manifest.json").read_text("utf-8"))
    assert set(manifest["files"]) == {f.name for f in exported.iterdir()} - {
        "manifest.json"
    }
    for name in ("adapter_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (exported / name).stat().st_size > 0
    card = (exported / "README.md").read_text("utf-8")
    assert "&lt;b&gt;a trial&lt;/b&gt; of the page" in card
    written = {path.relative_to(folder).parts[0] for path in folder.iterdir()}
    assert written <= {"panel.ipynb", ".ipynb_checkpoints", "project"}
    assert [f.evaluate("window.ran || 0") for f in page.frames] == [0]
    assert "ran" not in page.title()
    assert page.refused == [], "nothing outside this machine was asked for"
