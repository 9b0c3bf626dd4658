"""The Claims page: verdicts are the engine's, filters filter, Break it breaks, and Take me there takes one there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from apptest import address, assert_readable, go, has, open_app, run, scenario, shown, words
from streamlit.testing.v1 import AppTest

from geomix_app import compute
from geomix_app.catalogue import LANGUAGES, catalogue
from geomix_app.scenario import CUSTOM, Scenario, TableRow, of_table
from geomix_app.shell import plain, written
from geomix_app.views import breaking, claims, own_claim
from geomix_core.claims import CLAIMS, Outcome, SearchStatus, Setting, Table, Verdict, find_counterexample
from geomix_core.claims.ledger import GROUPS, ledger
from geomix_core.claims.own import claim_of
from geomix_core.claims.quantities import QUANTITIES
from geomix_core.progress import WEIGHTS

SCENARIOS = {
    "language model": Scenario(),
    "another prompt, other weight": Scenario(row=5, weights="inverse", alpha=0.2),
    "independent reference": Scenario(row=2, reference="flattened"),
    "two tokens": Scenario(source="two_tokens"),
    "three tokens": Scenario(source="three_tokens", alpha=1.0),
    "large vocabulary": Scenario(source="gaussian", parameters=(("vocabulary", 50_257.0),), weights="inverse"),
    "cut target": Scenario(source="top_k"),
    "cut and smoothed": Scenario(source="top_k", epsilon=1e-3, reference="uniform"),
    "near-identical": Scenario(source="near_identical", weights="inverse"),
    "disjoint": Scenario(
        source=CUSTOM, table=(TableRow("A", 1.0, 0.0), TableRow("B", 0.0, 1.0)), weights="importance", alpha=0.0
    ),
}


def of(found: Scenario) -> Setting:
    return Setting(weights=found.weights, alpha=found.alpha)  # type: ignore[arg-type]


def opened(**query: str) -> AppTest:
    return open_app("claims", **query)


def show(at: AppTest, wanted: Scenario) -> AppTest:
    at.session_state["scenario"] = wanted
    return run(at)


def table(at: AppTest) -> Any:
    return at.dataframe[0].value


def text_of(at: AppTest) -> str:
    return "\n".join(shown(at))


# --- the ledger --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> AppTest:
    return opened()


@pytest.mark.parametrize("name", SCENARIOS)
def test_verdicts_are_the_engine_s(name: str, page: AppTest) -> None:
    at = show(page, SCENARIOS[name])
    row = compute.row(SCENARIOS[name], None)
    verdicts = {n: c.check(row.batch, of(SCENARIOS[name])) for n, c in CLAIMS.items()}
    frame, text = table(at), words(at)
    assert len(frame) == len(CLAIMS) == 33
    for (n, verdict), (_, line) in zip(verdicts.items(), frame.iterrows(), strict=True):
        assert line["says"] == text.plain(f"claim.{n}.says")
        assert list(line["here"]) == [text(f"page.claims.here_{verdict.outcome}")], n
    counts = {str(o): str([v.outcome for v in verdicts.values()].count(o)) for o in Outcome}
    assert at.markdown[0].value == text("page.claims.answer", count="33", **counts)
    assert_readable(at)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_shares_are_the_census_s(weights: str) -> None:
    frame = table(opened(weights=weights))
    for (_, line), name in zip(frame.iterrows(), CLAIMS, strict=True):
        total = ledger().of(name, weights).total  # type: ignore[arg-type]
        assert line["share"] == pytest.approx(None if total.rate is None else 100 * total.rate, nan_ok=True) or (
            total.rate is None and line["share"] != line["share"]
        )


@pytest.mark.parametrize("how", claims.FILTERS)
def test_filters_keep_what_they_say(how: str) -> None:
    at = opened()
    run(at.button_group(key="w.view.claims_filter").set_value(how))
    verdicts = compute.verdicts(Setting(), compute.row(Scenario(), None))
    kept = [
        n
        for n, v in verdicts.items()
        if how == "all" or v.outcome == how or (how == "depends" and ledger().of(n, "importance").total.depends)
    ]
    assert 0 < len(kept) <= len(CLAIMS)
    assert (len(kept) < len(CLAIMS)) == (how != "all")
    assert list(table(at)["says"]) == [words(at).plain(f"claim.{n}.says") for n in kept]


def test_parts_share_the_claims_out() -> None:
    at = opened()
    seen: list[str] = []
    for part in at.selectbox(key="w.view.claims_part").options[1:]:
        run(at.selectbox(key="w.view.claims_part").select(part))
        where = list(table(at)["where"])
        assert all(f"§{part[0]}." in w for w in where), (part, where)
        seen += list(table(at)["says"])
    assert sorted(seen) == sorted(words(at).plain(f"claim.{n}.says") for n in CLAIMS)


def test_nothing_of_a_kind_is_said() -> None:
    at = opened(source="two_tokens")
    run(at.button_group(key="w.view.claims_filter").set_value("fails"))
    run(at.selectbox(key="w.view.claims_part").set_value("3"))
    if not at.dataframe:
        assert words(at)("page.claims.none") in [i.value for i in at.info]
    else:
        assert len(table(at)) > 0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_opens_by_its_link(name: str, language: str, pages: dict[str, AppTest]) -> None:
    at = pages.setdefault(language, opened(lang=language, claim=name))
    at.session_state["view.claim"] = name
    run(at)
    assert address(at)["claim"] == name
    text, seen = words(at), text_of(at)
    verdict = compute.verdict(name, Setting(), compute.row(Scenario(), None))
    assert text(f"claim.{name}.says") in seen
    if verdict.outcome is Outcome.DOES_NOT_APPLY:
        assert text(f"claim.reason.{verdict.reason}") in seen
    else:
        assert text(f"claim.{name}.{verdict.outcome}", **written(verdict)) in seen
    record = ledger().of(name, "importance")
    if record.counterexample is not None:
        assert breaking.as_markdown(record.counterexample) in seen
        known = CLAIMS[name].check(record.counterexample.batch, record.setting)
        assert text(f"claim.{name}.fails", **written(known)) in seen
        assert has(at, "button", f"b.there.{name}")
    elif CLAIMS[name].measure is not None:
        assert text("page.claims.standing_about", tried=f"{record.tried:,}") in seen
    assert has(at, "button", f"b.break.{name}") == (CLAIMS[name].measure is not None)
    assert_readable(at)


@pytest.fixture(scope="module")
def pages() -> dict[str, AppTest]:
    return {}


def test_a_link_to_no_claim_says_so_and_opens_another() -> None:
    at = opened(claim="theorem_9](x)")
    assert [w.value for w in at.warning] == [words(at)("page.claims.unknown", name=plain("theorem_9](x)"))]
    assert len(table(at)) == 33


def test_the_first_claim_that_fails_is_open() -> None:
    at = opened()
    failing = [n for n, v in compute.verdicts(Setting(), compute.row(Scenario(), None)).items() if v.outcome == "fails"]
    assert has(at, "button", f"b.break.{failing[0]}")
    assert "claim" not in address(at)


# --- the way to a counterexample ---------------------------------------------------------------------------------

CASES = [pytest.param(n, w, id=f"{n}-{w}") for (n, w), r in ledger().records.items() if r.counterexample]


@pytest.mark.parametrize(("name", "weights"), CASES)
def test_the_scenario_of_a_counterexample_fails_the_claim(name: str, weights: str) -> None:
    record = ledger().records[name, weights]
    assert record.counterexample is not None
    there = of_table(
        Scenario(row=3, epsilon=0.1, alpha=0.9, weights="inverse"), record.counterexample, alpha=0.5, weights=weights
    )
    assert compute.verdict(name, of(there), compute.row(there, None)).outcome is Outcome.FAILS
    assert (there.row, there.epsilon, there.source) == (0, 0.0, CUSTOM)


@pytest.mark.parametrize("name", ["section_4_2_shortest", "theorem_2_step", "section_5_4_alpha"])
def test_take_me_there_shows_it_on_every_page(name: str) -> None:
    at = opened(claim=name, weights="inverse", alpha="0.9", row="4", epsilon="0.01")
    record = ledger().of(name, "inverse")
    assert record.counterexample is not None
    run(at.button(key=f"b.there.{name}").click())
    found = scenario(at)
    assert found.source == CUSTOM
    columns = [[r.theta for r in found.table], [r.target for r in found.table]]
    columns += [[r.reference for r in found.table]] if record.counterexample.reference else []
    assert columns == [list(p) for p in record.counterexample.policies]
    assert found.weights == "inverse"
    assert found.alpha == (0.5 if "alpha" in CLAIMS[name].uses else 0.9)
    assert found.epsilon == 0
    assert not has(at, "button", f"b.there.{name}")
    assert words(at)("page.claims.there") in text_of(at)
    claim = {n: list(line["here"]) for n, (_, line) in zip(CLAIMS, table(at).iterrows(), strict=True)}
    assert claim[name] == [words(at)("page.claims.here_fails")]
    for other in ("policies", "choosing", "progress"):
        go(at, other)
        assert scenario(at) == found
    # The link carries it too, its reference with it.
    query = address(at)
    assert scenario(open_app("policies", **query)) == found


# --- Break it ----------------------------------------------------------------------------------------------------


def finished(at: AppTest) -> AppTest:
    """The page after its search has ended."""
    at.session_state["search"].wait(600)
    return run(at)


def test_break_it_shows_what_the_search_finds() -> None:
    at = opened(claim="section_4_2_shortest")
    run(at.button(key="b.break.section_4_2_shortest").click())
    at = finished(at)
    found = find_counterexample("section_4_2_shortest", seconds=600)
    assert found.counterexample is not None
    assert found.verdict is not None
    text, seen = words(at), text_of(at)
    assert f"**{text('page.claims.broken')}** ({text('page.claims.tried', tried=f'{found.tried:,}')})" in seen
    assert breaking.as_markdown(found.counterexample) in seen
    assert text("claim.section_4_2_shortest.fails", **written(found.verdict)) in seen
    assert at.button(key="b.break.section_4_2_shortest").label == text("page.claims.break_again")


def test_a_running_search_has_a_stop_button_and_leaves_the_page_in_use() -> None:
    at = opened(claim="theorem_4_identity")
    run(at.button(key="b.break.theorem_4_identity").click())
    search = at.session_state["search"]
    assert search.running
    assert not has(at, "button", "b.break.theorem_4_identity")
    run(at.button_group(key="w.view.claims_filter").set_value("fails"))
    assert search.running
    run(at.button(key="b.stop_search").click())
    at = finished(at)
    result = search.result
    assert result.status is SearchStatus.STOPPED
    assert f"{result.tried:,}" in at.info[0].value
    assert not has(at, "button", "b.stop_search")


def test_another_search_stops_the_one_before() -> None:
    at = opened(claim="theorem_4_identity")
    run(at.button(key="b.break.theorem_4_identity").click())
    first = at.session_state["search"]
    at.session_state["view.claim"] = "section_4_2_shortest"
    run(run(at).button(key="b.break.section_4_2_shortest").click())
    first.wait(600)
    assert first.result.status is SearchStatus.STOPPED
    assert at.session_state["search"] is not first


def test_a_claim_that_stands_is_not_said_to_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomix_app.searches.Search.__init__.__defaults__", (0.3,))
    at = opened(claim="theorem_4_identity", lang="zh")
    run(at.button(key="b.break.theorem_4_identity").click())
    at = finished(at)
    result = at.session_state["search"].result
    assert result.status is SearchStatus.SURVIVED
    assert f"{result.tried:,}" in at.info[0].value
    assert "不是证明" in at.info[0].value


def test_everything_that_the_page_may_say_has_words() -> None:
    for language in LANGUAGES:
        text = catalogue(language)
        assert all(text(f"page.claims.group_{group}") for group in (*GROUPS, "all", "assumed"))
        assert all(text(f"page.claims.filter_{how}") for how in claims.FILTERS)
        assert all(text(f"page.claims.here_{outcome}") for outcome in Outcome)
        for status in set(SearchStatus) - {SearchStatus.FOUND}:
            assert text(f"page.claims.search_{status}", tried="7", seconds="1")
        for stage in ("structured", "random", "mutation", "shrinking"):
            assert text(f"page.claims.stage_{stage}")
        for changes in ("alpha", "weights", "alpha_weights"):
            assert text(f"page.claims.at_{changes}", alpha="0.5", weights="w")


# --- one's own ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", range(len(own_claim.EXAMPLES)))
def test_examples_are_tested_on_the_policies(example: int) -> None:
    at = opened()
    run(at.button(key=f"b.example.{example}").click())
    statement = own_claim.EXAMPLES[example]
    assert at.text_input[0].value == statement
    assert address(at)["own"] == statement
    verdict = claim_of(statement).check(compute.row(Scenario(), None).batch)
    assert verdict.outcome is not Outcome.DOES_NOT_APPLY
    text, seen = words(at), text_of(at)
    assert plain(statement) in seen
    assert text("page.claims.own_sides", **own_claim.sides(verdict)) in seen
    assert text(f"claim.{verdict.outcome}") in seen
    assert not at.error


def test_a_statement_is_broken_and_shown() -> None:
    statement = "KL(π_t‖π_θ) = KL(π_θ‖π_t)"
    at = opened(own=statement)
    run(at.button(key=f"b.break.{statement}").click())
    at = finished(at)
    assert breaking.as_markdown(Table((1, 1), (2, 1))) in text_of(at)
    run(at.button(key=f"b.there.{statement}").click())
    assert [(r.theta, r.target) for r in scenario(at).table] == [(1, 2), (1, 1)]
    assert words(at)("claim.fails") in text_of(at)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_cannot_be_read_is_told_with_its_place(language: str) -> None:
    at = opened(own="KL(π_t‖π_θ) ≥ <script>", lang=language)
    (error,) = at.error
    assert "15" in error.value
    assert "\\<" in error.value
    assert any(c.value.splitlines()[1] == " " * 14 + "^" for c in at.code)


def test_markup_in_a_statement_stays_text() -> None:
    at = opened(own="[x](javascript:alert(1)) $a$ `b` = 1")
    (error,) = at.error
    assert not any(mark in error.value.replace("\\", "\0") for mark in ("](", "$a$"))


def test_both_sides_have_the_digits_that_tell_them_apart() -> None:
    def sides(left: float, right: float) -> dict[str, str]:
        return own_claim.sides(Verdict("own", Outcome.FAILS, numbers={"left": left, "right": right}))

    assert sides(0.5, 0.25) == {"left": "0.500", "right": "0.250"}
    assert sides(0.0145101, 0.0145102) == {"left": "0.0145101", "right": "0.0145102"}
    assert sides(1.0, 1.0) == {"left": "1.00", "right": "1.00"}
    assert sides(1.0, 1.0 + 1e-15)["left"] == "1.00000000000"


@pytest.mark.parametrize("name", [n for n, q in QUANTITIES.items() if not q.is_function])
def test_what_the_page_says_one_can_type_can_be_typed(name: str, page: AppTest) -> None:
    quantity = QUANTITIES[name]
    written_ = own_claim.typed(quantity).replace("(p", "(theta").replace(", q)", ", target)").replace(", eta)", ", 1)")
    written_ = written_.replace("(a", "(0.5")
    claim_of(f"entropy({written_}) = 1" if quantity.gives == "policy" else f"{written_} = 1")
    assert own_claim.typed(quantity) in text_of(page)


def test_a_table_of_the_link_may_bring_its_reference() -> None:
    brought = replace(Scenario(), source=CUSTOM, table=(TableRow("A", 2, 1, 1), TableRow("B", 1, 1, 2)))
    batch = compute.row(brought, None).batch
    assert batch.reference is not None
    assert batch.reference.exp().tolist() == [[pytest.approx(1 / 3), pytest.approx(2 / 3)]]
