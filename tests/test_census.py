"""The census: counts against a loop over rows, intervals against SciPy's own formula, and the committed record."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from strategies import draw

from geomix_app.cli import main
from geomix_core import PolicyBatch
from geomix_core.census import BINS, Count, Source, all_sources, take_census, to_markdown, to_record
from geomix_core.claims import CLAIMS, Outcome, Setting, find_counterexample
from geomix_core.divergences import kl

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
NEAR = PolicyBatch.from_logits(*draw("near", 3, 6, 0))
FAR = PolicyBatch.from_logits(*draw("gaussian", 4, 6, 0))
CUT = PolicyBatch.from_probs([[0.5, 0.3, 0.2]], [[0.6, 0.4, 0.0]])
SOURCES = [
    (Source("near_identical", "theta"), lambda: NEAR),
    (Source("gaussian", "theta"), lambda: FAR),
    (Source("top_k", "theta"), lambda: CUT),
]


def test_counts_are_those_of_a_loop_over_rows() -> None:
    census = take_census(sources=SOURCES, tries=100)
    assert census.rows == 8
    for (name, weights, group), count in census.as_stated.items():
        batches = {"synthetic": (NEAR, FAR), "truncated": (CUT,)}[group]
        rows = [b.rows(i) for b in batches for i in range(len(b))]
        verdicts = [CLAIMS[name].check(row, Setting(weights=weights)) for row in rows]
        decided = [v for v in verdicts if v.outcome is not Outcome.DOES_NOT_APPLY]
        if CLAIMS[name].per_batch:
            assert count.decided == (len(batches) if decided else 0), name
            continue
        assert count.decided == len(decided), name
        assert count.held == sum(v.outcome is Outcome.HOLDS for v in decided), name
        assert sum(count.silent.values()) == len(verdicts) - len(decided), name
    assert {name for name, *_ in census.as_stated} == set(CLAIMS)
    existence = census.assumed["theorem_4_exists", "importance", "truncated"]
    assert (existence.decided, existence.silent) == (0, {"supports": 1})


def test_5_4_is_counted_by_mean_kl() -> None:
    census = take_census(sources=SOURCES, tries=100)
    both = PolicyBatch(torch.cat([NEAR.theta, FAR.theta]), torch.cat([NEAR.target, FAR.target]))
    mean = ((kl(both.theta, both.target) + kl(both.target, both.theta)) / 2).tolist()
    for k, (low, high) in enumerate(pairwise(BINS)):
        expected = sum(low <= m < high for m in mean)
        count = census.by_distance.get(("section_5_4_alpha", "inverse", "synthetic", k), Count())
        assert count.decided == expected
    total = sum(
        c.decided for (name, w, _, _), c in census.by_distance.items() if (name, w) == ("section_5_4_snr", "inverse")
    )
    assert total == 7


def test_intervals_are_wilson_s() -> None:
    """(p + z²/2n ± z√(p(1−p)/n + z²/4n²))/(1 + z²/n)."""
    record = Count(decided=20, held=17).record()
    z, n, p = 1.959963984540054, 20, 0.85
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert record["low"] == pytest.approx((centre - half) / (1 + z * z / n), rel=1e-9)
    assert record["high"] == pytest.approx((centre + half) / (1 + z * z / n), rel=1e-9)
    assert Count().record()["rate"] is None


def test_every_source_can_be_made_and_is_what_it_says() -> None:
    sources = list(all_sources(0, 0.01))
    assert {s.group for s, _ in sources} == {"synthetic", "reference", "truncated", "real"}
    small = [(s, make) for s, make in sources if s.family in ("three_tokens", "top_k")]
    for source, make in small:
        batch = make()
        assert (batch.reference is None) == (source.reference == "theta")
        assert bool(batch.support.equal.all()) == (source.family != "top_k")


def test_record_and_table_have_every_claim() -> None:
    record = to_record(take_census(sources=SOURCES[:2], tries=600), "geomix census")
    assert json.loads(json.dumps(record)) == record
    table = to_markdown(record)
    for name in CLAIMS:
        assert f"| {name} |" in table
    assert "| theorem_4_exists | any | 100.0 %" in table
    found = {(e["claim"], e["weights"]): e for e in record["counterexamples"]}
    shortest = found["section_4_2_shortest", "importance"]
    assert (shortest["tokens"], shortest["theta"], shortest["target"]) == (3, [2, 1, 1], [1, 2, 1])
    assert shortest["residual"] > shortest["tolerance"]
    assert found["theorem_4_identity", "importance"]["status"] == "survived"
    assert "| section_4_2_shortest | any | 3 tokens |" in table


def test_the_command_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomix_core.census.all_sources", lambda seed, scale: iter(SOURCES[:1]))
    # Ten thousand tries of each claim are tested elsewhere.
    monkeypatch.setattr("geomix_core.census.find_counterexample", lambda c, s, **_: find_counterexample(c, s, tries=1))
    result = CliRunner().invoke(main, ["census", "--out", str(tmp_path / "new"), "--seed", "5"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "new" / "census.json").read_text("utf-8"))
    assert (record["rows"], record["command"]) == (3, "geomix census --seed 5 --scale 1")
    assert (tmp_path / "new" / "census.md").read_text("utf-8").startswith("# How often")


def test_the_committed_census_speaks_of_today_s_claims() -> None:
    record = json.loads((RESULTS / "census.json").read_text("utf-8"))
    assert list(record["claims"]) == list(CLAIMS)
    assert (RESULTS / "census.md").read_text("utf-8") == to_markdown(record)
    assert record["rows"] > 1000
