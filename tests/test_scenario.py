"""How a scenario is written in a URL and read back, what is refused, and what the policies depend on."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomix_app.scenario import (
    CUSTOM,
    DEFAULT_TABLE,
    MAX_TABLE_ROWS,
    SOURCES,
    Reshape,
    Scenario,
    TableRow,
    from_query,
    to_query,
)
from geomix_core.progress import WEIGHTS
from geomix_core.scenarios import FAMILIES, REFERENCES, Parameter

DEFAULT = Scenario()


def digits10(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of a range, written with at most ten digits as a URL writes them."""
    return st.floats(low, high).map(lambda x: min(max(float(f"{x:.10g}"), low), high))


reshapes = st.builds(
    Reshape,
    temperature=digits10(0.05, 4.0),
    top_k=st.integers(0, 200_000),
    top_p=digits10(0.01, 1.0),
)
# Any text, but no half of a surrogate pair, which no URL can carry.
tokens = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
weights = st.floats(allow_nan=False, allow_infinity=False)
tables = st.one_of(
    st.lists(st.builds(TableRow, tokens, weights, weights), min_size=1, max_size=5).map(tuple),
    st.lists(st.builds(TableRow, tokens, weights, weights, weights), min_size=1, max_size=5).map(tuple),
)


def parameter_values(p: Parameter) -> st.SearchStrategy[float]:
    if p.whole:
        return st.integers(int(p.low), int(p.high)).map(float)
    return digits10(p.low, p.high)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    source = draw(st.sampled_from(SOURCES))
    parameters = {}
    for p in FAMILIES[source].parameters if source in FAMILIES else ():
        value = draw(st.none() | parameter_values(p))
        if value is not None and value != p.default:
            parameters[p.name] = value
    custom = source == CUSTOM
    return Scenario(
        source=source,
        parameters=tuple(sorted(parameters.items())),
        row=draw(st.integers(0, 10**6)),
        table=draw(tables) if custom else DEFAULT_TABLE,
        table_kind=draw(st.sampled_from(["probs", "logits"])) if custom else "probs",
        theta=draw(reshapes),
        target=draw(reshapes),
        epsilon=draw(digits10(0.0, 1.0)),
        reference=draw(st.sampled_from(REFERENCES)),
        weights=draw(st.sampled_from(WEIGHTS)),
        alpha=draw(digits10(0.0, 1.0)),
        eta=draw(digits10(0.0, 1000.0)),
    )


@settings(deadline=None)
@given(scenarios())
def test_link_restores_the_scenario(scenario: Scenario) -> None:
    query = to_query(scenario)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in query.items())
    found, problems = from_query(query)
    assert problems == ()
    # The order of the parameters is no part of what they say, but everything else must be the same.
    assert dict(found.parameters) == dict(scenario.parameters)
    assert replace(found, parameters=()) == replace(scenario, parameters=())


@settings(deadline=None)
@given(scenarios())
def test_restored_scenario_finds_the_results_already_cached(scenario: Scenario) -> None:
    assert from_query(to_query(scenario))[0].policies_key == scenario.policies_key


def test_default_needs_no_query() -> None:
    assert to_query(DEFAULT) == {}
    assert from_query({}) == (DEFAULT, ())


@settings(deadline=None)
@given(scenarios())
def test_only_what_differs_from_the_default_is_written(scenario: Scenario) -> None:
    query = to_query(scenario)
    assert ("source" in query) == (scenario.source != DEFAULT.source)
    for name in ("row", "reference", "weights", "alpha", "eta", "epsilon"):
        assert (name in query) == (getattr(scenario, name) != getattr(DEFAULT, name))
    for policy in ("theta", "target"):
        for name in ("temperature", "top_k", "top_p"):
            given_, plain = getattr(getattr(scenario, policy), name), getattr(Reshape(), name)
            assert (f"{policy}_{name}" in query) == (given_ != plain)
    assert ("table" in query) == ("kind" in query) == (scenario.source == CUSTOM)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_put_back_to_its_default_leaves_no_trace(family: str) -> None:
    defaults = tuple(sorted((p.name, float(p.default)) for p in FAMILIES[family].parameters))
    assert to_query(Scenario(source=family, parameters=defaults)) == {"source": family}


NUMBERS = {
    "alpha": ("-0.01", "1.01"),
    "eta": ("-1", "1000.1"),
    "epsilon": ("-1e-9", "1.5"),
    "theta_temperature": ("0", "1e9", "-1"),
    "target_temperature": ("0.01", "1e9"),
    "theta_top_p": ("0", "1.01"),
    "target_top_p": ("-0.5", "2"),
}
WHOLE = ("row", "theta_top_k", "target_top_k")
BAD_NUMBERS = [
    *((name, bad) for name, out in NUMBERS.items() for bad in (*out, "nan", "inf", "-inf", "1e999", "", "one", "0x1")),
    *((name, bad) for name in WHOLE for bad in ("-1", "1.5", "nan", "inf", "", "two", "9" * 30, "9" * 6000)),
    *(("reference", bad) for bad in ("", "none", "Theta")),
    *(("weights", bad) for bad in ("", "ratio", "IMPORTANCE")),
    *(("source", bad) for bad in ("", "unknown", "real ", "__class__")),
]


@pytest.mark.parametrize(("name", "bad"), BAD_NUMBERS)
def test_bad_value_is_reported_and_takes_its_default(name: str, bad: str) -> None:
    # A good neighbour keeps its value.
    good = {"alpha": "0.25"} if name != "alpha" else {"eta": "2"}
    found, problems = from_query({name: bad, **good})
    assert problems == (name,)
    assert found == (replace(DEFAULT, alpha=0.25) if name != "alpha" else replace(DEFAULT, eta=2.0))


@pytest.mark.parametrize(
    ("family", "name", "bad"),
    [
        (family.name, p.name, bad)
        for family in FAMILIES.values()
        for p in family.parameters
        for bad in ("nan", "inf", "-inf", "", "much", repr(p.low - 1), repr(p.high + 1), *(["3.5"] if p.whole else []))
    ],
)
def test_bad_parameter_is_reported_and_takes_its_default(family: str, name: str, bad: str) -> None:
    found, problems = from_query({"source": family, name: bad})
    assert problems == (name,)
    assert found == Scenario(source=family)


def test_parameter_of_another_family_is_no_parameter() -> None:
    found, _ = from_query({"source": "two_tokens", "sigma": "0.01", "theta_a": "0.25"})
    assert found.parameters == (("theta_a", 0.25),)


ROW = ["a", 1, 2]
BAD_TABLES = {
    "empty": "",
    "not JSON": "[[",
    "not a list": '{"a": 1}',
    "a number": "3",
    "no rows": "[]",
    "row too short": json.dumps([["a", 1]]),
    "row too long": json.dumps([["a", 1, 2, 3, 4]]),
    "a reference in one row only": json.dumps([["a", 1, 2, 3], ["b", 1, 2]]),
    "row is a number": "[1]",
    "words for weights": json.dumps([["a", "one", 2]]),
    "null weight": json.dumps([["a", None, 2]]),
    "list for a weight": json.dumps([["a", [1], 2]]),
    "one row too many": json.dumps([ROW] * (MAX_TABLE_ROWS + 1)),
    "weight beyond float": '[["a", 1' + "0" * 400 + ", 1]]",
    "nested too deep": "[" * 100_000,
}


@pytest.mark.parametrize("what", BAD_TABLES)
def test_bad_table_is_reported_and_takes_the_default(what: str) -> None:
    found, problems = from_query({"source": CUSTOM, "table": BAD_TABLES[what], "alpha": "0.25"})
    assert problems == ("table",)
    assert found == Scenario(source=CUSTOM, alpha=0.25)


def test_largest_table_and_longest_names_are_read() -> None:
    rows = [["x" * 200, i, -i] for i in range(MAX_TABLE_ROWS)]
    found, problems = from_query({"source": CUSTOM, "table": json.dumps(rows), "kind": "logits"})
    assert problems == ()
    assert found.table == tuple(TableRow("x" * 80, float(i), float(-i)) for i in range(MAX_TABLE_ROWS))
    assert found.table_kind == "logits"


@pytest.mark.parametrize("bad", ["", "odds", "Probs"])
def test_bad_table_kind_is_reported(bad: str) -> None:
    found, problems = from_query({"source": CUSTOM, "table": json.dumps([ROW]), "kind": bad})
    assert problems == ("kind",)
    assert found.table_kind == "probs"


def test_all_problems_are_reported_together() -> None:
    found, problems = from_query({"source": "zipf", "alpha": "2", "seed": "1.5", "weights": "x", "eta": "3"})
    assert set(problems) == {"alpha", "seed", "weights"}
    assert found == Scenario(source="zipf", eta=3.0)


OTHER: dict[str, Any] = {
    "source": "gaussian",
    "parameters": (("seed", 3.0),),
    "row": 1,
    "table": (TableRow("x", 0.5, 0.5),),
    "table_kind": "logits",
    "theta": Reshape(temperature=2.0),
    "target": Reshape(top_k=5),
    "epsilon": 0.01,
    "reference": "uniform",
    "weights": "inverse",
    "alpha": 0.1,
    "eta": 2.0,
}


def test_every_field_is_either_a_matter_of_the_policies_or_not() -> None:
    assert set(OTHER) == {f.name for f in fields(Scenario)}


@pytest.mark.parametrize("name", OTHER)
def test_policies_key_changes_with_the_policies_and_with_nothing_else(name: str) -> None:
    changed = replace(DEFAULT, **{name: OTHER[name]})
    assert changed != DEFAULT
    assert (changed.policies_key == DEFAULT.policies_key) == (name in {"alpha", "eta", "weights"})


@pytest.mark.parametrize("policy", ["theta", "target"])
@pytest.mark.parametrize("cut", [Reshape(temperature=0.5), Reshape(top_k=3), Reshape(top_p=0.9)])
def test_policies_key_tells_every_cut_of_either_policy(policy: str, cut: Reshape) -> None:
    other = "target" if policy == "theta" else "theta"
    keys = {s.policies_key for s in (DEFAULT, replace(DEFAULT, **{policy: cut}), replace(DEFAULT, **{other: cut}))}
    assert len(keys) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_is_the_chosen_one_or_the_default(family: str) -> None:
    first, *others = FAMILIES[family].parameters
    chosen = Scenario(source=family, parameters=((first.name, float(first.low)),))
    assert chosen.parameter(first.name) == first.low
    assert [chosen.parameter(p.name) for p in others] == [p.default for p in others]
