"""The four Explore pages in a real browser: by deep link, with the keyboard, in both languages and themes."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from reader import SIZE, Reader, overlap

from geomix_app.catalogue import catalogue
from geomix_app.notation import SYMBOLS, number, parameter
from geomix_core import exact_progress, solve_alpha
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import real_rows, synthetic
from geomix_core.summary import family_point

LEAST = {"policies": 2, "geodesic": 4, "choosing": 5, "progress": 3}
"""Figures of each page for the bundled rows."""


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


def moves_alpha(reader: Reader) -> float:
    """One step of the slider with the keyboard; the value shown and the address bar follow."""
    slider = reader.slider("w.alpha")
    slider.focus()
    assert float(slider.input_value()) == 0.5
    reader.page.keyboard.press("ArrowRight")
    reader.wait_for_query("alpha", "0.5001")
    assert float(slider.input_value()) == 0.5001
    assert "0.5001" in reader.page.locator(".st-key-w-alpha").inner_text()
    return 0.5001


def words_of(reader: Reader) -> str:
    return reader.page.locator('[data-testid="stMain"]').inner_text()


def test_policies_page(reader: Reader) -> None:
    opens(reader, "policies")
    # The first thing seen is a figure with both policies' tokens.
    first = reader.figures()[0]
    assert first["inked"] >= 2 * 14
    assert len([t for t in first["ticks"] if t]) == 14
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
    assert parameter(alpha) in words_of(reader)
    assert f"{number(here.kl_to_theta)} nat" in words_of(reader)
    speaks_chinese(reader, "geodesic")


def test_choosing_page(reader: Reader) -> None:
    opens(reader, "choosing")
    moves_alpha(reader)
    # The button goes to the root, and the slider with it.
    root = float(solve_alpha(bundled(), "kl_symmetry").alpha[0])
    reader.press_key("b.snap_kl")
    reader.wait_for_query("alpha", f"{root:.4f}".rstrip("0"))
    assert float(reader.slider("w.alpha").input_value()) == round(root, 4)
    assert parameter(root) in words_of(reader)
    speaks_chinese(reader, "choosing")


def test_progress_page(reader: Reader) -> None:
    opens(reader, "progress", eta="0.1")
    alpha = moves_alpha(reader)
    now = exact_progress(bundled(), alpha, 0.1).item()
    assert number(now) in words_of(reader)
    slider = reader.slider("w.eta")
    slider.focus()
    reader.page.keyboard.press("ArrowRight")
    reader.page.wait_for_function("() => Number(new URLSearchParams(location.search).get('eta')) > 0.1")
    reader.wait()
    later = exact_progress(bundled(), alpha, float(reader.query()["eta"])).item()
    assert number(later) != number(now)
    assert number(later) in words_of(reader)
    speaks_chinese(reader, "progress")


def test_link_restores_what_was_on_screen(reader: Reader) -> None:
    reader.open("geodesic", source="three_tokens")
    moves_alpha(reader)
    reader.go("choosing")
    assert reader.query() == {"lang": "en", "source": "three_tokens", "alpha": "0.5001"}
    before = words_of(reader)
    reader.page.reload(wait_until="commit")
    reader.wait()
    assert reader.query() == {"lang": "en", "source": "three_tokens", "alpha": "0.5001"}
    assert words_of(reader) == before


def test_back_leaves_the_page_and_undoes_no_slider(reader: Reader) -> None:
    reader.open("geodesic", source="three_tokens")
    reader.go("choosing")
    moves_alpha(reader)
    reader.page.go_back()
    reader.page.wait_for_function("() => location.pathname === '/geodesic'")
    reader.wait()
    assert reader.title() == catalogue("en")("page.geodesic.title")
    assert float(reader.slider("w.alpha").input_value()) == 0.5001


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
    drawn = reader.page.evaluate("document.querySelector('.js-plotly-plot').data.map(t => (t.line || {}).color)")
    assert SYMBOLS["progress"].dark in drawn


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


HOSTILE = ["<b>bold</b>", 'say "x"', "a & b", "$x$", "&lt;", "<img src=x onerror=alert(1)>"]


def test_hostile_tokens_are_shown_as_they_are(reader: Reader) -> None:
    table = json.dumps([[token, i + 1, len(HOSTILE) - i] for i, token in enumerate(HOSTILE)])
    reader.open("policies", source="custom", table=table, kind="probs")
    ticks = {t for t in reader.figures()[0]["ticks"] if t}
    assert ticks == {t if len(t) <= 18 else t[:17] + "…" for t in HOSTILE}
    assert reader.page.locator(".js-plotly-plot img, .js-plotly-plot b").count() == 0


def test_answer_is_the_same_in_every_place(reader: Reader) -> None:
    reader.open("choosing", source="three_tokens")
    root = float(solve_alpha(synthetic("three_tokens"), "kl_symmetry").alpha[0])
    labels = [text for f in reader.figures() for text, _ in f["annotations"]]
    assert any(parameter(root) in label for label in labels)
    assert parameter(root) in words_of(reader)
    # The solver's answer stands in the sentence, in the figure, in the table and in the verdict.
    assert words_of(reader).count(parameter(root)) >= 3
