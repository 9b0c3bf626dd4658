"""`compress`: a row's curves on its atoms against the same curves on all tokens, computed here in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import WEIGHTS, draw, draw_reference, np_log_softmax, np_snr

from geomix_core import PolicyBatch, exact_progress, learning_signal, tilted_moments
from geomix_core.compression import SMALL, compress
from geomix_core.scenarios import REFERENCES, ReferenceKind, reference_policy, synthetic

INF = np.inf
VOCAB = 20_000
ALPHAS = np.linspace(0, 1, 9)
GRID = torch.tensor(ALPHAS)[:, None]
FAMILIES = ("zipf", "gaussian", "dirichlet", "peaked", "near")


def np_moments(log_theta: np.ndarray, log_target: np.ndarray) -> dict[str, np.ndarray]:
    """log Z, Δ, Var and both KLs of one row at ALPHAS, from all tokens of the common support."""
    both = np.isfinite(log_theta) & np.isfinite(log_target)
    lt, lg = log_theta[both], log_target[both]
    out = {name: [] for name in ("log_partition", "mean", "variance", "kl_to_theta", "kl_to_target")}
    for a in ALPHAS:
        x = a * lt + (1 - a) * lg
        log_z = np.log(np.sum(np.exp(x - x.max()))) + x.max()
        q = np.exp(x - log_z)
        mean = np.sum(q * (lg - lt))
        out["log_partition"].append(log_z)
        out["mean"].append(mean)
        out["variance"].append(np.sum(q * (lg - lt - mean) ** 2))
        out["kl_to_theta"].append(np.sum(q * (x - log_z - lt)))
        out["kl_to_target"].append(np.sum(q * (x - log_z - lg)))
    return {name: np.array(values) for name, values in out.items()}


def np_progress(log_theta: np.ndarray, log_target: np.ndarray, reward: np.ndarray, alpha: float, eta: float) -> float:
    """J(π') − J(π_θ), importance weights, full support."""
    x = alpha * log_theta + (1 - alpha) * log_target
    log_q = np_log_softmax(x)
    h = np.exp(log_theta - log_q) * reward
    return float(np.sum(np.exp(log_target) * (np_log_softmax(log_theta + eta * h) - log_theta)))


def relative_to_range(got: np.ndarray, truth: np.ndarray) -> float:
    """Largest error as a share of the curve's largest value, which is how `compress` states its bounds."""
    return float(np.abs(got - truth).max() / np.abs(truth).max())


def pair(family: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return draw(family, 1, VOCAB, seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_curves_of_the_family(family: str) -> None:
    theta, target = pair(family)
    small = compress(PolicyBatch.from_logits(theta, target))
    assert small.vocab_size < VOCAB / 4
    truth = np_moments(np_log_softmax(theta)[0], np_log_softmax(target)[0])
    moments = tilted_moments(small, GRID)
    for name, expected in truth.items():
        assert relative_to_range(getattr(moments, name)[:, 0].numpy(), expected) <= 1e-6, name
    for log_p in (small.theta, small.target):
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
def test_signal_noise_and_snr(family: str, weights: str, referenced: bool) -> None:
    theta, target = pair(family)
    reference = draw_reference(1, VOCAB, 0) if referenced else None
    full = PolicyBatch.from_logits(theta, target, reference)
    bound = 1e-4 if referenced else 1e-6
    logs = [np_log_softmax(x)[0] for x in (theta, target)]
    log_reference = None if reference is None else np_log_softmax(reference)[0]
    got = learning_signal(compress(full), GRID, weights)
    expected = np_snr(*logs, log_reference, ALPHAS, weights)
    assert relative_to_range(got.signed_snr[:, 0].numpy(), expected) <= bound
    exact = learning_signal(full, GRID, weights)
    assert relative_to_range(got.phi1[:, 0].numpy(), exact.phi1[:, 0].numpy()) <= bound
    assert relative_to_range(got.phi2[:, 0].numpy(), exact.phi2[:, 0].numpy()) <= bound


@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
def test_exact_progress(referenced: bool) -> None:
    theta, target = pair("zipf")
    reference = draw_reference(1, VOCAB, 0) if referenced else None
    small = compress(PolicyBatch.from_logits(theta, target, reference))
    lt, lg = np_log_softmax(theta)[0], np_log_softmax(target)[0]
    reward = lg - (lt if reference is None else np_log_softmax(reference)[0])
    etas = (0.03, 0.3, 1.0)
    truth = np.array([[np_progress(lt, lg, reward, a, e) for e in etas] for a in (0.3, 0.7, 1.0)])
    grid = torch.tensor([0.3, 0.7, 1.0], dtype=torch.float64)[:, None, None]
    got = exact_progress(small, grid, torch.tensor(etas, dtype=torch.float64)[:, None])[..., 0].numpy()
    assert relative_to_range(got, truth) <= (1e-4 if referenced else 1e-6)


@pytest.mark.parametrize("reference", REFERENCES[1:])
@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("dirichlet", {"concentration": 0.05}),
        ("dirichlet", {"concentration": 0.2}),
        ("dirichlet", {"concentration": 0.5}),
        ("dirichlet", {"concentration": 1.0}),
        ("zipf", {"exponent": 0.5, "distance": 4.0}),
    ],
)
def test_progress_of_updates_that_live_on_rare_tokens(
    family: str, parameters: dict[str, float], reference: ReferenceKind
) -> None:
    """In shares of the ceiling, at steps up to where as much as half of it is lost."""
    row = synthetic(family, vocabulary=VOCAB, **parameters)
    full = PolicyBatch(row.theta, row.target, reference_policy(row.theta, reference))
    small = compress(full)
    assert small.vocab_size <= 16_000
    lt, lg, reward = (x[0].numpy() for x in (full.theta, full.target, full.reward))
    ceiling = float(np.sum(np.exp(lg) * (lg - lt)))
    etas = np.geomspace(0.1, 12, 16)
    for alpha in (0.0, 0.3, 0.65, 0.85, 1.0):
        truth = np.array([np_progress(lt, lg, reward, alpha, e) for e in etas]) / ceiling
        got = exact_progress(small, alpha, torch.tensor(etas)[:, None])[:, 0].numpy() / ceiling
        seen = truth >= -0.5
        assert seen.any()
        assert np.abs(got - truth)[seen].max() <= 1e-4, alpha


def test_small_vocabularies_are_left_alone() -> None:
    limit = SMALL
    batch = PolicyBatch.from_logits(*draw("gaussian", 2, limit, 0))
    assert compress(batch) is batch
    larger = PolicyBatch.from_logits(*draw("gaussian", 2, limit + 1, 0))
    assert compress(larger) is not larger


def test_tokens_of_one_policy_only_keep_their_mass() -> None:
    theta, target = pair("zipf", 1)
    theta[0, 100:1100], target[0, 1000:4000] = -INF, -INF
    full = PolicyBatch.from_logits(theta, target)
    small = compress(full)
    for name in ("theta_mass", "target_mass"):
        assert getattr(small.support, name).item() == pytest.approx(getattr(full.support, name).item(), rel=1e-6)
    assert small.covered.tolist() == full.covered.tolist() == [False]
    assert small.theta.exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert small.target.exp().sum().item() == pytest.approx(1, abs=1e-6)
    truth = np_moments(np_log_softmax(theta)[0], np_log_softmax(target)[0])
    moments = tilted_moments(small, GRID)
    for name in ("log_partition", "mean", "variance"):
        assert relative_to_range(getattr(moments, name)[:, 0].numpy(), truth[name]) <= 1e-6, name


def test_target_that_knows_more_tokens_stays_covered() -> None:
    theta, target = pair("zipf", 2)
    theta[0, ::3] = -INF
    full = PolicyBatch.from_logits(theta, target)
    small = compress(full)
    assert small.covered.all()
    for weights in WEIGHTS:
        expected, got = learning_signal(full, GRID, weights), learning_signal(small, GRID, weights)
        assert relative_to_range(got.signed_snr[:, 0].numpy(), expected.signed_snr[:, 0].numpy()) <= 1e-6


def test_reference_without_some_tokens() -> None:
    theta, target = pair("zipf", 3)
    reference = draw_reference(1, VOCAB, 3)
    reference[0, 5000:5100] = -INF
    small = compress(PolicyBatch.from_logits(theta, target, reference))
    assert not small.covered.any()
    theta[0, 5000:5100] = -INF
    full = PolicyBatch.from_logits(theta, target, reference)
    small = compress(full)
    assert small.covered.all()
    expected, got = learning_signal(full, GRID), learning_signal(small, GRID)
    assert relative_to_range(got.signed_snr[:, 0].numpy(), expected.signed_snr[:, 0].numpy()) <= 1e-4


def test_tail_of_equal_tokens_and_rows_of_different_kinds() -> None:
    """A width of zero, and rows whose atoms differ in number, padded with −inf."""
    rng = np.random.default_rng(4)
    theta = np.zeros((3, VOCAB))
    target = np.zeros((3, VOCAB))
    theta[0, :10], target[0, :10] = 5.0, rng.normal(size=10)
    theta[1], target[1] = (x[0] for x in pair("gaussian", 4))
    target[2] = theta[2]
    batch = PolicyBatch.from_logits(theta, target)
    small = compress(batch)
    assert len(small) == 3
    assert not small.theta.isnan().any()
    moments = tilted_moments(small, GRID)
    for i in range(3):
        truth = np_moments(np_log_softmax(theta)[i], np_log_softmax(target)[i])
        for name in ("log_partition", "mean", "variance"):
            got = getattr(moments, name)[:, i].numpy()
            assert np.abs(got - truth[name]).max() <= 1e-6 * max(np.abs(truth[name]).max(), 1e-6), (i, name)
        alone = tilted_moments(compress(batch.rows(i)), GRID)
        np.testing.assert_allclose(alone.mean[:, 0].numpy(), moments.mean[:, i].numpy(), rtol=1e-12, atol=1e-14)
