"""A check that cannot fail proves nothing: each formula of the core broken on purpose, and the claim that notices.

Every case breaks one function or property of `geomix_core` wherever it is used, on policies where the claim holds
with the true formula.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from strategies import draw, draw_reference

from geomix_core import PolicyBatch
from geomix_core.claims import CLAIMS, Outcome, Setting
from geomix_core.claims.listing import golden_section
from geomix_core.divergences import ess_fraction, kl, log_chi2
from geomix_core.geodesics import e_geodesic, fisher_rao_arc, fisher_rao_distance, m_geodesic, tilted_moments
from geomix_core.lab.experiment import best_step
from geomix_core.progress import third_cumulant
from geomix_core.scenarios import synthetic
from geomix_core.simplex import simplex_optimum
from geomix_core.solvers.kl_symmetry import find_roots
from geomix_core.solvers.snr import find_maxima
from geomix_core.solvers.wald import find_wald_maxima
from geomix_core.tilts import LearningSignal, TiltFamily

GAUSSIAN = PolicyBatch.from_logits(*draw("gaussian", 5, 9, 1))
NEAR = PolicyBatch.from_logits(*draw("near", 5, 9, 1))
REFERENCED = PolicyBatch.from_logits(*draw("gaussian", 5, 9, 1), draw_reference(5, 9, 1))
ZIPF = synthetic("zipf", vocabulary=100, distance=2.0)
TWO = PolicyBatch.from_probs([0.7, 0.3], [0.4, 0.6])

Break = Callable[[pytest.MonkeyPatch], None]


def everywhere(function: Callable[..., Any], broken: Callable[..., Any]) -> Break:
    """Put `broken` in place of a function in every module of the core that has it."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        places = 0
        for name, module in list(sys.modules.items()):
            if name.startswith("geomix_core") and getattr(module, function.__name__, None) is function:
                monkeypatch.setattr(module, function.__name__, broken)
                places += 1
        assert places

    return apply


def attribute(owner: type, name: str, broken: Callable[[Any, Any], Any]) -> Break:
    """Put broken(true value, self) in place of a property."""
    true = getattr(owner, name).fget

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, property(lambda self: broken(true(self), self)))

    return apply


def method(owner: type, name: str, broken: Callable[..., Any]) -> Break:
    """Put broken(true method, self, …) in place of a method."""
    true = getattr(owner, name)

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, lambda self, *args, **kw: broken(true, self, *args, **kw))

    return apply


def shifted_maxima(batch: PolicyBatch, *args: Any) -> Any:
    found = find_maxima(batch, *args)
    rows = tuple(tuple(replace(m, alpha=max(0.0, m.alpha - 0.2)) for m in row) for row in found.rows)
    return replace(found, rows=rows)


CASES: dict[str, tuple[str, PolicyBatch, Break]] = {
    "noise is 1 % off": ("theorem_1", GAUSSIAN, attribute(LearningSignal, "phi2", lambda x, _: 1.01 * x)),
    "signal is 1 % off": ("theorem_1", GAUSSIAN, attribute(LearningSignal, "phi1", lambda x, _: 1.01 * x)),
    "third cumulant with the wrong sign": (
        "theorem_1",
        GAUSSIAN,
        everywhere(third_cumulant, lambda *a, **k: -third_cumulant(*a, **k)),
    ),
    "update 1 % too large": (
        "theorem_1",
        GAUSSIAN,
        method(TiltFamily, "tilt", lambda true, self, alpha: 1.01 * true(self, alpha)),
    ),
    "best step is signal over root of noise": (
        "theorem_2_step",
        GAUSSIAN,
        attribute(LearningSignal, "log_quadratic_step", lambda x, s: x + s.log_phi2 / 2),
    ),
    "gain without the half": (
        "theorem_2_gain",
        NEAR,
        attribute(LearningSignal, "quadratic_gain", lambda x, _: 2 * x),
    ),
    "SNR without the root": (
        "theorem_3_equivalence",
        REFERENCED,
        attribute(LearningSignal, "log_snr", lambda _, s: s.log_abs_phi1 - s.log_phi2),
    ),
    "Wald's maximum is SNR's": (
        "theorem_3_minimax",
        GAUSSIAN,
        everywhere(find_wald_maxima, lambda batch, weights, eta_range: find_maxima(batch, weights)),
    ),
    "signal with the wrong sign": (
        "theorem_3_sign",
        GAUSSIAN,
        method(TiltFamily, "signal_of", lambda true, self, x: replace(s := true(self, x), sign=-s.sign)),
    ),
    "SNR that has a unit": (
        "section_3_6_dimensionless",
        GAUSSIAN,
        attribute(LearningSignal, "log_snr", lambda _, s: s.log_abs_phi1 - s.log_phi2),
    ),
    "closed form of the other convention": (
        "section_4_1_infeasible",
        GAUSSIAN,
        everywhere(
            simplex_optimum,
            lambda b, w: simplex_optimum(b, "inverse" if w == "importance" else "importance"),
        ),
    ),
    "family is the mixture": ("section_4_2_log_linear", GAUSSIAN, everywhere(e_geodesic, m_geodesic)),
    "family is the arc": ("section_4_2_geodesic", GAUSSIAN, everywhere(e_geodesic, fisher_rao_arc)),
    "arc 1 % short": (
        "section_4_2_shortest",
        TWO,
        everywhere(fisher_rao_distance, lambda batch: 0.99 * fisher_rao_distance(batch)),
    ),
    "family runs ahead": (
        "section_4_2_pareto",
        GAUSSIAN,
        everywhere(e_geodesic, lambda b, a: e_geodesic(b, torch.as_tensor(a) * 0.98)),
    ),
    "α weights the target": (
        "section_4_3_ends",
        GAUSSIAN,
        everywhere(e_geodesic, lambda b, a: e_geodesic(b, 1 - torch.as_tensor(a))),
    ),
    "search by a grid": (
        "section_5_1_complexity",
        GAUSSIAN,
        everywhere(golden_section, lambda f, rows, t: (rows, round(1 / t))),
    ),
    "divergence reversed": ("theorem_4_identity", GAUSSIAN, everywhere(kl, lambda p, q: kl(q, p))),
    "root 0.001 off": (
        "theorem_4_exists",
        GAUSSIAN,
        everywhere(find_roots, lambda b: replace(r := find_roots(b), alpha=r.alpha + 1e-3)),
    ),
    "gap with the wrong sign": (
        "theorem_4_unique",
        GAUSSIAN,
        everywhere(tilted_moments, lambda *a: replace(m := tilted_moments(*a), mean=-m.mean)),
    ),
    "maximum of SNR elsewhere": ("section_5_4_alpha", NEAR, everywhere(find_maxima, shifted_maxima)),
    "maximum of SNR elsewhere, in SNR": ("section_6_5_mixture", GAUSSIAN, everywhere(find_maxima, shifted_maxima)),
    "ceiling 10 % high": (
        "theorem_5_optimal",
        TWO,
        everywhere(log_chi2, lambda p, q: log_chi2(p, q) + math.log(1.1)),
    ),
    "sample size from the other end": (
        "section_6_5_off_policy",
        GAUSSIAN,
        everywhere(ess_fraction, lambda b, a: ess_fraction(b, 1 - torch.as_tensor(a))),
    ),
    "solver ahead of the listing": (
        "section_6_2_stable",
        GAUSSIAN,
        everywhere(find_roots, lambda b: replace(r := find_roots(b), alpha=r.alpha + 1e-2)),
    ),
    "step of the quadratic": ("section_7_3_efficiency", ZIPF, everywhere(best_step, lambda e: e.quadratic_step())),
}
FLIPS_TO_HOLDS = {"closed form of the other convention", "Wald's maximum is SNR's"}
"""Here the document is wrong and the true formula shows it; with the broken one its claim would seem to hold."""


@pytest.mark.parametrize("case", CASES)
def test_a_broken_formula_is_noticed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, batch, break_ = CASES[case]
    inverse = name == "section_5_4_alpha"  # holds on near-identical policies with this convention only
    setting = Setting(weights="inverse" if inverse else "importance", alpha=0.3)
    sound, broken = Outcome.HOLDS, Outcome.FAILS
    if case in FLIPS_TO_HOLDS:
        sound, broken = broken, sound
    batch = batch.rows(CLAIMS[name].rows(batch, setting).fails == (sound is Outcome.FAILS))
    assert CLAIMS[name].check(batch, setting).outcome is sound
    break_(monkeypatch)
    verdict = CLAIMS[name].check(batch, setting)
    assert verdict.outcome is broken, verdict


def test_at_least_twenty_claims_are_covered() -> None:
    assert len({name for name, *_ in CASES.values()}) >= 20
