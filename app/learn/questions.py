"""Predict, then reveal: what a reader is asked before a step shows its answer, and what is said to their answer.

A question's words are in the catalogue under learn.question.NAME: `ask`; for a choice option_X, truth_X (what is the
case where X is right) and if_X (to someone who chose X and is wrong); for a mark truth, low and high (to someone who
placed it too low, too high). The truth is always computed, on the policies at hand.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from geomix_app import compute
from geomix_app.catalogue import Catalogue
from geomix_app.learn.facts import Facts
from geomix_app.notation import number, parameter, percent
from geomix_app.scenario import REAL, Scenario
from geomix_core.claims import Outcome
from geomix_core.divergences import total_variation
from geomix_core.progress import updated_policy
from geomix_core.scenarios import FAMILIES, real_rows

Numbers = Mapping[str, str]


@dataclass(frozen=True)
class Choice:
    """One of several answers is right."""

    options: tuple[str, ...]
    find: Callable[[Facts], tuple[str, Numbers] | None]
    """The right option and numbers for its words; None where these policies decide nothing."""

    def shuffled(self, name: str, facts: Facts) -> tuple[str, ...]:
        """The options in an order of their own for each question and each pair of policies."""
        order = list(self.options)
        random.Random(f"{name} {facts.view.row.key}").shuffle(order)
        return tuple(order)


@dataclass(frozen=True)
class Mark:
    """A mark is to be placed between 0 and 1: α itself, or a share."""

    kind: Literal["alpha", "share"]
    near: float
    """How far off counts as right."""
    find: Callable[[Facts], tuple[float, Numbers] | None]

    def written(self, x: float) -> str:
        """A place of the mark as a person reads it."""
        return parameter(x) if self.kind == "alpha" else percent(x)


Question = Choice | Mark


@dataclass(frozen=True)
class Reply:
    """What is said to an answer: whether it was right, what is the case, and a word about the answer itself."""

    right: bool
    truth: str
    about: str


def reply(name: str, given: Any, facts: Facts, text: Catalogue) -> Reply | None:
    """The reply to an answer; None where the question cannot be asked of these policies."""
    question = QUESTIONS[name]
    found = question.find(facts)
    if found is None:
        return None
    truth, numbers = found
    key = f"learn.question.{name}"
    if isinstance(question, Choice):
        right = given == truth
        return Reply(right, text(f"{key}.truth_{truth}", **numbers), "" if right else text(f"{key}.if_{given}"))
    off = float(given) - float(truth)
    told = text(f"{key}.truth", truth=question.written(float(truth)), **numbers)
    if abs(off) <= question.near:
        return Reply(True, told, "")
    return Reply(False, told, text(f"{key}.low" if off < 0 else f"{key}.high"))


def redrawn(scenario: Scenario) -> dict[str, Any]:
    """Changes of the scenario that bring another pair of policies of the same kind."""
    if scenario.source == REAL:
        return {"row": (scenario.row + 1) % len(real_rows().prompts)}
    source = scenario.source if scenario.source in FAMILIES else "gaussian"
    seed = next((p for p in FAMILIES[source].parameters if p.name == "seed"), None)
    if seed is None:
        return {"source": "gaussian", "parameters": ()}
    chosen = dict(scenario.parameters) if source == scenario.source else {}
    following = float(chosen.get("seed", seed.default)) + 1
    chosen["seed"] = following if following <= seed.high else float(seed.low)
    return {"source": source, "parameters": tuple(chosen.items())}


# --- what is the case ---------------------------------------------------------------------------------------------


def _update(facts: Facts) -> tuple[str, Numbers] | None:
    batch = facts.view.row.batch
    if not facts.learns or batch.reference is not None:
        return None
    after = updated_policy(batch, 1.0, 1.0, facts.view.weights)[0]
    to_target, to_theta = (total_variation(after[None], p).item() for p in (batch.target, batch.theta))
    if to_target > EQUAL or to_theta < EQUAL:
        return None
    return "target", {"moved": percent(to_theta)}


EQUAL = 1e-9
"""Policies whose total variation is below this are the same."""


def _progress(facts: Facts) -> tuple[float, Numbers] | None:
    ceiling = facts.pair.kl_target_theta
    if not facts.learns or not 0 < ceiling < math.inf or facts.view.row.batch.reference is not None:
        return None
    view = facts.view
    gained = compute.progress(view.row.key, 1.0, 0.5, view.weights, view.row.batch)
    return gained / ceiling, {"gained": number(gained), "ceiling": number(ceiling)}


def _theorem_1(facts: Facts) -> tuple[str, Numbers] | None:
    if not facts.learns:
        return None
    step = abs(facts.learning.quadratic_step) or 1.0
    view = facts.view
    slope = compute.expansion_error(view.row.key, facts.alpha, step, view.weights, view.row.batch).second_slope
    factors = {"two": 1, "four": 2, "eight": 3, "sixteen": 4}
    option = next((o for o, power in factors.items() if abs(slope - power) < 0.1), None)
    return None if option is None else (option, {"slope": f"{slope:.2f}"})


def _signal_noise(facts: Facts) -> tuple[str, Numbers] | None:
    found = facts.verdict("section_2_3_noise")
    if found.outcome is Outcome.DOES_NOT_APPLY:
        return None
    written = {name: number(found.numbers[name]) for name in ("phi2", "variance")}
    return "same", {**written, "samples": f"{found.numbers['samples']:,.0f}"}


def _wald(facts: Facts) -> tuple[float, Numbers] | None:
    if not facts.learns or facts.alpha_wald is None or not facts.wald.maxima[0]:
        return None
    return facts.alpha_wald, {"worst": number(facts.wald.maxima[0][0].value)}


def _theorem_2(facts: Facts) -> tuple[str, Numbers] | None:
    ceiling = facts.pair.kl_target_theta
    if not facts.learns or facts.learning.phi1 <= 0 or not 0 < ceiling < math.inf:
        return None
    promised = facts.learning.quadratic_gain
    numbers = {
        "promised": number(promised),
        "ceiling": number(ceiling),
        "actual": number(facts.learning.progress_at_quadratic_step),
        "alpha": parameter(facts.alpha),
    }
    return ("yes" if promised > ceiling else "no"), numbers


def _theorem_3(facts: Facts) -> tuple[str, Numbers] | None:
    found = facts.verdict("theorem_3_minimax").numbers
    if not found or found["at_wald"] <= 0:
        return None
    kept = found["at_snr"] / found["at_wald"]
    option = "all" if kept > 0.99 else "most" if kept >= 0.5 else "little" if kept >= 0 else "harm"
    written = {name: number(found[name]) for name in ("at_snr", "at_wald")}
    alphas = {name: parameter(found[name]) for name in ("alpha_snr", "alpha_wald")}
    return option, {**written, **alphas}


def _full_space(facts: Facts) -> tuple[str, Numbers] | None:
    found = facts.verdict("section_4_1_infeasible")
    if found.outcome is not Outcome.FAILS:
        return None
    tokens = f"{found.numbers['tokens']:,.0f}"
    return "formula", {"tokens": tokens, "reached": number(found.numbers["reached"])}


def _family(facts: Facts) -> tuple[str, Numbers] | None:
    found = facts.verdict("section_4_2_shortest")
    if found.outcome is not Outcome.FAILS:
        return None
    lengths = {name: found.numbers[name] for name in ("e_geodesic", "m_geodesic", "fisher_rao")}
    shortest = min(lengths, key=lambda name: lengths[name])
    return shortest, {name: number(x, 4) for name, x in lengths.items()}


def _one_dimension(facts: Facts) -> tuple[float, Numbers] | None:
    if not facts.learns or not facts.signal.snr.maxima[0] or facts.signal.alpha_snr is None:
        return None
    best, middle = facts.signal.snr.maxima[0][0].value, facts.learning_at(0.5).signed_snr
    return facts.signal.alpha_snr, {"best": number(best), "half": number(abs(middle))}


def _kl_symmetry(facts: Facts) -> tuple[float, Numbers] | None:
    if facts.pair.disjoint or facts.family.alpha_kl is None:
        return None
    kls = {"there": number(facts.pair.kl_target_theta), "back": number(facts.pair.kl_theta_target)}
    return facts.family.alpha_kl, {**kls, "chernoff": number(facts.family.chernoff)}


def _snr_vs_kl(facts: Facts) -> tuple[float, Numbers] | None:
    found = facts.verdict("section_5_4_snr")
    if found.outcome is Outcome.DOES_NOT_APPLY:
        return None
    return 1 - found.numbers["loss"], {"loss": percent(found.numbers["loss"])}


def _algorithm(facts: Facts) -> tuple[str, Numbers] | None:
    found = facts.verdict("section_6_2_stable")
    if found.outcome is Outcome.DOES_NOT_APPLY:
        return None
    error = found.numbers["error"]
    option = "none" if error < 0.001 else "little" if error < 0.02 else "much"
    return option, {name: parameter(found.numbers[name]) for name in ("listed", "alpha_kl", "error")}


def _comparison(facts: Facts) -> tuple[str, Numbers] | None:
    four = facts.verdict("section_6_5_mixture").numbers
    at_kl = facts.verdict("section_6_5_on_policy").numbers.get("at_kl")
    if not four or at_kl is None:
        return None
    values = {"theta": four["on_policy"], "target": four["off_policy"], "uniform": four["uniform"], "kl": at_kl}
    if max(values.values()) - sorted(values.values())[-2] < 1e-9 * max(values.values()):
        return None
    return max(values, key=lambda name: values[name]), {name: number(x) for name, x in values.items()}


QUESTIONS: Mapping[str, Question] = {
    "update": Choice(("theta", "between", "target", "beyond"), _update),
    "progress": Mark("share", 0.05, _progress),
    "theorem_1": Choice(("two", "four", "eight", "sixteen"), _theorem_1),
    "signal_noise": Choice(("half", "root", "same"), _signal_noise),
    "wald": Mark("alpha", 0.05, _wald),
    "theorem_2": Choice(("yes", "no"), _theorem_2),
    "theorem_3": Choice(("all", "most", "little", "harm"), _theorem_3),
    "full_space": Choice(("formula", "search", "infeasible"), _full_space),
    "family": Choice(("e_geodesic", "m_geodesic", "fisher_rao"), _family),
    "one_dimension": Mark("alpha", 0.05, _one_dimension),
    "kl_symmetry": Mark("alpha", 0.03, _kl_symmetry),
    "snr_vs_kl": Mark("share", 0.05, _snr_vs_kl),
    "algorithm": Choice(("none", "little", "much"), _algorithm),
    "comparison": Choice(("theta", "target", "uniform", "kl"), _comparison),
}
"""By the step that asks it."""
