"""Each step's formula in LaTeX: in symbols, then with today's numbers, every term in its symbol's colour.

A line is a template: <signal> stands for a symbol of `notation` in its colour, <snr|\\mathrm{SNR}(q)> for other LaTeX
in that colour, <signal=first> for the value called first, and <=gap> for a value in no colour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, isfinite

from geomix_app import compute
from geomix_app.learn.facts import Facts
from geomix_app.notation import SYMBOLS, number, parameter
from geomix_core.divergences import total_variation
from geomix_core.progress import updated_policy

ROUNDING = 1e-12
"""A total variation below this is written as 0."""
UNDEFINED = r"\text{—}"
Value = float | str | None


@dataclass(frozen=True)
class Formula:
    """Lines of LaTeX, aligned at their first &; and the symbols in them, for the reader who asks what they mean."""

    lines: tuple[str, ...]
    symbols: tuple[str, ...]

    @property
    def latex(self) -> str:
        """All lines as one display."""
        return r"\begin{aligned}" + r"\\[4pt]".join(self.lines) + r"\end{aligned}"


def of(name: str, facts: Facts) -> Formula:
    """The formula of a step; in symbols alone where its quantities are not defined."""
    pen = _Pen(facts)
    FORMULAS[name](pen, facts)
    return Formula(tuple(pen.lines), tuple(pen.symbols))


def latex_number(x: float, digits: int = 3) -> str:
    """`notation.number` as LaTeX."""
    written = number(x, digits).replace("−", "-").replace("∞", r"\infty").replace("—", UNDEFINED)
    plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    return re.sub(r"×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda power: rf"\times10^{{{power[1].translate(plain)}}}", written)


_TERM = re.compile(r"<(\w*)(?:\|([^<>]*)|=(\w+))?>")


class _Pen:
    """Writes lines, and notes the symbols in them."""

    def __init__(self, facts: Facts) -> None:
        self._colour = facts.view.style.colour
        self.lines: list[str] = []
        self.symbols: dict[str, None] = {}

    def write(self, template: str, **values: Value) -> None:
        """One line. A value is a number, LaTeX, or None for one that is not defined."""

        def term(found: re.Match[str]) -> str:
            symbol, latex, value = found.groups()
            if value is not None:
                x = values[value]
                latex = UNDEFINED if x is None else x if isinstance(x, str) else latex_number(x)
            if not symbol:
                return str(latex)
            if value is None:
                self.symbols[symbol] = None
            return rf"\textcolor{{{self._colour(symbol)}}}{{{SYMBOLS[symbol].latex if latex is None else latex}}}"

        self.lines.append(_TERM.sub(term, template))


def _place(alpha: float | None) -> Value:
    """A value of α, with its four decimals."""
    return None if alpha is None else parameter(alpha)


def _budget(pen: _Pen, facts: Facts) -> None:
    pen.write(r"y_1,\dots,y_N &\sim <q|q>(y\mid x)\qquad \text{for } <theta>\to<target>")
    pen.write(r"\text{gain} &\le <ceiling> = <ceiling=most>\ \mathrm{nat}", most=facts.pair.kl_target_theta)


def _update(pen: _Pen, facts: Facts) -> None:
    inverse = facts.view.weights == "inverse"
    pen.write(r"<updated>(y) &\propto <theta>(y)\,\exp\bigl(<eta>\, w(y)\, r(y)\bigr)")
    pen.write(
        (r"w &= \frac{<q|q>}{<theta>}" if inverse else r"w &= \frac{<theta>}{<q|q>}")
        + r",\qquad r=\log\frac{<target>}{\pi_{\mathrm{ref}}}"
    )
    if facts.learns:
        batch, i = facts.view.row.batch, facts.watched
        after = updated_policy(batch, facts.alpha, facts.eta, facts.view.weights)[0]
        apart = total_variation(after[None], batch.target).item()
        pen.write(
            r"\tilde y:\; <theta=before> &\to <updated=after>\qquad(<target>(\tilde y) = <target=wanted>)",
            before=batch.theta[0, i].exp().item(),
            after=after[i].exp().item(),
            wanted=batch.target[0, i].exp().item(),
        )
        pen.write(r"\mathrm{TV}(<updated>, <target>) &= <=apart>", apart=apart if apart > ROUNDING else 0.0)


def _progress(pen: _Pen, facts: Facts) -> None:
    pen.write(r"J(\pi) &= \mathbb{E}_{<target>}[\log\pi]")
    pen.write(r"<progress> &= J(<updated>) - J(<theta>)")
    if facts.learns:
        before = -(facts.pair.entropy_target + facts.pair.kl_target_theta)
        if isfinite(before):
            pen.write(
                r"<progress=gained> &= <updated=after> - (<theta=before>)",
                gained=facts.gained,
                after=before + facts.gained,
                before=before,
            )
        pen.write(
            r"<progress=gained> &\le <ceiling> = <ceiling=most>", gained=facts.gained, most=facts.pair.kl_target_theta
        )


def _theorem_1(pen: _Pen, facts: Facts) -> None:
    pen.write(r"<progress> &= <eta>\,<signal> - \tfrac{\eta^2}{2}\,<noise> + O(\eta^3)")
    if facts.learns:
        first, second = facts.eta * facts.learning.phi1, facts.eta**2 / 2 * facts.learning.phi2
        left = facts.gained - (first - second)
        pen.write(
            rf"<progress=gained> &= <signal=first> - <noise=second> {'-' if left < 0 else '+'} <=left>",
            gained=facts.gained,
            first=first,
            second=second,
            left=abs(left),
        )


def _signal_noise(pen: _Pen, facts: Facts) -> None:
    signal = r"<signal> &= \sum_y\bigl[<target>-<theta>\bigr]\,w\,r"
    noise = r"<noise> &= \mathrm{Var}_{<theta>}[w\,r]"
    if not facts.learns:
        pen.write(signal)
        pen.write(noise)
        return
    pen.write(signal + r" = <signal=phi1>", phi1=facts.learning.phi1)
    pen.write(noise + r" = <noise=phi2>", phi2=facts.learning.phi2)


def _wald(pen: _Pen, facts: Facts) -> None:
    pen.write(
        r"q_{\mathrm{robust}} &= \arg\max_q\;\min_{<eta>\in[\eta_{\min},\,\eta_{\max}]}\;<progress|\mathrm{Progress}>"
    )
    if facts.learns:
        low, high = (f"{eta:g}" for eta in compute.ETA_RANGE)
        pen.write(r"<alpha_wald> &= <alpha_wald=alpha>", alpha=_place(facts.alpha_wald))
        if facts.alpha_wald is not None and facts.wald.maxima[0]:
            worst = facts.wald.maxima[0][0].value
            pen.write(
                r"\min_{\eta\in[<=low>,\,<=high>]} <progress> &= <progress=worst>", low=low, high=high, worst=worst
            )


def _theorem_2(pen: _Pen, facts: Facts) -> None:
    step = r"<eta_star|\eta^*> &= \frac{<signal>}{<noise>}"
    gain = r"<second_order|\mathrm{Progress}(q;\eta^*)> &= \frac{<signal>^2}{2\,<noise>}"
    if not facts.learns:
        pen.write(step)
        pen.write(gain)
        return
    here = facts.learning
    pen.write(
        step + r" = \frac{<signal=phi1>}{<noise=phi2>} = <eta_star=step>",
        phi1=here.phi1,
        phi2=here.phi2,
        step=here.quadratic_step,
    )
    pen.write(gain + r" = <second_order=gain>", gain=here.quadratic_gain)
    pen.write(
        r"<progress|\mathrm{exact}> &= <progress=exact>\;\le\; <ceiling> = <ceiling=most>",
        exact=here.progress_at_quadratic_step,
        most=facts.pair.kl_target_theta,
    )


def _theorem_3(pen: _Pen, facts: Facts) -> None:
    ratio = r"<snr|\mathrm{SNR}(q)> &= \frac{|<signal>|}{\sqrt{<noise>}}"
    if not facts.learns:
        pen.write(ratio)
        return
    here = facts.learning
    pen.write(
        ratio + r" = \frac{<signal=phi1>}{\sqrt{<noise=phi2>}} = <snr=snr>",
        phi1=abs(here.phi1),
        phi2=here.phi2,
        snr=abs(here.signed_snr),
    )
    pen.write(
        r"<alpha_snr> &= <alpha_snr=snr>,\qquad <alpha_wald> = <alpha_wald=wald>",
        snr=_place(facts.signal.alpha_snr),
        wald=_place(facts.alpha_wald),
    )


def _full_space(pen: _Pen, facts: Facts) -> None:
    inverse = facts.view.weights == "inverse"
    pen.write(
        r"<snr|\mathrm{SNR}(q)> &\le <snr_ceiling|\sqrt{\chi^2(\pi_t\|\pi_\theta)}> = <snr_ceiling=most>",
        most=facts.pair.snr_ceiling,
    )
    form = r"L(<theta>,<target>)" if inverse else r"\frac{<theta>^2}{L(<theta>,<target>)}"
    pen.write(rf"q_{{\mathrm{{full}}}} &\propto {form}")
    pen.write(r"L(a,b) &= \frac{a-b}{\log a-\log b}")
    reached = facts.verdict("section_4_1_infeasible").numbers.get("reached")
    if reached is not None:
        pen.write(r"<snr|\mathrm{SNR}(q_{\mathrm{full}})> &= <snr=reached>", reached=reached)


def _family(pen: _Pen, facts: Facts) -> None:
    pen.write(r"<q> &= \frac{<theta>^{\alpha}\;<target>^{1-\alpha}}{Z(<alpha>)}")
    if not facts.pair.disjoint:
        batch, i = facts.view.row.batch, facts.watched
        pen.write(
            r"<q=mixed> &= \frac{<theta=before>^{<=a>}\cdot <target=wanted>^{<=b>}}{<=z>}\qquad(y=\tilde y)",
            mixed=float(compute.mixture(batch, facts.alpha)[i]),
            before=batch.theta[0, i].exp().item(),
            wanted=batch.target[0, i].exp().item(),
            a=f"{facts.alpha:.2f}",
            b=f"{1 - facts.alpha:.2f}",
            z=exp(facts.here.log_partition),
        )


def _one_dimension(pen: _Pen, facts: Facts) -> None:
    pen.write(r"<alpha_snr> &= \arg\max_{\alpha\in[0,1]}\;<snr|\mathrm{SNR}(q_\alpha)>")
    if facts.learns:
        pen.write(r"&= <alpha_snr=alpha>", alpha=_place(facts.signal.alpha_snr))
        if facts.signal.snr.maxima[0]:
            pen.write(
                r"<snr|\mathrm{SNR}(\alpha_{\mathrm{SNR}})> &= <snr=best>\;\le\; <snr_ceiling> = <snr_ceiling=most>",
                best=facts.signal.snr.maxima[0][0].value,
                most=facts.pair.snr_ceiling,
            )


def _kl_symmetry(pen: _Pen, facts: Facts) -> None:
    pen.write(r"<delta> &= <kl_to_theta> - <kl_to_target> = \mathbb{E}_{q_\alpha}[<ell>]")
    if facts.pair.disjoint:
        return
    here, alpha_kl = facts.here, facts.family.alpha_kl
    pen.write(
        r"<delta=delta> &= <kl_to_theta=theta> - <kl_to_target=target>\qquad(\alpha=<=alpha>)",
        delta=here.delta,
        theta=here.kl_to_theta,
        target=here.kl_to_target,
        alpha=_place(facts.alpha),
    )
    pen.write(r"<alpha_kl> &= <alpha_kl=alpha>", alpha=_place(alpha_kl))
    if alpha_kl is not None:
        pen.write(r"C &= -\log Z(<alpha_kl>) = <alpha_kl=chernoff>", chernoff=facts.family.chernoff)


def _snr_vs_kl(pen: _Pen, facts: Facts) -> None:
    apart = r"|<alpha_snr>-<alpha_kl>| &"
    lost = r"1-\frac{<snr|\mathrm{SNR}(\alpha_{\mathrm{KL}})>}{<snr|\mathrm{SNR}(\alpha_{\mathrm{SNR}})>} &"
    gap, loss = (facts.verdict(name).numbers for name in ("section_5_4_alpha", "section_5_4_snr"))
    if gap:
        pen.write(
            apart + r"= |<alpha_snr=snr>-<alpha_kl=kl>| = <=gap>",
            snr=_place(facts.signal.alpha_snr),
            kl=_place(facts.family.alpha_kl),
            gap=_place(gap["gap"]),
        )
    else:
        pen.write(apart + r"= " + UNDEFINED)
    pen.write(lost + r"= <=loss>\,\%", loss=100 * loss["loss"] if loss else None)


def _algorithm(pen: _Pen, facts: Facts) -> None:
    pen.write(r"\log <q> &= \alpha\log(<theta>+10^{-10})")
    pen.write(r"&\quad + (1-\alpha)\log(<target>+10^{-10}) + \dots")
    pen.write(r"<ell> &\approx \log(<target>+10^{-6})-\log(<theta>+10^{-6})")
    found = facts.verdict("section_6_2_stable").numbers
    if found:
        pen.write(
            r"<second_order=name> &= <second_order=listed>,\qquad <alpha_kl> = <alpha_kl=exact>",
            name=r"\alpha_{\mathrm{listing}}",
            listed=_place(found["listed"]),
            exact=_place(found["alpha_kl"]),
        )


def _comparison(pen: _Pen, facts: Facts) -> None:
    found = facts.verdict("section_6_5_mixture").numbers
    pen.write(r"<snr|\mathrm{SNR}>(<theta>) &= <theta=x>", x=found.get("on_policy"))
    pen.write(r"<snr|\mathrm{SNR}>(<target>) &= <target=x>", x=found.get("off_policy"))
    pen.write(r"<snr|\mathrm{SNR}>(\mathrm{uniform}) &= <=x>", x=found.get("uniform"))
    pen.write(r"<snr|\mathrm{SNR}>(q_{<alpha_snr>}) &= <alpha_snr=x>", x=found.get("best"))
    pen.write(r"<snr_ceiling> &= <snr_ceiling=x>", x=facts.pair.snr_ceiling)


def _summary(pen: _Pen, facts: Facts) -> None:
    pen.write(r"<q|q^*> &= \frac{<theta>^{\alpha^*}\;<target>^{1-\alpha^*}}{Z}")
    alpha_kl = None if facts.pair.disjoint else facts.family.alpha_kl
    if alpha_kl is not None:
        pen.write(
            r"&\propto <theta>^{<=alpha>}\;<target>^{<=rest>}\qquad(\alpha^*=<alpha_kl>)",
            alpha=_place(alpha_kl),
            rest=_place(1 - alpha_kl),
        )


FORMULAS: Mapping[str, Callable[[_Pen, Facts], None]] = {
    "budget": _budget,
    "update": _update,
    "progress": _progress,
    "theorem_1": _theorem_1,
    "signal_noise": _signal_noise,
    "wald": _wald,
    "theorem_2": _theorem_2,
    "theorem_3": _theorem_3,
    "full_space": _full_space,
    "family": _family,
    "one_dimension": _one_dimension,
    "kl_symmetry": _kl_symmetry,
    "snr_vs_kl": _snr_vs_kl,
    "algorithm": _algorithm,
    "comparison": _comparison,
    "summary": _summary,
}
