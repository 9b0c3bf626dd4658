"""How smooth a drag of the explorer is, and how large its data are, in a real browser.

    python benchmarks/explorer_frames.py        (after `make test` has set up .venv; needs Chromium)

Starts the app, opens the home page at 1440 × 900 with all four panels, and drags α, then η, for two seconds each with
the mouse. Inside the browser it takes the time between animation frames, the time that the explorer's own script takes
in a frame, and counts what is sent to the server while the button is down. Then it measures how long another row takes
to be on screen, on every page that has an explorer: from the key press in the sidebar to the first frame that shows it.
Writes benchmarks/results/explorer_frames.json. Server and browser share the machine; whatever else runs on it counts
too, so the load is written down.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

SIZE = {"width": 1440, "height": 900}
ROWS = {
    "real row, V = 49 152": "lang=en",
    "Zipf, V = 152 000": "lang=en&source=zipf&vocabulary=152000",
    "three tokens": "lang=en&source=three_tokens",
    "most atoms": "lang=en&source=dirichlet&concentration=0.05&vocabulary=20000&reference=uniform",
}
TIMED = tuple(ROWS)[:2]
PAGES = ("home", "policies", "geodesic", "choosing", "progress")
"""Pages on which another row is timed, for the rows that are."""
SECONDS = 2.0
CHANGES = 3
"""Rows that follow the first, two apart: there are eight."""
RESULTS = Path(__file__).parent / "results" / "explorer_frames.json"

# The time from one animation frame to the next, and the part of it in callbacks that the page asked for.
WATCH = """() => {
  window.frames_ = []; window.work_ = [];
  const ask = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = callback => ask(now => {
    const start = performance.now(); callback(now); window.work_.push(performance.now() - start);
  });
  let last = performance.now();
  const tick = now => { window.frames_.push(now - last); last = now; ask(tick); };
  ask(tick);
}"""


def main() -> None:
    """Measure, print and write JSON."""
    port = _free_port()
    command = [sys.executable, "-m", "geomix_app.cli", "app", "--server.headless", "true", "--server.port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base, load = f"http://127.0.0.1:{port}", os.getloadavg()
    try:
        _wait(base)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            results, changes = {}, {}
            for name, query in ROWS.items():
                page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
                results[name] = _measure(page, f"{base}/?{query}")
                if name in TIMED:
                    changes[name] = {where: _change(page, f"{base}/{_path(where)}?{query}") for where in PAGES}
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    report = {
        "command": "python benchmarks/explorer_frames.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, server and headless Chromium on the same cores, no GPU",
        "input": f"four panels at {SIZE['width']} × {SIZE['height']}, {SECONDS:g} s of dragging with the mouse",
        "unit": "milliseconds; payload in bytes; fps = 1000 / mean time between frames",
        "load": {"before": load[0], "after": os.getloadavg()[0]},
        "results": results,
        "another_row": changes,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", "utf-8")
    print(text)


def _measure(page: Page, url: str) -> dict[str, Any]:
    sent: list[str] = []
    received: list[int] = []
    page.on("websocket", lambda ws: _listen(ws, sent, received))
    page.goto(url)
    page.wait_for_selector(".explorer .strip")
    _settle(page)
    largest = max(received)
    page.evaluate(WATCH)
    return {
        "payload_with_script": largest,
        "drag_alpha": _drag(page, '[data-handle="alpha"]', ".track .rail", sent),
        "drag_eta": _drag(page, '[data-handle="eta"]', '[data-panel="progress"] .box', sent),
    }


def _listen(ws: Any, sent: list[str], received: list[int]) -> None:
    ws.on("framesent", lambda data: sent.append(str(data)))
    ws.on("framereceived", lambda data: received.append(len(data)))


def _drag(page: Page, handle: str, rail: str, sent: list[str]) -> dict[str, float]:
    _settle(page)
    box, track = page.locator(handle).bounding_box(), page.locator(rail).bounding_box()
    assert box is not None
    assert track is not None
    middle, reach = track["x"] + track["width"] / 2, 0.42 * track["width"]
    y = box["y"] + box["height"] - 8 if "eta" in handle else box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.evaluate("() => { window.frames_.length = 0; window.work_.length = 0; }")
    before = len(sent)
    start = time.monotonic()
    while (passed := time.monotonic() - start) < SECONDS:
        page.mouse.move(middle + reach * math.sin(2 * math.pi * passed / SECONDS), y)
    found = page.evaluate("() => ({frames: window.frames_, work: window.work_})")
    requests = len(sent) - before
    page.mouse.up()
    frames, work = sorted(found["frames"]), sorted(found["work"])
    return {
        "frames": len(frames),
        "fps": round(1000 / statistics.mean(frames), 1),
        "frame_median": round(statistics.median(frames), 2),
        "frame_p95": round(frames[int(0.95 * len(frames))], 2),
        "script_median": round(statistics.median(work), 2),
        "script_p95": round(work[int(0.95 * len(work))], 2),
        "requests": requests,
    }


def _path(page: str) -> str:
    return "" if page == PAGES[0] else page


def _change(page: Page, url: str) -> dict[str, float]:
    """From a click in the sidebar to the explorer's redrawing: another real row, or the next seed."""
    page.goto(url)
    page.wait_for_selector(".explorer .panel")
    times = []
    for _ in range(CHANGES):
        _settle(page)
        key = _key(page)
        stepper = page.locator('[data-testid="stSidebar"] [data-testid="stNumberInputStepUp"]')
        start = time.monotonic()
        if stepper.count():
            stepper.first.click()
        else:
            combo = page.locator(".st-key-w-row").get_by_role("combobox")
            combo.focus()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowDown")
            start = time.monotonic()
            page.keyboard.press("Enter")
        while _key(page) in (key, None):
            if time.monotonic() > start + 60:
                raise TimeoutError(f"no other row on screen after 60 s: {page.url}")
            time.sleep(0.005)
        times.append(1000 * (time.monotonic() - start))
    return {"median": round(statistics.median(times)), "worst": round(max(times))}


def _key(page: Page) -> str | None:
    found = page.locator(".explorer")
    return found.get_attribute("data-key") if found.count() else None


def _settle(page: Page) -> None:
    page.wait_for_function(
        "() => document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState === 'notRunning'"
    )
    page.wait_for_timeout(700)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait(base: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the app did not start within 60 s")


if __name__ == "__main__":
    main()
