"""What the tests of the app share: the app under AppTest, and what a page shows, read back as plain data."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from streamlit.testing.v1 import AppTest

from geomix_app.catalogue import Catalogue, catalogue
from geomix_app.explorer.data import LIMIT, unpack
from geomix_app.scenario import Scenario

MAIN = Path(__file__).resolve().parent.parent / "app" / "main.py"
EXPLORE = ("policies", "geodesic", "choosing", "progress")
LEARN = ("derivation", "lecture", "claims", "glossary")
PAGES = ("home", *EXPLORE, "lab", "validate", *LEARN)
NO_NUMBER = re.compile(r"\b(nan|inf|none|null)\b", re.IGNORECASE)
"""What Python prints where a person should read a number, a dash or ∞."""


def open_app(page: str = "policies", *, lang: str = "en", **query: str) -> AppTest:
    """The app as a browser opens it from a link: page, language and query; it ran once, without an exception."""
    at = AppTest.from_file(MAIN, default_timeout=60)
    for name, value in {"lang": lang, **query}.items():
        at.query_params[name] = value
    if page != PAGES[0]:
        # By file name, which is the page's name in the URL too, so no run on another page comes first.
        at.switch_page(f"../pages/{page}.py")
    return run(at)


def run(changed: Any) -> AppTest:
    """Run once more, after a change of the app or of one of its widgets; an exception on the page is a failure."""
    at: AppTest = changed.run()
    assert not at.exception, "\n".join(f"{e.message}\n{''.join(e.stack_trace)}" for e in at.exception)
    return at


def go(at: AppTest, page: str) -> AppTest:
    """Follow the navigation to another page."""
    return run(at.switch_page(f"../pages/{page}.py"))


def scenario(at: AppTest) -> Scenario:
    """The scenario of the session."""
    found: Scenario = at.session_state["scenario"]
    return found


def move(at: AppTest, **point: float) -> AppTest:
    """Move α or η, as an explorer does when it commits: AppTest has no hand for components."""
    at.session_state["scenario"] = replace(scenario(at), **point)  # type: ignore[arg-type]
    return run(at)


def words(at: AppTest) -> Catalogue:
    """The catalogue in which the page speaks."""
    return catalogue(at.session_state["language"])


def address(at: AppTest) -> dict[str, str]:
    """The query that the page writes into the address bar, decoded."""
    scripts = [e.proto.body for e in at.get("html") if "replaceState" in e.proto.body]
    assert len(scripts) == 1
    found = re.search(r'\bq = ("[^"]*")', scripts[0])
    assert found, scripts[0]
    return dict(parse_qsl(json.loads(found[1]), keep_blank_values=True, strict_parsing=True))


def has(at: AppTest, kind: str, key: str) -> bool:
    """Whether the page has an element of a kind (slider, button, …) with this key."""
    return key in {e.key for e in getattr(at, kind)}


# --- the explorer ------------------------------------------------------------------------------------------------


def explorers(at: AppTest) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """What the page's explorers were sent."""
    sent = [e.proto.bytes for e in at.get("bidi_component")]
    assert all(len(message) <= LIMIT for message in sent)
    return [unpack(message) for message in sent]


def explorer(at: AppTest) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the page's one explorer was sent."""
    (found,) = explorers(at)
    return found


def told(runs: list[Any]) -> str:
    """Runs, or the pieces of a sentence, as text; a number that moves as {quantity}."""
    return "".join(f"{{{piece['quantity']}}}" if isinstance(piece, dict) else piece[0] for piece in runs)


def sentences(at: AppTest, panel: str) -> list[str]:
    """What may stand below a panel, variant by variant."""
    return [told(variant["pieces"]) for variant in explorer(at)[0]["sentences"][panel]]


def choices(at: AppTest) -> dict[str, dict[str, Any]]:
    """The table of ways to choose α: values by name of the row, as words."""
    return {told(row["name"]): row["values"] for row in explorer(at)[0]["choices"]["rows"]}


# --- figures -----------------------------------------------------------------------------------------------------


def figures(at: AppTest) -> dict[str, dict[str, Any]]:
    """Every figure of the page by its key, as its Plotly specification."""
    found = {}
    for element in at.get("plotly_chart"):
        key = element.proto.id.rsplit("-", 1)[-1]
        assert key not in found, f"two figures are called {key}"
        found[key] = json.loads(element.proto.spec)
    return found


def values(data: Any) -> np.ndarray:
    """Numbers of a figure: a list (null where there is none) or Plotly's base64 form."""
    if isinstance(data, Mapping):
        flat = np.frombuffer(base64.b64decode(data["bdata"]), np.dtype(data["dtype"]))
        shape = [int(n) for n in str(data.get("shape", len(flat))).split(",")]
        return flat.reshape(shape)
    return np.array([np.nan if x is None else x for x in data])


def trace(figure: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The one trace of a figure with this name."""
    named = [t for t in figure["data"] if t.get("name") == name]
    assert len(named) == 1, [t.get("name") for t in figure["data"]]
    return dict(named[0])


def labelled(figure: Mapping[str, Any], text: str) -> tuple[float, float]:
    """Where the one point stands whose label contains `text`."""
    found = [t for t in figure["data"] if any(text in str(x) for x in t.get("text", ()))]
    assert len(found) == 1, [t.get("text") for t in figure["data"]]
    return float(values(found[0]["x"])[0]), float(values(found[0]["y"])[0])


def points(figure: Mapping[str, Any]) -> int:
    """How many numbers of a figure go to the browser: the cells of a heat map, the points of everything else."""

    def size(t: Mapping[str, Any]) -> int:
        return max((values(t[k]).size for k in ("x", "y", "z", "a", "customdata") if t.get(k) is not None), default=0)

    return sum(map(size, figure["data"]))


# --- words -------------------------------------------------------------------------------------------------------


def shown(at: AppTest) -> Iterator[str]:
    """Everything that a reader can read on the page: text, numbers, tables, labels of controls and of figures."""
    for kind in ("subheader", "markdown", "caption", "text", "error", "warning", "info", "success"):
        yield from (str(e.value) for e in getattr(at, kind))
    for metric in at.metric:
        yield from (metric.label, metric.value)
    for kind in ("table", "dataframe"):
        for element in getattr(at, kind):
            frame = element.value.reset_index()
            yield from map(str, frame.columns)
            # A number column shows an empty cell where there is none; text is shown as it is.
            for column in frame.select_dtypes(exclude="number"):
                yield from (x for x in frame[column] if isinstance(x, str))
    for kind in ("button", "slider", "select_slider", "selectbox", "number_input", "file_uploader", "button_group"):
        for widget in getattr(at, kind):
            yield widget.label
            yield from map(str, getattr(widget, "options", ()))
    for figure in figures(at).values():
        yield from labels(figure)
    for header, _ in explorers(at):
        panels = header["panels"]
        yield from (told(header[kind][p]) for kind in ("notes", "remarks") for p in panels if p in header[kind])
        yield from (told(v["pieces"]) for p in panels for v in header["sentences"].get(p, ()))
        yield from (told(row["name"]) for row in (header["choices"] or {"rows": ()})["rows"])
        yield from (told(header["words"].get(f"title_{p}", [])) for p in panels)


def labels(figure: Mapping[str, Any]) -> Iterator[str]:
    """The words of a figure, but for names of tokens."""
    layout = figure["layout"]
    yield layout["title"]["text"]
    yield from (str(layout[a].get("title", {}).get("text", "")) for a in ("xaxis", "yaxis") if a in layout)
    yield from (str(a.get("text", "")) for a in layout.get("annotations", ()))
    for t in figure["data"]:
        yield str(t.get("name", ""))
        yield from map(str, t.get("text", ()))


def assert_readable(at: AppTest) -> None:
    """No Python nan, inf or None where a person reads a number; a message about a bad input may name them."""
    seen, messages = list(shown(at)), {e.value for e in at.error}
    assert len(seen) > 5
    bad = [text for text in seen if NO_NUMBER.search(text) and text not in messages]
    assert not bad, bad
