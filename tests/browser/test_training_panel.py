"""Run alone: ``python -m pytest tests/browser -m browser -s``."""

import json
import re
import time
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing")

PICTURES = Path(__file__).resolve().parents[2] / "runs" / "browser"
STOP_S = 0.5  # from the click on Stop until the run has ended
PATIENCE_MS = 240_000  # the kernel has to import torch first
pytestmark = pytest.mark.browser

CELLS = [
    """
from ftlib import models, panels, tokens, training
from ftlib.config import RunConfig
from ftlib.schema import make_example

config = RunConfig.for_profile("laptop", max_steps=400, eval_steps=20)
tokenizer = models.load_tokenizer(config)
rows = [
    tokens.encode_example(make_example(f"What of alert {n}?", f"close {n}"), tokenizer)
    for n in range(60)
]
""",
    """
panel = panels.TrainingPanel(
    config,
    lambda changed: training.Run(
        models.attach_adapter(models.load_base(changed), changed),
        tokenizer, rows[12:], rows[:12], changed, "run",
    ),
)
panel
""",
]

WATCH = """
() => {
    const say = () => document.querySelector(".jp-OutputArea [role=status]").innerText;
    window.seen = {};
    document.addEventListener("click", () => {
        window.seen = {click: Date.now()};
    }, true);
    setInterval(() => {
        const word = say().split(/[ ,]/)[0];
        if (window.seen.click && !(word in window.seen)) window.seen[word] = Date.now();
    }, 5);
}
"""
"""Keeps when the last click was, and when each status was first seen after it."""


def test_stop_ends_the_run_and_resume_goes_on(lab, page):
    address, folder = lab
    run_file = folder / "run" / "run.json"
    page.goto(address)
    # Before its kernel is there, JupyterLab would ask which one to take.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()

    output = page.locator(".jp-OutputArea")
    status, numbers = output.locator("[role=status]"), output.locator("table")
    picture = output.locator("img")
    buttons = {
        name: output.get_by_role("button", name=name, exact=True)
        for name in ("Start", "Pause", "Stop", "Resume")
    }

    def see(word):
        playwright.expect(status).to_have_text(re.compile(word), timeout=PATIENCE_MS)

    def see_step(least):
        end = time.monotonic() + PATIENCE_MS / 1000
        while time.monotonic() < end:
            shown = re.search(r"(\d+) of 400", numbers.inner_text())
            if shown and int(shown[1]) >= least:
                return int(shown[1])
            page.wait_for_timeout(50)
        return pytest.fail(f"step {least} was never shown: {status.inner_text()}")

    def enabled():
        return {name for name, button in buttons.items() if button.is_enabled()}

    def places():
        return [thing.bounding_box() for thing in (*buttons.values(), picture, numbers)]

    def photograph(name):
        page.screenshot(path=PICTURES / f"{name}.png")

    see("^Ready$")
    for label in ("Preset", "Learning rate", "Adapter rank r", "Epochs"):
        playwright.expect(output.get_by_label(label, exact=True)).to_be_visible()
    assert enabled() == {"Start"}
    at_first = places()
    photograph("1_ready")

    page.evaluate(WATCH)
    buttons["Start"].click()
    see("^Running")
    see_step(25)  # a validation loss was measured
    assert enabled() == {"Pause", "Stop"}
    assert places() == at_first, "nothing jumps"
    photograph("2_running")

    buttons["Pause"].click()
    see("^Paused")
    paused_at = see_step(25)
    photograph("3_paused")
    buttons["Resume"].click()
    see("^Running")
    see_step(paused_at + 5)

    buttons["Stop"].click()
    see("^Stopped")
    ended_at = run_file.stat().st_mtime
    record = json.loads(run_file.read_text("utf-8"))
    seen = page.evaluate("window.seen")
    end_s = ended_at - seen["click"] / 1000
    shown_s = (seen["Stopped"] - seen["click"]) / 1000
    print(
        f"\nStop: the run ended after {end_s:.3f} s, shown after {shown_s:.3f} s; "
        f"it trained at {record['tokens_per_s']} tokens/s"
    )
    assert record["status"] == "stopped"
    stopped_at = record["steps"]
    assert (folder / f"run/checkpoints/checkpoint-{stopped_at}/complete").exists()
    assert enabled() == {"Start", "Resume"}
    assert places() == at_first, "nothing jumps"
    page.wait_for_timeout(1000)
    photograph("4_stopped")

    buttons["Resume"].click()
    assert see_step(stopped_at + 5) > stopped_at
    buttons["Stop"].click()
    see("^Stopped")
    record = json.loads(run_file.read_text("utf-8"))
    assert record["status"] == "stopped"
    assert record["steps"] > stopped_at
    steps = [row["step"] for row in record["history"]]
    assert steps == list(range(1, record["steps"] + 1)), "no step lost, none twice"

    output.get_by_label("Learning rate", exact=True).fill("5")
    output.get_by_label("Learning rate", exact=True).press("Tab")
    playwright.expect(output.get_by_text("LoRA likes 1e-5 to 1e-2")).to_be_visible()
    assert enabled() == set()
    photograph("5_refused")

    assert page.refused == [], "nothing outside this machine was asked for"
    assert end_s < STOP_S
