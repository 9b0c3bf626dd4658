"""One row over any vocabulary as a few hundred weighted atoms, so that curves and grids cost O(atoms), not O(V).

Every α- and η-quantity of the family depends only on the joint distribution of (ℓ, r) under π_θ (for the default
reference r = ℓ, of ℓ alone). Tokens that matter singly are kept; the others are cut into cells of (ℓ, r), and each cell
becomes the Gauss quadrature of its own distribution: two atoms that match its moments up to the third for r = ℓ, and
otherwise four that match mean, covariance and the third moments along two uncorrelated directions. The result is
itself a PolicyBatch, so all formulas apply unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geomix_core.numerics import NEG_INF
from geomix_core.policies import PolicyBatch

HEAD, HEAD_2D = 128, 1024
"""Tokens kept one by one, by the larger of their two probabilities: for r = ℓ, and for an independent reference."""
EXTREMES = 32
"""Tokens kept at each end of ℓ (and of r): they carry the largest importance weights."""
TALLEST, PLACES = 32, tuple(sign * (1 - alpha) for sign in (-1, 1) for alpha in (0.0, 0.25, 0.5, 0.75))
"""Tokens of the largest tilt h ∝ r·exp(place·ℓ) that are kept at each place for an independent reference (`tilts`, both
conventions): as the step grows, one of them takes over all at once."""
LEAST, MOST, WIDEST = 192, 512, 0.5
"""Cells for r = ℓ: at least, at most, and in between as many as have this width, nats."""
SIDE = 32
"""Cells along each of ℓ and r for an independent reference."""
BINS = 4096
"""Even bins of which cells are made."""
SMALL = 5120
"""Vocabularies up to this size are left as they are, unless a caller sets another limit."""


def compress(batch: PolicyBatch, limit: int = SMALL) -> PolicyBatch:
    """Atoms `[B, K]` in place of tokens `[B, V]`; the batch itself where V ≤ limit.

    K is about 500 for r = ℓ, and up to 4 500 for an independent reference. log Z, Δ, KLs, Φ's, SNR and exact progress
    of the result agree with the batch's own within 1e-6 (r = ℓ) and 5e-4 (independent reference; on language-model rows
    5e-5), relative to their range. Divergences that do not depend on ℓ under π_θ do not survive.
    """
    if batch.vocab_size <= limit:
        return batch
    rows = [_compress_row(batch.rows(i)) for i in range(len(batch))]
    width = max(theta.shape[-1] for theta, _, _ in rows)
    padded = [torch.stack([_pad(row[k], width) for row in rows]) for k in range(3)]
    return PolicyBatch(padded[0], padded[1], None if batch.reference is None else padded[2])


def _compress_row(row: PolicyBatch) -> tuple[Tensor, Tensor, Tensor]:
    """(log π_θ, log π_t, log π_ref) of the atoms, each `[K]`."""
    theta, target = row.theta[0], row.target[0]
    reference = theta if row.reference is None else row.reference[0]
    rewarded = row.common[0] & (reference != NEG_INF)
    outside = (
        (theta != NEG_INF) & (target == NEG_INF),
        (theta == NEG_INF) & (target != NEG_INF),
        row.common[0] & ~rewarded,
    )
    merged = [
        torch.stack([torch.logsumexp(x[mask], 0) for x in (theta, target, reference)]) for mask in outside if mask.any()
    ]
    ell, reward, likelier = row.log_ratio[0], target - reference, torch.maximum(theta, target)

    index = rewarded.nonzero().squeeze(-1)
    head = HEAD if row.reference is None else HEAD_2D
    scores = [(likelier[index], head), (ell[index], EXTREMES), (-ell[index], EXTREMES)]
    if row.reference is not None:
        r = reward[index]
        scores += [(r, EXTREMES), (-r, EXTREMES)]
        scores += [(r.clamp(min=0).log() + place * ell[index], TALLEST) for place in PLACES]
    keep = torch.zeros_like(rewarded)
    for score, size in scores:
        keep[index[score.topk(min(size, len(index))).indices]] = True
    rest = rewarded & ~keep

    parts = [torch.stack([theta[keep], target[keep], reference[keep]]), *(m[:, None] for m in merged)]
    if rest.any():
        p, weight = theta[rest].exp(), likelier[rest].exp()
        if row.reference is None:
            mass, node_ell = _line_of_cells(p, weight, ell[rest])
            node_reward = node_ell
        else:
            mass, node_ell, node_reward = _square_of_cells(p, weight, ell[rest], reward[rest])
        log_mass = mass.log()
        parts.append(torch.stack([log_mass, log_mass + node_ell, log_mass + node_ell - node_reward]))
    atoms = torch.cat(parts, -1)
    return atoms[0], atoms[1], atoms[2]


def _line_of_cells(p: Tensor, weight: Tensor, ell: Tensor) -> tuple[Tensor, Tensor]:
    """(masses, ℓ) of two atoms a cell."""
    low, high = ell.aminmax()
    cell, start, width = _cells(ell, weight, min(max(LEAST, int((high - low) / WIDEST)), MOST))
    used, cell, mass = _filled(cell, p, len(start))
    start, width = start[used], width[used]
    x = (ell - start[cell]) / width[cell]
    mean = _means(cell, p * x, mass)
    x = x - mean[cell]
    spread, unit = _spread(_means(cell, p * x.square(), mass))
    nodes = _two_points(_means(cell, p * (x / unit[cell]).pow(3), mass))
    return (
        torch.cat([mass * share for _, share in nodes]),
        torch.cat([start + width * (mean + spread * z) for z, _ in nodes]),
    )


def _square_of_cells(p: Tensor, weight: Tensor, ell: Tensor, reward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(masses, ℓ, r) of four atoms a cell of a square grid."""
    (i, start_x, width_x), (j, start_y, width_y) = (_cells(x, weight, SIDE) for x in (ell, reward))
    used, cell, mass = _filled(i * SIDE + j, p, SIDE * SIDE)
    start_x, width_x = (x[used // SIDE] for x in (start_x, width_x))
    start_y, width_y = (y[used % SIDE] for y in (start_y, width_y))
    x, y = (ell - start_x[cell]) / width_x[cell], (reward - start_y[cell]) / width_y[cell]
    mean_x, mean_y = _means(cell, p * x, mass), _means(cell, p * y, mass)
    x, y = x - mean_x[cell], y - mean_y[cell]
    # The Cholesky factor of the covariance, [[spread_x, 0], [lean, spread_y]], makes x and y uncorrelated.
    spread_x, unit_x = _spread(_means(cell, p * x.square(), mass))
    x = x / unit_x[cell]
    lean = _means(cell, p * x * y, mass)
    y = y - lean[cell] * x
    spread_y, unit_y = _spread(_means(cell, p * y.square(), mass))
    y = y / unit_y[cell]
    nodes = [
        (u, v, share_u * share_v)
        for u, share_u in _two_points(_means(cell, p * x.pow(3), mass))
        for v, share_v in _two_points(_means(cell, p * y.pow(3), mass))
    ]
    return (
        torch.cat([mass * share for _, _, share in nodes]),
        torch.cat([start_x + width_x * (mean_x + spread_x * u) for u, _, _ in nodes]),
        torch.cat([start_y + width_y * (mean_y + lean * u + spread_y * v) for u, v, _ in nodes]),
    )


def _cells(x: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cell of each x, where each cell starts, and its width.

    Half of the cells go by weight and half by length: narrow where much of the weight is, and nowhere very wide.
    """
    low, high = x.aminmax()
    width = (high - low) / BINS
    if width <= 0:
        return torch.zeros_like(x, dtype=torch.long), low.expand(count), torch.ones_like(low).expand(count)
    place = ((x - low) / width).long().clamp(max=BINS - 1)
    within = torch.bincount(place, weight, BINS)
    within = within / (2 * within.sum()) + 0.5 / BINS
    cell = ((within.cumsum(0) - within / 2) * count).long().clamp(max=count - 1)
    first = torch.searchsorted(cell, torch.arange(count + 1, device=x.device))
    # A cell without a bin is no token's.
    return cell[place], low + width * first[:-1], width * first.diff().clamp(min=1)


def _filled(cell: Tensor, p: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells that have mass, the place among them of each token's cell, and their masses."""
    mass = torch.bincount(cell, p, count)
    used = mass.nonzero().squeeze(-1)
    place = torch.zeros_like(mass, dtype=torch.long)
    place[used] = torch.arange(len(used), device=mass.device)
    return used, place[cell], mass[used]


def _means(cell: Tensor, weighted: Tensor, mass: Tensor) -> Tensor:
    return torch.bincount(cell, weighted, len(mass)) / mass


def _spread(variance: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation, and the same to divide by: 1 where it is the rounding of zero."""
    spread = variance.sqrt()
    return spread, torch.where(spread > 1e-9, spread, torch.ones_like(spread))


def _two_points(skew: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """(node, weight) of the two Gauss nodes of a distribution with mean 0, variance 1 and this skewness."""
    root = (skew.square() + 4).sqrt()
    upper, lower = (skew + root) / 2, (skew - root) / 2
    return (upper, -lower / root), (lower, upper / root)


def _pad(x: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[-1]), value=NEG_INF)
