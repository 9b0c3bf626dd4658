"""The ledger: the census as the app has it, and the counterexamples, which break what they are said to break."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from geomix_app.cli import main
from geomix_core.census import Source, take_census, to_record
from geomix_core.claims import CLAIMS, Outcome, SearchResult, Setting, find_counterexample
from geomix_core.claims.ledger import GROUPS, Record, Share, compact, ledger
from geomix_core.progress import WEIGHTS
from geomix_core.scenarios import synthetic

ROOT = Path(__file__).resolve().parent.parent
CASES = [pytest.param(name, w, id=f"{name}-{w}") for (name, w), r in ledger().records.items() if r.counterexample]


def test_the_package_has_the_census_that_the_repository_shows() -> None:
    committed = json.loads((ROOT / "benchmarks" / "results" / "census.json").read_text("utf-8"))
    packaged = json.loads((files("geomix_core") / "data" / "census.json").read_text("utf-8"))
    assert compact(committed) == packaged
    assert ledger().rows == committed["rows"]


def test_every_claim_is_in_the_ledger_as_often_as_it_was_counted() -> None:
    assert list(dict.fromkeys(name for name, _ in ledger().records)) == list(CLAIMS)
    for name, claim in CLAIMS.items():
        records = [ledger().of(name, w) for w in WEIGHTS]
        assert (records[0] is records[1]) == ("weights" not in claim.uses)
        for record in records:
            assert set(record.groups) <= set(GROUPS)
            assert all(0 <= s.held <= s.decided and s.decided > 0 for s in record.groups.values())
            assert (record.assumed is not None) == bool(claim.assumes)
            assert record.total.decided == sum(s.decided for s in record.groups.values())


def test_shares_and_their_intervals() -> None:
    share = Share(80, 20)
    assert share.rate == 0.25
    interval = binomtest(20, 80).proportion_ci(0.95, "wilson")
    assert share.interval == (interval.low, interval.high)
    assert [Share(10, held).depends for held in (0, 1, 9, 10)] == [False, True, True, False]
    assert (Share(0, 0).rate, Share(0, 0).depends) == (None, False)


@pytest.mark.parametrize(("name", "weights"), CASES)
def test_a_known_counterexample_breaks_its_claim(name: str, weights: str) -> None:
    record = ledger().records[name, weights]
    assert record.counterexample is not None
    assert record.setting.weights == weights
    assert CLAIMS[name].check(record.counterexample.batch, record.setting).outcome is Outcome.FAILS


def test_what_no_search_broke_held_on_every_row_that_was_counted() -> None:
    standing = [r for r in ledger().records.values() if r.counterexample is None]
    assert len(standing) > 10
    assert all(r.total.held == r.total.decided for r in standing)


def test_compacting_keeps_every_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [
        (Source("gaussian", "theta"), lambda: synthetic("gaussian")),
        (Source("top_k", "theta"), lambda: synthetic("top_k")),
    ]
    record = to_record(take_census(sources=sources, tries=600), "geomix census")
    small = compact(record)
    assert small["rows"] == 2
    assert small["claims"]["theorem_4_exists"]["importance"]["groups"] == {"synthetic": [1, 1], "truncated": [1, 0]}
    assert small["claims"]["theorem_4_exists"]["importance"]["assumed"] == [1, 1]
    assert small["claims"]["section_4_3_ends"]["importance"]["counterexample"] == [[1, 0], [1, 1]]
    assert small["claims"]["theorem_1"]["inverse"]["counterexample"] == []
    # Where nothing was decided there is no share.
    assert small["claims"]["theorem_1"]["inverse"]["groups"] == {"synthetic": [1, 1]}

    def quick(claim: str, setting: Setting, **_: object) -> SearchResult:
        return find_counterexample(claim, setting, tries=1)

    monkeypatch.setattr("geomix_core.census.all_sources", lambda seed, scale: iter(sources))
    monkeypatch.setattr("geomix_core.census.find_counterexample", quick)
    wanted = tmp_path / "ledger.json"
    result = CliRunner().invoke(main, ["census", "--out", str(tmp_path), "--ledger", str(wanted)])
    assert result.exit_code == 0, result.output
    assert json.loads(wanted.read_text("utf-8")) == compact(json.loads((tmp_path / "census.json").read_text("utf-8")))


def test_a_record_without_rows_has_a_total_of_none() -> None:
    assert Record({}, None, 0, None, Setting()).total == Share(0, 0)
