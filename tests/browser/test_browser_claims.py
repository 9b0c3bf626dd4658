"""Claims and glossary in a real browser: a search that leaves the page in use, and the ways that lead on."""

from __future__ import annotations

from playwright.sync_api import expect
from reader import SIZE, Reader, css

from geomix_app.catalogue import catalogue
from geomix_app.notation import number
from geomix_core.claims import CLAIMS, Table
from geomix_core.claims.own import claim_of
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import real_rows

LONG = 60_000


def fits(reader: Reader) -> None:
    """Nothing is wider than the screen."""
    assert reader.page.evaluate("() => document.documentElement.scrollWidth") <= SIZE[0]


def test_a_search_leaves_the_page_in_use_and_stops(reader: Reader) -> None:
    reader.open("claims", claim="theorem_4_identity")
    text = reader.text
    assert reader.title() == text("page.claims.title")
    assert reader.exceptions() == []
    fits(reader)
    reader.page.get_by_role("button", name=text("page.claims.break"), exact=True).click()
    stop = reader.page.locator(f".st-key-{css('b.stop_search')} button")
    expect(stop).to_be_visible(timeout=LONG)
    expect(reader.page.get_by_role("progressbar")).to_be_visible(timeout=LONG)
    # The list filters while the search goes on.
    fails = reader.page.locator(".st-key-w-view-claims_filter").get_by_role(
        "radio", name=text("page.claims.filter_fails")
    )
    fails.click()
    expect(fails).to_be_checked(timeout=LONG)
    stop.click()
    expect(reader.page.locator('[data-testid="stAlert"]')).to_be_visible(timeout=LONG)
    expect(reader.page.get_by_role("button", name=text("page.claims.break_again"), exact=True)).to_be_visible(
        timeout=LONG
    )
    expect(stop).not_to_be_visible(timeout=LONG)
    assert reader.exceptions() == []


def test_a_claim_is_opened_from_the_list(reader: Reader) -> None:
    reader.open("claims")
    box = reader.page.locator('[data-testid="stDataFrame"] canvas').first.bounding_box()
    assert box is not None
    names = [*CLAIMS]
    for row in (4, 2):
        # Rows are drawn on a canvas: 35 pixels each below a header as high.
        reader.page.mouse.click(box["x"] + 250, box["y"] + 35 * (row + 1) + 17)
        reader.wait_for_query("claim", names[row])
        card = reader.page.locator(f".st-key-{css(f'verdict.{names[row]}')}")
        expect(card).to_be_visible(timeout=LONG)
    assert reader.exceptions() == []


def test_break_it_and_take_me_there(reader: Reader) -> None:
    reader.open("claims", claim="section_4_2_shortest")
    text, table = reader.text, Table((2, 1, 1), (1, 2, 1))
    reader.page.get_by_role("button", name=text("page.claims.break"), exact=True).click()
    expect(reader.page.get_by_text(text("page.claims.broken"), exact=True)).to_be_visible(timeout=LONG)
    shown = (
        reader.page.locator('[data-testid="stMarkdownContainer"] table')
        .first.locator("tbody tr")
        .evaluate_all("rows => rows.map(r => [...r.cells].slice(1).map(c => Number(c.textContent)))")
    )
    assert shown == [list(p) for p in table.policies]
    reader.page.get_by_role("button", name=text("page.claims.take_me"), exact=True).click()
    reader.wait_for_query("source", "custom")
    assert reader.query()["claim"] == "section_4_2_shortest"
    reader.page.locator('[data-testid="stMain"] [data-testid="stPageLink"]').first.click()
    reader.page.wait_for_url("**/policies**", timeout=LONG)
    reader.wait()
    assert reader.title() == text("page.policies.title")
    assert reader.query()["source"] == "custom"


def test_a_statement_of_one_s_own_is_typed_and_tested(night_reader: Reader) -> None:
    reader, statement = night_reader, "KL(π_t‖π_θ) ≥ 2·TV(π_t, π_θ)²"
    reader.open("claims", lang="zh")
    text = catalogue("zh")
    reader.page.get_by_role("tab", name=text("page.claims.own")).click()
    field = reader.page.locator(f".st-key-{css('w.view.own')} input")
    field.fill(statement)
    field.press("Enter")
    reader.wait_for_query("own", statement)
    rows = real_rows()
    verdict = claim_of(statement).check(PolicyBatch.from_logits(rows.theta[0], rows.target[0]))
    card = reader.page.locator(f".st-key-{css('verdict.own')}")
    for side in ("left", "right"):
        expect(card).to_contain_text(number(verdict.numbers[side]), timeout=LONG)
    expect(card).to_contain_text(text(f"claim.{verdict.outcome}"))
    field.fill("KL(π_t")
    field.press("Enter")
    expect(reader.page.locator('[data-testid="stAlert"]')).to_be_visible(timeout=LONG)
    fits(reader)
    assert reader.exceptions() == []


def test_the_glossary_finds_and_leads_on(reader: Reader) -> None:
    reader.open("glossary", alpha="0.25")
    text = reader.text
    assert reader.title() == text("page.glossary.title")
    fits(reader)
    field = reader.page.locator(f".st-key-{css('w.view.glossary')} input")
    field.fill("信噪比")
    field.press("Enter")
    expect(reader.page.get_by_text(text("glossary.delta.name"), exact=True)).to_have_count(0, timeout=LONG)
    expect(reader.page.get_by_text(text("glossary.snr.name"), exact=True)).to_be_visible()
    link = reader.page.locator('[data-testid="stMain"] [data-testid="stPageLink"]').first
    link.click()
    reader.page.wait_for_url("**/choosing**", timeout=LONG)
    reader.wait()
    assert reader.title() == text("page.choosing.title")
    assert reader.query()["alpha"] == "0.25"
