"""`solvers.curve_kernel`: every column against all tokens, in NumPy's long double."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FAMILIES, draw, draw_crowded, draw_reference, logit_pairs

from geomix_core import logit_curves
from geomix_core.scenarios import REAL_PAIRS, real_rows
from geomix_core.solvers import curve_kernel
from geomix_core.solvers.curve_kernel import DELTA, ESS, LOG_Z, PHI1, PHI2, SNR, STEP, VARIANCE

INF = np.inf
ALPHAS = np.linspace(0, 1, 21)
COLUMNS = {
    LOG_Z: "log Z",
    DELTA: "Δ",
    VARIANCE: "Var",
    ESS: "ESS",
    PHI1: "Φ₁",
    PHI2: "Φ₂",
    SNR: "SNR",
    STEP: "η*",
}
KAPPA = pytest.mark.parametrize("kappa", [-1.0, 1.0], ids=["importance", "inverse"])
REFERENCE = pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
Row = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def truth(u: np.ndarray, v: np.ndarray, r: np.ndarray | None, kappa: float, alphas: np.ndarray) -> np.ndarray:
    """`[A, 8]` from the definitions, on all tokens that π_θ can produce."""
    wide = [x.astype(np.longdouble) - x.max() for x in ((u, v) if r is None else (u, v, r))]
    has = [x >= -4096 for x in wide]
    logs = [x[has[0]] - np.log(np.exp(x[on]).sum()) for x, on in zip(wide, has, strict=True)]
    log_p, ell = logs[0], logs[1] - logs[0]
    reward = ell if r is None else logs[1] - logs[2]
    p, top = np.exp(log_p), int(np.argmax(log_p))
    lost = np.log(np.exp(logs[1]).sum()) if (has[0] != has[1]).any() else 0.0
    gap = p * np.expm1(ell - lost)
    out = np.empty((len(alphas), 8), np.longdouble)
    for row, alpha in zip(out, alphas.astype(np.longdouble), strict=True):
        tilt = (1 - alpha) * ell
        # log1p keeps what near-identical policies have left; log Z itself may be far below.
        excess = (p * np.expm1(np.minimum(tilt, 600))).sum()
        most = (log_p + tilt).max()
        log_z = np.log1p(excess) if abs(excess) < 0.5 else most + np.log(np.exp(log_p + tilt - most).sum())
        lowest = (log_p - tilt).max()
        back = lowest + np.log(np.exp(log_p - tilt - lowest).sum())
        q = np.exp(log_p + tilt - log_z)
        h = reward * np.exp(kappa * (tilt - log_z))
        away = h - h[top]
        noise = (p * (away - (p * away).sum()) ** 2).sum()
        signal = (gap * away).sum()
        row[LOG_Z], row[DELTA] = log_z, (q * ell).sum()
        row[VARIANCE] = (q * (ell - row[DELTA]) ** 2).sum()
        row[ESS] = np.exp(-log_z - back)
        row[PHI1], row[PHI2], row[SNR], row[STEP] = signal, noise, signal / np.sqrt(noise), signal / noise
    return out


def solved(row: Row, kappa: float, alphas: np.ndarray = ALPHAS) -> np.ndarray | None:
    return curve_kernel.curves(*row, kappa, alphas, logit_curves.WIDTH)


def assert_close(row: Row, kappa: float, *, of_range: float, of_largest: float = 1e-8) -> None:
    """Every column is within a share of its range, or within `of_largest` of its largest value."""
    found = solved(row, kappa)
    assert found is not None
    expected = truth(*row, kappa, ALPHAS)
    for k, name in COLUMNS.items():
        error = float(np.abs(found[:, k] - expected[:, k]).max())
        allowed = of_range * np.ptp(expected[:, k]) + of_largest * np.abs(expected[:, k]).max()
        assert error <= allowed, (name, error, float(allowed))


def made(family: str, vocab: int, seed: int, referenced: bool, dtype: type = np.float64) -> Row:
    theta, target = (x[0].astype(dtype) for x in draw(family, 1, vocab, seed))
    return theta, target, draw_reference(1, vocab, seed)[0].astype(dtype) if referenced else None


@KAPPA
@REFERENCE
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, referenced: bool, kappa: float) -> None:
    for vocab, dtype, seed in ((3, np.float64, 0), (9, np.float32, 1), (300, np.float32, 2), (3_000, np.float64, 3)):
        row = made(family, vocab, seed, referenced, dtype)
        assert_close(row, kappa, of_range=1e-7)


@KAPPA
@REFERENCE
@pytest.mark.parametrize("family", ["gaussian", "zipf", "near"])
def test_a_large_vocabulary(family: str, referenced: bool, kappa: float) -> None:
    row = made(family, 50_257, 4, referenced, np.float32)
    found = solved(row, kappa, ALPHAS[::10])
    assert found is not None
    expected = truth(*row, kappa, ALPHAS[::10])
    error = np.abs(found - expected).max(0)
    assert (error <= 1e-7 * np.ptp(expected, axis=0) + 1e-8 * np.abs(expected).max(0)).all()


@KAPPA
@pytest.mark.parametrize("pair", REAL_PAIRS)
def test_bundled_rows(pair: str, kappa: float) -> None:
    rows = real_rows(pair)
    for i in (0, 5):
        row = (rows.theta[i].float().numpy(), rows.target[i].float().numpy(), None)
        found, expected = solved(row, kappa, ALPHAS[::10]), truth(*row, kappa, ALPHAS[::10])
        assert found is not None
        error = np.abs(found - expected).max(0)
        assert (error <= 1e-7 * np.ptp(expected, axis=0) + 1e-8 * np.abs(expected).max(0)).all()


@KAPPA
@pytest.mark.parametrize("power", [-4.5, -4.0, -3.0, -2.0, -1.0])
def test_near_identical_policies(power: float, kappa: float) -> None:
    """Relative to the largest value: a curve that is constant to six digits has no range to speak of."""
    rng = np.random.default_rng(5)
    for vocab in (5, 300, 5_000):
        u = 2 * rng.normal(size=vocab)
        v, r = u + 10.0**power * rng.normal(size=vocab), u + rng.normal(size=vocab)
        for row in ((u, v, None), (u, v, r)):
            found, expected = solved(row, kappa), truth(*row, kappa, ALPHAS)
            assert found is not None
            error = np.abs(found - expected).max(0)
            # log Z and Δ are differences of log-sum-exps, which are known to a few 1e-16.
            allowed = 1e-7 * np.abs(expected).max(0)
            allowed[[LOG_Z, DELTA]] += 2e-15
            assert (error <= allowed).all(), error / np.abs(expected).max(0)


@KAPPA
@REFERENCE
@pytest.mark.parametrize("vocab", [400, 1_500])
@pytest.mark.parametrize("far", [1.0, 3.0, 200.0])
@pytest.mark.parametrize("power", [-1, -2, -3, -4])
def test_near_identical_policies_with_a_token_far_away(
    power: int, far: float, vocab: int, referenced: bool, kappa: float
) -> None:
    """One rare token makes the cells wide; the others, close together in one of them, keep their digits."""
    u, z, r = np.random.default_rng(15).normal(size=(3, vocab))
    v = u + 10.0**power * z
    u[9], v[9] = -12.0, -12.0 - far
    row = (u, v, r if referenced else None)
    found, expected = solved(row, kappa), truth(*row, kappa, ALPHAS)
    if found is None:
        return
    # Two hundred nats in a thousand cells: each is wider than all the others are apart.
    allowed = (1e-5 if far < 100 else 2e-3) * np.ptp(expected, axis=0) + 2e-7 * np.abs(expected).max(0)
    allowed[[LOG_Z, DELTA]] += 2e-15 * (1 + far)
    error = np.abs(found - expected).max(0)
    assert (error <= allowed).all(), error / np.ptp(expected, axis=0)


@KAPPA
@pytest.mark.parametrize("seed", [*range(8), 18, 26, 42, 43, 91, 97])
def test_nearly_all_tokens_in_one_cell(seed: int, kappa: float) -> None:
    """What varies within it is little beside its width, though a few tokens far away make ℓ's variance large."""
    u, v, r = draw_crowded(seed)
    for row in ((u, v, None), (u, v, r)):
        found, expected = solved(row, kappa), truth(*row, kappa, ALPHAS)
        assert found is not None
        error = np.abs(found - expected).max(0) / np.abs(expected).max(0)
        # log Z and Δ are differences of log-sum-exps.
        size = 1 + float(np.abs(np.stack([u, v])).max())
        allowed = 1e-7 + 1e-15 * size / np.abs(expected).max(0) * np.isin(np.arange(8), [LOG_Z, DELTA])
        assert (error <= allowed).all(), error


def test_the_variance_is_that_around_the_mean() -> None:
    """... and not around the middle of the range of ℓ, a hundred nats away."""
    u, z = np.random.default_rng(15).normal(size=(2, 400))
    v = u + 2e-5 * z
    u[9], v[9] = -40.0, -240.0
    found, expected = solved((u, v, None), 1.0), truth(u, v, None, 1.0, ALPHAS)
    if found is not None:
        assert np.abs(found[:, VARIANCE] / expected[:, VARIANCE] - 1).max() <= 1e-5


@KAPPA
@REFERENCE
def test_policies_that_are_equal_to_six_digits(referenced: bool, kappa: float) -> None:
    u, z, r = np.random.default_rng(16).normal(size=(3, 300))
    assert solved((u, u + 3e-7 * z, r if referenced else None), kappa) is None


@KAPPA
@REFERENCE
def test_one_hot_rows(referenced: bool, kappa: float) -> None:
    """1 − π_θ(top) down to 1e-13, with π_t alike or elsewhere."""
    rng = np.random.default_rng(6)
    for gap in (10.0, 20.0, 30.0):
        for place in (7, 40):
            u, v, r = rng.normal(size=(3, 400))
            u[7] += gap + np.log(400)
            v[place] += gap / 3 + np.log(400)
            row = (u, v, r if referenced else None)
            assert_close(row, kappa, of_range=1e-7)


@KAPPA
@REFERENCE
def test_masks_and_unequal_supports(referenced: bool, kappa: float) -> None:
    for mask in (-INF, -1e5, float(np.finfo(np.float32).min)):
        u, v, r = made("gaussian", 500, 7, referenced, np.float32)
        u[::3] = v[::6] = mask
        if r is not None:
            r[::9] = mask
        assert_close((u, v, r), kappa, of_range=1e-7)
        u, v = v, u
        assert solved((u, v, r), kappa) is None


@KAPPA
def test_what_others_must_decide(kappa: float) -> None:
    """None, and no exception, where there is no curve or too little of it is left."""
    rng = np.random.default_rng(8)
    u, v, r = rng.normal(size=(3, 40))
    same = u + 3.0
    for dtype in (np.float32, np.float64):
        for value in (np.nan, INF):
            for k in range(3):
                row = [x.astype(dtype) for x in (u, v, r)]
                row[k][5] = value
                assert solved((row[0], row[1], row[2]), kappa) is None
        for k in range(3):
            row = [x.astype(dtype) for x in (u, v, r)]
            row[k][:] = -INF
            assert solved((row[0], row[1], row[2]), kappa) is None
    assert solved((u, same, None), kappa) is None
    assert solved((u, u, r), kappa) is None
    # No reward anywhere, and a reward that is the same everywhere.
    assert solved((u, v, v), kappa) is None
    assert solved((u, v, v + 1), kappa) is None
    # A token of π_θ without a reward; ℓ beyond what float64 squares.
    assert solved((u, v, np.where(np.arange(40) == 4, -INF, r)), kappa) is None
    assert solved((u, np.where(np.arange(40) == 4, v - 400, v), None), kappa) is None
    assert solved((np.zeros(1), np.zeros(1), None), kappa) is None


# The same rows every time: some that Hypothesis can find have a reward that double precision itself does not resolve.
@settings(max_examples=150, deadline=None, derandomize=True)
@given(logit_pairs("covered", True, min_vocab=2), st.booleans(), st.booleans(), st.sampled_from([-1.0, 1.0]))
def test_any_small_row_is_right_or_left_to_others(
    rows: tuple[np.ndarray, ...], referenced: bool, single: bool, kappa: float
) -> None:
    dtype = np.float32 if single else np.float64
    u, v, r = (x[0].astype(dtype) for x in rows)
    row = (u, v, r if referenced else None)
    found = solved(row, kappa)
    if found is None:
        return
    expected = truth(*row, kappa, ALPHAS)
    # Cells are as wide as the range of ℓ asks for: 200 nats in 1019 of them.
    error = np.abs(found - expected).max(0) / np.abs(expected).max(0)
    assert error[[VARIANCE, ESS]].max() <= 1e-4
    signal = np.array([PHI1, PHI2, SNR, STEP])
    assert error[signal].max() <= 1e-4, dict(zip((COLUMNS[k] for k in signal), error[signal], strict=True))


def test_where_a_row_lies_and_what_came_before_change_nothing() -> None:
    row = made("gaussian", 3_000, 9, True, np.float32)
    expected = solved(row, 1.0)
    solved(made("peaked", 9, 9, False), -1.0)
    for shift in (1, 3, 8):
        moved = [np.concatenate([np.zeros(shift, np.float32), x])[shift:] for x in row if x is not None]
        found = solved((moved[0], moved[1], moved[2]), 1.0)
        assert expected is not None
        assert found is not None
        assert np.array_equal(found, expected)


def test_the_input_is_not_written_to() -> None:
    u, v, r = made("zipf", 90, 10, True)
    assert r is not None
    before = u.tobytes(), v.tobytes(), r.tobytes()
    solved((u, v, r), 1.0)
    assert (u.tobytes(), v.tobytes(), r.tobytes()) == before
    assert u.flags.writeable
    apart = np.stack([u, v], -1)
    assert np.array_equal(solved((apart[:, 0], apart[:, 1], None), 1.0), solved((u, v, None), 1.0))  # type: ignore[arg-type]
