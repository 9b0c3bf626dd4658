"""What uploads cost the server: 20 pairs of 100 MB in one tab, then in 20 tabs that are closed, and what it gives back.

    python benchmarks/upload_memory.py          # writes benchmarks/results/upload_memory.json; about ten minutes

Needs Playwright and a Chromium (/usr/bin/chromium), and Linux for /proc. Every fifth upload is solved as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

ROWS, VOCABULARY = 497, 50_257
"""In float16, 50 MB a policy."""
SOLVED = 5
"""Every so manieth upload is solved."""
AWAY = 40
"""Seconds after which a closed tab's memory should have gone: `disconnectedSessionTTL` and a little."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def memory(pid: int) -> dict[str, int]:
    """Megabytes that the process holds in RAM: all, and what belongs to no file."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        name: int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]
        for name, key in (("rss_mb", "VmRSS"), ("anonymous_mb", "RssAnon"))
    }


def make_pair(folder: Path) -> list[Path]:
    """Two files of 50 MB."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((ROWS, VOCABULARY), np.float32) * 3
    near = base + 0.4 * rng.standard_normal(base.shape, np.float32)
    for name, x in (("theta", base), ("target", near)):
        np.save(folder / f"{name}.npy", x.astype(np.float16))
    return [folder / "theta.npy", folder / "target.npy"]


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """The app's address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "geomix_app.cli", "app", "--server.headless", "true", "--server.port", str(port)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5)
                    break
                except (URLError, OSError):
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()
            process.wait(30)


def open_tab(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{address}/validate?lang=en")
    page.get_by_role("button", name="Try it").wait_for()
    return page


def upload(page: Page, files: list[Path], solve: bool) -> None:
    """Drop a pair, wait for what was found, and solve it if asked to."""
    page.locator('[data-testid="stFileUploaderDropzoneInput"]').first.set_input_files(files)
    button = page.get_by_role("button", name=re.compile("^Solve"))
    button.wait_for()
    if solve:
        button.click()
        page.locator('[data-testid="stDataFrame"]').wait_for()
    page.wait_for_timeout(500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "upload_memory.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        files = make_pair(folder)
        size = sum(f.stat().st_size for f in files)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        with server(folder) as (address, pid):
            found: dict[str, object] = {
                "uploads": options.uploads,
                "upload_mb": size / 1e6,
                "load_average": os.getloadavg()[0],
                "machine": platform.machine(),
                "python": platform.python_version(),
            }
            # Libraries are loaded and compiled by a first reader, who solves the example.
            first = open_tab(browser, address)
            first.get_by_role("button", name="Try it").click()
            first.locator('[data-testid="stDataFrame"]').wait_for()
            first.context.close()
            time.sleep(AWAY)
            start = found["start"] = memory(pid)
            print("start", start, flush=True)
            page = open_tab(browser, address)
            in_one_tab = []
            for i in range(options.uploads):
                upload(page, files, solve=i % SOLVED == 0)
                in_one_tab.append(memory(pid))
                print("one tab", i, in_one_tab[-1], flush=True)
                page.get_by_role("button", name="Use another file").click()
                page.get_by_role("button", name="Try it").wait_for()
            found["in_one_tab"] = in_one_tab
            page.context.close()
            time.sleep(AWAY)
            found["after_one_tab"] = memory(pid)
            print("after one tab", found["after_one_tab"], flush=True)
            tabs = []
            for i in range(options.uploads):
                page = open_tab(browser, address)
                upload(page, files, solve=i % SOLVED == 0)
                tabs.append(memory(pid))
                print("tab", i, tabs[-1], flush=True)
                page.context.close()
            found["in_tabs"] = tabs
            time.sleep(AWAY)
            end = found["end"] = memory(pid)
            print("end", end, flush=True)
            found["grown_mb"] = end["rss_mb"] - start["rss_mb"]
            found["deleted_files_open"] = sum(
                "(deleted)" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
            )
            found["deleted_files_mapped"] = Path(f"/proc/{pid}/maps").read_text().count("upload.npy (deleted)")
        browser.close()
    options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"grown by {found['grown_mb']} MB; written: {options.out}")


if __name__ == "__main__":
    main()
