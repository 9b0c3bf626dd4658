"""`optimal_sampling_distribution` (document §6.2): ours against oracles, and the document's own listing."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from strategies import EPS, Exact, draw, mp_kl, np_delta, np_log_softmax

from geomix_core import (
    DisjointSupportError,
    OptionError,
    PolicyBatch,
    PolicyError,
    ShapeError,
    optimal_sampling_distribution,
    solve_alpha,
)
from geomix_core.claims.listing import solve_kl_symmetry


def probabilities(family: str, rows: int, vocab: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    theta, target = draw(family, rows, vocab, seed)
    return torch.softmax(torch.tensor(theta), -1), torch.softmax(torch.tensor(target), -1)


@pytest.mark.parametrize("family", ["dirichlet", "gaussian", "zipf", "near", "tied"])
def test_kl_symmetric_mixture(family: str) -> None:
    theta, target = probabilities(family, 4, 9)
    q_star, alpha_star = optimal_sampling_distribution(theta, target)
    assert q_star.shape == (4, 9)
    assert alpha_star.shape == (4,)
    for i in range(4):
        # The listing takes probabilities: their rounding, not that of logits, is the input.
        exact = Exact(np.log(theta[i].numpy()), np.log(target[i].numpy()))
        truth = exact.alpha_kl()
        assert alpha_star[i].item() == pytest.approx(float(truth), abs=1e-9)
        assert q_star[i].tolist() == pytest.approx([float(x) for x in exact.q(truth)], abs=1e-9)
        q = [mp.mpf(x) for x in q_star[i].tolist()]
        assert float(mp_kl(q, exact.theta)) == pytest.approx(float(mp_kl(q, exact.target)), abs=1e-8)


def test_snr_method_is_the_global_maximum() -> None:
    theta, target = probabilities("gaussian", 5, 9)
    q_star, alpha_star = optimal_sampling_distribution(theta, target, method="snr")
    assert torch.equal(alpha_star, solve_alpha(PolicyBatch.from_probs(theta, target), "snr").alpha)
    for i in range(5):
        alpha = alpha_star[i].item()
        expected = theta[i] ** alpha * target[i] ** (1 - alpha)
        assert torch.allclose(q_star[i], expected / expected.sum(), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_theta_is_kept(dtype: torch.dtype) -> None:
    theta, target = (p.to(dtype) for p in probabilities("gaussian", 2, 6))
    q_star, alpha_star = optimal_sampling_distribution(theta, target)
    assert q_star.dtype == dtype
    assert alpha_star.dtype == torch.float64
    assert q_star.double().sum(-1).tolist() == pytest.approx([1.0, 1.0], abs=6 * torch.finfo(dtype).eps)


def test_tokens_that_one_policy_excludes_get_nothing() -> None:
    theta = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)
    target = torch.tensor([[0.2, 0.3, 0.0, 0.5]], dtype=torch.float64)
    q_star, _ = optimal_sampling_distribution(theta, target)
    assert q_star[0, 2:].tolist() == [0.0, 0.0]
    assert q_star.sum().item() == pytest.approx(1, abs=4 * EPS)


def test_refusals() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0]])
    with pytest.raises(DisjointSupportError, match=r"1 of 2 rows have no common support"):
        optimal_sampling_distribution(
            torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
        )
    with pytest.raises(
        OptionError, match=r"'golden': expected one of kl_symmetry, reverse_kl_symmetry, snr, signed_snr, wald"
    ):
        optimal_sampling_distribution(p, p, method="golden")
    with pytest.raises(ShapeError, match=r"\[1, 2\].*\[1, 3\]"):
        optimal_sampling_distribution(p, torch.tensor([[0.5, 0.5]]))
    with pytest.raises(PolicyError, match="sum to 1"):
        optimal_sampling_distribution(p * 2, p)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_documents_listing_is_biased_where_ours_is_exact(precision: torch.dtype) -> None:
    """Zipf at V = 50 000: eps = 1e-6 inside the logs is as large as a typical token's probability."""
    theta, target = (p.to(precision) for p in probabilities("zipf", 2, 50_000))
    _, ours = optimal_sampling_distribution(theta, target)
    theirs = solve_kl_symmetry(theta, target)
    for i in range(2):
        lt, lg = (np_log_softmax(np.log(p[i].double().numpy())) for p in (theta, target))
        truth = brentq(lambda a, lt=lt, lg=lg: np_delta(lt, lg, a), 0, 1, xtol=1e-13)
        assert ours[i].item() == pytest.approx(truth, abs=1e-6)
        assert abs(theirs[i].item() - truth) > 1e-3


def test_documents_listing_agrees_where_its_eps_is_small() -> None:
    """The listing as we run it is a fair one: for 20 tokens of ordinary probability it finds the same α."""
    theta, target = probabilities("tied", 5, 20)
    _, ours = optimal_sampling_distribution(theta, target)
    assert torch.allclose(solve_kl_symmetry(theta, target), ours, rtol=0, atol=1e-3)
