"""The four Explore pages in a real browser: by deep link, with the keyboard, in both languages and themes."""

from __future__ import annotations

from itertools import combinations

import pytest
from reader import SIZE, Reader, overlap

from geomix_app.catalogue import catalogue
from geomix_app.notation import SYMBOLS, parameter
from geomix_core import exact_progress, solve_alpha
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import real_rows, synthetic
from geomix_core.summary import family_point, learning_point

LEAST = {"policies": 1, "geodesic": 1, "choosing": 1, "progress": 2}
"""Plotly figures of each page for the bundled rows, below its explorer."""
PANELS = {
    "policies": ["pair"],
    "geodesic": ["policies", "kls"],
    "choosing": ["delta", "snr", "worst"],
    "progress": ["progress", "slice"],
}


def bundled() -> PolicyBatch:
    return PolicyBatch.from_logits(real_rows().theta[0], real_rows().target[0])


def assert_drawn(reader: Reader) -> None:
    """Every figure has ink of every trace, lies on the screen's width, and none of its words cover each other."""
    figures = reader.figures()
    assert figures
    for figure in figures:
        assert figure["title"], figure
        assert figure["inked"] >= 1, figure["title"]
        left, _, right, _ = figure["svg"]
        assert 0 <= left < right <= SIZE[0], figure["title"]
    assert covered(reader) == []


def covered(reader: Reader) -> list[tuple[str, str, str]]:
    """(figure, words, words) for titles, legends and labels of one figure that cover each other."""
    found = []
    for figure in reader.figures():
        boxes = [*figure["boxes"].items(), *((f"“{text}”", box) for text, box in figure["annotations"])]
        for (a, first), (b, second) in combinations(boxes, 2):
            if overlap(first, second):
                found.append((figure["title"], a, b))
    return found


def cut_off(reader: Reader) -> list[str]:
    """Labelled numbers that are too long for their box."""
    found: list[str] = reader.page.evaluate(
        """() => [...document.querySelectorAll('[data-testid="stMetricValue"], [data-testid="stMetricValue"] *')]
                 .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""
    )
    return found


def opens(reader: Reader, page: str, **query: str) -> None:
    """Open the page by its link; it must be that page, complete."""
    reader.open(page, **query)
    assert reader.title() == catalogue("en")(f"page.{page}.title")
    assert reader.exceptions() == []
    assert len(reader.figures()) == LEAST[page]
    panels = reader.page.locator(".explorer .panel")
    assert panels.evaluate_all("found => found.map(p => p.dataset.panel)") == PANELS[page]
    # Every panel says in words what it shows, and all that answers the question is seen without scrolling.
    assert all(t.strip() for t in said(reader).values())
    bottom = reader.page.locator(".explorer").bounding_box()
    assert bottom is not None
    assert bottom["y"] + bottom["height"] <= SIZE[1]
    assert_drawn(reader)
    assert cut_off(reader) == []


def speaks_chinese(reader: Reader, page: str) -> None:
    """The language is changed in place: title, address and figures follow, and the words still have room."""
    english = [f["title"] for f in reader.figures()]
    before = reader.query()
    reader.speak("zh")
    assert reader.title() == catalogue("zh")(f"page.{page}.title")
    assert reader.query() == {**before, "lang": "zh"}
    chinese = [f["title"] for f in reader.figures()]
    assert len(chinese) == len(english)
    assert chinese != english
    assert_drawn(reader)
    assert cut_off(reader) == []


def said(reader: Reader) -> dict[str, str]:
    """The sentence below each panel."""
    found: dict[str, str] = reader.page.locator(".explorer .panel:has(.said)").evaluate_all(
        "panels => Object.fromEntries(panels.map(p => [p.dataset.panel, p.querySelector('.said').textContent]))"
    )
    return found


def value(reader: Reader, handle: str) -> float:
    """Where a handle of the explorer stands."""
    return float(reader.page.locator(f'[data-handle="{handle}"]').get_attribute("aria-valuenow") or "nan")


def moves_alpha(reader: Reader) -> float:
    """One fine step of the handle with the keyboard; the address bar follows."""
    reader.page.locator('[data-handle="alpha"]').focus()
    assert value(reader, "alpha") == 0.5
    reader.page.keyboard.press("Shift+ArrowRight")
    reader.wait_for_query("alpha", "0.501")
    assert value(reader, "alpha") == 0.501
    return 0.501


def words_of(reader: Reader) -> str:
    return reader.page.locator('[data-testid="stMain"]').inner_text()


def test_policies_page(reader: Reader) -> None:
    opens(reader, "policies")
    # The first thing seen is a figure with both policies' tokens.
    assert reader.page.locator('[data-panel="pair"] .token').count() == 14
    assert reader.page.locator('[data-panel="pair"] circle.dot').count() >= 2 * 14
    # Another row with the keyboard alone.
    reader.page.locator(".st-key-w-row").get_by_role("combobox").focus()
    reader.page.keyboard.press("ArrowDown")
    reader.page.keyboard.press("ArrowDown")
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_function("() => new URLSearchParams(location.search).has('row')")
    reader.wait()
    row = int(reader.query()["row"])
    assert real_rows().prompts[row].prompt in words_of(reader)
    speaks_chinese(reader, "policies")


def test_geodesic_page(reader: Reader) -> None:
    opens(reader, "geodesic")
    alpha = moves_alpha(reader)
    here = family_point(bundled(), alpha)
    sentence = said(reader)["kls"]
    assert sentence.startswith(f"At α = {parameter(alpha)}, q is {here.kl_to_theta:.4f} nat from πθ")
    assert f"{here.kl_to_target:.4f} from πt" in sentence
    assert f"worth {100 * here.ess:.1f} of" in sentence
    speaks_chinese(reader, "geodesic")


def test_choosing_page(reader: Reader) -> None:
    opens(reader, "choosing")
    moves_alpha(reader)
    # The table's row goes to the root, and the panels with it.
    root = float(solve_alpha(bundled(), "kl_symmetry").alpha[0])
    row = reader.page.locator('[data-choice="alpha_kl"]')
    row.get_by_role("button").click()
    reader.wait_for_query("alpha", f"{root:.4f}".rstrip("0"))
    now = reader.page.locator(".choices .now td").all_inner_texts()
    assert now == row.locator("td").all_inner_texts()
    here = family_point(bundled(), root)
    assert said(reader)["delta"] == f"At α = {parameter(root)}, q is {here.kl_to_theta:.4f} nat from both policies."
    speaks_chinese(reader, "choosing")


def test_progress_page(reader: Reader) -> None:
    opens(reader, "progress", eta="0.1")
    alpha = moves_alpha(reader)
    now = exact_progress(bundled(), alpha, 0.1).item()
    assert f"gains {now:.4f} nat" in said(reader)["progress"]
    # To the step that is best by the quadratic, then to the one that is.
    reader.page.locator('[data-handle="eta"]').focus()
    point = learning_point(bundled(), alpha)
    for step in sorted((point.quadratic_step, point.exact_step)):
        reader.page.keyboard.press("s")
        reader.page.wait_for_function(
            "step => Math.abs(new URLSearchParams(location.search).get('eta') / step - 1) < 1e-4", arg=step
        )
        reader.wait()
    assert f"gains {point.exact_gain:.4f} nat" in said(reader)["progress"]
    speaks_chinese(reader, "progress")


def test_sentences_move_with_the_pointer(reader: Reader) -> None:
    reader.open("progress")
    box = reader.page.locator('[data-panel="slice"] .box').bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    reader.page.mouse.move(box["x"] + box["width"] / 2, y)
    reader.page.mouse.down()
    seen = set()
    for at in (0.2, 0.4, 0.9):
        reader.page.mouse.move(box["x"] + at * box["width"], y, steps=4)
        reader.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        alpha = value(reader, "alpha")
        gain = exact_progress(bundled(), alpha, 1.0).item()
        for panel in ("progress", "slice"):
            assert f"{gain:.4f}".replace("-", "−") in said(reader)[panel]
        seen.add(alpha)
    assert len(seen) == 3
    assert "alpha" not in reader.query()
    reader.page.mouse.up()
    reader.wait_for_query("alpha", f"{alpha:.10g}")


@pytest.mark.parametrize(
    ("page", "panel", "lines"),
    [
        ("policies", "pair", 4),
        ("geodesic", "policies", 5),
        ("geodesic", "kls", 4),
        ("choosing", "delta", 4),
        ("choosing", "snr", 4),
        ("choosing", "worst", 4),
        ("progress", "progress", 3),
        ("progress", "slice", 4),
    ],
)
def test_pointer_reads_exact_values(reader: Reader, page: str, panel: str, lines: int) -> None:
    reader.open(page)
    found = reader.page.locator(f'[data-panel="{panel}"]')
    box = found.locator(".box").bounding_box()
    assert box is not None
    reader.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.45 * box["height"])
    tip = found.locator(".tip")
    tip.wait_for()
    told = [line.inner_text().split("\n") for line in tip.locator("div").all()]
    assert len(told) == lines
    if panel in ("kls", "delta"):
        here = family_point(bundled(), float(told[0][1]))
        exact = here.kl_to_theta if panel == "kls" else here.delta
        assert float(told[1][1].replace("−", "-")) == pytest.approx(exact, abs=1e-4)
    reader.page.mouse.move(5, 5)
    tip.wait_for(state="hidden")


def test_link_restores_what_was_on_screen(reader: Reader) -> None:
    reader.open("geodesic", source="three_tokens")
    moves_alpha(reader)
    reader.go("choosing")
    assert reader.query() == {"lang": "en", "source": "three_tokens", "alpha": "0.501"}
    before = words_of(reader), said(reader)
    reader.page.reload(wait_until="commit")
    reader.wait()
    assert reader.query() == {"lang": "en", "source": "three_tokens", "alpha": "0.501"}
    assert (words_of(reader), said(reader)) == before


def test_back_leaves_the_page_and_undoes_no_slider(reader: Reader) -> None:
    reader.open("geodesic", source="three_tokens")
    reader.go("choosing")
    moves_alpha(reader)
    reader.page.go_back()
    reader.page.wait_for_function("() => location.pathname === '/geodesic'")
    reader.wait()
    assert reader.title() == catalogue("en")("page.geodesic.title")
    assert value(reader, "alpha") == 0.501


def test_dark_theme(night_reader: Reader) -> None:
    reader = night_reader
    reader.open("policies")
    for page in LEAST:
        if page != "policies":
            reader.go(page)
        assert reader.page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor") == (
            "rgb(18, 24, 29)"
        )
        assert_drawn(reader)
        # Words of figures take the theme's colour: light on dark.
        fills = reader.page.evaluate(
            "() => [...document.querySelectorAll('.gtitle, .xtitle, .legendtext')].map(e => getComputedStyle(e).fill)"
        )
        assert fills
        assert [f for f in fills if sum(map(int, f.strip("rgba()").split(",")[:3])) < 3 * 150] == []
    # And the curves take the colours made for it.
    colours = "e => getComputedStyle(e).getPropertyValue('--c-progress').trim()"
    assert reader.page.locator(".explorer").evaluate(colours) == SYMBOLS["progress"].dark
    drawn = reader.page.evaluate("[...document.querySelectorAll('.js-plotly-plot')].at(-1).data.map(t => t.line.color)")
    assert SYMBOLS["second_order"].dark in drawn


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("geodesic", {"source": "three_tokens"}),
        ("progress", {"source": "near_identical"}),
        ("choosing", {"source": "gaussian", "weights": "inverse", "reference": "uniform"}),
    ],
    ids=lambda given: given if isinstance(given, str) else given["source"],
)
def test_words_of_crowded_figures_have_room(reader: Reader, page: str, query: dict[str, str]) -> None:
    reader.open(page, **query)
    english = covered(reader)
    reader.speak("zh")
    assert (english, covered(reader)) == ([], [])


def test_answer_is_the_same_in_every_place(reader: Reader) -> None:
    reader.open("choosing", source="three_tokens")
    root = float(solve_alpha(synthetic("three_tokens"), "kl_symmetry").alpha[0])
    # The solver's answer stands in the sentence, in the table, in the verdict, and in the drawing.
    assert words_of(reader).count(parameter(root)) >= 3
    labels = reader.page.locator('[data-panel="delta"] svg text').all_text_contents()
    assert any(parameter(root) in label for label in labels)
