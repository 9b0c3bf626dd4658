"""Every Explore page under AppTest: what it shows is the core's, for every scenario; controls, links, languages."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from apptest import (
    EXPLORE,
    PAGES,
    address,
    assert_readable,
    choices,
    explorer,
    figures,
    go,
    labelled,
    move,
    open_app,
    points,
    run,
    scenario,
    sentences,
    shown,
    told,
    values,
    words,
)
from streamlit.testing.v1 import AppTest
from test_explorer import progress_of

from geomix_app import compute, state
from geomix_app.catalogue import catalogue
from geomix_app.glossary import ENTRIES
from geomix_app.notation import SYMBOLS, markdown, number, parameter, percent, runs
from geomix_app.scenario import CUSTOM, DEFAULT_TABLE, MAX_TABLE_ROWS, Reshape, Scenario, TableRow, to_query
from geomix_app.shell import written
from geomix_core import exact_progress, solve_alpha
from geomix_core.claims import CLAIMS, Claim, Outcome, Setting
from geomix_core.claims.conditions import COVERED
from geomix_core.criteria import chernoff_information
from geomix_core.geodesics import path_lengths
from geomix_core.policies import PolicyBatch
from geomix_core.progress import WEIGHTS, Weights
from geomix_core.scenarios import FAMILIES, REFERENCES, real_rows, reference_policy, synthetic
from geomix_core.summary import family_point, learning_point, pair_summary, top_tokens
from geomix_core.transforms import top_k

THREE = {"source": "three_tokens"}
DISJOINT = {"source": CUSTOM, "table": '[["a",1,0],["b",0,1]]', "kind": "probs"}
IDENTICAL = {"source": CUSTOM, "table": '[["a",0.2,0.2],["b",0.3,0.3],["c",0.5,0.5]]', "kind": "probs"}


def bundled(row: int = 0) -> PolicyBatch:
    return PolicyBatch.from_logits(real_rows().theta[row], real_rows().target[row])


def alpha_kl(batch: PolicyBatch) -> float:
    return float(solve_alpha(batch, "kl_symmetry").alpha[0])


def answer(at: AppTest) -> str:
    """The page's answer: the first text below its title."""
    return str(at.main.markdown[0].value)


def metrics(at: AppTest, page: str) -> dict[str, str]:
    """The labelled numbers of a page by the last part of their label's key."""
    prefix = f"page.{page}."
    names = {words(at)(f"{prefix}{k}"): k for k in METRICS[page]}
    return {names[m.label]: m.value for m in at.metric}


def marks(at: AppTest) -> dict[str, float]:
    """What is marked on the α track."""
    return {m["symbol"]: m["alpha"] for m in explorer(at)[0]["marks"]}


METRICS = {
    "policies": ("kl_target_theta", "kl_theta_target", "chi", "tv", "entropy_theta", "entropy_target", "overlap"),
}


# --- every page, every scenario ----------------------------------------------------------------------------------

SCENARIOS: dict[str, dict[str, str]] = {
    "default": {},
    "last bundled row": {"row": "7"},
    **{name: {"source": name} for name in FAMILIES},
    "V = 152 000": {"source": "zipf", "vocabulary": "152000"},
    **{f"reference {r}": {"source": "gaussian", "reference": r} for r in REFERENCES},
    "inverse weights": {"source": "gaussian", "weights": "inverse"},
    "inverse weights, uniform reference, peaked": {"source": "peaked", "weights": "inverse", "reference": "uniform"},
    "barely different": {"source": "near_identical", "sigma": "1e-06"},
    "barely different, two tokens": {"source": "near_identical", "sigma": "1e-06", "vocabulary": "2"},
    "one-hot": {"source": "peaked", "top_mass": "0.999999"},
    "one token kept": {"source": "top_k", "keep": "1"},
    "both cut": {"theta_top_k": "5", "target_top_p": "0.9"},
    "both cut to one": {"theta_top_k": "1", "target_top_k": "1"},
    "smoothed": {"source": "top_k", "epsilon": "0.001"},
    "all smoothed away": {"epsilon": "1"},
    "identical": IDENTICAL,
    "disjoint": DISJOINT,
    "one token": {"source": CUSTOM, "table": '[["a",1,1]]', "kind": "probs"},
    "one-hot logits": {"source": CUSTOM, "table": '[["a",800,1],["b",-100000,0]]', "kind": "logits"},
    "weights of any size": {"source": CUSTOM, "table": '[["a",1e308,1e-308],["b",1e308,2e-308]]', "kind": "probs"},
    "alpha 0, small step": {"alpha": "0", "eta": "1e-6"},
    "alpha 1, no step": {"alpha": "1", "eta": "0"},
    "large step": {**THREE, "eta": "1000"},
    "no such row": {"row": "1000000"},
    "hot": {"theta_temperature": "20"},
    "link to a file": {"source": "upload", "row": "3"},
    "not a number in a link": {"source": CUSTOM, "table": '[["a",NaN,1],["b",1,1]]', "kind": "logits"},
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_page_runs_and_reads_well(name: str) -> None:
    at = open_app(PAGES[0], **SCENARIOS[name])
    for page in PAGES:
        if page != PAGES[0]:
            go(at, page)
        assert [s.value for s in at.subheader] == [words(at)(f"page.{page}.title")]
        assert_readable(at)
        for key, figure in figures(at).items():
            assert 0 < points(figure) <= 2000, key


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_by_its_link_in_chinese(page: str) -> None:
    at = open_app(page, lang="zh")
    assert [s.value for s in at.subheader] == [catalogue("zh")(f"page.{page}.title")]
    assert_readable(at)
    chinese = [t for t in shown(at) if re.search("[\u4e00-\u9fff]", t)]
    assert len(chinese) > 10
    # English sentences would be left-overs; the bundled prompts are data.
    prompts = tuple(p.prompt for p in real_rows().prompts)
    prefixes = tuple(p.response_prefix for p in real_rows().prompts)
    english = [t for t in shown(at) if re.search("[a-z]{3,} [a-z]{3,} [a-z]{3,}", t)]
    if page == "glossary":  # names its entries in both languages
        names = [catalogue("en")(f"glossary.{entry.name}.name") for entry in ENTRIES]
        english = [t for t in english if not any(t.endswith(f":gray[{name}]") for name in names)]
    assert [t for t in english if not any(s and s in t for s in (*prompts, *prefixes))] == []


def test_policies_open_on_a_meaningful_figure() -> None:
    at = open_app()
    assert scenario(at) == Scenario()
    assert set(figures(at)) == {"ratio"}
    batch = bundled()
    header, arrays = explorer(at)
    assert header["panels"] == ["pair"]
    assert not header["parts"]["track"]
    np.testing.assert_allclose(arrays["tokens.theta"], batch.theta[0][top_tokens(batch, 14).tolist()], rtol=1e-12)
    p = pair_summary(batch)
    sentence = words(at)("page.policies.answer", kl=number(p.kl_target_theta), tv=percent(p.total_variation))
    assert answer(at) == sentence
    assert p.kl_target_theta > 0.01
    assert not at.warning
    assert not at.error


@pytest.mark.parametrize("page", EXPLORE)
@pytest.mark.parametrize("reference", REFERENCES)
def test_cut_target_has_no_answer_that_needs_coverage(page: str, reference: str) -> None:
    at = open_app(page, source="top_k", reference=reference)
    text = words(at)
    lost = 1 - float(synthetic("top_k").support.theta_mass[0])
    assert lost > 0.01
    notice = text("notice.uncovered", mass=percent(lost, 3))
    # The distance along the family needs no coverage; the reward does.
    assert [w.value for w in at.warning] == ([] if page == "geodesic" else [notice])
    assert not at.error
    if page != "progress":
        # What is drawn says nothing of what is undefined.
        header, _ = explorer(at)
        assert not {"snr", "worst", "progress", "slice"} & {*header["panels"], *header["curves"]}
        assert header["progress"] is None
    if page == "choosing":
        # Truncation took the tokens that would balance it, so KL symmetry has no answer either.
        status = solve_alpha(synthetic("top_k"), "kl_symmetry").status[0]
        assert status == "no_interior_root"
        assert answer(at) == text("page.choosing.answer_none", status=text(f"status.{status}"))
    if page == "progress":
        assert not figures(at)


def test_smoothing_button_gives_every_page_its_answer() -> None:
    at = open_app("progress", source="top_k")
    assert not figures(at)
    run(at.button(key="b.smooth").click())
    assert scenario(at).epsilon == 0.001
    assert not at.warning
    assert set(figures(at)) == {"map", "error"}
    assert explorer(at)[0]["panels"] == ["progress", "slice"]
    assert at.select_slider(key="w.epsilon").value == 0.001


@pytest.mark.parametrize("page", ["geodesic", "choosing", "progress"])
def test_disjoint_policies_are_explained(page: str) -> None:
    at = open_app(page, **DISJOINT)
    assert [w.value for w in at.warning] == [words(at)("notice.disjoint")]
    assert not figures(at)
    assert not at.get("bidi_component")
    run(at.button(key="b.smooth").click())
    assert figures(at)
    assert explorer(at)[0]["notes"] == {}


def test_disjoint_policies_are_shown_with_their_infinite_distance() -> None:
    at = open_app(**DISJOINT)
    found = metrics(at, "policies")
    assert (found["kl_target_theta"], found["chi"], found["overlap"]) == ("∞", "∞", "0")
    assert not figures(at)
    _, arrays = explorer(at)
    np.testing.assert_array_equal(np.exp(arrays["tokens.theta"]), [1, 0])


def test_identical_policies_are_explained() -> None:
    at = open_app("choosing", **IDENTICAL)
    text = words(at)
    assert text("status.identical") in " ".join(shown(at))
    assert answer(go(at, "progress")) == text("page.progress.answer_zero")
    assert metrics(go(at, "policies"), "policies")["kl_target_theta"] == "0"


@pytest.mark.parametrize("page", ["choosing"])
def test_two_tokens_have_a_flat_snr(page: str) -> None:
    at = open_app(page, source="two_tokens")
    batch = synthetic("two_tokens")
    assert answer(at) == words(at)(
        "page.choosing.answer_kl_only",
        alpha_kl=parameter(alpha_kl(batch)),
        chernoff=number(float(chernoff_information(batch)[0])),
        status=words(at)("status.flat"),
    )
    header, arrays = explorer(at)
    np.testing.assert_allclose(arrays["curves.snr"], pair_summary(batch).snr_ceiling, rtol=1e-9)
    assert sentences(at, "snr") == [catalogue("en").html("status.flat")]
    assert "alpha_snr" not in marks(at)
    assert header["scalars"]["snr_best"] == pytest.approx(pair_summary(batch).snr_ceiling)


@pytest.mark.parametrize("page", ["choosing", "progress"])
def test_current_policy_of_one_token_cannot_learn_and_promises_nothing(page: str) -> None:
    # No update moves a policy that has one token: whatever is said of steps and gains, it is no astronomical number.
    at = open_app(page, theta_top_k="1")
    assert_readable(at)
    assert [t for t in shown(at) if re.search("×10[¹²³⁴⁵⁶⁷⁸⁹][⁰¹²³⁴⁵⁶⁷⁸⁹]", t)] == []


# --- links -------------------------------------------------------------------------------------------------------

LINK = {
    "source": "gaussian",
    "vocabulary": "100",
    "spread": "1.5",
    "distance": "0.25",
    "seed": "7",
    "reference": "flattened",
    "weights": "inverse",
    "alpha": "0.1234",
    "eta": "0.05",
    "theta_temperature": "0.9",
    "target_top_k": "90",
    "epsilon": "0.001",
}


@pytest.mark.parametrize("page", PAGES)
def test_link_restores_everything_on_every_page(page: str) -> None:
    at = open_app(page, lang="zh", **LINK)
    assert not at.warning
    found = scenario(at)
    assert replace(found, parameters=()) == Scenario(
        source="gaussian",
        reference="flattened",
        weights="inverse",
        alpha=0.1234,
        eta=0.05,
        theta=Reshape(temperature=0.9),
        target=Reshape(top_k=90),
        epsilon=0.001,
    )
    assert dict(found.parameters) == {"vocabulary": 100, "spread": 1.5, "distance": 0.25, "seed": 7}
    assert address(at) == {**LINK, "lang": "zh"}
    # What the controls show is what the scenario says.
    assert at.selectbox(key="w.source").value == "gaussian"
    assert at.selectbox(key="w.reference").value == "flattened"
    assert at.button_group(key="w.weights").value == "inverse"
    assert at.select_slider(key="w.gaussian.parameters.vocabulary").value == 100
    assert at.number_input(key="w.gaussian.parameters.seed").value == 7
    assert at.slider(key="w.theta.temperature").value == 0.9
    assert at.number_input(key="w.target.top_k").value == 90
    if at.get("bidi_component"):
        header, _ = explorer(at)
        assert (header["alpha"], header["eta"]) == (0.1234, 0.05)


def test_link_without_settings_is_the_default() -> None:
    assert address(open_app()) == {"lang": "en"}


@pytest.mark.parametrize("page", PAGES)
def test_bad_settings_of_a_link_are_named_once(page: str) -> None:
    bad = {"alpha": "nan", "eta": "-1", "weights": "x", "source": "nowhere", "theta_top_k": "1.5"}
    at = open_app(page, epsilon="0.01", **bad)
    assert len(at.warning) == 1
    said = at.warning[0].value.replace("\\", "")
    head = words(at)("app.link_problems", names="|").split("|")[0]
    assert said.startswith(head)
    assert {name for name in bad if name in said} == set(bad)
    assert "epsilon" not in said
    assert scenario(at) == Scenario(epsilon=0.01)
    assert address(at) == {"epsilon": "0.01", "lang": "en"}
    run(at)
    assert not at.warning


@pytest.mark.parametrize("table", ["[" * 100_000, '[["a",1' + "0" * 400 + ",1]]", "nonsense", "[]"])
def test_bad_table_in_a_link_is_named(table: str) -> None:
    at = open_app(source=CUSTOM, table=table, kind="probs")
    assert len(at.warning) == 1
    assert "table" in at.warning[0].value
    assert scenario(at).table == DEFAULT_TABLE


EDGES = {
    "temperature": {"theta_temperature": "0.05", "target_temperature": "4"},
    "temperature above the slider's": {"target_temperature": "20"},
    "top-k": {"theta_top_k": "1", "target_top_k": "1000000000"},
    "top-p": {"theta_top_p": "0.01", "target_top_p": "1"},
    "row": {"row": "1000000000"},
    "alpha": {"alpha": "1e-9"},
    "eta": {"eta": "1e-300"},
    "odd values": {"alpha": "0.123456789", "eta": "0.777777", "epsilon": "0.0123"},
    **{
        f"{family.name}, {end}": {
            "source": family.name,
            # The largest vocabulary is a matter of patience, not of the pages.
            **{p.name: f"{getattr(p, end):.10g}" for p in family.parameters if (p.name, end) != ("vocabulary", "high")},
        }
        for family in FAMILIES.values()
        for end in ("low", "high")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_values_at_the_ends_of_their_ranges_open(name: str) -> None:
    at = open_app("choosing", **EDGES[name])
    assert_readable(at)


def test_row_beyond_the_last_is_the_last_in_words_and_numbers() -> None:
    at = open_app("policies", row="1000000")
    assert metrics(at, "policies")["kl_target_theta"] == number(pair_summary(bundled(7)).kl_target_theta)
    picker = next(s for s in at.selectbox if s.key == "w.row")
    assert picker.proto.raw_value.startswith("8 · ")
    assert address(at)["row"] == "7"


# --- moving about ------------------------------------------------------------------------------------------------


def test_language_changes_the_words_and_nothing_else() -> None:
    at = open_app("geodesic", **THREE, alpha="0.25")
    before, key = scenario(at), explorer(at)[0]["curves"]
    run(at.button_group(key="w.language").set_value("zh"))
    assert [s.value for s in at.subheader] == [catalogue("zh")("page.geodesic.title")]
    assert scenario(at) == before
    assert address(at)["lang"] == "zh"
    header, _ = explorer(at)
    assert (header["curves"], header["alpha"], header["language"]) == (key, 0.25, "zh")
    run(at.button_group(key="w.language").set_value("en"))
    assert [s.value for s in at.subheader] == [catalogue("en")("page.geodesic.title")]
    assert scenario(at) == before


def test_pages_share_the_scenario() -> None:
    at = open_app("geodesic", **THREE)
    move(at, alpha=0.25)
    for page in ("choosing", "policies", "validate", "progress", "geodesic"):
        go(at, page)
        assert scenario(at) == Scenario(source="three_tokens", alpha=0.25)
        assert address(at) == {"source": "three_tokens", "alpha": "0.25", "lang": "en"}
        if at.get("bidi_component"):
            assert explorer(at)[0]["alpha"] == 0.25


def test_changing_the_source_keeps_alpha_and_forgets_the_parameters() -> None:
    at = open_app("choosing", source="gaussian", seed="5", alpha="0.25", reference="uniform")
    run(at.selectbox(key="w.source").set_value("dirichlet"))
    assert scenario(at) == Scenario(source="dirichlet", alpha=0.25, reference="uniform")
    assert at.number_input(key="w.dirichlet.parameters.seed").value == 0
    run(at.number_input(key="w.dirichlet.parameters.seed").set_value(3.0))
    assert dict(scenario(at).parameters) == {"seed": 3}
    assert address(at) == {"source": "dirichlet", "seed": "3", "alpha": "0.25", "reference": "uniform", "lang": "en"}
    batch = PolicyBatch(
        synthetic("dirichlet", seed=3).theta,
        synthetic("dirichlet", seed=3).target,
    )
    assert parameter(alpha_kl(batch)) in answer(at)


def test_parameter_moved_and_moved_back_leaves_the_address_as_it_was() -> None:
    at = open_app(source="gaussian")
    slider = "w.gaussian.parameters.spread"
    run(at.slider(key=slider).set_value(3.0))
    assert address(at) == {"source": "gaussian", "spread": "3", "lang": "en"}
    run(at.slider(key=slider).set_value(2.0))
    assert address(at) == {"source": "gaussian", "lang": "en"}


def test_choosing_another_prompt_shows_its_policies() -> None:
    at = open_app("policies")
    run(at.selectbox(key="w.row").set_value(3))
    assert scenario(at) == Scenario(row=3)
    assert metrics(at, "policies")["kl_target_theta"] == number(pair_summary(bundled(3)).kl_target_theta)
    assert real_rows().prompts[3].prompt in [t.value for t in at.text]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_change_snr_and_not_the_policies(weights: str) -> None:
    at = open_app("choosing", **THREE)
    run(at.button_group(key="w.weights").set_value(weights))
    assert scenario(at).weights == weights
    snr = solve_alpha(synthetic("three_tokens"), "snr", weights)  # type: ignore[arg-type]
    assert parameter(float(snr.alpha[0])) in answer(at)
    assert parameter(alpha_kl(synthetic("three_tokens"))) in answer(at)


def test_link_on_screen_is_the_scenario_s(monkeypatch: pytest.MonkeyPatch) -> None:
    at = open_app("choosing", **THREE, alpha="0.25")
    move(at, alpha=0.75)
    assert address(at) == {**to_query(scenario(at)), "lang": "en"}

    def fail(*_: Any) -> None:
        raise AssertionError("st.query_params was written: the browser's Back would undo sliders one by one")

    monkeypatch.setattr(type(state.st.query_params), "__setitem__", fail)
    move(at, alpha=0.5)
    assert "alpha" not in address(at)


# --- policies ----------------------------------------------------------------------------------------------------


def test_policies_page_shows_the_core_s_numbers() -> None:
    at = open_app(**THREE)
    p = pair_summary(synthetic("three_tokens"))
    assert metrics(at, "policies") == {
        "kl_target_theta": number(p.kl_target_theta),
        "kl_theta_target": number(p.kl_theta_target),
        "chi": number(p.chi2),
        "tv": percent(p.total_variation),
        "entropy_theta": number(p.entropy_theta),
        "entropy_target": number(p.entropy_target),
        "overlap": "3",
    }


@pytest.mark.parametrize("policy", ["theta", "target"])
def test_policies_page_draws_the_policies(policy: str) -> None:
    at = open_app(source="gaussian")
    batch = synthetic("gaussian")
    index = top_tokens(batch, 14)
    header, arrays = explorer(at)
    np.testing.assert_allclose(
        arrays[f"tokens.{policy}"], getattr(batch, policy)[0][index.tolist()].numpy(), rtol=1e-12
    )
    assert header["tokens"] == [f"#{i}" for i in index]


def test_policies_page_says_where_they_differ_most() -> None:
    at = open_app(**THREE)
    batch = synthetic("three_tokens")
    theta, target = batch.theta[0].exp(), batch.target[0].exp()
    most = int((theta - target).abs().argmax())
    (sentence,) = sentences(at, "pair")
    said = catalogue("en").plain(
        "explorer.says_pair",
        token="ABC"[most],
        theta=percent(float(theta[most]), 2),
        target=percent(float(target[most]), 2),
    )
    assert sentence == said.replace("_", "")
    p = pair_summary(batch)
    means = words(at)("page.policies.says_ratio", target=number(p.kl_target_theta), theta=number(-p.kl_theta_target))
    assert means in [m.value for m in at.markdown]


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p"])
def test_reshaping_changes_one_policy(name: str) -> None:
    at = open_app(**THREE)
    before = metrics(at, "policies")
    value: float = {"temperature": 2.0, "top_k": 1, "top_p": 0.5}[name]
    kind = at.slider if name == "temperature" else at.number_input
    run(kind(key=f"w.target.{name}").set_value(value))
    after = metrics(at, "policies")
    assert scenario(at).target == replace(Reshape(), **{name: value})
    assert after["entropy_theta"] == before["entropy_theta"]
    assert after["entropy_target"] != before["entropy_target"]


# --- geodesic ----------------------------------------------------------------------------------------------------


def test_geodesic_answers_with_the_middle() -> None:
    at = open_app("geodesic", source="gaussian")
    batch = synthetic("gaussian")
    assert answer(at) == words(at)(
        "page.geodesic.answer",
        alpha_kl=parameter(alpha_kl(batch)),
        chernoff=number(float(chernoff_information(batch)[0])),
    )
    header, _ = explorer(at)
    assert header["panels"] == ["policies", "kls"]
    assert marks(at).keys() == {"0", "½", "1", "alpha_kl"}
    # Nothing that needs the reward is computed here.
    assert header["progress"] is None
    assert "snr" not in header["curves"]


def test_alpha_on_the_geodesic_page_moves_the_plane() -> None:
    at = open_app("geodesic", source="gaussian")
    for alpha in (0.0, 0.25, 0.8):
        move(at, alpha=alpha)
        here = family_point(synthetic("gaussian"), alpha)
        assert labelled(figures(at)["plane"], SYMBOLS["q"].html) == pytest.approx((here.kl_to_theta, here.kl_to_target))
        assert explorer(at)[0]["alpha"] == alpha
        assert address(at).get("alpha", "0.5") == f"{alpha:g}"


def test_sentence_of_the_distances_says_which_policy_is_nearer() -> None:
    at = open_app("geodesic", source="gaussian")
    both, target, theta = explorer(at)[0]["sentences"]["kls"]
    assert "nearer to πt" in told(target["pieces"])
    assert "nearer to πθ" in told(theta["pieces"])
    assert "both policies" in told(both["pieces"])
    # Δ > 0: q is further from π_θ. At α_KL, with the four decimals of a mark, both are as far.
    assert (target["when"]["quantity"], theta["when"]) == ("delta", None)
    assert both["when"]["to"] == target["when"]["from"] > 0
    rounded = round(alpha_kl(synthetic("gaussian")), 4)
    assert abs(family_point(synthetic("gaussian"), rounded).delta) < both["when"]["to"]
    assert {p["quantity"] for p in target["pieces"] if isinstance(p, dict)} == {
        "alpha", "kl_to_theta", "kl_to_target", "hundred",
    }  # fmt: skip


def test_lengths_of_the_paths_are_the_core_s() -> None:
    at = open_app("geodesic", **THREE)
    found = path_lengths(synthetic("three_tokens"))
    lengths = {name: float(getattr(found, name)[0]) for name in ("e_geodesic", "m_geodesic", "fisher_rao")}
    sentence = words(at)(
        "claim.section_4_2_shortest.fails",
        **{name: number(x) for name, x in lengths.items()},
        excess=f"{number(100 * (lengths['e_geodesic'] / lengths['fisher_rao'] - 1))} %",
    )
    assert any(sentence in m.value for m in at.markdown)


# --- claims ------------------------------------------------------------------------------------------------------

ON_PAGE = {
    "geodesic": ("section_4_2_geodesic", "section_4_2_shortest", "section_4_2_pareto"),
    "choosing": ("theorem_4_exists", "theorem_4_unique", "section_5_4_alpha", "section_5_4_snr", "theorem_3_minimax"),
    "progress": ("theorem_1", "theorem_2_step", "theorem_2_gain"),
}


def unrounded(text: str) -> str:
    """Without the digits of numbers that are rounding alone: they differ from run to run."""
    return re.sub("[0-9.]+×10⁻¹[²-⁹]", "0", text)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("query", "batch"),
    [
        ({"source": "gaussian"}, synthetic("gaussian")),
        ({**THREE, "weights": "inverse"}, synthetic("three_tokens")),
        ({"source": "two_tokens"}, synthetic("two_tokens")),
        ({"source": "top_k"}, synthetic("top_k")),
        (IDENTICAL, PolicyBatch.from_probs([0.2, 0.3, 0.5], [0.2, 0.3, 0.5])),
    ],
    ids=lambda given: given["source"] if isinstance(given, dict) else "",
)
@pytest.mark.parametrize("page", ON_PAGE)
def test_verdicts_are_the_core_s(page: str, query: dict[str, str], batch: PolicyBatch, lang: str) -> None:
    at = open_app(page, lang=lang, alpha="0.3", **query)
    text, seen = words(at), [m.value for m in at.markdown]
    setting = Setting(weights="inverse" if "weights" in query else "importance", alpha=0.3)
    # What the notice on uncovered tokens has said already is not said again by each claim.
    told = [name for name in ON_PAGE[page] if batch.covered.all() or COVERED not in CLAIMS[name].needs]
    assert [n for n in ON_PAGE[page] if any(text(f"claim.{n}.says") in value for value in seen)] == told
    for name in told:
        found = CLAIMS[name].check(batch, setting)
        if found.outcome is Outcome.DOES_NOT_APPLY:
            finding = text(f"claim.reason.{found.reason}")
        else:
            finding = text(f"claim.{name}.{found.outcome}", **written(found))
        (card,) = [value for value in seen if text(f"claim.{name}.says") in value]
        assert card.startswith(text("claim.document", where=text(f"claim.{name}.where")))
        assert unrounded(finding) in unrounded(card)
        assert text(f"claim.{found.outcome}") in card


@pytest.mark.parametrize("page", ON_PAGE)
def test_every_verdict_says_how_it_was_found_on_demand(page: str) -> None:
    at = open_app(page, source="gaussian")
    text = words(at)
    folded = [e for e in at.expander if e.label == text("claim.why")]
    assert len(folded) == len(ON_PAGE[page])
    assert not any(e.proto.expanded for e in folded)
    for name, expander in zip(ON_PAGE[page], folded, strict=True):
        inside = [m.value for m in expander.markdown]
        for part in ("test", "needs", "proof"):
            key = f"claim.{name}.{part}"
            assert (key not in text) or any(text(key) in m for m in inside)
        assert (text("claim.no_proof") in inside) == (f"claim.{name}.proof" not in text)


@pytest.mark.parametrize(
    ("page", "again"),
    [("geodesic", {"section_4_2_pareto"}), ("choosing", set()), ("progress", set(ON_PAGE["progress"]))],
)
def test_moving_alpha_decides_again_only_what_depends_on_it(
    page: str, again: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[str] = []
    measure = Claim.on

    def spy(claim: Claim, *args: Any, **kwargs: Any) -> Any:
        decided.append(claim.name)
        return measure(claim, *args, **kwargs)

    monkeypatch.setattr(Claim, "on", spy)
    compute._verdict.clear()
    at = open_app(page, source="gaussian", seed="77", alpha="0.25")
    assert sorted(decided) == sorted(ON_PAGE[page])
    decided.clear()
    move(at, alpha=0.26)
    assert sorted(decided) == sorted(again)
    decided.clear()
    move(at, alpha=0.25)
    assert decided == []


# --- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{}, THREE, {"source": "zipf"}, {"source": "peaked"}], ids=str)
def test_choosing_answers_with_the_solver_s_alphas(query: dict[str, str]) -> None:
    at = open_app("choosing", **query)
    batch = synthetic(query["source"]) if query else bundled()
    kl, snr = alpha_kl(batch), solve_alpha(batch, "snr")
    text = words(at)
    wald = solve_alpha(batch, "wald")
    at_kl = learning_point(batch, kl)
    assert answer(at) == text(
        "page.choosing.answer",
        alpha_kl=parameter(kl),
        chernoff=number(float(chernoff_information(batch)[0])),
        alpha_snr=parameter(float(snr.alpha[0])),
        alpha_wald=parameter(float(wald.alpha[0])),
        weights=text("weights.importance"),
        snr_share=percent(abs(at_kl.signed_snr) / snr.maxima[0][0].value),
        gain_share=percent(at_kl.exact_gain / pair_summary(batch).kl_target_theta),
    )
    header, _ = explorer(at)
    assert header["panels"] == ["delta", "snr", "worst"]
    found = marks(at)
    for symbol, result in (("alpha_snr", snr), ("alpha_wald", wald)):
        assert found[symbol] == pytest.approx(float(result.alpha[0]), abs=1e-4)
    assert found["alpha_kl"] == round(kl, 4)
    assert header["scalars"]["chernoff"] == pytest.approx(float(chernoff_information(batch)[0]))
    assert header["maxima"][0][:2] == pytest.approx([float(snr.alpha[0]), snr.maxima[0][0].value])
    assert parameter(float(snr.alpha[0])) in sentences(at, "snr")[-1]


def test_no_mark_stands_where_there_is_no_answer() -> None:
    for source, answers in (("zipf", {"alpha_kl", "alpha_snr", "alpha_wald"}), ("top_k", set())):
        assert marks(open_app("choosing", source=source)).keys() & SYMBOLS.keys() == answers


def test_solved_on_the_common_support() -> None:
    at = open_app("choosing", theta_top_k="40", target_top_k="40")
    row = bundled()
    batch = PolicyBatch(top_k(row.theta, 40), top_k(row.target, 40))
    kl = solve_alpha(batch, "kl_symmetry")
    assert kl.status[0] == "solved_on_common_support"
    assert answer(at) == words(at)(
        "page.choosing.answer_kl_only",
        alpha_kl=parameter(float(kl.alpha[0])),
        chernoff=number(float(chernoff_information(batch)[0])),
        status=words(at)("status.no_coverage"),
    )
    assert marks(at).keys() == {"0", "½", "1", "alpha_kl"}


def test_table_of_choices_is_the_core_s() -> None:
    at = open_app("choosing", **THREE, alpha="0.3")
    batch, text = synthetic("three_tokens"), words(at)
    snr, wald = solve_alpha(batch, "snr"), solve_alpha(batch, "wald", eta_range=(0.5, 2.0))
    found = choices(at)
    alphas = [alpha_kl(batch), float(snr.alpha[0]), float(wald.alpha[0]), 0.5, 1.0, 0.0]
    names = ["kl_symmetry", "snr", "wald", "half", "on_policy", "off_policy"]
    assert list(found) == [told(runs(text.html(f"explorer.choice_{n}"))) for n in names]  # type: ignore[arg-type]
    ceiling = pair_summary(batch).kl_target_theta
    for alpha, values_ in zip(alphas, found.values(), strict=True):
        here, learning = family_point(batch, alpha), learning_point(batch, alpha)
        assert values_ == pytest.approx(
            {
                "alpha": alpha,
                "kl_to_theta": here.kl_to_theta,
                "kl_to_target": here.kl_to_target,
                "ess": here.ess,
                "snr": learning.signed_snr,
                "snr_share": abs(learning.signed_snr) / snr.maxima[0][0].value,
                "exact_gain": learning.exact_gain,
                "gain_share": learning.exact_gain / ceiling,
            },
            rel=1e-9,
            abs=1e-12,
        )


def test_table_has_no_column_without_a_number() -> None:
    columns = explorer(open_app("choosing", source="top_k"))[0]["choices"]["columns"]
    assert [c["quantity"] for c in columns] == ["alpha", "kl_to_theta", "kl_to_target"]


def test_several_maxima_and_a_negative_signal_are_told() -> None:
    row = synthetic("three_tokens", seed=9)
    batch = PolicyBatch(row.theta, row.target, reference_policy(row.theta, "uniform"))
    maxima = solve_alpha(batch, "snr", "inverse").maxima[0]
    assert len(maxima) > 1
    assert maxima[0].sign < 0
    at = open_app("choosing", **THREE, seed="9", reference="uniform", weights="inverse")
    alphas = ", ".join(parameter(m.alpha) for m in maxima)
    assert [i.value for i in at.info] == [words(at)("page.choosing.maxima", count=str(len(maxima)), alphas=alphas)]
    assert [w.value for w in at.warning] == [words(at)("page.choosing.negative")]
    header, _ = explorer(at)
    assert header["maxima"] == [[m.alpha, m.value, m.sign] for m in maxima]
    assert header["sentences"]["snr"][0]["when"] == {"quantity": "snr", "from": None, "to": 0.0}


# --- learning progress -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
def test_progress_answers_with_what_three_places_reach(weights: Weights) -> None:
    at = open_app("progress", source="gaussian", weights=weights, alpha="0.4")
    batch = synthetic("gaussian")
    ceiling = pair_summary(batch).kl_target_theta
    places = {"on_policy": 1.0, "kl": alpha_kl(batch), "off_policy": 0.0}
    reached = {n: percent(learning_point(batch, a, weights).exact_gain / ceiling) for n, a in places.items()}
    assert answer(at) == words(at)("page.progress.answer", ceiling=number(ceiling), **reached)


def test_infinite_ceiling_is_told_without_shares() -> None:
    table = '[["a",0.5,0.2],["b",0.5,0.3],["c",0,0.5]]'
    at = open_app("progress", source=CUSTOM, table=table, kind="probs")
    assert_readable(at)
    assert answer(at).startswith(
        words(at)("page.progress.answer_endless", on_policy="|", kl="", off_policy="").split("**|")[0]
    )
    for panel in ("progress", "slice"):
        assert not any("{share}" in s or "{gain_share}" in s for s in sentences(at, panel))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_progress_sampled_for_the_page_is_the_core_s(weights: Weights) -> None:
    at = open_app("progress", source="gaussian", weights=weights, alpha="0.4")
    batch = synthetic("gaussian")
    header, _ = explorer(at)
    row = compute.row(scenario(at), None)
    samples = compute.samples(row.key, weights, row.batch)
    for eta in (0.01, 0.1, 1.0, 10.0):
        move(at, eta=eta)
        assert address(at).get("eta", "1") == f"{eta:g}"
        assert explorer(at)[0]["axis"]["reach"] >= eta
        exact = exact_progress(batch, 0.4, eta, weights).item()
        unit = header["progress"]["unit"]
        assert unit * progress_of(samples, 0.4, np.array([eta]))[0] == pytest.approx(exact, rel=1e-6, abs=1e-6 * unit)
    assert header["scalars"]["ceiling"] == pytest.approx(pair_summary(batch).kl_target_theta, rel=1e-12)


def test_sentences_of_progress_tell_gain_from_harm() -> None:
    harm, gain, _ = explorer(open_app("progress", **THREE))[0]["sentences"]["progress"]
    assert harm["when"] == {"quantity": "progress", "from": None, "to": 0.0}
    assert {p["quantity"] for p in gain["pieces"] if isinstance(p, dict)} == {
        "eta", "progress", "share", "exact_step", "eta_star",
    }  # fmt: skip


def test_map_is_progress_over_the_plane() -> None:
    at = open_app("progress", **THREE)
    batch = synthetic("three_tokens")
    heat = next(t for t in figures(at)["map"]["data"] if t["type"] == "heatmap")
    alpha, eta = values(heat["x"]), values(heat["y"])
    raw = values(heat["customdata"]).reshape(len(eta), len(alpha))
    for i, j in ((0, 0), (10, 30), (-1, -1)):
        expected = exact_progress(batch, float(alpha[j]), float(eta[i])).item()
        assert raw[i, j] == pytest.approx(expected, rel=1e-6, abs=1e-12)


# --- the table editor --------------------------------------------------------------------------------------------


def edit(at: AppTest, changes: dict[str, Any], kind: str | None = None) -> AppTest:
    """Change the editor's table, press the button, and run."""
    text = words(at)
    at.session_state["editor_table"] = {"edited_rows": {}, "added_rows": [], "deleted_rows": [], **changes}
    if kind is not None:
        label = text("page.policies.table_kind")
        next(g for g in at.button_group if g.label == label).set_value(kind)
    apply = text("page.policies.apply")
    return run(next(b for b in at.button if b.label == apply).click())


def test_edited_table_becomes_the_scenario() -> None:
    at = edit(open_app(alpha="0.25", row="3"), {"edited_rows": {0: {"theta": 0.5}}, "deleted_rows": [3]})
    assert not at.error
    expected = (replace(DEFAULT_TABLE[0], theta=0.5), *DEFAULT_TABLE[1:3])
    assert scenario(at) == Scenario(source=CUSTOM, table=expected, alpha=0.25)
    theta, target = (np.array([getattr(r, name) for r in expected]) for name in ("theta", "target"))
    batch = PolicyBatch.from_probs(theta / theta.sum(), target / target.sum())
    assert metrics(at, "policies")["kl_target_theta"] == number(pair_summary(batch).kl_target_theta)
    assert json.loads(address(at)["table"]) == [[r.token, r.theta, r.target] for r in expected]
    at = open_app("choosing", **{k: v for k, v in address(at).items() if k != "lang"})
    assert scenario(at).table == expected
    assert parameter(alpha_kl(batch)) in answer(at)


def test_table_of_logits() -> None:
    at = edit(open_app(), {"added_rows": [{"token": "Hobart", "theta": -1.0, "target": 2.0}]}, kind="logits")
    assert not at.error
    found = scenario(at)
    assert found.table_kind == "logits"
    assert found.table[-1] == TableRow("Hobart", -1.0, 2.0)
    batch = PolicyBatch.from_logits([r.theta for r in found.table], [r.target for r in found.table])
    assert metrics(at, "policies")["kl_target_theta"] == number(pair_summary(batch).kl_target_theta)


def test_disjoint_table_is_shown_and_explained() -> None:
    changes = {"edited_rows": {0: {"theta": 1.0, "target": 0.0}, 1: {"theta": 0.0, "target": 1.0}}}
    at = edit(open_app(), {**changes, "deleted_rows": [2, 3]})
    assert scenario(at).source == CUSTOM
    assert metrics(at, "policies")["kl_target_theta"] == "∞"
    assert [w.value for w in go(at, "choosing").warning] == [words(at)("notice.disjoint")]


BAD_EDITS: dict[str, dict[str, Any]] = {
    "negative": {"edited_rows": {0: {"theta": -0.1}}},
    "missing": {"edited_rows": {0: {"theta": None}}},
    "infinite": {"edited_rows": {0: {"target": float("inf")}}},
    "all zero": {"edited_rows": {i: {"target": 0.0} for i in range(4)}},
    "sum beyond float": {"edited_rows": {0: {"theta": 1e308}, 1: {"theta": 1e308}}},
}


@pytest.mark.parametrize("page_scenario", [{}, {**THREE, "alpha": "0.25"}], ids=["default", "three tokens"])
@pytest.mark.parametrize("what", BAD_EDITS)
def test_bad_weights_are_refused_and_nothing_is_lost(what: str, page_scenario: dict[str, str]) -> None:
    at = open_app(**page_scenario)
    before, drawn = scenario(at), explorer(at)[0]["key"]
    edit(at, BAD_EDITS[what])
    if what == "sum beyond float":
        # Either is right: refuse it in words, or rescale it properly.
        assert at.error or scenario(at).source == CUSTOM
        assert_readable(at)
        return
    assert [e.value for e in at.error] == [words(at)("error.table_weights")]
    assert scenario(at) == before
    assert explorer(at)[0]["key"] == drawn


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"deleted_rows": [0, 1, 2, 3]}, 0),
        ({"added_rows": [{"token": "x", "theta": 1.0, "target": 1.0}] * (MAX_TABLE_ROWS - 3)}, MAX_TABLE_ROWS + 1),
    ],
)
def test_table_of_the_wrong_size_is_refused(changes: dict[str, Any], found: int) -> None:
    at = edit(open_app(), changes)
    assert [e.value for e in at.error] == [words(at)("error.table_size", limit=MAX_TABLE_ROWS, found=found)]
    assert scenario(at) == Scenario()


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), None])
def test_logits_that_are_no_numbers_are_refused(logit: float | None) -> None:
    at = edit(open_app(), {"edited_rows": {0: {"theta": logit}}}, kind="logits")
    assert len(at.error) == 1
    assert scenario(at) == Scenario()


# --- what cannot be shown ----------------------------------------------------------------------------------------


def test_scenario_without_policies_says_why_and_offers_a_way_out() -> None:
    # Two tokens cannot be four nats apart along the family's direction.
    at = open_app("choosing", source="gaussian", vocabulary="2", distance="4")
    assert len(at.error) == 1
    assert not figures(at)
    reset = words(at)("app.reset")
    run(next(b for b in at.button if b.label == reset).click())
    assert scenario(at) == Scenario()
    assert figures(at)


def test_link_to_an_upload_says_that_files_do_not_travel() -> None:
    at = open_app("choosing", source="upload", row="2")
    assert [e.value for e in at.error] == [words(at)("error.upload_missing")]
    run(at.selectbox(key="w.source").set_value("zipf"))
    assert not at.error
    assert figures(at)


def test_errors_are_shown_as_plain_text() -> None:
    from geomix_app.shell import plain

    raw = "**bold** `code` $x$ [a](b) <b> :red[x] # ~~s~~ _i_"
    escaped = plain(raw)
    assert re.sub(r"\\(.)", r"\1", escaped) == raw
    for special in "*`$[]<>:#~_":
        assert not re.search(rf"(?<!\\){re.escape(special)}", escaped)
    assert markdown(plain("π_θ")) == plain("π_θ")
