"""The real app in a real browser: one server and one Chromium for the whole session, one fresh context a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import sync_playwright
from reader import Reader

HERE = Path(__file__).parent
STARTUP = 120.0
"""Seconds that a server may take on a busy machine."""

# The last three keep Chromium itself from calling home; the tests watch the page's own requests.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which looks for groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the browser, and belongs in one process, so that one server is enough.

    pytest-xdist 3.8 overlooks groups under pytest 9.2 (pytest-xdist issue 1386): each process then has its own server.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def executable() -> str:
    """Chromium, or no tests here."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
    if not Path(found).exists():
        message = "there is no Chromium (apt install chromium fonts-noto-cjk)"
        if os.environ.get("GEOMIX_REQUIRE_BROWSER") == "1":
            pytest.fail(f"GEOMIX_REQUIRE_BROWSER=1, but {message}")
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def server(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app's address, as `geomix app` starts it, in a folder that has nothing to do with it."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "geomix_app.cli", "app", "--server.headless", "true", "--server.port", str(port)],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(address + "/_stcore/health", process, log)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            # Polling the port is the only way to learn that a server listens.
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def chromium(executable: str) -> Iterator[Chromium]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def readers(chromium: Chromium, server: str) -> Iterator[dict[tuple[str, str], Reader]]:
    """One browser context for each theme and locale: it keeps the 4 MB of scripts, which a new one would load again."""
    opened: dict[tuple[str, str], Reader] = {}
    yield opened
    for reader in opened.values():
        reader.close()


@pytest.fixture
def reader(readers: dict[tuple[str, str], Reader], chromium: Chromium, server: str) -> Iterator[Reader]:
    """A person at a 1440 × 900 screen, in the light theme. Whatever they saw go wrong fails the test at its end."""
    yield from _reader(readers, chromium, server, "light")


@pytest.fixture
def night_reader(readers: dict[tuple[str, str], Reader], chromium: Chromium, server: str) -> Iterator[Reader]:
    """The same person in the dark theme."""
    yield from _reader(readers, chromium, server, "dark")


def _reader(readers: dict[tuple[str, str], Reader], chromium: Chromium, server: str, theme: str) -> Iterator[Reader]:
    found = readers.setdefault((theme, "en-US"), Reader(chromium, server, theme))
    found.begin()
    yield found
    found.end()
