"""Curves of one row, sampled so that interpolation between the samples is as good as the core.

The browser interpolates and does nothing else: `interpolate` here is what it does, so what is tested here holds there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import elementwise

from geomix_core.divergences import ess_fraction, kl
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights, exact_step
from geomix_core.tilts import TiltFamily

Array = np.ndarray
Encoding = Literal["linear", "log", "sinh"]

ORDER = 6
"""Samples that one interpolated value depends on, along α and along η."""

FIRST, MOST = 33, 385
"""Samples along α before any cell is split, and at most."""

TOLERANCE = 2e-6
"""Error at the middle of a cell, as a share of the curve's range, below which the cell is not split."""

ROUNDING = 2e-15
"""Differences below this are the core's own rounding: log Z of nearly equal policies is not known better."""

TABLE_FIRST, TABLE_MOST = 13, 193
TABLE_TOLERANCE = 1.5e-4

HARM = 6.0
"""The table ends where an update loses this many times what it could gain."""

SPREAD = 9
"""Values of α on which the samples along η are chosen."""

ENDS = 12
"""Values of α at which the table's end is computed; its interpolation has a kink at each, which costs samples."""


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
class Ends:
    """log of the step at which the table ends, `[A]`."""

    nodes: Array
    values: Array

    def end(self, alpha: float) -> float:
        """That step at any α."""
        return float(np.exp(interpolate(self.nodes, self.values, np.atleast_1d(alpha)))[0])

    def step(self, alpha: float, t: Array, bend: float) -> Array:
        """η at coordinates t `[T]`."""
        found: Array = self.end(alpha) * (np.sinh(bend * t) / np.sinh(bend))
        return found

    def coordinate(self, alpha: float, eta: Array, bend: float) -> Array:
        """t of η `[E]`."""
        found: Array = np.arcsinh(eta / self.end(alpha) * np.sinh(bend)) / bend
        return found


@dataclass(frozen=True, eq=False)
class ProgressTable:
    """Exact progress over α and η: samples `[A, T]` of asinh(progress/unit).

    For each α it ends at the step where progress has fallen to −HARM units. The second axis is
    t = asinh(η·sinh(bend)/end(α))/bend in [0, 1]: along it progress changes little from one α to the next.
    """

    alpha: Array
    t: Array
    values: Array
    unit: float
    ends: Ends
    bend: float


@dataclass(frozen=True, eq=False)
class Samples:
    """Everything that moves with α or η; curves by the name of their symbol in `notation`."""

    alpha: Array
    curves: Mapping[str, Curve]
    reach: float
    """How far the η axis reaches."""
    table: ProgressTable | None
    best: Mapping[str, Curve]
    """The exact optimum's η and gain at the table's α, where it is finite."""

    def at(self, name: str, alpha: Array | float) -> Array:
        """A curve at any α in [0, 1]."""
        curve = self.curves[name]
        return curve.decode(interpolate(self.alpha, curve.values, np.atleast_1d(alpha)))

    def progress(self, alpha: float, eta: Array) -> Array:
        """Exact progress at one α and any η `[E]`, nats; −inf beyond the table, where it is below −HARM units."""
        table = self.table
        if table is None:
            raise ValueError("progress is undefined without coverage")
        across = interpolate(table.alpha, table.values.T, np.atleast_1d(alpha))[:, 0]
        t = table.ends.coordinate(alpha, eta, table.bend)
        found = table.unit * np.sinh(interpolate(table.t, across, np.minimum(t, 1)))
        return np.where(t <= 1, found, -np.inf)


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


def sample(atoms: PolicyBatch, weights: Weights, reach: float) -> Samples:
    """Sample a row (compressed, for large V). Raises DisjointSupportError, CoverageError."""
    tilts = TiltFamily(atoms, weights)
    nodes, curves = _sample_curves(atoms, tilts)
    curves = {name: curve for name, curve in curves.items() if np.isfinite(curve.values).all()}
    if not {"snr", "phi1", "phi2"} <= curves.keys():
        return Samples(nodes, curves, 1.0, None, {})
    table = _sample_progress(tilts, reach)
    return Samples(nodes, curves, reach, table, _sample_best(atoms, tilts, weights, table.alpha))


def sample_family(atoms: PolicyBatch) -> Samples:
    """The same of the family alone: nothing that depends on η or on the weights. Raises DisjointSupportError."""
    nodes, curves = _sample_curves(atoms, None)
    return Samples(nodes, {name: c for name, c in curves.items() if np.isfinite(c.values).all()}, 1.0, None, {})


def reach_of(atoms: PolicyBatch, weights: Weights) -> tuple[float, bool]:
    """How far the η axis must reach to show the exact optimum at every α; and whether it needs a logarithmic scale."""
    steps = exact_step(atoms, torch.linspace(0, 1, 9, dtype=atoms.theta.dtype)[:, None], weights).numpy().ravel()
    steps = steps[np.isfinite(steps) & (steps > 0)]
    if not len(steps):
        return 2.0, False
    return _nice(1.25 * float(steps.max())), bool(steps.max() > 40 * steps.min())


def _nice(wanted: float) -> float:
    unit = 10.0 ** np.floor(np.log10(wanted))
    return float(next(m * unit for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * unit >= wanted * (1 - 1e-9)))


def reaching(reach: float, eta: float) -> float:
    """The same axis where it shows η, or the next longer one that does."""
    return reach if eta <= reach else _nice(eta)


def ceiling_unit(atoms: PolicyBatch) -> float:
    """The unit of progress: KL(π_t‖π_θ), π_t conditioned on the tokens of π_θ; 1 where that is no number."""
    log_theta, _ = atoms.restricted
    target = atoms.target.masked_fill(~atoms.common, -torch.inf)
    unit = kl(target - torch.logsumexp(target, -1, keepdim=True), log_theta).item()
    return unit if 0 < unit < np.inf else 1.0


def _sample_curves(atoms: PolicyBatch, tilts: TiltFamily | None) -> tuple[Array, dict[str, Curve]]:
    # Without every token of π_θ in π_t samples of q are worth nothing below α = 1.
    reaches = bool((atoms.support.common_size == atoms.support.theta_size).all())

    def evaluate(alpha: Array) -> dict[str, Array]:
        a = _column(alpha, atoms)
        m = tilted_moments(atoms, a)
        found = {"log_partition": m.log_partition, "delta": m.delta, "variance": m.variance}
        found |= {"kl_to_theta": m.kl_to_theta, "kl_to_target": m.kl_to_target}
        if reaches:
            found["ess"] = ess_fraction(atoms, a)
        if tilts is not None:
            s = tilts.signal(a)
            found |= {"snr": s.signed_snr, "phi1": s.phi1}
            found |= {"phi2": s.log_phi2, "eta_star": s.quadratic_step}
        return {name: x.reshape(-1).cpu().numpy() for name, x in found.items()}

    nodes = np.linspace(0, 1, FIRST)
    raw = evaluate(nodes)
    codes = {name: _code(name, values) for name, values in raw.items()}

    def encoded(values: Mapping[str, Array]) -> Array:
        return np.stack([_encoded(v, *codes[name], logged=name == "phi2") for name, v in values.items()])

    def tolerance(stacked: Array) -> Array:
        finite = np.where(np.isfinite(stacked), stacked, 0.0)
        allowed: Array = np.maximum(TOLERANCE * np.ptp(finite, axis=-1), ROUNDING)
        for i, (name, (encoding, _)) in enumerate(codes.items()):
            if encoding != "linear":
                allowed[i] = TOLERANCE  # a logarithm's error is relative already
            elif name == "log_partition":
                allowed[i] = 1e-9  # the tokens are as exact as log Z is
        return allowed

    nodes, stacked = _refine(nodes, encoded(raw), lambda x: encoded(evaluate(x)), tolerance, MOST)
    return nodes, {name: Curve(v, *codes[name]) for name, v in zip(codes, stacked, strict=True)}


_WIDE = frozenset({"phi1", "phi2", "eta_star"})
"""Quantities that may span many orders of magnitude along α."""


def _code(name: str, values: Array) -> tuple[Encoding, float]:
    """A logarithm for a wide quantity of one sign; sinh, linear near zero, where it changes sign."""
    if name not in _WIDE:
        return "linear", 1.0
    if name == "phi2" or (values > 0).all():
        return "log", 1.0
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return "sinh", float(np.quantile(sizes, 0.1)) if len(sizes) else 1.0


def _encoded(values: Array, encoding: Encoding, scale: float, *, logged: bool = False) -> Array:
    if encoding == "linear" or logged:
        return values
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        coded: Array = np.log(values) if encoding == "log" else np.arcsinh(values / scale)
    return coded


def _sample_progress(tilts: TiltFamily, reach: float) -> ProgressTable:
    unit = ceiling_unit(tilts.batch)
    ends = _ends(tilts, unit, reach)
    smallest = np.exp(0.5 * (np.log(2 * unit) - tilts.signal(_column(ends.nodes, tilts.batch)).log_phi2.numpy()[:, 0]))
    bend = float(np.clip(np.arcsinh(np.exp(ends.values) / smallest).max(), 2, 40))

    def row(alpha: float, t: Array) -> Array:
        eta = _column(ends.step(alpha, t, bend), tilts.batch)
        progress = tilts.progress(_column(alpha, tilts.batch)[0], eta).reshape(-1).cpu().numpy()
        return np.arcsinh(progress / unit)

    def along_t(t: Array) -> Array:
        return np.stack([row(a, t) for a in spread])

    # At first where the table bends along η, on a few α; then along α, at all of these η.
    first, spread = np.linspace(0, 1, TABLE_FIRST), np.linspace(0, 1, SPREAD)
    t, rows = _refine(first, along_t(first), along_t, _table_tolerance, TABLE_MOST)

    def along_alpha(alpha: Array) -> Array:
        return np.stack([row(a, t) for a in alpha], -1)

    nodes, values = _refine(spread, rows.T, along_alpha, _table_tolerance, TABLE_MOST)
    return ProgressTable(nodes, t, values.T, unit, ends, bend)


def _table_tolerance(values: Array) -> Array:
    return np.array(TABLE_TOLERANCE)


def _ends(tilts: TiltFamily, unit: float, reach: float) -> Ends:
    """Where progress falls to −HARM units, for each α: by bracketing and Chandrupatla's rule, on log η."""
    nodes = np.linspace(0, 1, ENDS)
    a = _column(nodes, tilts.batch)

    def height(x: Array, index: Array) -> Array:
        i = torch.as_tensor(index.astype(np.int64))
        progress = tilts.progress(a[i], _column(np.exp(x), tilts.batch)).reshape(-1).cpu().numpy()
        found: Array = np.arcsinh(progress / unit) + np.arcsinh(HARM)
        return found

    index = np.arange(ENDS)
    # At η = √(2·unit/Φ₂) the quadratic has lost one unit: near the root, or the root is far above it.
    guess = 0.5 * (np.log(2 * unit) - tilts.signal(a).log_phi2.cpu().numpy()[:, 0])
    far = np.log(reach) + 7
    guess = np.minimum(guess, far - 2)
    bracket = elementwise.bracket_root(height, guess, guess + 1, args=(index,), xmax=far, maxiter=40)
    root = np.full(ENDS, np.inf)
    found = bracket.success
    if found.any():
        ends = (bracket.bracket[0][found], bracket.bracket[1][found])
        root[found] = elementwise.find_root(height, ends, args=(index[found],), tolerances={"xatol": 1e-3}).x
    # A smooth minimum: a kink in the coordinate would be one in the table.
    return Ends(nodes, -np.logaddexp(-root, -far))


def _sample_best(atoms: PolicyBatch, tilts: TiltFamily, weights: Weights, alpha: Array) -> dict[str, Curve]:
    a = _column(alpha, atoms)
    step = exact_step(atoms, a, weights)
    gain = tilts.progress(a, step)
    found = {"exact_step": step.log(), "exact_gain": gain}
    curves = {
        name: Curve(x.reshape(-1).cpu().numpy(), "log" if name == "exact_step" else "linear")
        for name, x in found.items()
    }
    return curves if all(np.isfinite(c.values).all() for c in curves.values()) else {}


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
            rough = (error > tolerance(values).reshape(-1, *[1] * (error.ndim - 1))).any(tuple(range(error.ndim - 1)))
        order = np.argsort(np.concatenate([nodes, middle]), kind="stable")
        nodes = np.concatenate([nodes, middle])[order]
        values = np.concatenate([values, exact], -1)[..., order]
        left, middle, right = left[rough], middle[rough], right[rough]
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        order = np.argsort(left)
        left, right = left[order], right[order]
    return nodes, values
