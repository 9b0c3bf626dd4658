"""Each step's one figure: panels of the explorer, where something is to be dragged, or a Plotly figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from geomix_app import compute
from geomix_app.explorer.component import ROWS, Parts
from geomix_app.figures import criteria, derivation, export, geodesic, progress, tokens
from geomix_app.figures.export import Exhibit
from geomix_app.learn.facts import Facts
from geomix_app.notation import SYMBOLS
from geomix_core.progress import updated_policy
from geomix_core.summary import top_tokens

HEIGHT = 400
LISTED = 8
"""Tokens that a figure draws."""


@dataclass(frozen=True)
class Live:
    """Panels of the explorer, and what is around them."""

    panels: tuple[str, ...]
    parts: Parts = field(default_factory=Parts)


Figure = Live | Exhibit


def of(name: str, facts: Facts) -> Figure | None:
    """The figure of a step; None where what it shows is not defined for these policies."""
    return FIGURES[name](facts)


def _live(*panels: str, reward: bool = True) -> Callable[[Facts], Figure | None]:
    marks = ("alpha_kl", "alpha_snr", "alpha_wald") if "worst" in panels else ("alpha_kl", "alpha_snr")
    parts = Parts(numbers=(), below=BELOW, share=SHARE, marks=marks if reward else ("alpha_kl",))

    def figure(facts: Facts) -> Figure | None:
        return Live(panels, parts) if facts.learns or not reward else None

    return figure


SHARE = 0.56
"""How much of the page's width a figure takes beside the formula."""
BELOW = 150
"""Pixels for the verdicts below."""


def _pair(facts: Facts) -> Figure:
    return Live(("pair",), Parts(track=False, numbers=(), below=BELOW, share=SHARE, tokens=LISTED))


def _update(facts: Facts) -> Figure | None:
    if not facts.learns:
        return None
    view, batch = facts.view, facts.view.row.batch
    index = top_tokens(batch, LISTED)
    names = [view.row.tokens[int(i)] for i in index]

    def values() -> dict[str, tokens.Array]:
        after = updated_policy(batch, facts.alpha, facts.eta, view.weights)
        policies = {"theta": batch.theta, "updated": after, "target": batch.target}
        return {name: p[0][index.tolist()].exp().cpu().numpy() for name, p in policies.items()}

    return Exhibit(
        "update",
        view.text.plain("figure.tokens.title", count=len(index)),
        lambda: tokens.token_bars(view.style, names, values(), log_scale=False, height=HEIGHT),
        lambda: export.tokens(index, names, values()),
    )


def _expansion(facts: Facts) -> Figure | None:
    if not facts.learns:
        return None
    view = facts.view
    # The expansion is in ηh, so the range of η that shows its order scales with the quadratic's own step.
    step = abs(facts.learning.quadratic_step) or 1.0
    found = compute.expansion_error(view.row.key, facts.alpha, step, view.weights, view.row.batch)
    title = view.text.plain("figure.error.title")
    return Exhibit("error", title, lambda: progress.expansion_error(view.style, found), lambda: export.curves(found))


def _signal_noise(facts: Facts) -> Figure | None:
    if not facts.learns:
        return None
    view = facts.view
    curves = compute.signal_curves(view.row.key, view.weights, view.row.batch)
    return Exhibit(
        "signal",
        view.text.plain("figure.signal.title"),
        lambda: criteria.signal_and_noise(view.style, curves, facts.alpha),
        lambda: export.curves(curves),
    )


def _full_space(facts: Facts) -> Figure | None:
    if not facts.learns:
        return None
    mixture, at_kl, full = (
        facts.verdict(claim).numbers
        for claim in ("section_6_5_mixture", "section_6_5_on_policy", "section_4_1_infeasible")
    )
    found = {
        SYMBOLS["theta"].html: ("theta", mixture.get("on_policy")),
        SYMBOLS["target"].html: ("target", mixture.get("off_policy")),
        facts.view.text.html("reference.uniform"): ("here", mixture.get("uniform")),
        facts.view.text.html("figure.snr_bars.at_kl"): ("alpha_kl", at_kl.get("at_kl")),
        facts.view.text.html("figure.snr_bars.at_snr"): ("alpha_snr", mixture.get("best")),
        facts.view.text.html("figure.snr_bars.full"): ("phi1", full.get("reached")),
    }
    values = {label: (symbol, x) for label, (symbol, x) in found.items() if x is not None}
    if not values:
        return None
    view = facts.view
    return Exhibit(
        "snr_bars",
        view.text.plain("figure.snr_bars.title"),
        lambda: derivation.bars(
            view.style, view.text.html("figure.snr_bars.title"), values, ("snr_ceiling", view.pair.snr_ceiling), HEIGHT
        ),
        lambda: {"q": list(values), "snr": [x for _, x in values.values()]},
    )


def _gains(facts: Facts) -> Figure | None:
    if not facts.learns:
        return None
    view = facts.view
    found = compute.choices(view.row.key, view.weights, view.row.batch)
    values = {
        view.text.html(f"explorer.choice_{choice.name}"): (ROWS[choice.name], choice.best_progress)
        for choice in found
        if choice.best_progress is not None and choice.name in ROWS and choice.name != "half"
    }
    title = view.text.html("figure.gain_bars.title")
    return Exhibit(
        "gain_bars",
        view.text.plain("figure.gain_bars.title"),
        lambda: derivation.bars(view.style, title, values, ("ceiling", view.pair.kl_target_theta), HEIGHT),
        lambda: {"choice": list(values), "best_progress_nats": [x for _, x in values.values()]},
    )


def _paths(facts: Facts) -> Figure | None:
    if facts.pair.disjoint:
        return None
    view = facts.view
    planes = compute.planes(view.row.key, view.row.batch)
    return Exhibit(
        "plane",
        view.text.plain("figure.plane.title"),
        lambda: geodesic.kl_plane(view.style, planes, facts.here, HEIGHT + 40),
        lambda: export.planes(planes),
    )


def _listing(facts: Facts) -> Figure | None:
    if facts.pair.disjoint:
        return None
    view = facts.view
    alpha, exact, listed = compute.listed_objective(view.row.key, view.row.batch)
    found = facts.verdict("section_6_2_stable").numbers
    roots = (found["alpha_kl"], found["listed"]) if found else None
    return Exhibit(
        "listing",
        view.text.plain("figure.listing.title"),
        lambda: derivation.listed_objective(view.style, alpha, exact, listed, roots, HEIGHT),
        lambda: {"alpha": alpha, "delta_nats": exact, "listed_nats": listed},
    )


FIGURES: Mapping[str, Callable[[Facts], Figure | None]] = {
    "budget": _pair,
    "update": _update,
    "progress": _live("progress"),
    "theorem_1": _expansion,
    "signal_noise": _signal_noise,
    "wald": _live("worst"),
    "theorem_2": _live("progress"),
    "theorem_3": _live("snr", "worst"),
    "full_space": _full_space,
    "family": _paths,
    "one_dimension": _live("snr"),
    "kl_symmetry": _live("delta", "kls", reward=False),
    "snr_vs_kl": _live("delta", "snr"),
    "algorithm": _listing,
    "comparison": _gains,
    "summary": _live("policies", reward=False),
}
