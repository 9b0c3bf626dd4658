"""Everything that a screen draws of one row, as NumPy arrays: curves over α and η, the progress map, the two planes.

All take a batch of one row, compress it (`geomix_core.compression`) and evaluate on the atoms. Numbers to be quoted
come from the functions on all tokens; these are for drawing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geomix_core.compression import compress
from geomix_core.divergences import ess_fraction, kl
from geomix_core.errors import ShapeError
from geomix_core.geodesics import e_geodesic, fisher_rao_arc, m_geodesic, tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights, exact_progress, exact_step, learning_signal

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class FamilyCurves:
    """The geometric family along α, each `[A]`; KLs and log Z in nats, ESS as a share of N."""

    alpha: Array
    log_partition: Array
    delta: Array
    variance: Array
    kl_to_theta: Array
    kl_to_target: Array
    ess: Array


@dataclass(frozen=True, eq=False)
class SignalCurves:
    """Φ₁, Φ₂, signed SNR and η* along α, each `[A]`."""

    alpha: Array
    phi1: Array
    phi2: Array
    signed_snr: Array
    quadratic_step: Array


@dataclass(frozen=True, eq=False)
class StepCurves:
    """Progress along η at one α, each `[E]`, nats: exact, ηΦ₁, and ηΦ₁ − η²Φ₂/2."""

    eta: Array
    exact: Array
    first_order: Array
    second_order: Array


@dataclass(frozen=True, eq=False)
class ExpansionError:
    """|exact − expansion| for small η, each `[E]`, with the fitted log–log slopes (theory: 2 and 3)."""

    eta: Array
    first_order: Array
    second_order: Array
    first_slope: float
    second_slope: float


@dataclass(frozen=True, eq=False)
class ProgressMap:
    """Exact progress `[A, E]` over α and η, and the best η for each α (NaN where none or infinite)."""

    alpha: Array
    eta: Array
    progress: Array
    best_eta: Array


@dataclass(frozen=True, eq=False)
class Path:
    """A path from π_t (0) to π_θ (1): KLs of its points to the two ends, each `[A]`, and its Fisher–Rao length."""

    parameter: Array
    kl_to_theta: Array
    kl_to_target: Array
    length: float


def family_curves(row: PolicyBatch, points: int = 121) -> FamilyCurves:
    """log Z, Δ, Var, KLs and ESS on `points` values of α in [0, 1]. Raises DisjointSupportError."""
    atoms, alpha = _atoms(row), _grid(row, 0.0, 1.0, points)
    moments = tilted_moments(atoms, alpha)
    return FamilyCurves(
        *map(
            _numpy,
            (
                alpha,
                moments.log_partition,
                moments.delta,
                moments.variance,
                moments.kl_to_theta,
                moments.kl_to_target,
                ess_fraction(atoms, alpha),
            ),
        )
    )


def signal_curves(row: PolicyBatch, weights: Weights = "importance", points: int = 121) -> SignalCurves:
    """Φ₁, Φ₂ and SNR on `points` values of α in [0, 1]. Raises CoverageError, DisjointSupportError."""
    alpha = _grid(row, 0.0, 1.0, points)
    signal = learning_signal(_atoms(row), alpha, weights)
    return SignalCurves(
        *map(_numpy, (alpha, signal.phi1, signal.phi2, signal.signed_snr, signal.quadratic_step)),
    )


def step_curves(
    row: PolicyBatch, alpha: float, eta_max: float, weights: Weights = "importance", points: int = 161
) -> StepCurves:
    """Progress against η in [0, eta_max] at one α. Raises CoverageError, DisjointSupportError."""
    atoms, eta = _atoms(row), _grid(row, 0.0, eta_max, points)
    signal = learning_signal(atoms, alpha, weights)
    exact = exact_progress(atoms, alpha, eta, weights)
    return StepCurves(*map(_numpy, (eta, exact, eta * signal.phi1, signal.quadratic_progress(eta))))


def expansion_error(
    row: PolicyBatch, alpha: float, eta_max: float, weights: Weights = "importance", points: int = 41
) -> ExpansionError:
    """How fast the expansion of Theorem 1 fails: errors for η from eta_max/1000 to eta_max, and their slopes.

    The slopes are fitted on the lower half of the range (on a log scale), where the leading term rules.
    """
    atoms = _atoms(row)
    eta = torch.logspace(-3, 0, points, dtype=row.theta.dtype, device=row.theta.device)[:, None] * eta_max
    signal = learning_signal(atoms, alpha, weights)
    exact = exact_progress(atoms, alpha, eta, weights)
    first = _numpy((exact - eta * signal.phi1).abs())
    second = _numpy((exact - signal.quadratic_progress(eta)).abs())
    steps = _numpy(eta)
    return ExpansionError(steps, first, second, _slope(steps, first), _slope(steps, second))


def progress_map(
    row: PolicyBatch, eta_max: float, weights: Weights = "importance", points: tuple[int, int] = (33, 33)
) -> ProgressMap:
    """Exact progress over α in [0, 1] and η in [0, eta_max]. Raises CoverageError, DisjointSupportError."""
    atoms = _atoms(row)
    alpha, eta = _grid(row, 0.0, 1.0, points[0]), _grid(row, 0.0, eta_max, points[1])
    progress = torch.stack([exact_progress(atoms, a, eta, weights)[:, 0] for a in alpha])
    best = _numpy(exact_step(atoms, alpha, weights))
    return ProgressMap(_numpy(alpha), _numpy(eta), progress.cpu().numpy(), np.where(np.isfinite(best), best, np.nan))


def path_planes(row: PolicyBatch, lengths: tuple[float, float, float], points: int = 61) -> dict[str, Path]:
    """The three paths in the plane of the two KLs, by name (e_geodesic, m_geodesic, fisher_rao).

    `lengths` are those of `path_lengths`, in the same order. Points whose KL is infinite are left out by the drawing.
    """
    atoms, s = _atoms(row), _grid(row, 0.0, 1.0, points)
    paths = {"e_geodesic": e_geodesic, "m_geodesic": m_geodesic, "fisher_rao": fisher_rao_arc}
    planes = {}
    for (name, path), length in zip(paths.items(), lengths, strict=True):
        log_p = path(atoms, s)
        planes[name] = Path(_numpy(s), _numpy(kl(log_p, atoms.theta)), _numpy(kl(log_p, atoms.target)), length)
    return planes


def simplex_path(row: PolicyBatch, name: str, points: int = 101) -> Array:
    """Probabilities `[points, 3]` along one of the three paths of a three-token row. Raises ShapeError otherwise."""
    if row.vocab_size != 3:
        raise ShapeError(f"The simplex shows three tokens; this row has {row.vocab_size}.")
    path = {"e_geodesic": e_geodesic, "m_geodesic": m_geodesic, "fisher_rao": fisher_rao_arc}[name]
    return path(row, _grid(row, 0.0, 1.0, points))[:, 0].exp().cpu().numpy()


def _atoms(row: PolicyBatch) -> PolicyBatch:
    if len(row) != 1:
        raise ShapeError(f"Curves are drawn for one row; this batch has {len(row)}.")
    return compress(row)


def _grid(row: PolicyBatch, low: float, high: float, points: int) -> Tensor:
    return torch.linspace(low, high, points, dtype=row.theta.dtype, device=row.theta.device)[:, None]


def _numpy(x: Tensor) -> Array:
    return x.reshape(-1).cpu().numpy()


def _slope(eta: Array, error: Array) -> float:
    """Least-squares slope of log error against log η on the lower half; NaN where rounding is all that is left."""
    half = len(eta) // 2
    x, y = np.log(eta[:half]), error[:half]
    usable = y > 1e-15
    if usable.sum() < 5:
        return float("nan")
    return float(np.polyfit(x[usable], np.log(y[usable]), 1)[0])
