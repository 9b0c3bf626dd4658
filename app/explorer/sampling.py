"""What the explorer computes with: curves along α that interpolate to the core's values, and the atoms for progress.

The browser does two things with them: it interpolates the curves as `interpolate` does, and sums exact progress over
the atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from geomix_core.divergences import ess_fraction, kl
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights, exact_step
from geomix_core.tilts import TiltFamily

Array = np.ndarray
Encoding = Literal["linear", "log", "sinh"]

ORDER = 6
"""Samples that one interpolated value depends on."""

FIRST, MOST = 33, 769
"""Samples along α before any cell is split, and at most."""

TOLERANCE = 2e-6
"""Error at the middle of a cell, as a share of the curve's range, below which the cell is not split."""

LOOSE = 2e-5
"""The same for log η_exact: near it progress is flat, which makes it less certain, and nobody needs its sixth digit."""

ROUNDING = 2e-15
"""Differences below this are the core's own rounding: log Z of nearly equal policies is not known better."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity along α: encoded samples `[A]`, and how to decode what is interpolated between them."""

    values: Array
    encoding: Encoding = "linear"
    scale: float = 1.0

    def decode(self, encoded: Array) -> Array:
        """The quantity, from interpolated samples: y, exp(y) or scale·sinh(y)."""
        if self.encoding == "linear":
            return encoded
        decoded: Array = np.exp(encoded) if self.encoding == "log" else self.scale * np.sinh(encoded)
        return decoded


@dataclass(frozen=True, eq=False)
class Atoms:
    """What exact progress is a sum over, each `[K]`: π_θ, π_t, π_t − π_θ, ℓ and r of tokens, or of their atoms.

    The tilt of an atom is h = r·exp(slope·((1−α)ℓ − log Z)), and progress is η Σ π_t h − log Σ π_θ exp(ηh), nats
    (`TiltFamily.progress`).
    """

    theta: Array
    target: Array
    gap: Array
    """Without cancellation."""
    ell: Array
    reward: Array
    slope: float
    unit: float
    """The unit of progress: KL(π_t‖π_θ), the most that an update gains; 1 where that is no number."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Everything that moves with α or η; curves by the name of their symbol in `notation`."""

    alpha: Array
    curves: Mapping[str, Curve]
    atoms: Atoms | None
    """None where nothing can be learned."""
    reach: float = 2.0
    """How far the η axis reaches."""
    logarithmic: bool = False
    """Whether it needs a logarithmic scale."""

    def at(self, name: str, alpha: Array | float) -> Array:
        """A curve at any α in [0, 1]."""
        curve = self.curves[name]
        return curve.decode(interpolate(self.alpha, curve.values, np.atleast_1d(alpha)))


def interpolate(nodes: Array, values: Array, x: Array) -> Array:
    """Lagrange's polynomial through the `ORDER` samples around each x: nodes `[N]`, values `[…, N]`, x `[X]`.

    The samples are the nearest ones by rank, so the polynomial changes only at a node; where nodes are few, all.
    """
    order = min(ORDER, len(nodes))
    cell = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    start = np.clip(cell - order // 2 + 1, 0, len(nodes) - order)
    index = start[:, None] + np.arange(order)
    around = nodes[index]
    weights = np.ones((len(x), order))
    for j in range(order):
        for k in range(order):
            if k != j:
                weights[:, j] *= (x - around[:, k]) / (around[:, j] - around[:, k])
    result: Array = (values[..., index] * weights).sum(-1)
    return result


def sample(row: PolicyBatch, weights: Weights) -> Samples:
    """Sample a row (compressed, for large V). Raises DisjointSupportError, CoverageError."""
    alpha, curves = _sample_curves(row, weights)
    reach, logarithmic = _axis(np.exp(curves["exact_step"].values))
    curves = _finite(curves)
    learns = {"snr", "phi1", "phi2"} <= curves.keys()
    return Samples(alpha, curves, _atoms(TiltFamily(row, weights)) if learns else None, reach, logarithmic)


def sample_family(row: PolicyBatch) -> Samples:
    """The same of the family alone: nothing that depends on η or on the weights. Raises DisjointSupportError."""
    alpha, curves = _sample_curves(row, None)
    return Samples(alpha, _finite(curves), None)


def _finite(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    return {name: curve for name, curve in curves.items() if np.isfinite(curve.values).all()}


def reaching(reach: float, eta: float) -> float:
    """The same axis where it shows η, or the next longer one that does."""
    return reach if eta <= reach else _nice(eta)


def _axis(steps: Array) -> tuple[float, bool]:
    """How far the η axis must reach to show the exact optimum at every α; and whether it needs a logarithmic scale."""
    steps = steps[np.isfinite(steps) & (steps > 0)]
    if not len(steps):
        return 2.0, False
    return _nice(1.25 * float(steps.max())), bool(steps.max() > 40 * steps.min())


def _nice(wanted: float) -> float:
    unit = 10.0 ** np.floor(np.log10(wanted))
    return float(next(m * unit for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * unit >= wanted * (1 - 1e-9)))


def _atoms(tilts: TiltFamily) -> Atoms:
    """The atoms as the browser sums over them."""
    batch = tilts.batch
    common = batch.common[0]

    def column(x: torch.Tensor) -> Array:
        found: Array = x[0][common].cpu().numpy()
        return found

    return Atoms(
        theta=column(tilts.log_theta.exp()),
        target=column(tilts.log_target.exp()),
        gap=column(tilts.direction * tilts.log_abs_gap.exp()),
        ell=column(tilts.ell),
        reward=column(batch.reward),
        slope=tilts.slope,
        unit=ceiling_unit(tilts),
    )


def ceiling_unit(tilts: TiltFamily) -> float:
    """KL(π_t‖π_θ), π_t conditioned on the tokens of π_θ; 1 where that is no number to take shares of."""
    unit = kl(tilts.log_target, tilts.log_theta).item()
    return unit if 0 < unit < np.inf else 1.0


def _sample_curves(row: PolicyBatch, weights: Weights | None) -> tuple[Array, dict[str, Curve]]:
    # Without every token of π_θ in π_t samples of q are worth nothing below α = 1.
    reaches = bool((row.support.common_size == row.support.theta_size).all())

    tilts = None if weights is None else TiltFamily(row, weights)

    def evaluate(alpha: Array) -> dict[str, Array]:
        a = _column(alpha, row)
        m = tilted_moments(row, a)
        found = {"log_partition": m.log_partition, "delta": m.delta, "variance": m.variance}
        found |= {"kl_to_theta": m.kl_to_theta, "kl_to_target": m.kl_to_target}
        if reaches:
            found["ess"] = ess_fraction(row, a)
        if weights is not None and tilts is not None:
            s = tilts.signal(a)
            found |= {"snr": s.signed_snr, "phi1": s.phi1}
            step = exact_step(row, a, weights)
            gain = torch.where((step > 0) & step.isfinite(), tilts.progress(a, step), torch.nan)
            found |= {"phi2": s.log_phi2, "eta_star": s.quadratic_step, "exact_step": step.log(), "exact_gain": gain}
        return {name: x.reshape(-1).cpu().numpy() for name, x in found.items()}

    nodes = np.linspace(0, 1, FIRST)
    raw = evaluate(nodes)
    codes = {name: _code(name, values) for name, values in raw.items()}

    def encoded(values: Mapping[str, Array]) -> Array:
        return np.stack([_encoded(v, *codes[name], logged=name in _LOGGED) for name, v in values.items()])

    def tolerance(stacked: Array) -> Array:
        finite = np.where(np.isfinite(stacked), stacked, 0.0)
        allowed: Array = np.maximum(TOLERANCE * np.ptp(finite, axis=-1), ROUNDING)
        for i, (name, (encoding, _)) in enumerate(codes.items()):
            if name == "exact_step":
                allowed[i] = LOOSE
            elif encoding != "linear":
                allowed[i] = TOLERANCE  # a logarithm's error is relative already
            elif name == "log_partition":
                allowed[i] = 1e-8  # the tokens, and progress, are as exact as log Z is
        return allowed

    nodes, stacked = _refine(nodes, encoded(raw), lambda x: encoded(evaluate(x)), tolerance, MOST)
    return nodes, {name: Curve(v, *codes[name]) for name, v in zip(codes, stacked, strict=True)}


_LOGGED = frozenset({"phi2", "exact_step"})
"""Quantities evaluated as logarithms."""

_WIDE = _LOGGED | {"phi1", "eta_star"}
"""Quantities that may span many orders of magnitude along α."""


def _code(name: str, values: Array) -> tuple[Encoding, float]:
    """A logarithm for a wide quantity of one sign; sinh, linear near zero, where it changes sign."""
    if name not in _WIDE:
        return "linear", 1.0
    if name in _LOGGED or (values > 0).all():
        return "log", 1.0
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return "sinh", float(np.quantile(sizes, 0.1)) if len(sizes) else 1.0


def _encoded(values: Array, encoding: Encoding, scale: float, *, logged: bool = False) -> Array:
    if encoding == "linear" or logged:
        return values
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        coded: Array = np.log(values) if encoding == "log" else np.arcsinh(values / scale)
    return coded


def _column(values: Array | float, batch: PolicyBatch) -> torch.Tensor:
    return torch.as_tensor(np.atleast_1d(values), dtype=batch.theta.dtype, device=batch.theta.device)[:, None]


def _refine(
    nodes: Array,
    values: Array,
    evaluate: Callable[[Array], Array],
    tolerance: Callable[[Array], Array],
    most: int,
) -> tuple[Array, Array]:
    """Split cells until the middle of each is interpolated within tolerance, or there are `most` nodes.

    Middles are kept: they cost their evaluation already.
    """
    left, right = nodes[:-1], nodes[1:]
    while len(left) and len(nodes) + len(left) <= most:
        middle = (left + right) / 2
        exact = evaluate(middle)
        with np.errstate(invalid="ignore"):
            error = np.abs(interpolate(nodes, values, middle) - exact)
            rough = (error > tolerance(values)[:, None]).any(0)
        # Neighbours too: a narrow feature may pass unseen at the middle of the cell beside it.
        rough = rough | np.append(rough[1:], False) | np.insert(rough[:-1], 0, False)
        order = np.argsort(np.concatenate([nodes, middle]), kind="stable")
        nodes = np.concatenate([nodes, middle])[order]
        values = np.concatenate([values, exact], -1)[..., order]
        left, middle, right = left[rough], middle[rough], right[rough]
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        order = np.argsort(left)
        left, right = left[order], right[order]
    return nodes, values
