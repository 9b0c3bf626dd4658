"""The explorer in a real browser: dragged, driven with the keyboard, and read back beside the core's numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, WebSocket
from reader import Reader, overlap

from geomix_app.catalogue import LANGUAGES, catalogue
from geomix_app.explorer.component import script
from geomix_app.explorer.data import VERSION, pack
from geomix_app.explorer.sampling import sample
from geomix_app.notation import number, percent
from geomix_core import exact_progress, exact_step, learning_signal, solve_alpha
from geomix_core.divergences import kl
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights
from geomix_core.scenarios import real_rows, synthetic
from geomix_core.summary import family_point

THREE = {"source": "three_tokens"}


def bundled() -> PolicyBatch:
    return PolicyBatch.from_logits(real_rows().theta[0], real_rows().target[0])


class Wire:
    """What the page sends to the server."""

    def __init__(self, reader: Reader) -> None:
        self.sent: list[str | bytes] = []
        self._page = reader.page
        self._page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self.sent.append(frame))

    def close(self) -> None:
        self._page.remove_listener("websocket", self._listen)


@pytest.fixture
def wire(reader: Reader) -> Iterator[Wire]:
    found = Wire(reader)
    yield found
    found.close()


def handle(reader: Reader, name: str) -> Locator:
    return reader.page.locator(f'[data-handle="{name}"]')


def centre(found: Locator) -> tuple[float, float]:
    box = found.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def frame(reader: Reader) -> None:
    """Until the explorer has drawn what it was told."""
    reader.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def value(reader: Reader, name: str) -> float:
    return float(handle(reader, name).get_attribute("aria-valuenow") or "nan")


def quantities(reader: Reader) -> dict[str, str]:
    """The numbers of the strip, as they are read."""
    found: dict[str, str] = reader.page.locator(".explorer .strip [data-quantity]").evaluate_all(
        "cells => Object.fromEntries(cells.map(c => [c.dataset.quantity, c.textContent]))"
    )
    return found


SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def assert_reads(text: str, exact: float) -> None:
    """The number as it is written is the exact one, to within its last digit."""
    mantissa, _, power = text.replace("−", "-").removesuffix(" %").partition("×10")
    scale = 10.0 ** int(power.translate(SUPERSCRIPT) or 0) / (100 if text.endswith("%") else 1)
    last = 10.0 ** -len(mantissa.partition(".")[2])
    assert abs(float(mantissa) - exact / scale) <= 0.51 * last + 1e-5 * abs(exact / scale), (text, exact)


def assert_core(reader: Reader, row: PolicyBatch, alpha: float, eta: float, weights: Weights = "importance") -> None:
    """What the strip says is what the core says of all tokens."""
    shown = quantities(reader)
    point, signal = family_point(row, alpha), learning_signal(row, alpha, weights)
    progress = exact_progress(row, alpha, eta, weights).item()
    ceiling = kl(row.target, row.theta).item()
    exact = {
        "delta": point.delta,
        "kl_to_theta": point.kl_to_theta,
        "kl_to_target": point.kl_to_target,
        "ess": point.ess,
        "snr": signal.signed_snr.item(),
        "phi1": signal.phi1.item(),
        "phi2": signal.phi2.item(),
        "eta_star": signal.quadratic_step.item(),
        "progress": progress,
        "share": progress / ceiling,
        "ceiling": ceiling,
    }
    assert shown.keys() == exact.keys()
    for name, of_core in exact.items():
        assert_reads(shown[name], of_core)


# --- dragging --------------------------------------------------------------------------------------------------------


def test_drag_moves_everything_and_asks_the_server_nothing(reader: Reader, wire: Wire) -> None:
    reader.open()
    row = bundled()
    assert reader.page.locator(".explorer .panel").count() == 4
    assert_core(reader, row, 0.5, 1.0)
    reader.page.locator(".explorer .panel").first.evaluate("panel => { panel.mine = true; }")
    x, y = centre(handle(reader, "alpha"))
    rail = reader.page.locator(".explorer .rail").bounding_box()
    assert rail is not None
    reader.page.mouse.move(x, y)
    reader.page.mouse.down()
    before = len(wire.sent)
    seen = set()
    for at in np.linspace(0.06, 0.94, 10):
        reader.page.mouse.move(rail["x"] + at * rail["width"], y, steps=6)
        frame(reader)
        alpha = value(reader, "alpha")
        seen.add(alpha)
        assert_core(reader, row, alpha, 1.0)
    assert len(seen) == 10
    assert len(wire.sent) == before
    assert "alpha" not in reader.query()
    reader.page.mouse.up()
    reader.wait_for_query("alpha", f"{alpha:.10g}")
    # The answer to the drag redrew nothing.
    assert reader.page.locator(".explorer .panel").first.evaluate("panel => panel.mine")
    assert value(reader, "alpha") == alpha
    assert_core(reader, row, alpha, 1.0)


def test_step_is_dragged_in_its_panel(reader: Reader, wire: Wire) -> None:
    reader.open(alpha="0.75")
    x, _ = centre(handle(reader, "eta"))
    box = reader.page.locator('[data-panel="progress"] .box').bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    reader.page.mouse.move(x, y)
    reader.page.mouse.down()
    before = len(wire.sent)
    for at in (0.3, 0.5, 0.8):
        reader.page.mouse.move(box["x"] + at * box["width"], y, steps=4)
        frame(reader)
        assert_core(reader, bundled(), 0.75, value(reader, "eta"))
    eta = value(reader, "eta")
    assert len(wire.sent) == before
    reader.page.mouse.up()
    reader.wait_for_query("eta", f"{eta:.10g}")
    assert reader.query()["alpha"] == "0.75"


def test_curves_follow_the_pointer_too(reader: Reader) -> None:
    reader.open(**THREE)
    box = reader.page.locator('[data-panel="snr"] .box').bounding_box()
    assert box is not None
    reader.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    reader.page.wait_for_function("() => new URLSearchParams(location.search).has('alpha')")
    reader.wait()
    assert 0.2 < float(reader.query()["alpha"]) < 0.5
    assert_core(reader, synthetic("three_tokens"), value(reader, "alpha"), 1.0)


def test_point_is_dragged_along_the_geodesic(reader: Reader) -> None:
    reader.open(**THREE, alpha="0.8")
    q = handle(reader, "simplex")
    x, y = centre(q)
    reader.page.mouse.move(x, y)
    reader.page.mouse.down()
    reader.page.mouse.move(x - 6, y + 12, steps=5)
    frame(reader)
    alpha = value(reader, "simplex")
    assert alpha > 0.82
    assert value(reader, "alpha") == alpha
    reader.page.mouse.up()
    reader.wait_for_query("alpha", f"{alpha:.10g}")


def test_marks_attract_gently(reader: Reader) -> None:
    reader.open(alpha="0.2")
    root = round(float(solve_alpha(bundled()).alpha[0]), 4)
    _, y = centre(handle(reader, "alpha"))
    zero = reader.page.locator(".explorer .rail .snap", has_text="0").bounding_box()
    one = reader.page.locator(".explorer .rail .snap", has_text="1").bounding_box()
    assert zero is not None
    assert one is not None
    left, right = zero["x"] + zero["width"] / 2, one["x"] + one["width"] / 2
    near = left + (root + 0.004) * (right - left)
    reader.page.mouse.move(left + 0.2 * (right - left), y)
    reader.page.mouse.down()
    reader.page.mouse.move(near, y)
    frame(reader)
    assert value(reader, "alpha") == root
    reader.page.keyboard.down("Shift")
    reader.page.mouse.move(near + 1, y)
    frame(reader)
    assert value(reader, "alpha") != root
    reader.page.keyboard.up("Shift")
    reader.page.mouse.up()


SCROLLED = """() => { const e = document.querySelector('[data-testid="stMain"]');
  return [e.scrollTop, e.scrollHeight - e.clientHeight]; }"""


def test_touch_drags_and_scrolls_nothing(reader: Reader) -> None:
    page = reader.page
    page.set_viewport_size({"width": 720, "height": 700})
    touch = page.context.new_cdp_session(page)
    touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def finger(kind: str, *at: tuple[float, float]) -> None:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in at]})

    def drag(x: float, y: float, dx: float, dy: float) -> None:
        finger("touchStart", (x, y))
        for share in np.linspace(0.1, 1, 10):
            finger("touchMove", (x + share * dx, y + share * dy))
        frame(reader)

    try:
        reader.open(alpha="0.4")
        assert page.evaluate(SCROLLED)[0] == 0
        assert page.evaluate(SCROLLED)[1] > 300
        drag(*centre(handle(reader, "alpha")), 150, -90)
        alpha = value(reader, "alpha")
        assert alpha > 0.5
        assert reader.query()["alpha"] == "0.4"
        finger("touchEnd")
        reader.wait_for_query("alpha", f"{alpha:.10g}")
        assert page.evaluate(SCROLLED)[0] == 0
        # A finger that moves up on a title scrolls, as it should.
        drag(*centre(page.locator('[data-panel="policies"] h3')), 0, -150)
        finger("touchEnd")
        page.wait_for_function("() => document.querySelector('[data-testid=\"stMain\"]').scrollTop > 50")
        # The step has its own handle; it moves with the finger, wherever that goes.
        eta = handle(reader, "eta")
        eta.scroll_into_view_if_needed()
        top = page.evaluate(SCROLLED)[0]
        at = value(reader, "eta")
        box = eta.locator(".dot").last.bounding_box()
        assert box is not None
        drag(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 60, -120)
        assert value(reader, "eta") > at
        finger("touchEnd")
        reader.wait_for_query("eta", f"{value(reader, 'eta'):.10g}")
        assert page.evaluate(SCROLLED)[0] == top
    finally:
        touch.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.set_viewport_size({"width": 1440, "height": 900})


# --- keyboard and screen readers -------------------------------------------------------------------------------------


def test_keyboard_alone_can_do_all(reader: Reader) -> None:
    reader.open(alpha="0.4")
    page = reader.page
    alpha = handle(reader, "alpha")
    alpha.focus()
    marks = [0.0, 0.5, round(float(solve_alpha(bundled()).alpha[0]), 4)]
    for key, expected in [
        ("ArrowRight", 0.41),
        ("Shift+ArrowLeft", 0.409),
        ("ArrowDown", 0.399),
        ("PageUp", 0.499),
        ("PageDown", 0.399),
        ("s", marks[1]),
        ("s", marks[2]),
        ("Shift+S", marks[1]),
        ("End", 1.0),
        ("Home", marks[0]),
        ("ArrowLeft", 0.0),
        ("PageUp", 0.1),
    ]:
        page.keyboard.press(key)
        frame(reader)
        assert value(reader, "alpha") == pytest.approx(expected), key
    reader.wait_for_query("alpha", "0.1")
    # Focus survives the commit, and Tab reaches what else there is.
    assert alpha.evaluate("e => e.getRootNode().activeElement === e")
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                """() => { let e = document.activeElement; while (e.shadowRoot) e = e.shadowRoot.activeElement || {};
                   return e.dataset ? e.dataset.handle || e.textContent : ''; }"""
            )
        )
    assert "eta" in order
    assert {"linear", "log", "Δ", "KL"} <= set(order)
    eta = handle(reader, "eta")
    eta.focus()
    start = value(reader, "eta")
    page.keyboard.press("ArrowRight")
    frame(reader)
    assert value(reader, "eta") > start
    page.keyboard.press("Home")
    frame(reader)
    assert value(reader, "eta") == 0
    assert quantities(reader)["progress"] == "0.0000"
    page.keyboard.press("PageUp")
    frame(reader)
    at = value(reader, "eta")
    reader.wait_for_query("eta", f"{at:.10g}")
    assert_core(reader, bundled(), 0.1, at)


def test_handles_say_what_they_are(reader: Reader) -> None:
    for language in ("en", "zh"):
        reader.open(lang=language, alpha="0.25", **THREE)
        for name, last in (("alpha", 1.0), ("simplex", 1.0), ("eta", None)):
            found = handle(reader, name)
            assert found.get_attribute("role") == "slider"
            assert found.get_attribute("aria-label")
            assert found.get_attribute("aria-valuemin") == "0"
            assert last is None or float(found.get_attribute("aria-valuemax") or 0) == last
        kls = quantities(reader)
        told = handle(reader, "alpha").get_attribute("aria-valuetext")
        values = {"alpha": "0.2500", "to_theta": kls["kl_to_theta"], "to_target": kls["kl_to_target"]}
        assert told == reader.text.plain("explorer.spoken_alpha_at", **values)
        assert reader.page.locator(".explorer").get_attribute("lang") == language


def test_focus_is_visible(reader: Reader) -> None:
    reader.open()
    halo = handle(reader, "alpha").locator(".halo")
    assert halo.evaluate("e => getComputedStyle(e).opacity") == "0"
    handle(reader, "alpha").focus()
    reader.page.keyboard.press("ArrowRight")
    style = halo.evaluate("e => { const s = getComputedStyle(e); return [s.opacity, s.stroke]; }")
    assert style[0] == "1"
    assert style[1] != "none"


# --- looks -----------------------------------------------------------------------------------------------------------


def crowded(reader: Reader) -> list[tuple[str, str]]:
    """Words of the explorer that cover each other."""
    boxes: list[tuple[str, list[float]]] = reader.page.locator(".explorer").evaluate(
        """root => [...root.querySelectorAll('svg text, h3, .key, .choice, .strip .value, .strip .symbol, .remark')]
             .filter(e => e.textContent.trim() && !e.closest('[visibility=hidden]'))
             .map(e => { const b = e.getBoundingClientRect();
                         return [e.textContent, [b.left, b.top + 2, b.right, b.bottom - 2]]; })"""
    )
    return [(a, b) for (a, first), (b, second) in combinations(boxes, 2) if overlap(first, second, 2.0)]


LOOKS: dict[str, dict[str, str]] = {
    "default": {},
    "another row": {"row": "5"},
    "three tokens": THREE,
    "two tokens": {"source": "two_tokens"},
    "peaked": {"source": "peaked"},
    "V = 152 000": {"source": "zipf", "vocabulary": "152000"},
    "cut": {"source": "top_k"},
    "inverse, independent": {"weights": "inverse", "reference": "uniform"},
    "identical": {"source": "custom", "table": '[["a",0.2,0.2],["b",0.3,0.3],["c",0.5,0.5]]', "kind": "probs"},
    "disjoint": {"source": "custom", "table": '[["a",1,0],["b",0,1]]', "kind": "probs"},
}


@pytest.mark.parametrize("name", LOOKS)
def test_nothing_overlaps_and_nothing_needs_scrolling(reader: Reader, name: str) -> None:
    for language in ("en", "zh"):
        reader.open(lang=language, **LOOKS[name])
        assert reader.exceptions() == []
        assert crowded(reader) == []
        told = reader.page.locator(
            ".explorer svg text, .explorer [data-quantity], .explorer header"
        ).all_text_contents()
        assert [t for t in told if re.search(r"NaN|undefined|Infinity|null", t)] == []
        bottom = reader.page.locator(".explorer .strip").bounding_box()
        assert bottom is not None
        assert bottom["y"] + bottom["height"] <= 900


def test_curves_take_the_theme_s_colours(night_reader: Reader) -> None:
    night_reader.open(lang="zh")
    root = night_reader.page.locator(".explorer")
    assert "dark" in (root.get_attribute("class") or "")
    assert root.evaluate("e => getComputedStyle(e).getPropertyValue('--c-theta').trim()") == "#5AB4F0"
    assert crowded(night_reader) == []


def test_views_are_chosen_in_their_panels(reader: Reader) -> None:
    reader.open()
    panel = reader.page.locator('[data-panel="delta"]')
    curves = panel.locator("path.curve").count()
    panel.get_by_role("button", name="KL").click()
    assert panel.locator("path.curve").count() == curves + 1
    assert panel.get_by_role("button", name="KL").get_attribute("aria-pressed") == "true"
    assert crowded(reader) == []
    tokens = reader.page.locator('[data-panel="policies"]')
    before = tokens.locator("circle.dot").first.get_attribute("cx")
    tokens.get_by_role("button", name="linear").click()
    assert tokens.locator("circle.dot").first.get_attribute("cx") != before


def test_narrow_screens_get_one_column(reader: Reader) -> None:
    reader.page.set_viewport_size({"width": 720, "height": 900})
    try:
        reader.open()
        boxes = [p.bounding_box() for p in reader.page.locator(".explorer .panel").all()]
        assert len({round(b["x"]) for b in boxes if b}) == 1
        assert crowded(reader) == []
    finally:
        reader.page.set_viewport_size({"width": 1440, "height": 900})


HOSTILE = ["<b>bold</b>", 'say "x"', "a & b", "&lt;", "<img src=x onerror=alert(1)>", "{alpha}"]


def test_hostile_tokens_are_text(reader: Reader) -> None:
    table = json.dumps([[token, i + 1, len(HOSTILE) - i] for i, token in enumerate(HOSTILE)])
    reader.open(source="custom", table=table, kind="probs")
    shown = reader.page.locator('[data-panel="policies"] .token').all_text_contents()
    assert set(shown) == {t if len(t) <= 14 else t[:13] + "…" for t in HOSTILE}
    assert reader.page.locator(".explorer img, .explorer b, .explorer script").count() == 0


# --- the contract, on the browser's side -----------------------------------------------------------------------------

_MODULE = """([script, bytes, calls]) => {
  const source = script.replace('export default function', 'const component = function') +
                 '; return {Model, write};';
  const {Model, write} = new Function(source)();
  const model = new Model(Uint8Array.from(bytes));
  const points = calls.points.map(([alpha, eta]) => {
    const {tilts, ...rest} = model.point(alpha, eta);
    return {...rest, worst: String(rest.worst), progress: String(rest.progress)};
  });
  return {points, texts: calls.numbers.map(x => [write(['number', 3], x), write(['percent', 1], x)])};
}"""


CONTRACT = {
    "gaussian": lambda: synthetic("gaussian"),
    "far": lambda: synthetic("gaussian", distance=4.0),
    "cliff": lambda: synthetic("peaked", top_mass=0.999999),
    "near-identical": lambda: synthetic("near_identical", sigma=1e-6),
    "no common scale": lambda: synthetic("dirichlet", concentration=0.05),
}


@pytest.mark.parametrize("weights", ["importance", "inverse"])
@pytest.mark.parametrize("name", CONTRACT)
def test_browser_reads_the_message_as_python_does(reader: Reader, name: str, weights: Weights) -> None:
    from test_explorer import scene

    row = CONTRACT[name]()
    samples = sample(row, weights)
    assert samples.atoms is not None
    unit = samples.atoms.unit
    rng = np.random.default_rng(3)
    points = [(float(a), float(s)) for a, s in zip(rng.uniform(size=24), 10 ** rng.uniform(-5, 3, 24), strict=True)]
    points = [(a, s * learning_signal(row, a, weights).log_phi2.mul(-0.5).exp().item()) for a, s in points]
    numbers = [*map(float, rng.normal(size=60) * 10.0 ** rng.uniform(-9, 9, 60)), 0.0, 1.0, -0.25]
    reader.page.goto("about:blank")
    message = pack(scene(samples=samples, snr_best=2.0, watched=1))
    found: dict[str, Any] = reader.page.evaluate(
        _MODULE, [script(), list(message), {"points": points, "numbers": numbers}]
    )

    def assert_progress(read: str, alpha: float, eta: float) -> None:
        # In nats, of the ceiling; where more than that is lost, of the loss.
        exact = exact_progress(row, alpha, eta, weights).item()
        assert float(read) == pytest.approx(exact, rel=1e-6, abs=1e-6 * unit) or max(float(read), exact) < -1e250

    for (alpha, eta), read in zip(points, found["points"], strict=True):
        for curve in samples.curves.keys() - {"exact_step", "exact_gain"}:
            assert read[curve] == pytest.approx(float(samples.at(curve, alpha)[0]), rel=1e-9, abs=1e-12)
        # What follows from the samples: progress, the worst step, the shares, the token that sentences speak of.
        assert_progress(read["progress"], alpha, eta)
        low, high = (exact_progress(row, alpha, end, weights).item() for end in (0.5, 2.0))
        assert_progress(read["worst"], alpha, 0.5 if low < high else 2.0)
        best = exact_step(row, alpha, weights).item()
        assert read["exact_step"] == pytest.approx(best, rel=1e-6, abs=0)
        assert read["exact_gain"] == pytest.approx(exact_progress(row, alpha, best, weights).item(), abs=1e-6 * unit)
        assert read["gain_share"] == pytest.approx(read["exact_gain"] / 0.5, rel=1e-9)
        assert read["snr_share"] == pytest.approx(abs(read["snr"]) / 2.0)
        assert read["hundred"] == pytest.approx(100 * read["ess"])
    for x, (as_number, as_percent) in zip(numbers, found["texts"], strict=True):
        assert as_number == number(x)
        if abs(x) >= 1e-3:  # Python writes a minus before a zero
            assert as_percent == percent(x)


@pytest.mark.parametrize("weights", ["importance", "inverse"])
@pytest.mark.parametrize("wrong", [0.5, 0.9, 1.1, 2.0])
def test_best_step_needs_a_rough_start_only(reader: Reader, wrong: float, weights: Weights) -> None:
    """Where a token takes over all at once, the step between two samples may be off by a tenth."""
    from test_explorer import scene

    reader.page.goto("about:blank")
    for name, make in CONTRACT.items():
        row = make()
        samples = sample(row, weights)
        assert samples.atoms is not None
        curve = samples.curves["exact_step"]
        rough = {**samples.curves, "exact_step": replace(curve, values=curve.values + np.log(wrong))}
        alphas = [0.0, 0.1234, 0.5, 0.8765, 1.0]
        message = pack(scene(samples=replace(samples, curves=rough)))
        calls = {"points": [(alpha, 1.0) for alpha in alphas], "numbers": []}
        found: dict[str, Any] = reader.page.evaluate(_MODULE, [script(), list(message), calls])
        for alpha, read in zip(alphas, found["points"], strict=True):
            best = exact_step(row, alpha, weights).item()
            gain = exact_progress(row, alpha, best, weights).item()
            assert read["exact_step"] == pytest.approx(best, rel=1e-5, abs=0), (name, alpha)
            assert read["exact_gain"] == pytest.approx(gain, abs=1e-9 * samples.atoms.unit, rel=1e-6), (name, alpha)


def test_browser_refuses_another_version(reader: Reader) -> None:
    from test_explorer import scene

    reader.page.goto("about:blank")
    message = pack(scene()).replace(f'"version":{VERSION}'.encode(), b'"version":9')
    with pytest.raises(Exception, match="version 9"):
        reader.page.evaluate(_MODULE, [script(), list(message), {"points": [], "numbers": []}])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_numbers_say_what_they_are(reader: Reader, lang: str) -> None:
    reader.open("choosing", lang=lang, **THREE)
    reader.page.locator(".explorer").wait_for()
    text = catalogue(lang)
    found = reader.page.locator(".explorer .strip .term, .explorer .choices thead th").evaluate_all(
        "nodes => nodes.map(n => n.title).filter(Boolean)"
    )
    for name in ("ess", "snr", "best_progress"):
        assert f"{text.plain(f'glossary.{name}.name')}: {text.plain(f'glossary.{name}.means')}" in found
