"""`solvers.atoms`: sums over a row's atoms against the same sums over its tokens, in NumPy's long double."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EPS, FAMILIES, draw, draw_reference, logit_pairs

from geomix_core.solvers import atoms
from geomix_core.solvers.kernel import constants

INF = np.inf
LEAST = float(np.finfo(np.float32).min)
S = np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0])
SEED = st.integers(0, 2**32 - 1)
CANARY = -1.25e-7
AROUND = 1 << 16
"""Numbers kept on either side of the cells, to see what is written there."""

# --- the row, in long double ------------------------------------------------------------------------------------


class Tokens:
    """p, ℓ and r of the tokens that π_θ can produce; masks as documented."""

    def __init__(self, u: np.ndarray, v: np.ndarray, r: np.ndarray | None = None) -> None:
        given_logits = [u, v] if r is None else [u, v, r]
        wide = [x.astype(np.longdouble) - x.max() for x in given_logits]
        has = [x >= -4096 for x in wide]
        here = has[0]
        logs = [x[here] - np.log(np.exp(x[on]).sum()) for x, on in zip(wide, has, strict=True)]
        self.p = np.exp(logs[0])
        self.ell = logs[1] - logs[0]
        self.r = self.ell if r is None else logs[1] - logs[2]
        self.lost = np.log(np.exp(logs[1]).sum())
        self.size = 1 + float(max(np.abs(x[on]).max() for x, on in zip(wide, has, strict=True)))
        self.span = float(np.ptp(self.ell))


# --- gathering, watched -----------------------------------------------------------------------------------------


@dataclass
class Gathered:
    """What `gather`, or `coarsen` after it, returns and leaves behind."""

    code: int
    top: int
    ell: np.ndarray
    sums: np.ndarray
    facts: np.ndarray
    width: float


def gather(
    u: np.ndarray,
    v: np.ndarray,
    r: np.ndarray | None = None,
    width: float = 0.3,
    most: int = atoms.MOST,
    fine: bool = False,
    coarse: bool = False,
) -> Gathered:
    """`atoms.gather` of one row, and `coarsen`; nothing may be written beside the cells that `layout` provides."""
    own = r is not None
    _, facts, ell = atoms.work(len(u), most)
    sums = np.empty((3, len(ell)))
    memory = np.full(2 * AROUND + 24 * most, CANARY)
    cells = memory[AROUND:-AROUND].reshape(most, 3, 8)
    u, v, r = (np.array(x) for x in (u, v, u if r is None else r))
    for x in (u, v, r):
        x.flags.writeable = False
    code, n, top = atoms.gather(u, v, r, own, constants(u.dtype), width, most, fine, cells, facts, ell, sums)
    assert (memory[:AROUND] == CANARY).all()
    assert (memory[-AROUND:] == CANARY).all()
    if code != atoms.FINE:
        return Gathered(code, top, ell[:0], sums[:, :0], facts, 0.0)
    middle = (float(v[top]) - facts[atoms.MOST_V]) - (float(u[top]) - facts[atoms.MOST_U])
    above, below, size = atoms.layout(facts, middle, width, most, fine)
    count = above + below
    assert 0 < count <= most
    assert (cells.reshape(-1, 8)[count * (3 if own else 1) :] == CANARY).all()
    if coarse and len(u) > atoms.SMALL:
        n = atoms.coarsen(v, r, own, top, fine, cells, facts, ell, sums)
    assert n <= len(ell)
    return Gathered(code, top, ell[:n], sums[:, :n], facts, size)


def share(s: float, width: float, referenced: bool, coarse: bool) -> float:
    """The module's bound of a sum over e^(sℓ), as a share of its magnitudes; c is off by that at s = 1."""
    reach = abs(s) * width
    of_c = 2 * (width / 4) ** 8 / math.factorial(8) * math.exp(width)
    if coarse:
        return reach**4 / (3072 if referenced else 1536) * math.exp(reach) + abs(s) * of_c
    return 2 * (reach / 4) ** 8 / math.factorial(8) * math.exp(reach) + abs(s) * of_c


def assert_within_bound(u: np.ndarray, v: np.ndarray, r: np.ndarray | None, **options: float) -> None:
    """The module's bounds, for every measure and every |s| ≤ 2; rounding as large as the logits is allowed for."""
    tokens = Tokens(u, v, r)
    rewards = [np.ones_like(tokens.r), tokens.r, tokens.r**2]
    largest = 1 + float(np.abs(tokens.r).max())
    most = max(tokens.size, largest)
    for coarse in (False, True):
        found = gather(u, v, r, coarse=coarse, **options)  # type: ignore[arg-type]
        if tokens.span > atoms.WIDEST:
            assert found.code == atoms.WIDE
            return
        assert found.code == atoms.FINE
        for s in S:
            truth = tokens.p * np.exp(s * tokens.ell)
            over = found.sums * np.exp(s * found.ell.astype(np.longdouble))
            for k in range(3 if r is not None else 1):
                size = float((truth * np.abs(rewards[k])).sum())
                bound = share(s, found.width, r is not None, coarse)
                if k and len(u) > atoms.SMALL:  # r is off by what c is
                    size += k * float((truth * np.abs(rewards[k - 1])).sum())
                    bound += share(1, found.width, False, False)
                rounding = 64 * EPS * (most * truth.sum() * largest**k if k else most * size)
                assert abs(float((truth * rewards[k]).sum() - over[k].sum())) <= bound * size + float(rounding)


# --- the stated bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
@pytest.mark.parametrize("family", FAMILIES)
def test_exponential_sums_of_every_family(family: str, referenced: bool) -> None:
    for vocab, dtype in ((2, np.float64), (300, np.float32), (1_500, np.float32), (5_000, np.float64)):
        theta, target = (x[0].astype(dtype) for x in draw(family, 1, vocab, 3))
        reference = draw_reference(1, vocab, 3)[0].astype(dtype) if referenced else None
        assert_within_bound(theta, target, reference)
        assert_within_bound(theta, target, reference, width=0.5, most=256)
        assert_within_bound(theta, target, reference, width=0.1, most=100)


@settings(max_examples=150, deadline=None)
@given(logit_pairs("covered", True, min_vocab=2), st.booleans(), st.sampled_from([0.05, 0.1, 0.4]), st.booleans())
def test_exponential_sums_of_any_small_row(
    rows: tuple[np.ndarray, ...], referenced: bool, width: float, single: bool
) -> None:
    u, v, r = (x[0].astype(np.float32 if single else np.float64) for x in rows)
    assert_within_bound(u, v, r if referenced else None, width=width)


@settings(max_examples=60, deadline=None)
@given(SEED, st.integers(2, 400), st.floats(-7, 2), st.booleans(), st.booleans())
def test_exponential_sums_at_every_distance(
    seed: int, vocab: int, power: float, referenced: bool, single: bool
) -> None:
    rng = np.random.default_rng(seed)
    u, r = 2 * rng.normal(size=(2, vocab))
    v = u + 10.0**power * np.clip(rng.standard_t(2, size=vocab), -1.4, 1.4)
    u, v, r = (x.astype(np.float32 if single else np.float64) for x in (u, v, r))
    assert_within_bound(u, v, r if referenced else None)


@pytest.mark.parametrize("coarse", [False, True])
def test_the_bounds_are_sharp(coarse: bool) -> None:
    """Tokens at the ends of their cells, or spread evenly over them, come within a factor of ten of them."""
    ell = np.linspace(0, 30, 6_000)
    if not coarse:
        ell = np.sort(np.concatenate([np.arange(-1_500, 1_500) % 60 - 29.5 + 1e-4, [0.0]]))
    top = int(np.searchsorted(ell, 0.0 if not coarse else 15.0))
    u = np.where(np.arange(len(ell)) == top, 1.0, 0.0)
    found, tokens = gather(u, u + ell, width=1.0, most=100, coarse=coarse), Tokens(u, u + ell)
    errors = []
    for s in (-0.75, -0.5, 0.5, 0.75):
        truth = (tokens.p * np.exp(s * tokens.ell)).sum()
        off = abs((found.sums[0] * np.exp(s * found.ell)).sum() - truth) / truth
        errors.append(float(off) / share(s, found.width, False, coarse))
    assert 0.1 < max(errors) <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_two_nodes_have_the_moments_of_their_cell(family: str) -> None:
    """All masses positive and summing to 1; Σ p ℓʲ to the third; no node beyond the tokens of its cell."""
    theta, target = (x[0] for x in draw(family, 1, 3_000, 4))
    found, tokens = gather(theta, target, width=0.3, coarse=True), Tokens(theta, target)
    mass = found.sums[0]
    assert (mass > 0).all()
    assert mass.sum() == pytest.approx(1, abs=1e-14)
    assert found.ell[0] == pytest.approx(float(tokens.ell[found.top]), abs=1e-13 * tokens.size)
    assert mass[0] == pytest.approx(float(tokens.p[found.top]), rel=1e-13)
    for j in range(4):
        away = (tokens.p * tokens.ell**j).sum()
        assert (mass * found.ell**j).sum() == pytest.approx(float(away), rel=1e-12, abs=1e-12 * tokens.span**j)
    assert found.ell.min() >= float(tokens.ell.min()) - 1e-9 * (1 + tokens.span)
    assert found.ell.max() <= float(tokens.ell.max()) + 1e-9 * (1 + tokens.span)
    np.testing.assert_allclose(found.sums[1], mass * found.ell, rtol=1e-14)
    np.testing.assert_allclose(found.sums[2], mass * found.ell**2, rtol=1e-14)


@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
@pytest.mark.parametrize(("coarse", "moments"), [(False, 8), (True, 4)], ids=["exact", "coarse"])
def test_nodes_have_the_moments_of_their_measures(coarse: bool, moments: int, referenced: bool) -> None:
    theta, target = (x[0] for x in draw("gaussian", 1, 3_000, 5))
    reference = draw_reference(1, 3_000, 5)[0] if referenced else None
    found = gather(theta, target, reference, width=0.3, coarse=coarse)
    tokens = Tokens(theta, target, reference)
    for k in range(3 if referenced else 1):
        for j in range(moments):
            truth = float((tokens.p * tokens.r**k * tokens.ell**j).sum())
            size = float((tokens.p * np.abs(tokens.r) ** k * np.abs(tokens.ell) ** j).sum())
            assert (found.sums[k] * found.ell**j).sum() == pytest.approx(truth, abs=1e-12 * size)


@pytest.mark.parametrize("vocab", [400, 4_000])
def test_one_hot_rows_keep_what_the_others_have(vocab: int) -> None:
    """The likeliest token stands alone, so 1 − p_top is not lost beside it."""
    rng = np.random.default_rng(6)
    for gap in (20.0, 35.0, 60.0, 200.0):
        u, v = rng.normal(size=(2, vocab))
        u[17] += gap
        found, tokens = gather(u, v), Tokens(u, v)
        others = np.arange(vocab) != 17
        assert found.top == 17
        for s in S:
            truth = float((tokens.p * np.exp(s * tokens.ell))[others].sum())
            over = (found.sums[0] * np.exp(s * found.ell))[1:].sum()
            assert over == pytest.approx(truth, rel=share(s, found.width, False, False) + 1e-12)


# --- where cells lie --------------------------------------------------------------------------------------------


def attacks() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows whose ℓ lies in a range as small, as large, or as badly rounded as can be."""
    rng = np.random.default_rng(7)
    base = 2 * rng.normal(size=300)
    out = {}
    for value in (0.9017926, 3.2298696, 1 / 3, -7.7):
        out[f"one ℓ, {value}"] = (np.full(9, value), np.full(9, value / 3))
    for offset in (0.0, 10.0, 100.0, 1e3, 1e4, 1e6, -1e4):
        for sigma in (0.0, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1.0):
            out[f"offset {offset:g}, σ {sigma:g}"] = (base, base + offset + sigma * rng.normal(size=300))
    for span in (1e-12, 1e-6, 1e-3, 1.0, 63 * 0.05, 64 * 0.05, 1019 * 0.05, 1019 * 0.05 + 1e-9, 100.0, 299.9999):
        for top in (0, 1, 150, 299):
            ell = np.linspace(0, span, 300)
            u = np.where(np.arange(300) == top, 3.0, base / 9)
            out[f"span {span}, top {top}"] = (u, u + ell)
            out[f"span {span}, top {top}, two values"] = (u, u + np.where(np.arange(300) >= top, span, 0.0))
    return out


ATTACKS = attacks()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
def test_no_token_falls_outside_the_cells(dtype: type, referenced: bool) -> None:
    """Nothing is written beside the cells (`gather` here watches), and no mass is lost."""
    reference = draw_reference(1, 300, 7)[0].astype(dtype)
    for name, row in ATTACKS.items():
        u, v = (x.astype(dtype) for x in row)
        for width, most in ((0.05, 1024), (0.1, 512), (0.05, 100)):
            found = gather(u, v, reference[: len(u)] if referenced else None, width, most)
            assert found.code == atoms.FINE, name
            assert found.sums[0].sum() == pytest.approx(1, abs=1e-12), name


@settings(max_examples=300, deadline=None)
@given(
    SEED,
    st.integers(2, 40),
    st.floats(-10, 2),
    st.floats(-1e4, 1e4),
    st.floats(-3, 1.5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 3]),
)
def test_no_token_of_any_row_falls_outside_the_cells(
    seed: int, vocab: int, power: float, offset: float, spread: float, referenced: bool, single: bool, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    noise, u, r = (rng.integers(0, levels, (3, vocab)) if levels else rng.normal(size=(3, vocab))) * 1.0
    u *= 10.0**spread
    u, v, r = (x.astype(np.float32 if single else np.float64) for x in (u, u + offset + 10.0**power * noise, r))
    found = gather(u, v, r if referenced else None)
    if found.code == atoms.FINE:
        assert found.sums[0].sum() == pytest.approx(1, abs=1e-12)
    else:
        assert found.code == atoms.WIDE


# --- supports and codes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mask", [-INF, LEAST, -1e5, -4200.0])
def test_masked_tokens_are_left_out(dtype: type, mask: float) -> None:
    u, v = (x[0].astype(dtype) for x in draw("gaussian", 1, 1_500, 8))
    r = draw_reference(1, 1_500, 8)[0].astype(dtype)
    u[::3] = v[::6] = r[::9] = mask
    for reference in (None, r):
        assert_within_bound(u, v, reference)
        found, tokens = gather(u, v, reference), Tokens(u, v, reference)
        assert found.facts[atoms.UNEQUAL] == 1
        assert found.facts[atoms.LOST] == pytest.approx(float(tokens.lost), abs=1e-13)
        assert found.sums[0].sum() == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("gap", [4095.0, 4096.0, 4097.0])
def test_a_mask_is_what_lies_further_below_the_maximum(gap: float) -> None:
    u, v = np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0 - gap, 1.0])
    v[1] = 2.0 - gap
    assert gather(u, v).code == (atoms.UNCOVERED if gap > 4096 else atoms.WIDE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vocab", [2, 7, 1_500])
def test_codes(dtype: type, vocab: int) -> None:
    rows = [x[0].astype(dtype) for x in (*draw("gaussian", 1, vocab, 10), draw_reference(1, vocab, 10))]
    for k in range(3):
        for place in (0, vocab // 2, vocab - 1):
            for value, code in ((np.nan, atoms.NAN), (INF, atoms.INFINITE)):
                broken = [x.copy() for x in rows]
                broken[k][place] = value
                assert gather(*broken).code == code
                assert k == 2 or gather(*broken[:2]).code == code
                broken[(k + 1) % 3][:] = -INF
                assert gather(*broken).code == code
                broken[(k + 2) % 3][-1 - place] = np.nan
                assert gather(*broken).code == atoms.NAN
        broken = [x.copy() for x in rows]
        broken[k][:] = -INF
        assert gather(*broken).code == atoms.EMPTY
        broken = [x.copy() for x in rows]
        broken[k][np.argmin(rows[0])] = -INF
        if k == 0:
            assert gather(*broken).code == atoms.FINE
        else:
            assert gather(*broken).code == atoms.UNCOVERED
            assert gather(*broken[:2]).code == (atoms.UNCOVERED if k == 1 else atoms.FINE)
    wide = rows[1].copy()
    wide[0] = rows[0][0] - 400
    assert gather(rows[0], wide).code == atoms.WIDE


@pytest.mark.parametrize("vocab", [900, 2_000])
def test_facts_are_log_sums(vocab: int) -> None:
    u, v = (x[0] for x in draw("zipf", 1, vocab, 11))
    r = draw_reference(1, vocab, 11)[0]
    u[::4] = -INF
    facts = gather(u, v, r).facts
    for x, most, log_sum in zip(
        (u, v, r),
        (atoms.MOST_U, atoms.MOST_V, atoms.MOST_R),
        (atoms.LOG_U, atoms.LOG_V, atoms.LOG_R),
        strict=True,
    ):
        assert facts[most] == x.max()
        assert facts[log_sum] == pytest.approx(np.logaddexp.reduce(x) - x.max(), abs=1e-13)
    here = np.isfinite(u)
    apart = (v - v.max() - (u - u.max()))[here]
    low, high = facts[atoms.LOW], facts[atoms.HIGH]
    assert low <= apart.min()
    assert high >= apart.max()
    assert (low, high) == pytest.approx((apart.min(), apart.max()), abs=1e-5), "room for a float32's rounding"


# --- tokens as atoms, and pairs of (ℓ, r) -----------------------------------------------------------------------


def spelled(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ℓ `[V]`, sums `[3, V]`) of `spell_out`."""
    facts, ell, sums = np.zeros(atoms.FACTS), np.empty(len(u)), np.empty((3, len(u)))
    u, v, r = (x.copy() for x in (u, v, r))
    for x in (u, v, r):
        x.flags.writeable = False
    code, _ = atoms.survey(u, v, r, True, constants(u.dtype), facts)
    assert code == atoms.FINE
    atoms.normalise(u, v, r, facts)
    atoms.spell_out(u, v, r, True, facts, ell, sums)
    return ell, sums


def test_tokens_spelled_out() -> None:
    u, v = (x[0] for x in draw("dirichlet", 1, 700, 12))
    r = draw_reference(1, 700, 12)[0]
    u[::5] = -INF
    here, tokens = np.isfinite(u), Tokens(u, v, r)
    ell, sums = spelled(u, v, r)
    np.testing.assert_allclose(ell[here], tokens.ell.astype(float), atol=1e-13)
    assert (sums[:, ~here] == 0).all()
    for k in range(3):
        np.testing.assert_allclose(sums[k][here], (tokens.p * tokens.r**k).astype(float), rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_have_the_mean_and_covariance_of_their_cells(family: str) -> None:
    u, v = (x[0] for x in draw(family, 1, 6_000, 13))
    ell, sums = spelled(u, v, draw_reference(1, 6_000, 13)[0])
    cells, _, place = atoms.work(6_000, atoms.MOST, True)
    measures = np.empty((3, len(place)))
    n = atoms.pair_up(ell, sums, cells, place, measures)
    assert n <= len(place)
    x, p, y = place[:n], measures[0, :n], measures[1, :n] / measures[0, :n]
    assert (p > 0).all()
    np.testing.assert_allclose(measures[2, :n], p * y**2, rtol=1e-12)
    reward = sums[1] / sums[0]
    for i, j in ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)):
        truth, size = (sums[0] * ell**i * reward**j).sum(), (sums[0] * np.abs(ell) ** i * np.abs(reward) ** j).sum()
        assert (p * x**i * y**j).sum() == pytest.approx(truth, abs=1e-11 * size), (i, j)
    alone = np.maximum(sums[0], sums[0] * np.exp(ell)) >= atoms.SINGLE
    assert {*ell[alone]} <= {*x}


@pytest.mark.parametrize("vocab", [2, 3, 40])
def test_pairs_of_tokens_that_share_an_ell_or_a_reward(vocab: int) -> None:
    rng = np.random.default_rng(14)
    small = np.full(vocab, 1e-5)
    some = rng.normal(size=vocab)
    for ell, reward in (
        (0 * some, some),
        (some, 0 * some),
        (0 * some + 2, 0 * some - 3),
        (some, 2 * some),
    ):
        sums = np.stack([small, small * reward, small * reward**2])
        cells, _, place = atoms.work(vocab, atoms.MOST, True)
        measures = np.empty((3, len(place)))
        n = atoms.pair_up(ell, sums, cells, place, measures)
        x, p, y = place[:n], measures[0, :n], measures[1, :n] / measures[0, :n]
        assert np.isfinite([x, y, p]).all()
        for i, j in ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)):
            truth = (small * ell**i * reward**j).sum()
            assert (p * x**i * y**j).sum() == pytest.approx(truth, abs=1e-11 * small.sum()), (i, j)
