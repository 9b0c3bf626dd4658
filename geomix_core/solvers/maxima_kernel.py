"""Every maximum over α of SNR or of worst-case progress, one row after another, compiled (numba).

`atoms` reduces a row in one pass. On few atoms a value and its slope cost microseconds, so the search can be thorough:
`maxima.search` in scalar form (a grid, cells split where they may hide more than their ends show, every change from
rising to falling closed in on). What might be highest is then evaluated exactly, for SNR on the atoms that are as good
as all tokens, for progress on all tokens, three passes each, and moved by a Newton step with the few atoms' curvature,
or to where the two curves of progress cross.
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

import numpy as np
from numba import njit

from geomix_core.solvers.atoms import (
    EMPTY,
    FINE,
    FINE_MOST,
    FINE_WIDTH,
    INFINITE,
    LOST,
    MOST,
    NAN,
    SIZE,
    SMALL,
    UNEQUAL,
    coarsen,
    crowded,
    gather,
    normalise,
    pair_up,
    spell_out,
    survey,
    work,
)
from geomix_core.solvers.kernel import constants
from geomix_core.solvers.tilt_kernel import (
    AT,
    GAIN,
    LEFT,
    RISE,
    SIGN,
    SLOPE,
    TIMID,
    VALUE,
    Aim,
    Atoms,
    decidable,
    evaluate,
    off_by,
    snr_at,
    snr_on_grid,
    weighed,
)

SOLVED, COMMON, BAD_NAN, BAD_INFINITE, BAD_EMPTY, HARD = range(6)
"""Codes of a row; HARD: left to `solvers.snr` and `solvers.wald`."""
ALPHA, HEIGHT, BRANCH, STEEPNESS, LOW, HIGH, PASSES = range(7)
"""Columns of what is written: α, SNR or progress in nats, SIGN, SLOPE, a cell around α, and passes."""

WIDTH, WORST_WIDTH = 0.25, 0.1
"""Cells of one width, in nats: for SNR, and for progress."""
CROWD = 1
"""Widths that the spread of ℓ must exceed, or cells are made finer."""
EXACT = 3e-10
"""What log SNR may be off by where cells are of one width, or they are made finer."""
FLAT = 100.0
"""Times what few atoms are wrong by: with a curvature below that, or at an end a slope, maxima are not left to them."""
GRID = 65
SPLIT, DEPTH = 8, 4
"""As in `maxima`."""
STACK = GRID * SPLIT * DEPTH
MARGIN, COARSE_MARGIN = 1e-3, 2e-3
"""Maxima whose value on few atoms is this near the highest are all evaluated exactly; where atoms are of (ℓ, r)."""
REACH = 2.0
"""A cell whose ends lie below the highest by more than this many times what their slopes could make up is left."""
ASTRAY = 5e-3
"""How far a maximum may lie from where few atoms have it."""
CLOSE = 1e-7
"""A step longer than this is followed by another exact evaluation."""
LEVEL = 1e-9
"""And one that changes the value by more than this."""


class Scratch(NamedTuple):
    """What is written to: cells, facts, few atoms, and those that are exact."""

    cells: np.ndarray
    facts: np.ndarray
    ell: np.ndarray
    measures: np.ndarray
    rest: np.ndarray
    room: np.ndarray
    exact_ell: np.ndarray
    exact_measures: np.ndarray
    exact_rest: np.ndarray
    exact_room: np.ndarray


@njit(nogil=True, cache=True)
def _suspicious(width, f0, g0, s0, f1, g1, s1):
    """Whether a cell may hide more than its ends show: see `maxima`."""
    if (g0 < 0 < g1) or s0 != s1:
        return True
    error = abs(f1 - f0 - width * (g0 + g1) / 2)
    return not (error <= 1e-3 + 0.05 * width * (abs(g0) + abs(g1)))


@njit(nogil=True, cache=True)
def _peak(low, high, g_low, g_high, aim, atoms, room, at):
    """Where the slope changes sign in a cell: false position (Illinois), halving every third time. Leaves `at`."""
    alpha = 0.5 * (low + high)
    side = 0
    for step in range(120):
        if high - low < 1e-10:
            break
        alpha = (low * g_high - high * g_low) / (g_high - g_low) if step % 3 < 2 else 0.5 * (low + high)
        if not low < alpha < high:
            alpha = 0.5 * (low + high)
        evaluate(alpha, aim, atoms, room, at)
        g = at[SLOPE]
        if g > 0:
            g_high *= 0.5 if side == 1 else 1.0
            low, g_low, side = alpha, g, 1
        elif g < 0:
            g_low *= 0.5 if side == -1 else 1.0
            high, g_high, side = alpha, g, -1
        else:
            break
    evaluate(alpha, aim, atoms, room, at)
    return alpha


@njit(nogil=True, cache=True)
def search(aim, atoms, room, margin, found):
    """All maxima on atoms, into found `[n, 4]`: α, value, and the cell that brackets it; −1 where others decide."""
    at = np.zeros(AT)
    grid = np.empty((GRID, 3))
    cells = np.empty((STACK, 9))
    if aim.etas.shape[0] == 0:
        snr_on_grid(aim.kappa, atoms, room, grid)
    else:
        for i in range(GRID):
            evaluate(i / (GRID - 1), aim, atoms, room, at)
            grid[i] = at[:3]
    best, worst = grid[:, VALUE].max(), grid[:, VALUE].min()
    if not (math.isfinite(best) and best - worst > TIMID):
        return -1
    number = 0
    for i in range(GRID - 1):
        cells[0, 0], cells[0, 1], cells[0, 8] = i / (GRID - 1), (i + 1) / (GRID - 1), 0
        cells[0, 2:5], cells[0, 5:8] = grid[i], grid[i + 1]
        waiting = 1
        while waiting > 0:
            waiting -= 1
            a, b, depth = cells[waiting, 0], cells[waiting, 1], cells[waiting, 8]
            left, right = cells[waiting, 2:5].copy(), cells[waiting, 5:8].copy()
            steep = max(abs(left[SLOPE]), abs(right[SLOPE]))
            if max(left[VALUE], right[VALUE]) + REACH * (b - a) * steep < best:
                continue
            if depth < DEPTH and _suspicious(b - a, left[0], left[1], left[2], right[0], right[1], right[2]):
                start = a
                for j in range(1, SPLIT + 1):
                    end = a + (b - a) * j / SPLIT
                    if j < SPLIT:
                        evaluate(end, aim, atoms, room, at)
                    else:
                        at[:3] = right
                    cells[waiting, 0], cells[waiting, 1], cells[waiting, 8] = start, end, depth + 1
                    cells[waiting, 2:5], cells[waiting, 5:8] = left, at[:3]
                    start, left[:] = end, at[:3]
                    waiting += 1
            elif left[SLOPE] > 0 and right[SLOPE] < 0:
                alpha = _peak(a, b, left[SLOPE], right[SLOPE], aim, atoms, room, at)
                if number == found.shape[0]:
                    return -1
                found[number, 0], found[number, 1], found[number, 2], found[number, 3] = alpha, at[VALUE], a, b
                number += 1
                best = max(best, at[VALUE])
    for end in (0, GRID - 1):
        slope = grid[end, SLOPE] if end > 0 else -grid[end, SLOPE]
        if best - grid[end, VALUE] > margin or slope < -TIMID:
            continue
        if number == found.shape[0]:
            return -1
        found[number, 0], found[number, 1] = end / (GRID - 1), grid[end, VALUE]
        found[number, 2], found[number, 3] = max(end - 1, 0) / (GRID - 1), min(end + 1, GRID - 1) / (GRID - 1)
        number += 1
    top = -np.inf
    for i in range(number):
        top = max(top, found[i, 1])
    return number if top >= best - 1e-9 else -1


@njit(nogil=True, cache=True)
def _polish(alpha, low, high, aim, atoms, room, exact, exact_room, flat, at):
    """A maximum on few atoms moved to where it is on exact ones: (α, evaluations), none where others decide.

    flat: a curvature, or at an end a slope, that is none.

    `at` is that of the last evaluation, at most a small step away, but its value is that at α.
    """
    worst = aim.etas.shape[0] > 0
    inside = 0 < alpha < 1
    # The cell may be narrower than what atoms are wrong by.
    low, high = max(0.0, min(low, alpha - ASTRAY)), min(1.0, max(high, alpha + ASTRAY))
    curve, crossing = 0.0, False
    if inside:
        # Twice, as a spike is steeper the nearer one looks.
        for near in (1e-4, 1e-7):
            reach = min(near, (high - low) / 4, alpha, 1 - alpha)
            evaluate(alpha - reach, aim, atoms, room, at)
            before, branch = at[SLOPE], at[SIGN]
            evaluate(alpha + reach, aim, atoms, room, at)
            bent = (at[SLOPE] - before) / (2 * reach)
            if near == 1e-4:
                curve, crossing = bent, worst and at[SIGN] != branch
            elif bent < 2 * curve and not crossing:
                curve = bent
        if not (curve < -flat or crossing):
            return alpha, 0
    for turn in range(1, 9):
        evaluate(alpha, aim, exact, exact_room, at)
        if not at[LEFT] > TIMID:
            return alpha, 0
        if not inside:
            outward = at[SLOPE] if alpha == 1 else -at[SLOPE]
            return alpha, turn if outward > (flat if flat > 0 else -TIMID) else 0
        if crossing:
            closing = at[RISE] - at[RISE + 1]
            if closing == 0:
                return alpha, 0
            step = -(at[GAIN] - at[GAIN + 1]) / closing
        else:
            step = -at[SLOPE] / curve
        new = alpha + step
        if not low <= new <= high:
            return alpha, 0
        at[VALUE] += (1.0 if crossing else 0.5) * at[SLOPE] * (new - alpha)
        small = abs(new - alpha) <= CLOSE
        small &= crossing or abs(at[SLOPE] * (new - alpha)) <= LEVEL
        alpha = new
        if small:
            return alpha, turn
    return alpha, 0


@njit(nogil=True, cache=True)
def _highest(aim, atoms, room, exact, exact_room, margin, flat, out):
    """The highest maximum into out, but for its PASSES: exact evaluations, none where others decide."""
    found = np.empty((256, 4))
    number = search(aim, atoms, room, margin, found)
    if number <= 0:
        return 0
    highest, best, total = found[:number, 1].max(), -np.inf, 0
    at, answer = np.zeros(AT), np.zeros(PASSES)
    for i in range(number):
        if found[i, 1] < highest - margin:
            continue
        alpha, turns = _polish(found[i, 0], found[i, 2], found[i, 3], aim, atoms, room, exact, exact_room, flat, at)
        if turns == 0:
            return 0
        total += turns
        if at[VALUE] <= best:
            continue
        best = at[VALUE]
        answer[ALPHA], answer[BRANCH], answer[LOW], answer[HIGH] = alpha, at[SIGN], found[i, 2], found[i, 3]
        if aim.etas.shape[0] > 0:
            answer[HEIGHT] = exact.kl * (best if best >= 0 else -math.expm1(-best))
            answer[STEEPNESS] = at[RISE + (0 if at[SIGN] < 0 else 1)]
        else:
            answer[HEIGHT], answer[STEEPNESS] = math.exp(best), at[SLOPE]
    out[:PASSES] = answer
    return total


@njit(nogil=True, cache=True)
def _agree(kappa, atoms, g, exact, exact_g):
    """Whether few atoms have log SNR as exact ones do, at both ends and halfway: cancelling may leave them nothing."""
    at, exact_at = np.zeros(AT), np.zeros(AT)
    for alpha in (0.0, 0.5, 1.0):
        snr_at(alpha, kappa, atoms, g, at)
        snr_at(alpha, kappa, exact, exact_g, exact_at)
        if not abs(at[VALUE] - exact_at[VALUE]) <= MARGIN / 2:
            return False
    return True


@njit(nogil=True, cache=True)
def _solve_snr(u, v, r, own, aim, k, scratch, out):
    """One row `[V]` a policy: (a code of `survey`, passes, none where others decide), and out but for its PASSES."""
    facts, exact_room, small = scratch.facts, scratch.exact_room, len(u) <= SMALL
    for fine in (False, True):
        code, n, top = gather(
            u, v, r, own, k, FINE_WIDTH if fine else WIDTH, FINE_MOST if fine else MOST, fine, scratch.cells, facts,
            scratch.exact_ell, scratch.exact_measures,
        )  # fmt: skip
        if code != FINE:
            return code, 0
        ell, measures, lost, passes = scratch.exact_ell[:n], scratch.exact_measures, facts[LOST], 4 if fine else 2
        exact = weighed(ell, measures, small or not own, lost, scratch.exact_rest)
        atoms, size, flat = exact, facts[SIZE], 0.0
        if not small:
            if not fine and crowded(ell, measures, CROWD, WIDTH, MOST):
                continue
            n = coarsen(v, r, own, top, fine, scratch.cells, facts, scratch.ell, scratch.measures)
            atoms = weighed(scratch.ell[:n], scratch.measures, not own, lost, scratch.rest)
            flat = FLAT * (2 * size) ** 4 / 1536 * math.exp(2 * size)
        if not decidable(atoms):
            break
        found = small or _agree(aim.kappa, atoms, scratch.room[0], exact, exact_room[0])
        found = found and _highest(aim, atoms, scratch.room, exact, exact_room, MARGIN, flat, out) > 0
        if not (found or small):
            found = _highest(aim, exact, exact_room, exact, exact_room, MARGIN, 0.0, out) > 0
        if found and (small or fine or off_by(out[ALPHA], aim.kappa, size, own, exact, exact_room[0]) <= EXACT):
            return FINE, passes
        if small:
            break
    return FINE, 0


@njit(nogil=True, cache=True)
def _solve_worst(u, v, r, own, aim, k, scratch, out):
    """The same for progress."""
    facts, ell, measures = scratch.facts, scratch.ell, scratch.measures
    tokens, spelled, small = scratch.exact_ell, scratch.exact_measures, len(u) <= SMALL
    code, n, top, passes, fine = FINE, 0, 0, 0, False
    if own:
        code, top = survey(u, v, r, own, k, facts)
        if code == FINE:
            normalise(u, v, r, facts)
        passes = 2
    else:
        for turn in range(2):
            fine = turn > 0
            most = FINE_MOST if fine else MOST
            code, n, top = gather(u, v, r, own, k, WORST_WIDTH, most, fine, scratch.cells, facts, tokens, spelled)
            passes += 2
            if code != FINE or not crowded(tokens[:n], spelled, CROWD, WORST_WIDTH, MOST):
                break
    if code != FINE:
        return code, 0
    n, lost = len(u), facts[LOST]
    spell_out(u, v, r, own, facts, tokens, spelled)
    passes += 1
    exact = weighed(tokens[:n], spelled, True, lost, scratch.exact_rest)
    atoms = exact
    if own or not small:
        if own:
            n = pair_up(tokens[:n], spelled, scratch.cells, ell, measures)
            passes += 1
        else:
            n = coarsen(v, r, own, top, fine, scratch.cells, facts, ell, measures)
        atoms = weighed(ell[:n], measures, True, lost, scratch.rest)
        atoms = Atoms(atoms.ell, atoms.ratio, atoms.gap, atoms.reward, measures, True, exact.low, exact.high, exact.kl)
    if not decidable(atoms):
        return FINE, 0
    margin = COARSE_MARGIN if own else MARGIN
    turns = _highest(aim, atoms, scratch.room, exact, scratch.exact_room, margin, 0.0, out)
    return FINE, passes + 3 * turns if turns > 0 else 0


@njit(nogil=True, cache=True)
def _settled(code, passes, facts, row):
    """The code of a row, and `row` as it is to be."""
    if passes == 0:
        row[:] = 0.0
        row[ALPHA], row[HIGH] = 0.5, 1.0
        return BAD_NAN if code == NAN else BAD_INFINITE if code == INFINITE else BAD_EMPTY if code == EMPTY else HARD
    row[PASSES] = passes
    return COMMON if facts[UNEQUAL] > 0 else SOLVED


# Two of them, so that whoever needs one does not wait for both to compile.
@njit(nogil=True, cache=True)
def _snr_of_rows(theta, target, reference, own, aim, k, scratch, codes, rows):
    """Codes `[B]`, and rows `[B, 7]` with the columns ALPHA … PASSES. reference: or theta, where it is not its own."""
    for i in range(theta.shape[0]):
        code, passes = _solve_snr(theta[i], target[i], reference[i], own, aim, k, scratch, rows[i])
        codes[i] = _settled(code, passes, scratch.facts, rows[i])


@njit(nogil=True, cache=True)
def _worst_of_rows(theta, target, reference, own, aim, k, scratch, codes, rows):
    """The same for progress."""
    for i in range(theta.shape[0]):
        code, passes = _solve_worst(theta[i], target[i], reference[i], own, aim, k, scratch, rows[i])
        codes[i] = _settled(code, passes, scratch.facts, rows[i])


def solve(
    theta: np.ndarray,
    target: np.ndarray,
    reference: np.ndarray | None,
    kappa: float,
    eta_range: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[B]`, and the columns ALPHA … PASSES `[B, 7]`, of logits `[B, V]`, float32 or float64, in C order.

    reference: the reward's, of the same dtype; None for π_θ (r = ℓ). kappa: −1 for w = π_θ/q, 1 for w = q/π_θ.
    eta_range: for the worst progress over it; without it, SNR is maximised.
    """
    codes, rows = np.empty(len(theta), np.int64), np.zeros((len(theta), 7))
    own, given = reference is not None, theta if reference is None else reference
    theta, target, given = theta.view(), target.view(), given.view()
    for x in (theta, target, given):  # numba compiles once for what may be written to and once for what may not
        x.flags.writeable = False
    aim = Aim(float(kappa), np.array([] if eta_range is None else eta_range, np.float64))
    scratch = _scratch(theta.shape[1], own and eta_range is not None, eta_range is not None)
    solve_rows = _snr_of_rows if eta_range is None else _worst_of_rows
    solve_rows(theta, target, given, own, aim, constants(theta.dtype), scratch, codes, rows)
    return codes, rows


_kept = threading.local()


def _scratch(vocab: int, paired: bool, spelled: bool) -> Scratch:
    """What is written to beside the answers. A thread keeps its last: fresh memory costs as much as a pass."""
    shape = (vocab, paired, spelled)
    if getattr(_kept, "shape", None) != shape:
        cells, facts, ell = work(vocab, FINE_MOST, paired)
        size = max(vocab, len(ell)) if spelled else len(ell)
        _kept.shape, _kept.scratch = shape, Scratch(
            cells=cells,
            facts=facts,
            ell=ell,
            measures=np.empty((3, len(ell))),
            rest=np.empty((3, len(ell))),
            room=np.empty((2, len(ell))),
            exact_ell=np.empty(size),
            exact_measures=np.empty((3, size)),
            exact_rest=np.empty((3, size)),
            exact_room=np.empty((2, size)),
        )  # fmt: skip
    kept: Scratch = _kept.scratch
    return kept
