"""The deck in a real browser: from disk without a network, by the keys of a clicker; and within the app, by a link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from reader import Reader

from geomix_app.catalogue import catalogue
from geomix_app.deck import lesson as lessons
from geomix_app.deck.lesson import Lesson, Slide
from geomix_app.deck.page import document
from geomix_app.learn.steps import ORDER
from geomix_app.scenario import Scenario

SCREEN = ".slide:not([hidden]) > .screen:not([hidden])"


@cache
def default(language: str, theme: str) -> str:
    return document(lessons.default(Scenario(), language, theme))  # type: ignore[arg-type]


class Lecturer:
    """Someone who opened a deck from disk, in a browser that reaches nothing."""

    def __init__(self, browser: Browser, file: Path, size: tuple[int, int] = (1280, 720), **options: Any) -> None:
        self.file = file
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        self.context.set_offline(True)
        self.problems: list[str] = []
        self.context.route(re.compile("^(?!file:|blob:|data:)"), lambda route: route.abort())
        self.context.on("request", lambda request: self._asked(request.url))
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _asked(self, url: str) -> None:
        if url != self.file.as_uri() and not url.startswith((f"{self.file.as_uri()}#", "blob:", "data:", "about:")):
            self.problems.append(f"asked for {url}")

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)

    def open(self, at: str = "") -> Page:
        self.page.goto(self.file.as_uri() + (f"#{at}" if at else ""))
        self.page.locator(SCREEN).wait_for()
        return self.page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def at(self) -> str:
        # Asked of the page itself: what Playwright knows of its address comes later.
        found: str = self.page.evaluate("location.hash.slice(1)")
        return found

    def drawn(self) -> None:
        """Wait until the figure on screen, if there is one, is drawn."""
        self.page.wait_for_function(
            """selector => {
              const screen = document.querySelector(selector);
              const live = screen.querySelector('.live');
              const plot = screen.querySelector('.plot > div');
              if (live) return Boolean(live.shadowRoot?.querySelector('.explorer .panel svg, .explorer .panel .note'));
              return plot ? Boolean(plot.querySelector('.main-svg')) : true;
            }""",
            arg=SCREEN,
        )

    def overflow(self) -> list[str]:
        """What of the screen does not fit."""
        found: list[str] = self.page.evaluate(
            """selector => {
              const root = document.documentElement;
              const screen = document.querySelector(selector);
              const found = [];
              if (root.scrollWidth > innerWidth || root.scrollHeight > innerHeight) found.push('page');
              if (screen.scrollWidth > screen.clientWidth + 1) found.push('wide');
              if (screen.scrollHeight > screen.clientHeight + 1) found.push('tall');
              const drawn = screen.querySelector('.live')?.shadowRoot.querySelector('.explorer');
              if (drawn && drawn.getBoundingClientRect().bottom > innerHeight - 24) found.push('explorer');
              if (drawn && drawn.scrollWidth > drawn.clientWidth) found.push('explorer wide');
              const size = parseFloat(screen.style.getPropertyValue('--fit') || 1);
              if (size < 0.75) found.push(`type ${size}`);
              return found;
            }""",
            SCREEN,
        )
        return found


@pytest.fixture
def lecturer(chromium: Browser, tmp_path: Path) -> Iterator[Lecturer]:
    """At 1280 × 720, with the default deck."""
    yield from _lecturer(chromium, tmp_path, default("en", "light"))


def _lecturer(chromium: Browser, folder: Path, deck: str, **options: Any) -> Iterator[Lecturer]:
    file = folder / "deck.html"
    file.write_text(deck, "utf-8")
    found = Lecturer(chromium, file, **options)
    yield found
    found.context.close()
    assert found.problems == []


@pytest.mark.parametrize(
    ("language", "theme", "size"),
    [
        ("en", "light", (1280, 720)),
        ("zh", "dark", (1280, 720)),
        ("en", "dark", (1920, 1080)),
        ("zh", "light", (1920, 1080)),
    ],
)
def test_every_screen_of_every_slide_fits(
    chromium: Browser, tmp_path: Path, language: str, theme: str, size: tuple[int, int]
) -> None:
    for lecturer in _lecturer(chromium, tmp_path, default(language, theme), size=size, color_scheme=theme):
        page = lecturer.open()
        seen, wrong = [], {}
        while True:
            lecturer.drawn()
            if lecturer.overflow():
                wrong[lecturer.at] = lecturer.overflow()
            seen.append(lecturer.at)
            lecturer.press("PageDown")
            if lecturer.at == seen[-1]:
                break
        assert wrong == {}
        assert list(dict.fromkeys(at.split(".")[0] for at in seen)) == list(ORDER)
        assert len(seen) == page.locator(".dots i").count() + sum(at.split(".")[0] != ORDER[-1] for at in seen)
        # And all the way back, as it came.
        for at in reversed(seen[:-1]):
            lecturer.press("PageUp")
            assert lecturer.at == at


def test_a_stage_reveals_and_stepping_back_hides_again(lecturer: Lecturer) -> None:
    page = lecturer.open("update.1")
    reply = page.locator(f"{SCREEN} .reply")
    expect(reply).to_be_hidden()
    lecturer.press("PageDown")
    expect(reply).to_be_visible()
    assert lecturer.at == "update.2"
    lecturer.press("PageUp")
    expect(reply).to_be_hidden()
    lecturer.press(" ", "ArrowRight", "ArrowLeft")
    assert lecturer.at == "update.2"
    lecturer.press("ArrowDown")
    assert lecturer.at == "progress.0"
    lecturer.press("ArrowUp", "End")
    assert lecturer.at == "summary.0"
    lecturer.press("Home")
    assert lecturer.at == "budget.0"


def test_an_address_opens_its_step_and_state(lecturer: Lecturer) -> None:
    page = lecturer.open("theorem_2.4")
    # It opens at a formula: its type is fitted once the font of formulas is there.
    page.evaluate("document.fonts.ready.then(() => true)")
    assert lecturer.overflow() == []
    expect(page.locator(".slide:visible h2")).to_have_text(catalogue("en").plain("learn.theorem_2.title"))
    page.evaluate("location.hash = '#wald.99'")
    expect(page.locator(".where-now .place")).to_have_text(f"{ORDER.index('wald') + 1} / {len(ORDER)}")
    page.evaluate("location.hash = '#nowhere.1'")
    assert page.locator(".slide:visible").get_attribute("id") == "wald"


def test_alpha_is_dragged_and_its_numbers_and_address_move(lecturer: Lecturer) -> None:
    page = lecturer.open("kl_symmetry.3")
    lecturer.drawn()
    value = page.locator(f"{SCREEN} .live [data-quantity='alpha']")
    expect(value).to_have_text("α = 0.5000")
    said = page.locator(f"{SCREEN} .live [data-said='kl_to_theta']").first.inner_text()
    box = page.locator(f"{SCREEN} .live .track [data-handle='alpha']").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 200, y, steps=5)
    page.mouse.up()
    expect(value).not_to_have_text("α = 0.5000")
    moved = value.inner_text()
    assert page.locator(f"{SCREEN} .live [data-said='kl_to_theta']").first.inner_text() != said
    name, _, query = lecturer.at.partition("?")
    assert name == "kl_symmetry.3"
    assert f"α = {float(dict(parse_qsl(query))['alpha']):.4f}" == moved
    # The formula's numbers are those of the scenario, and say so.
    lecturer.press("PageDown")
    expect(page.locator(f"{SCREEN} .at")).to_have_class(re.compile("moved"))
    lecturer.press("PageUp")
    address = lecturer.at
    page.goto("about:blank")
    lecturer.open(address)
    lecturer.drawn()
    expect(value).to_have_text(moved)


def test_a_handle_in_focus_keeps_the_arrows_but_not_the_clickers_keys(lecturer: Lecturer) -> None:
    page = lecturer.open("kl_symmetry.3")
    lecturer.drawn()
    page.locator(f"{SCREEN} .live .track [data-handle='alpha']").focus()
    lecturer.press("ArrowRight")
    expect(page.locator(f"{SCREEN} .live .track [data-quantity='alpha']")).to_have_text("α = 0.5100")
    assert lecturer.at.startswith("kl_symmetry.3")
    lecturer.press("PageDown")
    assert lecturer.at.startswith("kl_symmetry.4")
    lecturer.press("PageUp")
    expect(page.locator(f"{SCREEN} .live .track [data-quantity='alpha']")).to_have_text("α = 0.5100")


def test_answers_are_given_and_met(lecturer: Lecturer) -> None:
    page = lecturer.open("update.1")
    text = catalogue("en")
    wrong = page.locator(f"{SCREEN} [data-option='between']")
    wrong.click()
    lecturer.press("PageDown")
    expect(wrong).to_have_attribute("aria-pressed", "true")
    expect(page.locator(f"{SCREEN} .reply .about:visible")).to_have_text(text.plain("learn.question.update.if_between"))
    page.locator(f"{SCREEN} [data-option='target']").click()
    expect(page.locator(f"{SCREEN} .reply .about:visible")).to_have_count(0)
    # A mark is dragged to the right of the truth.
    page = lecturer.open("kl_symmetry.1")
    page.reload()
    page.locator(f"{SCREEN} input").fill("0.9")
    expect(page.locator(f"{SCREEN} output")).to_have_text("α = 0.90")
    lecturer.press("PageDown")
    expect(page.locator(f"{SCREEN} .reply .about:visible")).to_have_text(
        text.plain("learn.question.kl_symmetry.high").replace("π_θ", "πθ").replace("π_t", "πt")
    )


def test_black_list_keys_and_timer(lecturer: Lecturer) -> None:
    lecturer.page.clock.install()
    page = lecturer.open("wald.0")
    black, listed, helped = page.locator(".black"), page.locator("dialog.list"), page.locator("dialog.keys")
    for key in ("b", "."):
        lecturer.press(key)
        expect(black).to_be_visible()
        lecturer.press("PageDown")
        expect(black).to_be_hidden()
        assert lecturer.at == "wald.0"

    for key in ("g", "Escape"):
        lecturer.press(key)
        expect(listed).to_be_visible()
        assert page.evaluate("document.activeElement.dataset.go") == str(ORDER.index("wald"))
        lecturer.press(key)
        expect(listed).to_be_hidden()
    lecturer.press("g", "ArrowDown", "Enter")
    assert lecturer.at == "theorem_2.0"

    lecturer.press("?")
    expect(helped).to_be_visible()
    lecturer.press("PageDown", "Escape")
    expect(helped).to_be_hidden()
    assert lecturer.at == "theorem_2.0"

    clock = page.locator(".clock")
    expect(clock).to_have_text("")
    lecturer.press("t")
    page.clock.run_for(65_000)
    expect(clock).to_have_text("01:05")
    lecturer.press("t")
    page.clock.run_for(30_000)
    expect(clock).to_have_text(re.compile("^01:05"))
    lecturer.press("t")
    page.clock.run_for(3_540_000)
    expect(clock).to_have_text("1:00:05")
    lecturer.press("Shift+T")
    expect(clock).to_have_text("00:00")


def test_the_bar_does_what_the_keys_do_and_fades(lecturer: Lecturer) -> None:
    lecturer.page.clock.install()
    page = lecturer.open()
    page.locator("[data-do='next']").click()
    assert lecturer.at == "budget.1"
    page.locator("[data-do='back']").click()
    assert lecturer.at == "budget.0"
    assert page.locator("[data-do='leave']").count() == 0
    for name in ("back", "next", "list", "black", "timer", "notes", "full", "keys"):
        assert page.locator(f"[data-do='{name}']").get_attribute("aria-label")
    page.locator("body").evaluate("() => document.activeElement.blur()")
    page.mouse.move(100, 100)
    page.clock.run_for(3000)
    expect(page.locator("body")).to_have_class("idle")
    page.mouse.move(200, 200)
    expect(page.locator("body")).not_to_have_class("idle")


def test_notes_stand_in_a_second_window_that_turns_the_slides_too(lecturer: Lecturer) -> None:
    page = lecturer.open("wald.0")
    text = catalogue("en")
    with lecturer.context.expect_page() as opened:
        lecturer.press("n")
    notes = opened.value
    expect(notes.locator(".note")).to_have_text(text.plain("learn.wald.note"))
    expect(notes.locator(".next")).to_have_text(text.plain("learn.theorem_2.title"))
    notes.keyboard.press("ArrowDown")
    expect(notes.locator(".note")).to_have_text(text.plain("learn.theorem_2.note"))
    assert lecturer.at == "theorem_2.0"
    notes.locator(".toggle").click()
    expect(page.locator(".clock")).to_have_text(re.compile(r"^\d\d:\d\d$"))
    lecturer.press("End")
    expect(notes.locator(".next")).to_have_text(text.plain("deck.end"))
    page.goto("about:blank")
    notes.wait_for_event("close") if not notes.is_closed() else None


def test_words_from_a_stranger_are_shown_and_not_run(chromium: Browser, tmp_path: Path) -> None:
    words = "<img src=x onerror=\"document.title='run'\"></script><script>document.title='run'</script>"
    deck = document(Lesson((Slide("wald", note=words), Slide("budget")), title=words))
    for lecturer in _lecturer(chromium, tmp_path, deck):
        page = lecturer.open()
        with lecturer.context.expect_page() as opened:
            lecturer.press("n")
        expect(opened.value.locator(".note")).to_have_text(words)
        assert page.title() == words
        lecturer.press("g")
        expect(page.locator("dialog.list h2")).to_have_text(words)


# --- within the app ------------------------------------------------------------------------------------------------


def test_a_link_presents_its_slide_and_the_address_follows(reader: Reader) -> None:
    page = reader.page
    page.goto(f"{reader.address}/lecture?lang=en&source=zipf&alpha=0.3&slide=kl_symmetry.3")
    frame = page.frame_locator("dialog iframe")
    value = frame.locator(f"{SCREEN} .live .track [data-quantity='alpha']")
    value.wait_for()
    expect(value).to_have_text("α = 0.3000")
    assert page.locator("dialog[open]").bounding_box() == {"x": 0, "y": 0, "width": 1440, "height": 900}
    page.keyboard.press("PageDown")
    page.wait_for_url("**/lecture?*slide=kl_symmetry.4*")
    page.keyboard.press("PageUp")
    frame.locator(f"{SCREEN} .live .track [data-handle='alpha']").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/lecture?*alpha=0.31*")
    assert dict(parse_qsl(urlsplit(page.url).query)) == {
        "source": "zipf", "alpha": "0.31", "eta": "1", "lang": "en", "slide": "kl_symmetry.3",
    }  # fmt: skip
    page.reload()
    value.wait_for()
    expect(value).to_have_text("α = 0.3100")
    page.keyboard.press("q")
    expect(page.locator("dialog")).to_have_count(0)
    page.wait_for_url(re.compile("/lecture\\?(?!.*slide=)"))
    reader.wait()


def test_the_page_presents_and_gives_the_deck_away(reader: Reader, tmp_path: Path) -> None:
    reader.open("lecture")
    page = reader.page
    page.locator(".st-key-lecture-present button").click()
    frame = page.frame_locator("dialog iframe")
    frame.locator(".slide:visible h1").wait_for()
    expect(frame.locator(".slide:visible h1")).to_have_text(catalogue("en").plain("learn.budget.title"))
    frame.locator("[data-do='leave']").click()
    expect(page.locator("dialog")).to_have_count(0)
    reader.wait()
    # A lesson of one's own is in the address too: a reload, or whoever gets the link, comes back to it.
    page.locator(".st-key-lesson-arrow_downward button").click()
    reader.wait()
    page.locator(".st-key-lecture-present button").click()
    frame.locator(".slide:visible h1").wait_for()
    page.keyboard.press("PageDown")
    page.wait_for_url("**/lecture?*lesson=*slide=budget.1")
    page.reload()
    frame.locator(".slide:visible").wait_for()
    expect(frame.locator(".where-now .place")).to_have_text("2 / 16")
    page.keyboard.press("ArrowUp")
    expect(frame.locator(".slide:visible h1")).to_have_text(catalogue("en").plain("learn.update.title"))
    page.keyboard.press("q")
    expect(page.locator("dialog")).to_have_count(0)
    reader.wait()
    with page.expect_download() as download:
        page.locator(".st-key-lecture-deck button").filter(visible=True).click()
    assert download.value.suggested_filename == "geomix_deck.html"
    assert 'data-theme="light"' in Path(download.value.path()).read_text("utf-8")[:200]
