"""Python that recomputes a page's numbers with geomix_core: plain scripts, written from the scenario. No screen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from geomix_app.catalogue import Catalogue
from geomix_app.scenario import CUSTOM, REAL, UPLOAD, Reshape, Scenario
from geomix_core.lab import Plan as Experiment
from geomix_core.results import Plan
from geomix_core.scenarios import FAMILIES


@dataclass(frozen=True, slots=True)
class Lab:
    """What the sampling lab measures, and the share of KL(π_t‖π_θ) at which it compares."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    plan: Experiment
    share: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a script must know beside the scenario."""

    row: int
    """The row on screen, which exists."""
    files: tuple[str, ...] = ()
    """Names of uploaded files; without any, uploaded logits are the bundled ones."""
    roles: tuple[tuple[str, str], ...] = ()
    """Which array is which, where the reader chose it."""
    kind: str = "logits"
    """What the numbers of uploaded files are."""
    own_reference: bool = False
    """Whether the files, or the table, bring a reference policy."""
    disjoint: bool = False
    covered: bool = True
    shares: bool = True
    """Whether SNR has a largest value and progress a ceiling, both positive and finite, to take shares of."""
    claims: tuple[str, ...] = ()
    """Claims with a verdict on the page."""
    lab: Lab | None = None


def page(name: str, scenario: Scenario, facts: Facts, text: Catalogue) -> str:
    """The script of an Explore page: the policies, then what the page shows of them, printed with labels."""
    script = _Script(scenario, facts, text)
    script.begin(name)
    _policies(script)
    for part in PAGES.get(name, DEFAULT):
        part(script)
    if facts.claims:
        _claims(script)
    return script.written()


def rows(facts: Facts, plan: Plan, text: Catalogue) -> str:
    """The script of the Validate page: every row solved and summarised."""
    script = _Script(Scenario(source=UPLOAD, weights=plan.weights), facts, text)
    script.begin("validate")
    _brought(script)
    script.use("results", "Plan", "solve_chunks")
    script.use("overview", "joined", "overview")
    script.use("fixed_alpha", "CHOICES", "losses_of", "sample_rows")
    script.use("claims.rows", "section_5_4_alpha_over_rows")
    script.define("weights")
    script.add(
        "",
        f"plan = Plan({plan.criteria!r}, weights, {plan.eta_range!r}, data.kind)",
        "table = joined(list(solve_chunks(data.pair, plan)))",
        "found = overview(table)",
        'print("rows:", found.rows)',
        "for group, count in found.groups.items():",
        '    print(f"rows {group}:", count)',
        'print("largest bound of a certified row:", found.bound)',
        "for column, quantiles in found.quantiles.items():",
        "    for level, alpha in quantiles.items():",
        '        print(f"{column}, quantile {level}:", alpha)',
        "for column, statuses in found.statuses.items():",
        "    for status, count in statuses.items():",
        '        print(f"{column}, {status}:", count)',
        "losses = losses_of(data, plan, table, sample_rows(found.rows))",
        "for criterion in plan.criteria:",
        "    for choice in CHOICES:",
        "        median, high = (losses.quantile(criterion, choice, level) for level in (0.5, 0.95))",
        '        print(f"{criterion} lost by {choice}, median and 95 %:", median, high)',
        "verdict = section_5_4_alpha_over_rows(table)",
        'print(f"{verdict.claim}:", verdict.outcome, dict(verdict.numbers))',
        script.comment("snippet.table"),
    )
    return script.written()


class _Script:
    """A script as it grows: what it imports, and its lines."""

    def __init__(self, scenario: Scenario, facts: Facts, text: Catalogue) -> None:
        self.scenario, self.facts, self._text = scenario, facts, text
        self._imports: dict[str, set[str]] = {}
        self._lines: list[str] = []
        self._defined: set[str] = set()
        self._title = ""

    def begin(self, name: str) -> None:
        self._title = f"# geomix: {self._text.plain(f'page.{name}.title')}"

    def use(self, module: str, *names: str) -> None:
        """Import from a module of geomix_core ("" for the package)."""
        self._imports.setdefault(module, set()).update(names)

    def add(self, *lines: str) -> None:
        self._lines += lines

    def print(self, *entries: tuple[str, str]) -> None:
        """Print expressions with labels."""
        self.add(*(f"print({_quoted(label + ':')}, {expression})" for label, expression in entries))

    def comment(self, key: str) -> str:
        return f"# {self._text.plain(key)}"

    def define(self, *names: str) -> None:
        """Set variables to the scenario's values, once each."""
        for name in names:
            if name not in self._defined:
                self._defined.add(name)
                value: str | float = getattr(self.scenario, name)
                literal = _quoted(value) if isinstance(value, str) else _number(value)
                self.add(f"{name} = {literal}  # {_NOTES.get(literal, _NOTES.get(name))}")

    def written(self) -> str:
        numpy = ["import numpy as np", ""] if any("np." in line for line in self._lines) else []
        names = {m: ", ".join(sorted(n, key=_import_order)) for m, n in sorted(self._imports.items())}
        imports = [f"from geomix_core{m and '.' + m} import {n}" for m, n in names.items()]
        return "\n".join([self._title, *numpy, *imports, "", *self._lines]) + "\n"


_NOTES = {
    "alpha": "weight of pi_theta in q",
    "eta": "learning rate",
    '"importance"': "w = pi_theta/q",
    '"inverse"': "w = q/pi_theta",
}
"""What a variable, or its value, means."""


# --- the policies ------------------------------------------------------------------------------------------------


def _policies(script: _Script) -> None:
    """`batch`: the policies of the scenario, one row."""
    scenario, facts = script.scenario, script.facts
    source = scenario.source
    if source in FAMILIES:
        script.use("scenarios", "synthetic")
        chosen = {p.name: (int if p.whole else float)(scenario.parameter(p.name)) for p in FAMILIES[source].parameters}
        listed = "".join(f", {name}={value!r}" for name, value in chosen.items())
        script.add(f"batch = synthetic({_quoted(source)}{listed})")
    elif source == CUSTOM:
        _table(script)
    else:
        _brought(script)
        script.add(f"batch = data.row({facts.row})")
    _reshape(script)


def _brought(script: _Script) -> None:
    """`data`: logits of many rows, from the reader's files or the bundled ones."""
    facts = script.facts
    if facts.files:
        script.use("datasets", "open_dataset")
        script.add(script.comment("snippet.files"))
        if facts.roles:
            chosen = [f"    {_quoted(role)}: {_quoted(label)}," for role, label in facts.roles]
            script.add("roles = {", *chosen, "}")
        names = ", ".join(map(_quoted, facts.files))
        roles = ", roles=roles" if facts.roles else ""
        script.add(f"data = open_dataset({names}{roles}, kind={_quoted(facts.kind)})")
    else:
        script.use("datasets", "bundled")
        swapped = dict(facts.roles).get("theta") == "logits_t"
        script.add(f"data = bundled({'swapped=True' if swapped else ''})")


def _table(script: _Script) -> None:
    """The reader's own table, as it was typed."""
    table, kind = script.scenario.table, script.scenario.table_kind
    script.use("", "PolicyBatch")
    policies = ["theta", "target"] + (["reference"] if script.scenario.own_reference else [])
    listed = ", ".join(policies)
    lines = [f"    ({_quoted(r.token)}, {', '.join(_number(getattr(r, p)) for p in policies)})," for r in table]
    script.add("table = [", *lines, "]")
    script.add(f"tokens, {listed} = zip(*table)")
    if kind == "logits":
        script.add(f"batch = PolicyBatch.from_logits({listed})")
    elif all(abs(sum(getattr(r, name) for r in table) - 1) < 1e-12 for name in policies):
        script.add(f"batch = PolicyBatch.from_probs({listed})")
    else:
        script.add(
            script.comment("snippet.rescaled"),
            f"{listed} = (np.divide(column, max(column)) for column in ({listed}))",
            f"batch = PolicyBatch.from_probs({', '.join(f'{p} / {p}.sum()' for p in policies)})",
        )


def _reshape(script: _Script) -> None:
    """Temperature, cuts, smoothing and the reference, in the order in which the app applies them."""
    scenario, own = script.scenario, script.facts.own_reference
    kept = scenario.theta == scenario.target == Reshape() and scenario.epsilon == 0
    reference = "" if own or scenario.reference == "theta" else scenario.reference
    if kept and not reference:
        return
    script.use("", "PolicyBatch")
    theta, target = "batch.theta", "batch.target"
    if not kept:
        for name in ("theta", "target"):
            script.add(f"{name} = {_reshaped(script, name)}")
        theta, target = "theta", "target"
    third = ", batch.reference" if own else ""
    if reference:
        script.use("scenarios", "reference_policy")
        third = f", reference_policy({theta}, {_quoted(reference)})"
    script.add(f"batch = PolicyBatch({theta}, {target}{third})")


def _reshaped(script: _Script, name: str) -> str:
    how: Reshape = getattr(script.scenario, name)
    expression = f"batch.{name}"
    steps = (
        ("temper", how.temperature, how.temperature != 1),
        ("top_k", how.top_k, how.top_k != 0),
        ("top_p", how.top_p, how.top_p != 1),
        ("smooth", script.scenario.epsilon, script.scenario.epsilon > 0),
    )
    for function, value, wanted in steps:
        if wanted:
            script.use("transforms", function)
            expression = f"{function}({expression}, {value!r})"
    return expression


def _names(script: _Script) -> None:
    """`tokens`: the tokens' names."""
    source = script.scenario.source
    if source == CUSTOM:
        return
    if source == REAL:
        script.add("tokens = data.tokens")
    else:
        script.use("scenarios", "token_names")
        script.add("tokens = token_names(batch.vocab_size)")


# --- what pages show ---------------------------------------------------------------------------------------------


def _pair_numbers(script: _Script) -> None:
    script.use("summary", "pair_summary")
    script.add("", "about = pair_summary(batch)")
    script.print(
        ("KL(pi_t||pi_theta), nats", "about.kl_target_theta"),
        ("KL(pi_theta||pi_t), nats", "about.kl_theta_target"),
        ("chi2(pi_t||pi_theta)", "about.chi2"),
        ("ceiling of SNR", "about.snr_ceiling"),
        ("total variation", "about.total_variation"),
        ("entropy of pi_theta, nats", "about.entropy_theta"),
        ("entropy of pi_t, nats", "about.entropy_target"),
        ("tokens", "about.vocab_size"),
        ("tokens in common", "about.common_size"),
        ("mass of pi_theta on them", "about.theta_mass"),
        ("mass of pi_t on them", "about.target_mass"),
    )


def _top_tokens(script: _Script) -> None:
    script.use("summary", "top_tokens")
    script.add("")
    _names(script)
    script.add(
        "theta, target = batch.theta[0].exp(), batch.target[0].exp()",
        "for i in top_tokens(batch, 14):",
        '    print(f"token {tokens[i]!r}:", theta[i].item(), target[i].item())',
    )
    if not script.facts.disjoint:
        _remark(script, "ratio_histogram(batch)", "summary")


def _family(script: _Script) -> None:
    script.use("summary", "family_point")
    script.add("")
    script.define("alpha")
    script.add("point = family_point(batch, alpha)")
    script.print(
        ("log Z(alpha), nats", "point.log_partition"),
        ("Delta(alpha), nats", "point.delta"),
        ("KL(q||pi_theta), nats", "point.kl_to_theta"),
        ("KL(q||pi_t), nats", "point.kl_to_target"),
        ("ESS/N", "point.ess"),
    )
    _remark(script, "family_curves(batch)")


def _middle(script: _Script) -> None:
    script.use("", "solve_alpha", "chernoff_information")
    script.add("", 'middle = solve_alpha(batch, "kl_symmetry")')
    script.print(
        ("alpha by kl_symmetry", "middle.alpha.item(), middle.status[0]"),
        ("Chernoff information, nats", "chernoff_information(batch).item()"),
    )


def _lengths(script: _Script) -> None:
    script.use("geodesics", "path_lengths")
    script.add("", "lengths = path_lengths(batch)")
    script.print(
        *(
            (f"Fisher-Rao length, {name}", f"lengths.{name}.item()")
            for name in ("e_geodesic", "m_geodesic", "fisher_rao")
        )
    )


def _criteria(script: _Script) -> None:
    script.use("", "solve_alpha", "chernoff_information")
    covered = script.facts.covered
    script.add("")
    script.define("alpha", "weights")
    script.add('alphas = {"current": alpha, "half": 0.5, "on_policy": 1.0, "off_policy": 0.0}')
    criteria = '"kl_symmetry", "snr", "wald"' if covered else '"kl_symmetry",'
    script.add(
        f"results = {{c: solve_alpha(batch, c, weights) for c in ({criteria})}}",
        "for criterion, found in results.items():",
        '    print(f"alpha by {criterion}:", found.alpha.item(), found.status[0])',
        "    for peak in found.maxima[0]:",
        '        print(f"    local maximum at alpha = {peak.alpha}: {peak.value}")',
        "    if found.solved.item():",
        "        alphas[criterion] = found.alpha.item()",
    )
    script.print(("Chernoff information, nats", "chernoff_information(batch).item()"))


def _costs(script: _Script) -> None:
    script.use("summary", "family_point")
    script.add("")
    shares = script.facts.covered and script.facts.shares
    if shares:
        script.use("summary", "pair_summary")
        script.add('best = results["snr"].maxima[0][0].value', "ceiling = pair_summary(batch).kl_target_theta")
    script.add("for name, a in alphas.items():", '    print(f"{name}: alpha", a)', "    point = family_point(batch, a)")
    entries = [
        ("KL(q||pi_theta), nats", "point.kl_to_theta"),
        ("KL(q||pi_t), nats", "point.kl_to_target"),
        ("ESS/N", "point.ess"),
    ]
    if script.facts.covered:
        script.use("summary", "learning_point")
        script.add("    learning = learning_point(batch, a, weights)")
        entries += [
            ("SNR, with sign", "learning.signed_snr"),
            ("progress at its best eta, nats", "learning.exact_gain"),
        ]
    if shares:
        entries += [
            ("share of the best SNR", "abs(learning.signed_snr) / best"),
            ("share of the ceiling", "learning.exact_gain / ceiling"),
        ]
    script.add(*(f'    print("    {label}:", {expression})' for label, expression in entries))
    _remark(script, "family_curves(batch)")
    if script.facts.covered:
        _remark(script, "signal_curves(batch, weights)")


def _learning(script: _Script) -> None:
    if not script.facts.covered:
        return
    script.use("", "exact_progress")
    script.use("summary", "learning_point", "pair_summary")
    script.add("")
    script.define("alpha", "eta", "weights")
    script.add("learning = learning_point(batch, alpha, weights)")
    script.print(
        ("signal Phi_1, nats", "learning.phi1"),
        ("noise Phi_2, nats^2", "learning.phi2"),
        ("SNR", "learning.signed_snr"),
        ("eta* = Phi_1/Phi_2", "learning.quadratic_step"),
        ("best eta, exact", "learning.exact_step"),
        ("progress there, nats", "learning.exact_gain"),
        ("progress at eta, nats", "exact_progress(batch, alpha, eta, weights).item()"),
        ("ceiling KL(pi_t||pi_theta), nats", "pair_summary(batch).kl_target_theta"),
    )


def _reached(script: _Script) -> None:
    if not script.facts.covered:
        return
    script.use("", "solve_alpha")
    script.add(
        "",
        'places = {"pi_theta": 1.0, "pi_t": 0.0}',
        'middle = solve_alpha(batch, "kl_symmetry")',
        "if middle.solved.item():",
        '    places["alpha_KL"] = middle.alpha.item()',
        "for name, a in places.items():",
        '    print(f"best progress from {name}, nats:", learning_point(batch, a, weights).exact_gain)',
    )


def _expansion(script: _Script) -> None:
    if not script.facts.covered:
        return
    script.use("curves", "expansion_error")
    script.add("", "error = expansion_error(batch, alpha, abs(learning.quadratic_step) or 1.0, weights)")
    script.print(("slope of the first-order error", "error.first_slope"))
    script.print(("slope of the second-order error", "error.second_slope"))
    _remark(script, "step_curves(batch, alpha, eta_max, weights)")
    _remark(script, "progress_map(batch, eta_max, weights)")


def _claims(script: _Script) -> None:
    script.use("claims", "CLAIMS", "Setting")
    script.add("", script.comment("snippet.claims"))
    script.define("alpha", "weights")
    names = [f"    {_quoted(name)}," for name in script.facts.claims]
    script.add(
        "setting = Setting(weights=weights, alpha=alpha)",
        "claims = [",
        *names,
        "]",
        "for name in claims:",
        "    verdict = CLAIMS[name].check(batch, setting)",
        '    print(f"{name}:", verdict.outcome, verdict.reason, dict(verdict.numbers))',
    )


def _remark(script: _Script, call: str, module: str = "curves") -> None:
    """Where the arrays come from that a figure draws."""
    drawn = script.comment("snippet.figure")
    script.add(f"{drawn} geomix_core.{module}.{call}")


def _experiment(script: _Script) -> None:
    lab = script.facts.lab
    if lab is None:
        return
    script.use("lab", "Plan", "Problem", "efficiency", "propose", "run")
    script.add("")
    script.define("alpha", "weights")
    plan = lab.plan
    script.add(
        f"plan = Plan({_quoted(plan.estimator)}, repetitions={plan.repetitions}, seed={plan.seed})",
        "problem = Problem(batch, weights)",
        f"names = [{', '.join(map(_quoted, lab.names))}]",
        "proposals = propose(problem, names, alpha=alpha).found",
        f"trials = [trial for n in {lab.sizes!r} for trial in run(problem, proposals, n, plan)]",
        "for trial in trials:",
        '    print(f"{trial.proposal}, N = {trial.samples}: share of KL", trial.mean / trial.ceiling)',
        '    print("    moved away, diverged:", trial.away, trial.diverged)',
        f"for found in efficiency(trials, {lab.share!r}):",
        '    print(f"{found.proposal}: N needed", found.reach.status, found.reach.samples, found.reach.interval)',
        '    print("    on-policy / this:", found.status, found.factor, found.interval)',
    )


Part = Callable[[_Script], None]
DEFAULT: tuple[Part, ...] = (_family, _criteria, _learning)
PAGES: dict[str, tuple[Part, ...]] = {
    "policies": (_pair_numbers, _top_tokens),
    "geodesic": (_middle, _family, _lengths),
    "choosing": (_criteria, _costs),
    "progress": (_learning, _reached, _expansion),
    "lab": (_experiment,),
}
"""The parts of each page's script, in order; pages that are not listed get `DEFAULT`."""


def _quoted(text: str) -> str:
    """A string literal in double quotes where it can be; `repr` leaves nothing in it that could hide or end it."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in text else literal


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "np.nan" if math.isnan(value) else "np.inf" if value > 0 else "-np.inf"


def _import_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions: as formatters order them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
