"""α_SNR beside SciPy's bounded search a row, α_Wald, and all curves of one row beside one α_KL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click
import numpy as np
from scipy.optimize import minimize_scalar

from benchmarks.solver.cases import FAMILIES, logits
from benchmarks.solver.timing import interleave
from geomix_core import PolicyBatch, learning_signal
from geomix_core.logit_curves import logit_curves
from geomix_core.logit_maxima import maximise_logits
from geomix_core.logits import solve_logits
from geomix_core.tilts import WEIGHTS, Weights

SHAPES = ((64, 50_257), (16, 151_936))
VOCABULARY = 151_936
POINTS = 101
OURS, OURS_2, WALD = "geomix", "geomix, 2 threads", "geomix, α_Wald"
SCIPY_SCAN = "SciPy, 65-point scan first, float64"
SHORTFALL = "worst_shortfall_in_log_snr"
"""What an answer's log SNR is less than the highest that anyone found, on a case's worst row."""
SCIPY, SCIPY_64 = "SciPy minimize_scalar, float32", "SciPy minimize_scalar, float64"

Solver = Callable[..., np.ndarray]
Rows = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def ours(
    theta: np.ndarray, target: np.ndarray, reference: np.ndarray | None, weights: Weights, threads: int, criterion: str
) -> np.ndarray:
    """This project's solver."""
    return maximise_logits(theta, target, reference, criterion=criterion, weights=weights, threads=threads).alpha  # type: ignore[arg-type]


def scipy_bounded(
    theta: np.ndarray, target: np.ndarray, reference: np.ndarray | None, weights: Weights, dtype: type, scan: int = 0
) -> np.ndarray:
    """minimize_scalar (bounded, xatol 1e-6) row by row, written well: one exp and three dot products an evaluation.

    It ends on some local maximum; with `scan` points first, around the best of them.
    """
    work = np.empty(theta.shape[1], dtype)

    def solve(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> float:
        log_theta, log_t, log_r = (_log_softmax(x.astype(dtype)) for x in (u, v, r))
        ell, reward, p = log_t - log_theta, log_t - log_r, np.exp(log_theta)
        gap, mean, square = (np.exp(log_t) - p) * reward, p * reward, p * reward * reward
        slope = -1.0 if weights == "importance" else 1.0

        def loss(alpha: float) -> float:
            np.multiply(ell, slope * (1 - alpha), out=work)
            np.exp(work, out=work)
            signal, middle = gap @ work, mean @ work
            np.multiply(work, work, out=work)
            return float(-abs(signal) / np.sqrt(square @ work - middle * middle))

        bounds = (0.0, 1.0)
        if scan:
            grid = np.linspace(0, 1, scan)
            best = int(np.argmin([loss(a) for a in grid]))
            bounds = (grid[max(best - 1, 0)], grid[min(best + 1, scan - 1)])
        return float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)

    with np.errstate(all="ignore"):  # hard rows overflow float32
        rows = zip(theta, target, theta if reference is None else reference, strict=True)
        return np.array([solve(*row) for row in rows])


SOLVERS: Mapping[str, Solver] = {
    OURS: partial(ours, threads=1, criterion="snr"),
    OURS_2: partial(ours, threads=2, criterion="snr"),
    WALD: partial(ours, threads=1, criterion="wald"),
    SCIPY: partial(scipy_bounded, dtype=np.float32),
    SCIPY_64: partial(scipy_bounded, dtype=np.float64),
    SCIPY_SCAN: partial(scipy_bounded, dtype=np.float64, scan=65),
}


def measure(rounds: int) -> dict[str, Any]:
    """Both parts, as JSON."""
    click.echo("Timing α_SNR.", err=True)
    return {"snr": [_case(*case, rounds) for case in _cases()], "curves": _curves(rounds)}


def _cases() -> list[tuple[str, tuple[int, int], Weights, bool]]:
    own = [(family, shape, weights, False) for family in FAMILIES for shape in SHAPES for weights in WEIGHTS]
    return own + [(family, SHAPES[0], weights, True) for family in FAMILIES for weights in WEIGHTS]


def inputs(family: str, shape: tuple[int, int], independent: bool) -> Rows:
    """Logits `[B, V]` of both policies, and of a reference if it is to be independent."""
    theta, target = logits(family, *shape)
    return theta, target, logits("easy", *shape, seed=1)[0] if independent else None


def _case(family: str, shape: tuple[int, int], weights: Weights, independent: bool, rounds: int) -> dict[str, Any]:
    given = (*inputs(family, shape, independent), weights)
    alphas = {name: solve(*given) for name, solve in SOLVERS.items()}
    timings = interleave({name: partial(solve, *given) for name, solve in SOLVERS.items()}, rounds)
    heights = _log_snr(given, [alphas[name] for name in alphas if name != WALD])
    best = heights.max(0)
    short = iter((best - heights).max(-1).tolist())
    size = shape[0] * shape[1]
    return {
        "name": f"{family} {shape[0]}×{shape[1]}, w = {'π_θ/q' if weights == 'importance' else 'q/π_θ'}"
        + (", independent reference" if independent else ""),
        "competitors": {
            name: {
                "ns_per_element": 1e9 * timings[name].median / size,
                "times_ours": timings[name].median / timings[OURS].median,
                SHORTFALL: None if name == WALD else next(short),
            }
            for name in SOLVERS
        },
    }


def _log_snr(given: tuple[Any, ...], alphas: list[np.ndarray]) -> np.ndarray:
    """log SNR `[answers, B]` in float64, a row at a time."""
    *arrays, weights = given
    rows = []
    for i in range(len(arrays[0])):
        batch = PolicyBatch.from_logits(*(None if x is None else x[i].astype(np.float64) for x in arrays))
        at = np.array([[a[i]] for a in alphas])
        rows.append(learning_signal(batch, at, weights).log_snr[:, 0].numpy())
    return np.stack(rows, -1)


def _curves(rounds: int) -> list[dict[str, Any]]:
    """All curves of one row on 101 points beside one α_KL of it, one thread."""
    click.echo("Timing curves.", err=True)
    found = []
    for family in FAMILIES:
        for independent in (False, True):
            theta, target, reference = inputs(family, (1, VOCABULARY), independent)
            tasks = {
                "curves": partial(logit_curves, theta, target, reference, points=POINTS),
                "alpha_kl": partial(solve_logits, theta, target, threads=1),
            }
            for task in tasks.values():
                task()
            timings = interleave(tasks, rounds)
            found.append(
                {
                    "name": f"{family} 1×{VOCABULARY}" + (", independent reference" if independent else ""),
                    "curves_ms": 1e3 * timings["curves"].median,
                    "alpha_kl_ms": 1e3 * timings["alpha_kl"].median,
                    "ratio": timings["curves"].median / timings["alpha_kl"].median,
                }
            )
    return found


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
