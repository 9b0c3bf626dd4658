"""What is drawn along the family of one row, from its raw logits: the price of two passes, not of one a point."""

from __future__ import annotations

from typing import Any

import numpy as np

from geomix_core.curves import FamilyCurves, SignalCurves, family_curves, signal_curves
from geomix_core.errors import OptionError, ShapeError
from geomix_core.policies import PolicyBatch
from geomix_core.row_chunks import Backend, Rows, check_options, compiled, contiguous, rows_of
from geomix_core.tilts import WEIGHTS, Weights

WIDTH = 0.4
"""Cells of the atoms, in nats."""


def logit_curves(
    theta: Any,
    target: Any,
    reference: Any = None,
    weights: Weights = "importance",
    *,
    points: int = 101,
    backend: Backend = "auto",
) -> tuple[FamilyCurves, SignalCurves]:
    """log Z, Δ, Var, KLs, ESS, Φ₁, Φ₂, SNR and η* on `points` values of α in [0, 1].

    From atoms of the row, which are exact to 1e-7 of each curve's largest value (tests).
    Where numba cannot be used, or a curve leaves its range, from `curves` and its atoms (1e-6; 5e-4).

    Args:
        theta, target: logits `[V]` (or `[1, V]`), NumPy or torch, any float dtype.
        reference: the reward's policy, likewise; by default π_θ.
        weights: "importance", w = π_θ/q, or "inverse", w = q/π_θ.
        points: how many values of α.
        backend: "compiled" (numba, CPU), "torch", or "auto": compiled where that can be used.

    Raises ShapeError, PolicyError, OptionError, CoverageError or DisjointSupportError.
    """
    if weights not in WEIGHTS:
        raise OptionError(f"weights is {weights!r}: expected one of {', '.join(WEIGHTS)}.")
    if points < 2:
        raise OptionError(f"points is {points}: expected at least 2.")
    check_options(backend, None, None)
    rows = Rows(rows_of({"theta": theta, "target": target, "reference": reference}))
    if rows.shape[0] != 1:
        raise ShapeError(f"theta has {rows.shape[0]} rows: curves are of one.")
    kernel = compiled("curve_kernel", backend, rows, None)
    if kernel is not None:
        arrays = {name: contiguous(x, rows.working)[0] for name, x in rows.arrays.items()}
        alpha = np.linspace(0, 1, points)
        kappa = -1.0 if weights == "importance" else 1.0
        found = kernel.curves(arrays["theta"], arrays["target"], arrays.get("reference"), kappa, alpha, WIDTH)
        if found is not None:
            return _named(alpha, found)
    batch = PolicyBatch.from_logits(**rows.arrays)
    return family_curves(batch, points), signal_curves(batch, weights, points)


def _named(alpha: np.ndarray, found: np.ndarray) -> tuple[FamilyCurves, SignalCurves]:
    log_z, delta, variance, ess, phi1, phi2, snr, step = found.T
    family = FamilyCurves(
        alpha=alpha,
        log_partition=log_z,
        delta=delta,
        variance=variance,
        kl_to_theta=np.maximum((1 - alpha) * delta - log_z, 0),
        kl_to_target=np.maximum(-alpha * delta - log_z, 0),
        ess=ess,
    )
    return family, SignalCurves(alpha=alpha, phi1=phi1, phi2=phi2, signed_snr=snr, quadratic_step=step)
