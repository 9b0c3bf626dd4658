"""What claims cite of the sampling lab's study is what the study says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from apptest import open_app

from benchmarks.lab_study import report
from geomix_core.claims import CLAIMS
from geomix_core.claims.study import CITED, findings
from geomix_core.lab import ESTIMATORS, PROPOSALS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
FOUND = json.loads((RESULTS / "lab_study.json").read_text("utf-8"))


def test_the_packaged_findings_are_those_of_the_study() -> None:
    packaged = json.loads((Path(__file__).parents[1] / "geomix_core" / "data" / "lab_study.json").read_text("utf-8"))
    assert packaged == report.summary(FOUND)
    assert set(CITED) <= set(CLAIMS)
    assert set(CITED.values()) <= set(findings()) <= set(PROPOSALS)
    for told in findings().values():
        assert [f.estimator for f in told] == list(report.ESTIMATORS)
        assert {f.estimator for f in told} == set(ESTIMATORS)


def test_a_finding_counts_rows_whose_interval_lies_on_one_side() -> None:
    for finding in findings()["kl_symmetry"]:
        entries = [
            case["efficiency"]["kl_symmetry"]
            for case in FOUND["cases"].values()
            if case["estimator"] == finding.estimator and case["efficiency"] and not report.erratic(case)
        ]
        assert finding.rows == len(entries)
        assert finding.fewer == sum(float(e["low"]) > 1 for e in entries)
        assert finding.more == sum(float(e["high"]) < 1 for e in entries)
        factors = [float(e["factor"]) for e in entries if e["status"] != "undetermined"]
        assert finding.median == np.median(factors)
        assert finding.low <= finding.median <= finding.high


def test_the_claims_page_cites_them() -> None:
    at = open_app("claims", claim="section_7_3_efficiency")
    table = next(e.value for e in at.markdown if "clearly fewer" in str(e.value))
    for finding in findings()["kl_symmetry"]:
        assert f"{finding.fewer} / {finding.rows}" in table
        assert f"{finding.more} / {finding.rows}" in table
    other = open_app("claims", claim="theorem_1")
    assert not [e for e in other.markdown if "clearly fewer" in str(e.value)]
