"""One row over any vocabulary as a few hundred weighted atoms, so that curves and grids cost O(atoms), not O(V).

Every α- and η-quantity of the family depends only on the joint distribution of (ℓ, r) under π_θ (for the default
reference r = ℓ, of ℓ alone). Tokens that matter singly are kept; the others are cut into cells of (ℓ, r), and each cell
becomes the Gauss quadrature of its own distribution: two atoms that match its moments up to the third for r = ℓ, and
otherwise four that match mean, covariance and the third moments along two uncorrelated directions. A cell of (ℓ, r) is
halved until it is narrow for the weight it has, under π_θ and π_t and also after updates: an update may live on tokens
that are rare under both. The result is itself a PolicyBatch, so all formulas apply unchanged.
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
"""Cells along each of ℓ and r for an independent reference, before any is halved."""
ROUGH, FEW, CELLS = 3e-4, 4, 3600
"""A cell is halved while weight·width⁴ (nats) exceeds the first, but not if it has few tokens, which then stay tokens,
nor beyond so many cells. Of an exponential, two Gauss nodes miss 1/4320 of that where a cell is evenly filled."""
UPDATES = ((1.0, (1.0, 2.0, 4.0)), (0.5, (2.0,)))
"""Updates with importance weights under which tokens are weighed for an independent reference: α, and steps η."""
STRAY = 0.25
"""How far from the rewards of a cell's tokens its atoms' may be, nats: more than where cells are narrow and matter."""
BINS = 4096
"""Even bins of which cells are made."""
SMALL = 5120
"""Vocabularies up to this size are left as they are, unless a caller sets another limit."""


def compress(batch: PolicyBatch, limit: int = SMALL) -> PolicyBatch:
    """Atoms `[B, K]` in place of tokens `[B, V]`; the batch itself where V ≤ limit.

    K is about 500 for r = ℓ. For an independent reference it is 1 500 to 5 000, and up to 15 000 where the policies
    differ by tens of nats. Of the result, log Z, Δ, KLs, Φ's and SNR agree with the batch's own within 1e-5 of their
    range (for r = ℓ mostly 1e-6), and exact progress, where it is above −½ KL(π_t‖π_θ), within 1e-4 of KL(π_t‖π_θ).
    This is measured on `scenarios.FAMILIES`, not proved. Divergences that do not depend on ℓ under π_θ do not survive.
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
        log_r = r.clamp(min=0).log()
        scores += [(log_r + place * ell[index], TALLEST) for place in PLACES]
    keep = torch.zeros_like(rewarded)
    for score, size in scores:
        keep[index[score.topk(min(size, len(index))).indices]] = True
    rest = (rewarded & ~keep).nonzero().squeeze(-1)

    parts = [torch.stack([theta[keep], target[keep], reference[keep]]), *(m[:, None] for m in merged)]
    if len(rest):
        p, weight = theta[rest].exp(), likelier[rest].exp()
        if row.reference is None:
            mass, node_ell = _line_of_cells(p, weight, ell[rest])
            node_reward = node_ell
        else:
            updated = torch.zeros_like(theta)
            updated[index] = _weight_in_updates(theta[index], ell[index], r)
            mass, node_ell, node_reward = _square_of_cells(p, weight, updated[rest], ell[rest], reward[rest])
        log_mass = mass.log()
        parts.append(torch.stack([log_mass, log_mass + node_ell, log_mass + node_ell - node_reward]))
    atoms = torch.cat(parts, -1)
    return atoms[0], atoms[1], atoms[2]


def _weight_in_updates(theta: Tensor, ell: Tensor, reward: Tensor) -> Tensor:
    """The largest π_θ'·max(1, η)⁴ over UPDATES, π_θ' ∝ π_θ exp(ηh): each token's part in the fourth derivative by r."""
    weight = torch.zeros_like(theta)
    for alpha, steps in UPDATES:
        log_ratio = (1 - alpha) * ell
        h = reward * (torch.logsumexp(theta + log_ratio, 0) - log_ratio).clamp(max=600).exp()
        # The step at which one token takes over: beyond it the others would weigh nothing.
        alone = torch.where(h > 0, -theta / h, torch.inf).amin()
        for step in steps:
            eta = alone.clamp(max=step)
            weight = torch.maximum(weight, torch.softmax(theta + eta * h, 0) * eta.clamp(min=1).pow(4))
    return weight


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
    masses = torch.stack([mass * share for _, share in nodes])
    ells = torch.stack([start + width * (mean + spread * z) for z, _ in nodes])
    return masses.flatten(), _with_target(masses, ells, cell, p, ell).flatten()


def _square_of_cells(
    p: Tensor, weight: Tensor, updated: Tensor, ell: Tensor, reward: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(masses, ℓ, r) of four atoms a cell of a square grid whose rough cells are halved; of few tokens, themselves."""
    (i, start_x, width_x), (j, start_y, width_y) = (_cells(x, weight, SIDE) for x in (ell, reward))
    used, cell, _ = _filled(i * SIDE + j, p, SIDE * SIDE)
    start = torch.stack([start_x[used // SIDE], start_y[used % SIDE]])
    width = torch.stack([width_x[used // SIDE], width_y[used % SIDE]])
    cell, start, width = _halved(cell, torch.maximum(weight, updated), torch.stack([ell, reward]), start, width)

    few = torch.bincount(cell, minlength=start.shape[1])[cell] <= FEW
    one, many = few.nonzero().squeeze(-1), (~few).nonzero().squeeze(-1)
    tokens = p[one], ell[one], reward[one]
    p, ell, reward = p[many], ell[many], reward[many]
    used, cell, mass = _filled(cell[many], p, start.shape[1])
    (start_x, start_y), (width_x, width_y) = start[:, used], width[:, used]
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
    # The nodes' ℓ lie among the tokens'; their r may stray, and an atom of a reward that no token has could take over.
    low, high = (mean_y.scatter_reduce(0, cell, reward, way, include_self=False) for way in ("amin", "amax"))
    atoms = []
    for u, share_u in _two_points(_means(cell, p * x.pow(3), mass)):
        for v, share_v in _two_points(_means(cell, p * y.pow(3), mass)):
            node_ell = start_x + width_x * (mean_x + spread_x * u)
            node_reward = start_y + width_y * (mean_y + lean * u + spread_y * v)
            atoms.append((mass * share_u * share_v, node_ell, node_reward.clamp(low - STRAY, high + STRAY)))
    masses, ells, rewards = (torch.stack(x) for x in zip(*atoms, strict=True))
    ells = _with_target(masses, ells, cell, p, ell)
    p, ell, reward = (torch.cat([x, y.flatten()]) for x, y in zip(tokens, (masses, ells, rewards), strict=True))
    return p, ell, reward


def _with_target(masses: Tensor, ells: Tensor, cell: Tensor, p: Tensor, ell: Tensor) -> Tensor:
    """The atoms' ℓ `[atoms of a cell, C]`, moved so that each cell keeps its mass under π_t = p·e^ℓ.

    Gauss nodes miss it in the fourth order. A tilt of hundreds of nats would multiply what log Z is wrong by.
    """
    wanted = torch.bincount(cell, (p.log() + ell).exp(), ells.shape[-1]).log()
    found = torch.logsumexp(masses.log() + ells, 0)
    shift = wanted - found
    return ells + torch.where(shift.isfinite(), shift, 0.0)


def _halved(cell: Tensor, weight: Tensor, place: Tensor, start: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's cell `[N]`, and the cells' starts and widths `[2, C]`, once no cell is rough.

    Rough cells are halved across their longer side, the roughest first; `place` `[2, N]` has the tokens' ℓ and r.
    """
    tokens = torch.arange(len(cell), device=cell.device)
    while True:
        count = start.shape[1]
        among = cell[tokens]
        error = torch.bincount(among, weight[tokens], count) * width.amax(0).pow(4)
        error[torch.bincount(among, minlength=count) <= FEW] = 0
        rough = error.topk(min(count, max(CELLS - count, 0))).indices
        rough = rough[error[rough] > ROUGH]
        if not len(rough):
            return cell, start, width
        order = torch.arange(len(rough), device=cell.device)
        rank = torch.full_like(error, -1, dtype=torch.long)
        rank[rough] = order
        side = width[:, rough].argmax(0)
        half, upper = width[:, rough], start[:, rough]
        half[side, order] /= 2
        upper[side, order] += half[side, order]

        tokens = tokens[rank[among] >= 0]
        of = rank[cell[tokens]]
        beyond = place[side[of], tokens] >= upper[side[of], of]
        cell[tokens[beyond]] = count + of[beyond]
        width[:, rough] = half
        start, width = torch.cat([start, upper], 1), torch.cat([width, half], 1)


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
