"""What a reader takes away, in a real browser: scripts, data, a figure in one file, and the camera's image."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

from playwright.sync_api import Locator
from reader import Reader, css

from geomix_app.catalogue import catalogue
from geomix_core.geodesics import tilted_moments
from geomix_core.scenarios import synthetic


def downloaded(reader: Reader, button: Locator) -> tuple[str, str]:
    """Name and text of the file that a button gives."""
    with reader.page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, Path(download.value.path()).read_text("utf-8")


def offered(reader: Reader, key: str) -> Locator:
    # A button with help stands twice in the page: one of them is for narrow screens, and hidden.
    return reader.page.locator(f".st-key-{css(f'b.reproduce.{key}')} button").filter(visible=True)


def test_script_data_and_figures_are_taken_away(reader: Reader) -> None:
    reader.open("geodesic", source="three_tokens")
    block = reader.page.locator(".st-key-w-view-reproduce")
    assert offered(reader, "plane.csv").count() == 0
    block.locator("summary").focus()
    reader.page.keyboard.press("Enter")
    offered(reader, "plane.csv").wait_for()
    reader.wait()

    name, script = downloaded(reader, offered(reader, "geodesic.py"))
    assert name == "geomix_geodesic.py"
    assert script.strip() == block.locator("code").inner_text().strip()

    name, table = downloaded(reader, offered(reader, "log_partition.csv"))
    assert name == "geomix_log_partition.csv"
    middle = list(csv.DictReader(table.splitlines()))[60]
    assert float(middle["alpha"]) == 0.5
    assert float(middle["log_Z_nats"]) == tilted_moments(synthetic("three_tokens"), 0.5).log_partition.item()

    # The camera, in the format that was chosen.
    plot = reader.page.locator(".js-plotly-plot").first
    plot.hover()
    name, image = downloaded(reader, plot.locator(".modebar-btn").first)
    assert name == "geomix_plane.svg"
    words = "".join(ElementTree.fromstring(image).itertext())
    assert catalogue("en").plain("figure.plane.title") in words
    reader.page.locator(".st-key-w-view-image").get_by_role("radio", name="PNG").click()
    reader.wait()
    plot.hover()
    with reader.page.expect_download() as download:
        plot.locator(".modebar-btn").first.click()
    assert download.value.suggested_filename == "geomix_plane.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")

    # One file, drawn without a server: the reader notices what asks for anything.
    name, page = downloaded(reader, offered(reader, "simplex.html"))
    assert name == "geomix_simplex.html"
    reader.page.set_content(page)
    reader.page.locator(".js-plotly-plot .ternarylayer").first.wait_for(state="attached")
    assert catalogue("en").plain("figure.simplex.title") in (reader.page.locator(".gtitle").first.text_content() or "")
