"""α_SNR on every row of the benchmark's families against a dense grid of α: python -m benchmarks.snr_grid

The grid has 2 001 points, its three highest peaks are closed in on to 1e-9, and all is NumPy in float64: nothing of it
comes from the core. About five minutes; --rows 8 takes half a minute.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.special import log_softmax

from benchmarks.solver.cases import FAMILIES
from benchmarks.solver.maxima import SHAPES, Rows, inputs
from geomix_core.logit_maxima import maximise_logits
from geomix_core.scenarios import REAL_PAIRS, real_rows
from geomix_core.tilts import WEIGHTS, Weights

SHAPE = SHAPES[0]
POINTS, PEAKS, CLOSE = 2_001, 3, 1e-9
BLOCK = 32
"""Values of α at a time."""


@click.command()
@click.option("--rows", default=SHAPE[0], show_default=True, help="Of each synthetic family.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results/snr_grid.json")
def main(rows: int, results: Path) -> None:
    """How far α_SNR falls short of the best that a dense grid finds."""
    cases = []
    for name, given in _cases(rows):
        for weights in WEIGHTS:
            cases.append({"name": name, "weights": weights, **_compare(given, weights)})
            click.echo(
                "{name}, {weights}: {rows} rows, shortfall {shortfall:.1e}, value {value:.1e}".format(**cases[-1])
            )
    outcome = {
        "command": "python -m benchmarks.snr_grid",
        "date": date.today().isoformat(),
        "points": POINTS,
        "rows": sum(c["rows"] for c in cases),
        "worst_shortfall_in_log_snr": max(c["shortfall"] for c in cases),
        "worst_difference_of_the_value": max(c["value"] for c in cases),
        "cases": cases,
    }
    results.write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _cases(count: int) -> list[tuple[str, Rows]]:
    cases: list[tuple[str, Rows]] = []
    for family in FAMILIES:
        for independent in (False, True):
            theta, target, reference = inputs(family, SHAPE, independent)
            given = theta[:count], target[:count], None if reference is None else reference[:count]
            cases.append((family + ", independent reference" * independent, given))
    for pair in REAL_PAIRS:
        real = real_rows(pair)
        cases.append((f"real, {pair}", (real.theta.float().numpy(), real.target.float().numpy(), None)))
    return cases


def _compare(given: Rows, weights: Weights) -> dict[str, Any]:
    """Worst of all rows: log SNR below the grid's best, and of the reported value from that at α."""
    found = maximise_logits(*given, weights=weights)
    shortfall = value = 0.0
    for i in range(len(found)):
        log_snr = _log_snr(given, i, weights)
        here = float(log_snr(found.alpha[i : i + 1])[0])
        shortfall = max(shortfall, _highest(log_snr) - here)
        value = max(value, abs(float(np.log(found.value[i])) - here))
    return {"rows": len(found), "solved": int(found.solved.sum()), "shortfall": shortfall, "value": value}


def _log_snr(given: Rows, i: int, weights: Weights) -> Callable[[np.ndarray], np.ndarray]:
    """log |Φ₁|/√Φ₂ of row i at values of α, from the definitions, on all tokens."""
    theta, target, reference = given
    log_theta, log_t, log_reference = (
        log_softmax(x[i].astype(np.float64)) for x in (theta, target, theta if reference is None else reference)
    )
    ell, reward = log_t - log_theta, log_t - log_reference
    p, top = np.exp(log_theta), int(log_theta.argmax())
    gap, slope = np.exp(log_t) - p, -1.0 if weights == "importance" else 1.0

    def log_snr(alpha: np.ndarray) -> np.ndarray:
        out = np.empty(len(alpha))
        for start in range(0, len(alpha), BLOCK):
            part = slice(start, start + BLOCK)
            h = np.multiply.outer(slope * (1 - alpha[part]), ell)
            h -= h.max(1, keepdims=True)
            np.exp(h, out=h)
            h *= reward
            h -= h[:, top, None].copy()  # where one token has nearly all of π_θ the variance would cancel
            signal, mean = h @ gap, h @ p
            h *= h
            out[part] = np.log(np.abs(signal)) - 0.5 * np.log(h @ p - mean * mean)
        return out

    return log_snr


def _highest(function: Callable[[np.ndarray], np.ndarray]) -> float:
    grid = np.linspace(0, 1, POINTS)
    values = function(grid)
    beside = np.concatenate([[-np.inf], values, [-np.inf]])
    peaks = np.flatnonzero((values >= beside[:-2]) & (values >= beside[2:]))
    best = float(values.max())
    for k in peaks[np.argsort(-values[peaks])][:PEAKS]:
        alpha, reach = grid[k], 1 / (POINTS - 1)
        while reach > CLOSE:
            near = np.clip(np.linspace(alpha - reach, alpha + reach, 17), 0, 1)
            there = function(near)
            alpha, reach, best = near[there.argmax()], reach / 6, max(best, float(there.max()))
    return best


if __name__ == "__main__":
    main()
