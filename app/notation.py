"""Every symbol once: its colour in each theme, how Plotly and LaTeX write it, and how numbers are written.

Figures, formulas and tables all take them from here, so that a reader can match them by colour.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import unescape
from types import MappingProxyType
from typing import Literal

Theme = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Symbol:
    """One quantity: HTML for Plotly, LaTeX for formulas, a colour for each theme (colour-blind-safe set), the dash of
    its curve and the shape of its marks.
    """

    html: str
    latex: str
    light: str
    dark: str
    dash: str = "solid"
    shape: str = "circle"

    def colour(self, theme: Theme) -> str:
        """The colour to draw it in."""
        return self.dark if theme == "dark" else self.light


# Okabe & Ito's colour-blind-safe palette, lightened where a dark background asks for it.
_BLUE, _VERMILLION, _GREEN = ("#0072B2", "#5AB4F0"), ("#D55E00", "#FF9350"), ("#00805C", "#35D0A0")
_PURPLE, _AMBER, _INK, _GREY = (
    ("#A8437F", "#E79BC6"),
    ("#B07800", "#F0C040"),
    ("#2B3640", "#DCE3E8"),
    ("#7A868F", "#93A0AA"),
)

_Q = "q<sub>α</sub>"
_THETA, _TARGET = "π<sub>θ</sub>", "π<sub>t</sub>"

SYMBOLS = MappingProxyType(
    {
        "theta": Symbol(_THETA, r"\pi_\theta", *_BLUE),
        "target": Symbol(_TARGET, r"\pi_t", *_VERMILLION),
        "updated": Symbol("π<sub>θ'</sub>", r"\pi_{\theta'}", *_PURPLE, "dash"),
        "q": Symbol(_Q, r"q_\alpha", *_GREEN),
        "alpha": Symbol("α", r"\alpha", *_INK),
        "eta": Symbol("η", r"\eta", *_INK),
        "ell": Symbol("ℓ", r"\ell", *_INK),
        "delta": Symbol("Δ(α)", r"\Delta(\alpha)", *_GREEN),
        "kl_to_theta": Symbol(f"KL({_Q}‖{_THETA})", r"\mathrm{KL}(q_\alpha\|\pi_\theta)", *_BLUE),
        "kl_to_target": Symbol(f"KL({_Q}‖{_TARGET})", r"\mathrm{KL}(q_\alpha\|\pi_t)", *_VERMILLION),
        "log_partition": Symbol("log Z(α)", r"\log Z(\alpha)", *_GREEN),
        "ess": Symbol("ESS/N", r"\mathrm{ESS}/N", *_INK),
        "snr": Symbol("SNR(α)", r"\mathrm{SNR}(\alpha)", *_PURPLE),
        "snr_ceiling": Symbol("√χ²", r"\sqrt{\chi^2}", *_GREY, "dot"),
        "phi1": Symbol("|Φ<sub>1</sub>|", r"|\Phi_1|", *_AMBER),
        "phi2": Symbol("√Φ<sub>2</sub>", r"\sqrt{\Phi_2}", *_GREY, "dash"),
        "progress": Symbol("exact", r"\mathrm{Progress}", *_GREEN),
        "second_order": Symbol(
            "ηΦ<sub>1</sub> − η²Φ<sub>2</sub>/2", r"\eta\Phi_1-\tfrac{\eta^2}{2}\Phi_2", *_PURPLE, "dash", "square"
        ),
        "first_order": Symbol("ηΦ<sub>1</sub>", r"\eta\Phi_1", *_GREY, "dot"),
        "ceiling": Symbol(f"KL({_TARGET}‖{_THETA})", r"\mathrm{KL}(\pi_t\|\pi_\theta)", *_VERMILLION, "dot"),
        "e_geodesic": Symbol("e-geodesic", r"q_\alpha", *_GREEN),
        "m_geodesic": Symbol("m-geodesic", r"m_s", *_AMBER, "dash"),
        "fisher_rao": Symbol("Fisher–Rao", r"p_s", *_PURPLE, "dashdot"),
        "exact_gain": Symbol("max<sub>η</sub> Progress", r"\max_\eta\mathrm{Progress}", *_INK, "dash"),
        "here": Symbol("α", r"\alpha", *_INK),
        "alpha_kl": Symbol("α<sub>KL</sub>", r"\alpha_{\mathrm{KL}}", *_GREEN, shape="diamond"),
        "alpha_snr": Symbol("α<sub>SNR</sub>", r"\alpha_{\mathrm{SNR}}", *_PURPLE, shape="diamond"),
        "alpha_wald": Symbol("α<sub>Wald</sub>", r"\alpha_{\mathrm{Wald}}", *_AMBER, shape="diamond"),
        "uniform": Symbol("1/V", r"1/V", *_GREY, "dashdot", "square"),
        "optimum": Symbol(f"{_THETA}²/L", r"\pi_\theta^2/L", *_INK, "dash", "square"),
        "logarithmic_mean": Symbol(f"L({_THETA}, {_TARGET})", r"L(\pi_\theta,\pi_t)", *_INK, "dot", "square"),
        "defensive": Symbol(f"(1−λ)q + λ{_THETA}", r"(1-\lambda)q+\lambda\pi_\theta", *_GREEN, "dot", "square"),
        "signal": Symbol("Φ<sub>1</sub>", r"\Phi_1", *_AMBER),
        "noise": Symbol("Φ<sub>2</sub>", r"\Phi_2", *_GREY),
        "eta_star": Symbol("η* = Φ<sub>1</sub>/Φ<sub>2</sub>", r"\eta^*=\Phi_1/\Phi_2", *_PURPLE),
    }
)


_IN_TEXT = re.compile(
    r"(?<![A-Za-z_])([παηqE]|Var)_(θ|t|ref|KL|SNR|Wald|min|max|α|0|1)(?![A-Za-z])('?)(?:\^(\([^)]+\)|\w))?|(?<![A-Za-z])([ηαq])\*"
)
_LATEX = {"π": r"\pi", "α": r"\alpha", "η": r"\eta", "θ": r"\theta", "−": "-"} | {
    "E": r"\mathbb{E}",
    "Var": r"\mathrm{Var}",
}


def markdown(text: str) -> str:
    """Text of the catalogue with its symbols (π_θ, π_t^(1−α), α_KL, η*) as LaTeX, for Markdown."""

    def symbol(match: re.Match[str]) -> str:
        letter, index, prime, power, starred = match.groups()
        if starred:
            return f"${_LATEX.get(starred, starred)}^*$"
        below = _LATEX.get(index, index if len(index) == 1 else rf"\mathrm{{{index}}}")
        above = "".join(_LATEX.get(c, c) for c in (power or "").strip("()"))
        return f"${_LATEX.get(letter, letter)}_{{{below}}}{prime}" + (f"^{{{above}}}$" if above else "$")

    return _IN_TEXT.sub(symbol, text)


def html(text: str) -> str:
    """Text of the catalogue with its symbols as HTML, for Plotly."""

    def symbol(match: re.Match[str]) -> str:
        letter, index, prime, power, starred = match.groups()
        if starred:
            return f"{starred}*"
        return f"{letter}<sub>{index}</sub>{prime}" + (f"<sup>{power.strip('()')}</sup>" if power else "")

    return _IN_TEXT.sub(symbol, text)


_PIECES = re.compile(r"<(/?)(sub|sup|i|b)>")


def runs(markup: str) -> list[tuple[str, int]]:
    """HTML as `html` writes it, cut into (text, level): −1 below the line, 0 on it, 1 above; for the explorer's SVG."""
    found: list[tuple[str, int]] = []
    level = 0
    for i, piece in enumerate(re.split(r"(</?(?:sub|sup|i|b)>)", markup)):
        if i % 2:
            match = _PIECES.fullmatch(piece)
            if match and match[2] in ("sub", "sup"):
                level = 0 if match[1] else (-1 if match[2] == "sub" else 1)
        elif piece:
            found.append((unescape(piece), level))
    return found


def number(x: float, digits: int = 3) -> str:
    """A number for people: `digits` significant digits, no trailing noise, ×10ⁿ outside 10⁻³…10⁵, ∞ for infinity."""
    if math.isnan(x):
        return "—"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    mantissa, _, power = f"{x:.{digits - 1}e}".partition("e")  # rounded first: 9.996 is 10.0, not 9.10
    exponent = int(power)
    if not -4 < exponent < 5:
        return f"{mantissa}×10{_superscript(exponent)}".replace("-", "−")
    return f"{x:.{max(digits - 1 - exponent, 0)}f}".replace("-", "−")


def percent(x: float, digits: int = 1) -> str:
    """A share as a percentage."""
    if math.isnan(x):
        return "—"
    if math.isinf(x):
        return number(x)
    return f"{100 * x:.{digits}f} %".replace("-", "−")


def parameter(x: float) -> str:
    """α or another parameter on [0, 1], always with the same number of decimals."""
    return f"{x:.4f}"


def _superscript(n: int) -> str:
    return str(n).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
