"""What is maximised over α, compiled (numba): log SNR, or the worst progress over a range of η, each with its slope.

Both are sums over atoms (`solvers.atoms`), or over tokens as atoms. For SNR h is known up to a factor, which it does
not feel: h = r·g, g = e^(κ(βℓ) − its maximum), β = 1 − α, κ = −1 for w = π_θ/q and +1 for w = q/π_θ. Sums are of h − h₀
with h₀ that of the first atom, the likeliest token of π_θ: Var h would cancel otherwise where it has nearly all of π_θ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from geomix_core.solvers.atoms import LOG2E
from geomix_core.solvers.lanes import exp2, in_lanes, larger

VALUE, SLOPE, SIGN, LEFT = range(4)
"""Of `at`: log SNR or the share of KL(π_t‖π_θ) that is gained (−log(1 − x) below 0); its slope in α; the sign of Φ₁, or
−1 where the lower η is the worse and 1 otherwise; the share of a sum that cancelling has left."""
GAIN, RISE = 4, 6
"""For progress, in nats: at both η from GAIN, their slopes from RISE."""
AT = 8

NEAR = 0.25
"""Nats up to which e^x − 1 is summed as a series."""
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12 = (1 / math.factorial(n) for n in range(2, 13))

TIMID = 1e-6
"""Where policies differ by less, or less than this is left of what cancels, others decide."""


class Aim(NamedTuple):
    """What is maximised."""

    kappa: float
    """−1 for w = π_θ/q, 1 for w = q/π_θ."""
    etas: np.ndarray
    """`[2]`: the ends of the range of η; `[0]` for SNR."""


class Atoms(NamedTuple):
    """Points of ℓ with what π_θ, π_t and the reward have there."""

    ell: np.ndarray
    """`[n]`."""
    ratio: np.ndarray
    gap: np.ndarray
    reward: np.ndarray
    """`[≥ n]`: π_t/π_θ, with π_t conditioned on the support of π_θ, and that less 1; r, 0 where p is."""
    measures: np.ndarray
    """`[3, ≥ n]`: p, p·r and p·r², with p that of π_θ."""
    plain: bool
    """Whether each has a reward r of its own, or sums are only right as a whole."""
    low: float
    high: float
    """The range of ℓ, at least."""
    kl: float
    """KL(π_t‖π_θ), nats."""


@in_lanes
def tilt(ell, power, top, g):
    """Fills g with e^(power·ℓ − top)."""
    for i in range(ell.shape[0]):
        g[i] = exp2(power * ell[i] - top, LOG2E)


@in_lanes
def _sums_of_points(atoms, g, h0, d0, out):
    """`sums_of_atoms` where each is a point: p·d² is a square, and nothing cancels where h is nearly constant."""
    ell, gap, mass, reward = atoms.ell, atoms.gap, atoms.measures[0], atoms.reward
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    for i in range(1, ell.shape[0]):
        x, p = ell[i], mass[i]
        h = reward[i] * g[i]
        d, steep = h - h0, h * x - d0
        s0 += p * d
        s1 += gap[i] * p * d
        s2 += p * d * d
        s3 += p * steep
        s4 += gap[i] * p * steep
        s5 += p * d * steep
        s6 += abs(gap[i] * p * d)
        s7 += p * (h * h + h0 * h0)
    out[:7] = s0, s1, s2, s3, s4, s5, s6
    out[7] = math.sqrt(s2 / s7) if s7 > 0 else 0.0  # d is a difference, p·d² its square


@in_lanes
def _sums_of_measures(atoms, g, h0, d0, out):
    """`sums_of_atoms` where only sums are right, not single atoms."""
    ell, gap = atoms.ell, atoms.gap
    mass, with_r, with_rr = atoms.measures[0], atoms.measures[1], atoms.measures[2]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    for i in range(1, ell.shape[0]):
        x, p, q, s = ell[i], mass[i], with_r[i], with_rr[i]
        h, hh = q * g[i], s * g[i] * g[i]
        d, steep = h - h0 * p, h * x - d0 * p
        s0 += d
        s1 += gap[i] * d
        s2 += hh - 2 * h0 * h + h0 * h0 * p
        s3 += steep
        s4 += gap[i] * steep
        s5 += x * (hh - h0 * h) - d0 * d
        s6 += abs(gap[i] * d)
        s7 += abs(hh) + abs(h0 * h0 * p)
    out[:7] = s0, s1, s2, s3, s4, s5, s6
    out[7] = abs(s2) / s7 if s7 > 0 else 0.0


@njit(nogil=True, cache=True)
def sums_of_atoms(atoms, g, out):
    """Σ over all atoms but the first: out[0:3] of p·d, pD·d, p·d², d = h − h₀; [3:6] of their slopes; [6] of |pD·d|.

    h = r·g, g as `tilt` has left it, h₀ that of the first atom, D is the gap, and the slopes lack the factor −κ.
    out[7]: the share that is left of the terms of p·d².
    """
    h0 = atoms.reward[0] * g[0]
    if atoms.plain:
        _sums_of_points(atoms, g, h0, h0 * atoms.ell[0], out)
    else:
        _sums_of_measures(atoms, g, h0, h0 * atoms.ell[0], out)


@njit(nogil=True, cache=True)
def read(sums, kappa, at):
    """Sums to `at`."""
    phi1, phi2 = sums[1], sums[2] - sums[0] * sums[0]
    if phi1 == 0 or not (phi2 > 0):
        at[VALUE], at[SLOPE], at[SIGN], at[LEFT] = -np.inf, 0.0, 0.0, 0.0
        return
    at[VALUE] = math.log(abs(phi1)) - 0.5 * math.log(phi2)
    at[SLOPE] = -kappa * (sums[4] / phi1 - (sums[5] - sums[0] * sums[3]) / phi2)
    at[SIGN] = 1.0 if phi1 > 0 else -1.0
    at[LEFT] = min(abs(phi1) / sums[6], phi2 / sums[2], sums[7])


@njit(nogil=True, cache=True)
def ease(alpha, kappa, atoms):
    """(power, top): the exponent's slope in ℓ, and its maximum."""
    power = kappa * (1 - alpha)
    return power, max(power * atoms.low, power * atoms.high)


@njit(nogil=True, cache=True)
def snr_at(alpha, kappa, atoms, g, at):
    """log SNR at one α, from atoms of which the first is the likeliest token. g `[≥ n]`: scratch."""
    sums = np.empty(8)
    power, top = ease(alpha, kappa, atoms)
    tilt(atoms.ell, power, top, g)
    sums_of_atoms(atoms, g, sums)
    read(sums, kappa, at)


@in_lanes
def _times(g, step):
    for i in range(step.shape[0]):
        g[i] *= step[i]


@njit(nogil=True, cache=True)
def snr_on_grid(kappa, atoms, room, grid):
    """VALUE, SLOPE, SIGN for even steps of α from 0 to 1, `[n, 3]`: one exponential an atom serves them all."""
    sums, at, n = np.empty(8), np.empty(AT), atoms.ell.shape[0]
    g, step = room[0, :n], room[1, :n]
    # h² reaches e^600 r², which float64 holds: ranges of ℓ are at most WIDEST.
    tilt(atoms.ell, kappa, 0.0, g)
    tilt(atoms.ell, -kappa / (len(grid) - 1), 0.0, step)
    for i in range(len(grid)):
        sums_of_atoms(atoms, g, sums)
        read(sums, kappa, at)
        grid[i] = at[:3]
        _times(g, step)


@in_lanes
def _off(power, h0, g, width, own, atoms):
    """What Φ₁ and Φ₂ may be off by on atoms from cells of one width: `solvers.atoms` has the bound.

    Of e^(sℓ)·ℓᵏ, which r = ℓ makes of it, the eighth derivative has more terms; a reward of its own is in the measures.
    """
    ell, ratio, mass, with_r, with_rr = atoms.ell, atoms.ratio, atoms.measures[0], atoms.measures[1], atoms.measures[2]
    s, t, w = abs(power), 1 + abs(power), 2 * abs(power)
    first = second = 0.0
    for i in range(ell.shape[0]):
        x, p = abs(ell[i]), abs(mass[i])
        once, shifted, twice = s**8 * x + 8 * s**7, t**8 * x + 8 * t**7, w**8 * x * x + 16 * w**7 * x + 56 * w**6
        p1, p2 = p, p
        if own:
            once, shifted, twice, p1, p2 = s**8, t**8, w**8, abs(with_r[i]), abs(with_rr[i])
        first += p1 * g[i] * (once + ratio[i] * shifted)
        second += g[i] * (p2 * g[i] * twice + 2 * abs(h0) * p1 * once)
    share = 2 * (width / 4) ** 8 / 40320 * math.exp(2 * width)
    return share * first, share * second


@njit(nogil=True, cache=True)
def off_by(alpha, kappa, width, own, atoms, g):
    """What log SNR may be off by at α on atoms from cells of one width. own: its own reward; g `[≥ n]`: scratch."""
    sums = np.empty(8)
    power, top = ease(alpha, kappa, atoms)
    tilt(atoms.ell, power, top, g)
    sums_of_atoms(atoms, g, sums)
    first, second = _off(power, atoms.reward[0] * g[0], g, width, own, atoms)
    phi1, phi2 = abs(sums[1]), sums[2] - sums[0] * sums[0]
    return first / phi1 + second / (2 * phi2) if phi1 > 0 and phi2 > 0 else math.inf


@in_lanes
def _partition(ell, mass, beta, top):
    """Σ p e^(βℓ − top), and the same with ℓ."""
    s0 = s1 = 0.0
    for i in range(ell.shape[0]):
        w = mass[i] * exp2(beta * ell[i] - top, LOG2E)
        s0 += w
        s1 += w * ell[i]
    return s0, s1


@in_lanes
def _tilts(atoms, power, top, factor, mean, h, steep):
    """Fills h = factor·r·e^(power·ℓ − top) and steep = h·(ℓ − mean); returns E_t[steep] and the range of h."""
    ell, ratio, mass, reward = atoms.ell, atoms.ratio, atoms.measures[0], atoms.reward
    total = 0.0
    high = low = -np.inf
    for i in range(ell.shape[0]):
        p = mass[i]
        x = reward[i] * exp2(power * ell[i] - top, LOG2E) * factor
        h[i], steep[i] = x, x * (ell[i] - mean)
        total += p * ratio[i] * steep[i]
        high, low = larger(x if p > 0 else -np.inf, high), larger(-x if p > 0 else -np.inf, low)
    return total, -low, high


@in_lanes
def _updated(atoms, h, steep, eta, peak):
    """(E_t[η(h − peak)], E_θ[e^(η(h − peak))], and the latter with steep): h ≤ peak where π_θ > 0, or ≥ for η < 0."""
    mass, ratio = atoms.measures[0], atoms.ratio
    gain = s0 = s1 = 0.0
    for i in range(h.shape[0]):
        p = mass[i]
        below = min(eta * (h[i] - peak), 0.0) if p > 0 else 0.0
        w = p * exp2(below, LOG2E)
        gain += p * ratio[i] * below
        s0 += w
        s1 += w * steep[i]
    return gain, s0, s1


@njit(nogil=True, cache=True)
def worst_at(alpha, kappa, etas, atoms, room, at):
    """The smaller of the progress at two η > 0, at one α. room `[2, ≥ n]`: scratch."""
    beta, mass = 1 - alpha, atoms.measures[0]
    most = max(beta * atoms.low, beta * atoms.high)
    s0, s1 = _partition(atoms.ell, mass, beta, most)
    log_z, mean = math.log(s0) + most, s1 / s0
    power = kappa * beta
    top = max(power * atoms.low, power * atoms.high)
    n = atoms.ell.shape[0]
    h, steep = room[0, :n], room[1, :n]
    # dh/dα = −κ·h·(ℓ − E_q ℓ)
    steep_t, _, peak = _tilts(atoms, power, top, math.exp(top - kappa * log_z), mean, h, steep)
    for j in range(2):
        gain, w, ws = _updated(atoms, h, steep, etas[j], peak)
        at[GAIN + j] = gain - math.log(w)
        at[RISE + j] = -kappa * etas[j] * (steep_t - ws / w)
    worse = 0 if at[GAIN] <= at[GAIN + 1] else 1
    share, slope = at[GAIN + worse] / atoms.kl, at[RISE + worse] / atoms.kl
    at[VALUE] = share if share >= 0 else -math.log1p(-share)
    at[SLOPE] = slope if share >= 0 else slope / (1 - share)
    at[SIGN], at[LEFT] = 2.0 * worse - 1, 1.0


@njit(nogil=True, cache=True)
def evaluate(alpha, aim, atoms, room, at):
    """What is aimed at, at one α."""
    if aim.etas.shape[0] == 0:
        snr_at(alpha, aim.kappa, atoms, room[0], at)
    else:
        worst_at(alpha, aim.kappa, aim.etas, atoms, room, at)


@in_lanes
def _weigh(ell, mass, with_r, lost, ratio, gap, reward):
    """Fills e^(ℓ − lost), that less 1, and r; returns Σ p (e^x·x − (e^x − 1)), x = ℓ − lost, and the range of ℓ."""
    kl = 0.0
    high = low = -np.inf
    for i in range(ell.shape[0]):
        x = ell[i] - lost
        e = exp2(x, LOG2E)
        near = max(min(x, NEAR), -NEAR)
        less = near * (1 + near * (_E2 + near * (_E3 + near * (_E4 + near * (_E5 + near * (_E6 + near * (_E7 + near * (
            _E8 + near * (_E9 + near * (_E10 + near * (_E11 + near * _E12)))))))))))  # fmt: skip
        less = less if near == x else e - 1
        ratio[i], gap[i], reward[i] = e, less, with_r[i] / mass[i] if mass[i] != 0 else 0.0
        kl += mass[i] * (e * x - less)
        high, low = larger(ell[i], high), larger(-ell[i], low)
    return kl, -low, high


@njit(nogil=True, cache=True)
def weighed(ell, measures, plain, lost, rest):
    """`Atoms` of ell `[n]` and measures `[3, ≥ n]`; fills rest `[3, ≥ n]`. lost: log of π_t's mass where π_θ > 0."""
    ratio, gap, reward = rest[0], rest[1], rest[2]
    kl, low, high = _weigh(ell, measures[0], measures[1], lost, ratio, gap, reward)
    return Atoms(ell, ratio, gap, reward, measures, plain, low, high, kl)


@njit(nogil=True, cache=True)
def apart(atoms):
    """Σ |π_t − π_θ|."""
    total = 0.0
    for i in range(atoms.ell.shape[0]):
        total += abs(atoms.gap[i] * atoms.measures[0, i])
    return total


@njit(nogil=True, cache=True)
def decidable(atoms):
    """Whether policies differ by more than TIMID, and the reward by more than that is made of rounding."""
    square = 0.0
    for i in range(atoms.ell.shape[0]):
        square += atoms.measures[2, i]
    return apart(atoms) > TIMID and square > TIMID * TIMID
