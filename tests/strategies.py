"""What the core's tests share: families of policies, Hypothesis strategies, and oracles that never call geomix_core.

Two oracles: `Exact` evaluates one small row from the definitions in mpmath; the `np_…` functions are vectorised
NumPy on whole rows of any vocabulary. Both start from the logits, not from anything that the core computed.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np
from hypothesis import strategies as st

mp.mp.dps = 50
EPS = np.finfo(np.float64).eps
WEIGHTS = ("importance", "inverse")

# --- seeded families ---------------------------------------------------------------------------------------------


def _dirichlet(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    # log of Dirichlet(½) draws: heavy lower tail, so that some tokens differ by tens of nats.
    return np.log(rng.gamma(0.5, size=shape)), np.log(rng.gamma(0.5, size=shape))


def _gaussian(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return 2 * rng.normal(size=shape), 2 * rng.normal(size=shape)


def _zipf(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rank = np.log(np.arange(1, shape[1] + 1))
    order = rng.permuted(np.tile(rank, (shape[0], 1)), axis=1)
    return -1.1 * order, -0.9 * order + rng.normal(size=shape)


def _peaked(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return 8 * rng.normal(size=shape), 8 * rng.normal(size=shape)


def _near(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    theta = 2 * rng.normal(size=shape)
    return theta, theta + 0.01 * rng.normal(size=shape)


def _tied(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(-2, 3, size=shape).astype(float), rng.integers(-2, 3, size=shape).astype(float)


FAMILIES = {
    "dirichlet": _dirichlet,
    "gaussian": _gaussian,
    "zipf": _zipf,
    "peaked": _peaked,
    "near": _near,
    "tied": _tied,
}


def draw(family: str, rows: int, vocab: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (θ, t), each `[rows, vocab]`, all tokens possible under both."""
    return FAMILIES[family](np.random.default_rng([seed, vocab, len(family)]), (rows, vocab))


def draw_reference(rows: int, vocab: int, seed: int) -> np.ndarray:
    """Logits of an independent reference."""
    return 2 * np.random.default_rng([seed, vocab, 99]).normal(size=(rows, vocab))


def draw_crowded(seed: int, vocab: int = 1_300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits `[V]` of θ, target and a reference: nearly all tokens have nearly one ℓ, five lie far away.

    Every other seed has exactly one ℓ for the others.
    """
    rng = np.random.default_rng([21, seed])
    u, r = rng.normal(size=(2, vocab)) * 10 ** rng.uniform(-1, 1)
    few = rng.integers(vocab, size=5)
    v = u + 10 ** rng.uniform(-4, -1) * rng.standard_t(2, size=vocab) * (seed % 2)
    v[few] += rng.normal(size=5) * 10 ** rng.uniform(0, 1.3)
    return u, v, r


# --- Hypothesis --------------------------------------------------------------------------------------------------

LOGIT = st.floats(-50, 50, allow_subnormal=False)
# Few distinct values: ties, duplicates and equal rows are common.
COARSE = st.sampled_from([-50.0, -1.0, 0.0, 0.0, 1.0, 50.0])


@st.composite
def logit_pairs(
    draw: st.DrawFn, masks: str = "none", reference: bool = False, min_vocab: int = 1, max_rows: int = 1
) -> tuple[np.ndarray, ...]:
    """Logits (θ, t[, ref]) `[B, V]` up to ±50 with ties.

    `masks`: "none"; "covered" (t, and the reference where given, may have tokens that θ lacks); "overlap"
    (any mask that leaves a common token).
    """
    vocab = draw(st.integers(min_vocab, 12))
    rows = draw(st.integers(1, max_rows))
    values = st.lists(draw(st.sampled_from([LOGIT, COARSE])), min_size=vocab * rows, max_size=vocab * rows)
    arrays = [np.array(draw(values)).reshape(rows, vocab) for _ in range(3 if reference else 2)]
    if masks != "none":
        bits = st.lists(st.booleans(), min_size=vocab * rows, max_size=vocab * rows)
        cut = [np.array(draw(bits)).reshape(rows, vocab) for _ in range(2)]
        shared = draw(st.lists(st.integers(0, vocab - 1), min_size=rows, max_size=rows))
        for c in cut:
            c[np.arange(rows), shared] = False
        arrays[0][cut[0]] = -np.inf
        if masks == "overlap":
            arrays[1][cut[1]] = -np.inf
    return tuple(arrays)


ALPHAS = st.floats(0, 1)
UNIT = st.floats(0, 1)
ETAS = st.one_of(st.floats(0, 5), st.sampled_from([1e-8, 1e-3, 1.0, 50.0]))

# --- mpmath ------------------------------------------------------------------------------------------------------


def mp_softmax(logits: np.ndarray) -> list[mp.mpf]:
    """Normalised probabilities of one row of float64 logits, which are taken as exact; −inf gives 0."""
    top = float(np.max(logits))
    weights = [mp.exp(mp.mpf(float(x)) - mp.mpf(top)) if x != -np.inf else mp.mpf(0) for x in logits]
    total = mp.fsum(weights)
    return [w / total for w in weights]


def mp_kl(p: list[mp.mpf], q: list[mp.mpf]) -> mp.mpf:
    """Σ p log(p/q)."""
    return mp.fsum(a * mp.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


class Exact:
    """One row from the definitions, in mpmath's current precision; supports may differ, rewards must be finite."""

    def __init__(
        self, theta: np.ndarray, target: np.ndarray, reference: np.ndarray | None = None, weights: str = "importance"
    ) -> None:
        self.theta, self.target = mp_softmax(theta), mp_softmax(target)
        self.reference = self.theta if reference is None else mp_softmax(reference)
        self.weights = weights
        self.common = [i for i, (a, b) in enumerate(zip(self.theta, self.target, strict=True)) if a > 0 and b > 0]
        self.ell = {i: mp.log(self.target[i] / self.theta[i]) for i in self.common}

    def _masses(self, alpha: float | mp.mpf) -> dict[int, mp.mpf]:
        a = mp.mpf(alpha)
        return {i: self.theta[i] ** a * self.target[i] ** (1 - a) for i in self.common}

    def z(self, alpha: float | mp.mpf) -> mp.mpf:
        """Z(α) = Σ π_θ^α π_t^(1−α) over the common support."""
        return mp.fsum(self._masses(alpha).values())

    def log_z(self, alpha: float | mp.mpf) -> mp.mpf:
        return mp.log(self.z(alpha))

    def q(self, alpha: float | mp.mpf) -> list[mp.mpf]:
        """q_α on all tokens."""
        masses = self._masses(alpha)
        total = mp.fsum(masses.values())
        return [masses.get(i, mp.mpf(0)) / total for i in range(len(self.theta))]

    def kl_to_theta(self, alpha: float | mp.mpf) -> mp.mpf:
        return mp_kl(self.q(alpha), self.theta)

    def kl_to_target(self, alpha: float | mp.mpf) -> mp.mpf:
        return mp_kl(self.q(alpha), self.target)

    def delta(self, alpha: float | mp.mpf) -> mp.mpf:
        """KL(q‖π_θ) − KL(q‖π_t), as defined, not as E_q[ℓ]."""
        return self.kl_to_theta(alpha) - self.kl_to_target(alpha)

    def mean(self, alpha: float | mp.mpf) -> mp.mpf:
        """E_q[ℓ], which the theory says is Δ."""
        q = self.q(alpha)
        return mp.fsum(q[i] * self.ell[i] for i in self.common)

    def variance(self, alpha: float | mp.mpf) -> mp.mpf:
        q = self.q(alpha)
        mean = mp.fsum(q[i] * self.ell[i] for i in self.common)
        return mp.fsum(q[i] * (self.ell[i] - mean) ** 2 for i in self.common)

    def tilt(self, alpha: float | mp.mpf) -> list[mp.mpf]:
        """h = w·r with w = π_θ/q or q/π_θ and r = log(π_t/π_ref); 0 where π_θ is 0."""
        return self.tilt_from(self.q(alpha))

    def tilt_from(self, q: list[mp.mpf]) -> list[mp.mpf]:
        """The same of any sampling distribution q."""
        h = [mp.mpf(0)] * len(q)
        for i in self.common:
            w = self.theta[i] / q[i] if self.weights == "importance" else q[i] / self.theta[i]
            h[i] = w * mp.log(self.target[i] / self.reference[i])
        return h

    def reach_from(self, q: list[mp.mpf]) -> list[mp.mpf]:
        """|∂h/∂log-prob| per token is at most w(1 + 2|r|): what an error of log-probabilities is multiplied by in h."""
        h, out = self.tilt_from(q), [mp.mpf(0)] * len(q)
        for i in self.common:
            w = self.theta[i] / q[i] if self.weights == "importance" else q[i] / self.theta[i]
            out[i] = w + (2 + 2 * abs(self.ell[i])) * abs(h[i])
        return out

    def phi1(self, alpha: float | mp.mpf) -> mp.mpf:
        """Σ (π_t − π_θ)·w·r."""
        return self.phi1_of(self.tilt(alpha))

    def phi1_of(self, h: list[mp.mpf]) -> mp.mpf:
        return mp.fsum((t - p) * x for p, t, x in zip(self.theta, self.target, h, strict=True))

    def cumulant(self, alpha: float | mp.mpf, order: int) -> mp.mpf:
        """Central moment of h under π_θ: the cumulant for orders 2 and 3."""
        return self.cumulant_of(self.tilt(alpha), order)

    def cumulant_of(self, h: list[mp.mpf], order: int) -> mp.mpf:
        mean = mp.fsum(p * x for p, x in zip(self.theta, h, strict=True))
        return mp.fsum(p * (x - mean) ** order for p, x in zip(self.theta, h, strict=True))

    def snr(self, alpha: float | mp.mpf) -> mp.mpf:
        return abs(self.phi1(alpha)) / mp.sqrt(self.cumulant(alpha, 2))

    def chi2(self) -> mp.mpf:
        """χ²(π_t‖π_θ) = Σ (π_t − π_θ)²/π_θ."""
        return mp.fsum((t - p) ** 2 / p for p, t in zip(self.theta, self.target, strict=True) if p > 0)

    def updated(self, alpha: float | mp.mpf, eta: float | mp.mpf) -> list[mp.mpf]:
        """π_θ' ∝ π_θ exp(ηh)."""
        return self.updated_by(self.tilt(alpha), eta)

    def updated_by(self, h: list[mp.mpf], eta: float | mp.mpf) -> list[mp.mpf]:
        raised = [p * mp.exp(mp.mpf(eta) * x) for p, x in zip(self.theta, h, strict=True)]
        total = mp.fsum(raised)
        return [x / total for x in raised]

    def progress(self, alpha: float | mp.mpf, eta: float | mp.mpf) -> mp.mpf:
        """J(π_θ') − J(π_θ), J(π) = E_{π_t}[log π], on rows where π_θ can produce all that π_t can."""
        return self.progress_of(self.tilt(alpha), eta)

    def progress_of(self, h: list[mp.mpf], eta: float | mp.mpf) -> mp.mpf:
        new = self.updated_by(h, eta)
        pairs = list(zip(self.target, new, self.theta, strict=True))
        return mp.fsum(t * mp.log(b) for t, b, _ in pairs if t > 0) - mp.fsum(
            t * mp.log(p) for t, _, p in pairs if t > 0
        )

    def alpha_kl(self) -> mp.mpf:
        """Root of E_q[ℓ]: bisection to 1e-12, then Newton to the working precision."""
        low, high = mp.mpf(0), mp.mpf(1)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.mean(middle) > 0 else (low, middle)
        root = (low + high) / 2
        for _ in range(4):
            root += self.mean(root) / self.variance(root)
        return root


# --- NumPy -------------------------------------------------------------------------------------------------------


def np_log_softmax(logits: np.ndarray) -> np.ndarray:
    top = np.max(logits, -1, keepdims=True)
    return logits - top - np.log(np.sum(np.exp(logits - top), -1, keepdims=True))


def np_delta(log_theta: np.ndarray, log_target: np.ndarray, alpha: float) -> float:
    """E_q[ℓ] of one row (rows with full support)."""
    x = alpha * log_theta + (1 - alpha) * log_target
    q = np.exp(x - x.max())
    return float(np.sum(q * (log_target - log_theta)) / q.sum())


def np_snr(
    log_theta: np.ndarray,
    log_target: np.ndarray,
    log_reference: np.ndarray | None,
    alphas: np.ndarray | float,
    weights: str = "importance",
) -> np.ndarray:
    """Signed Φ₁/√Φ₂ of one row at every α, in extended precision where the platform has it."""
    lt, lg = log_theta.astype(np.longdouble), log_target.astype(np.longdouble)
    ell = lg - lt
    reward = ell if log_reference is None else lg - log_reference.astype(np.longdouble)
    theta, gap = np.exp(lt), np.exp(lg) - np.exp(lt)
    sign = -1 if weights == "importance" else 1
    out = []
    for a in np.atleast_1d(alphas):
        w = np.exp(sign * (1 - np.longdouble(a)) * ell)  # Z cancels in SNR
        h = w * reward
        centred = h - np.sum(theta * h)
        out.append(np.sum(gap * h) / np.sqrt(np.sum(theta * centred**2)))
    return np.array(out, dtype=np.float64)


def np_progress(
    log_theta: np.ndarray,
    log_target: np.ndarray,
    log_reference: np.ndarray | None,
    alphas: np.ndarray | float,
    eta: float,
    weights: str = "importance",
) -> np.ndarray:
    """η E_t[h] − log E_θ[exp(ηh)] of one row at every α, in extended precision where the platform has it."""
    lt, lg = log_theta.astype(np.longdouble), log_target.astype(np.longdouble)
    ell = lg - lt
    reward = ell if log_reference is None else lg - log_reference.astype(np.longdouble)
    sign = -1 if weights == "importance" else 1
    out = []
    a = np.atleast_1d(alphas).astype(np.longdouble)
    for block in np.array_split(a, 1 + a.size * ell.size // 1_000_000):
        tilted = (1 - block)[:, None] * ell
        mass = lt + tilted
        top = mass.max(-1, keepdims=True)
        log_z = top + np.log(np.exp(mass - top).sum(-1, keepdims=True))
        x = eta * reward * np.exp(sign * (tilted - log_z))
        top = x.max(-1, keepdims=True)
        out.append((np.exp(lg) * (x - top)).sum(-1) - np.log((np.exp(lt) * np.exp(x - top)).sum(-1)))
    return np.concatenate(out).astype(np.float64)


# --- rounding ----------------------------------------------------------------------------------------------------


def log_prob_error(*logits: np.ndarray) -> float:
    """Absolute error of float64 log-probabilities: a few roundings of numbers as large as the logits' range."""
    finite = [x[np.isfinite(x)] for x in logits]
    return 4 * EPS * (1 + max(float(np.ptp(x)) for x in finite) + np.log(logits[0].shape[-1]))


def moment_error(theta: np.ndarray, target: np.ndarray, order: int) -> float:
    """Bound on the error of log Z (0), Δ (1) and Var (2) from log-probabilities that are off by `log_prob_error`.

    ∂/∂(log-prob) of the k-th is at most 2k·R^k + 1 with R the range of ℓ; the sums over tokens add roundings of
    the same size.
    """
    both = np.isfinite(theta) & np.isfinite(target)
    ell = np_log_softmax(target)[both] - np_log_softmax(theta)[both]
    span = 2 * float(np.abs(ell).max()) + 1
    return 4 * log_prob_error(theta, target) * (2 * order + 1) * span**order


# --- what every AlphaResult is -----------------------------------------------------------------------------------


def assert_numbers(result) -> None:
    """Nothing is NaN or infinite, and α lies in [0, 1] and in its bracket."""
    for value in (result.alpha, result.residual, result.bracket):
        assert value.isfinite().all()
    assert ((result.alpha >= 0) & (result.alpha <= 1)).all()
    assert (result.bracket[:, 0] <= result.alpha).all()
    assert (result.alpha <= result.bracket[:, 1]).all()
    for row in result.maxima:
        assert np.isfinite([[m.alpha, m.value, m.slope, *m.bracket] for m in row]).all()
