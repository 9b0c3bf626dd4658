"""A person who reads the app: opens links, moves controls with the keyboard, and notices what goes wrong."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from playwright.sync_api import Browser, Locator, Page, Route

from geomix_app.catalogue import LANGUAGES, Catalogue, catalogue

SIZE = (1440, 900)
TIMEOUT = 60_000

# "ok" when the script has ended, nothing is stale or loading, and every figure has been drawn.
_STATE = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  if (!app) return 'no app';
  if (app.dataset.testConnectionState !== 'CONNECTED') return 'not connected';
  if (app.dataset.testScriptState !== 'notRunning') return 'script running';
  if (document.querySelector('[data-testid="stSkeleton"],[data-testid="stAppSkeleton"]')) return 'skeleton';
  if (document.querySelector('[data-stale="true"]')) return 'stale';
  if (!document.querySelector('[data-testid="stMain"] [data-testid="stHeading"]')) return 'no title';
  for (const chart of document.querySelectorAll('[data-testid="stPlotlyChart"]')) {
    const plot = chart.querySelector('.js-plotly-plot');
    if (!plot || !plot._fullLayout || !plot.querySelector('.main-svg')) return 'figure not drawn';
  }
  for (const component of document.querySelectorAll('[data-testid="stBidiComponentIsolated"]')) {
    if (!component.shadowRoot?.querySelector('.explorer .panel')) return 'explorer not drawn';
  }
  return document.fonts.status === 'loaded' ? 'ok' : 'fonts';
}"""
# Idle on two looks, two animation frames apart, with the same layout.
_SETTLED = f"""() => {{
  const state = ({_STATE})();
  const boxes = [...document.querySelectorAll('.main-svg, [data-testid="stMain"]')].map(e => {{
    const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height, e.childElementCount].map(Math.round);
  }});
  const look = JSON.stringify([state, location.href, boxes]);
  const now = performance.now();
  if (state !== 'ok' || window.__look !== look) {{ window.__look = look; window.__since = now; return false; }}
  return now - window.__since > 250;
}}"""


class Reader:
    """One browser context at one theme; `page` is the open page."""

    def __init__(self, browser: Browser, address: str, theme: str) -> None:
        self.address = address
        self._context = browser.new_context(
            viewport={"width": SIZE[0], "height": SIZE[1]},
            color_scheme=theme,  # type: ignore[arg-type]
            locale="en-US",
            reduced_motion="reduce",
        )
        self._context.set_default_timeout(TIMEOUT)
        self._context.route("**/*", self._watch)
        self.language = "en"
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda m: self.errors.append(f"{m.text} @ {m.location}") if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))

    def begin(self) -> None:
        self.errors.clear()
        self.strangers.clear()

    def end(self) -> None:
        """The console stayed clean, and nothing outside this machine was asked for anything."""
        # A deep link /page makes Streamlit look for its server below /page first: its 404s are no errors of ours.
        assert [e for e in self.errors if "/_stcore/" not in e] == []
        assert self.strangers == []

    def close(self) -> None:
        self._context.close()

    def _watch(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()

    # --- going about ---------------------------------------------------------------------------------------------

    @property
    def text(self) -> Catalogue:
        """The words that this reader should see."""
        return catalogue(self.language)

    def open(self, page: str = "home", *, lang: str = "en", **query: str) -> None:
        """Open a link."""
        self.language = lang
        path = "" if page == "home" else page
        self.page.goto(f"{self.address}/{path}?{urlencode({'lang': lang, **query})}", wait_until="commit")
        self.wait()

    def wait(self) -> None:
        """Until the page has settled."""
        self.page.wait_for_function(_SETTLED, polling=50)

    def query(self) -> dict[str, str]:
        """What the address bar says."""
        return dict(parse_qsl(urlsplit(self.page.url).query))

    def wait_for_query(self, name: str, value: str) -> None:
        """Until the address bar says so."""
        self.page.wait_for_function(
            "([name, value]) => new URLSearchParams(location.search).get(name) === value", arg=[name, value]
        )
        self.wait()

    def title(self) -> str:
        """The page's title; formulas in it as the LaTeX that they were written in."""
        found: str = self.page.locator('[data-testid="stMain"] [data-testid="stHeading"]').first.evaluate(
            """heading => {
              const copy = heading.cloneNode(true);
              for (const formula of copy.querySelectorAll('.katex'))
                formula.replaceWith('$' + formula.querySelector('annotation').textContent + '$');
              return copy.textContent;
            }"""
        )
        return found

    def slider(self, key: str) -> Locator:
        """The handle of a slider, by its widget's key."""
        return self.page.locator(f".st-key-{css(key)} input[type=range]")

    def press(self, label: str) -> None:
        """Press a button by what it says."""
        self.page.get_by_role("button", name=label, exact=True).click()
        self.wait()

    def press_key(self, key: str) -> None:
        """Press a button by its widget's key."""
        # A button with help stands twice in the page: one of them is for narrow screens, and hidden.
        self.page.locator(f".st-key-{css(key)} button").filter(visible=True).click()
        self.wait()

    def speak(self, language: str) -> None:
        """Choose a language in the sidebar."""
        self.page.locator(".st-key-w-language").get_by_role("radio", name=LANGUAGES[language]).click()
        self.language = language
        self.wait_for_query("lang", language)

    def go(self, page: str) -> None:
        """Follow the navigation."""
        path = "/" if page == "home" else f"/{page}"
        link = self.page.locator(f'[data-testid^="stTopNav"][href$="{path}"]')
        for group in self.page.locator('[data-testid="stTopNavSection"]').all():
            if link.count():
                break
            group.click()  # opens the group, and closes the one that was open
            self.page.locator('[data-testid="stTopNavPopoverBody"]').wait_for()
        link.click()
        self.page.wait_for_function("path => location.pathname === path", arg=path)
        self.wait()

    def exceptions(self) -> list[str]:
        return self.page.locator('[data-testid="stException"]').all_inner_texts()

    # --- looking -------------------------------------------------------------------------------------------------

    def figures(self) -> list[dict[str, Any]]:
        """Every figure as it is drawn: how many traces have ink, and the boxes of its title, legend and plot."""
        found: list[dict[str, Any]] = self.page.evaluate(
            """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => {
              const box = e => { if (!e) return null; const b = e.getBoundingClientRect();
                return b.width && b.height ? [b.left, b.top, b.right, b.bottom] : null; };
              const inked = [...plot.querySelectorAll('.trace, .points path, .heatmaplayer image, .js-line')].filter(
                e => { const b = e.getBoundingClientRect(); return b.width > 0 || b.height > 0; });
              return {
                title: (plot.querySelector('.gtitle') || {}).textContent || '',
                traces: plot.data.length, inked: inked.length, svg: box(plot.querySelector('.main-svg')),
                boxes: {title: box(plot.querySelector('.gtitle')), legend: box(plot.querySelector('.legend'))},
                annotations: [...plot.querySelectorAll('.annotation-text, .textpoint text')].map(
                  e => [e.textContent, box(e)]).filter(e => e[0].trim() && e[1]),
                ticks: [...plot.querySelectorAll('.ytick text')].map(e => e.textContent),
              };
            })"""
        )
        return found


def css(key: str) -> str:
    """A widget's key as Streamlit writes it into a class."""
    return re.sub(r"[^a-zA-Z0-9_-]", "-", key.strip())


def overlap(a: list[float] | None, b: list[float] | None, slack: float = 1.0) -> bool:
    """Whether two boxes (left, top, right, bottom) share more than a pixel."""
    if a is None or b is None:
        return False
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack
