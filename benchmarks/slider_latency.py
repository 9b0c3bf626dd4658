"""How long a slider's effect takes to be on screen, at V = 152 000, in a real browser.

    python benchmarks/slider_latency.py                (after `make test` has set up .venv; needs Chromium)

Starts the app, opens each page on Zipf policies with V = 152 000, presses an arrow key on a slider and measures, inside
the browser, from the key press to the last change that it causes in the figures. Prints median and worst, and how long
a change of the scenario itself (another seed) takes. One process serves; whatever else runs on the machine counts too.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

from playwright.sync_api import Page, sync_playwright

QUERY = "lang=en&source=zipf&vocabulary=152000"
PAGES = {"geodesic": "α", "choosing": "α", "progress": "α"}
PRESSES = 15

# Records the last moment at which any figure or the page's answer changed.
WATCH = """() => {
  window.lastChange = 0;
  const seen = () => { window.lastChange = performance.now(); };
  const main = document.querySelector('[data-testid="stMain"]');
  new MutationObserver(records => {
    for (const r of records) {
      const at = r.target.nodeType === 1 ? r.target : r.target.parentElement;
      if (at && at.closest('.js-plotly-plot, [data-testid="stMarkdownContainer"]') &&
          !at.closest('[data-testid="stSlider"]')) { seen(); return; }
    }
  }).observe(main, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def main() -> None:
    """Measure and print JSON."""
    port = _free_port()
    command = [sys.executable, "-m", "geomix_app.cli", "app", "--server.headless", "true", "--server.port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        _wait(base)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            results = {name: _measure(page, f"{base}/{name}?{QUERY}", label) for name, label in PAGES.items()}
            browser.close()
    finally:
        server.terminate()
        server.wait()
    print(json.dumps(results, indent=1))


def _measure(page: Page, url: str, label: str) -> dict[str, float]:
    page.goto(url)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    _settle(page)
    page.evaluate(WATCH)
    slider = page.locator('[data-testid="stMain"] [data-testid="stSlider"]').filter(has_text=label).first
    slider.locator('input[type="range"]').focus()
    moves = [_press(page, "ArrowRight") for _ in range(PRESSES)]
    seed = page.locator('[data-testid="stSidebar"] [data-testid="stNumberInputStepUp"]').first
    seeds = [_act(page, seed.click) for _ in range(5)]
    return {
        "alpha_median_ms": round(statistics.median(moves)),
        "alpha_worst_ms": round(max(moves)),
        "seed_median_ms": round(statistics.median(seeds)),
        "seed_worst_ms": round(max(seeds)),
    }


def _press(page: Page, key: str) -> float:
    return _act(page, lambda: page.keyboard.press(key))


def _act(page: Page, action: object) -> float:
    start = page.evaluate("() => { window.lastChange = 0; return performance.now(); }")
    action()  # type: ignore[operator]
    page.wait_for_function("() => window.lastChange > 0", timeout=30_000)
    _settle(page)
    return float(page.evaluate("() => window.lastChange")) - float(start)


def _settle(page: Page) -> None:
    """Until nothing has changed for half a second and the script has stopped."""
    page.wait_for_function(
        """() => document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning' &&
                 performance.now() - (window.lastChange || 0) > 500""",
        timeout=60_000,
    )


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
