"""Numbers and symbols as a person reads them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geomix_app.notation import SYMBOLS, html, markdown, number, parameter, percent

SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def read(text: str) -> float:
    """The value that a person reads."""
    mantissa, _, exponent = text.replace("−", "-").partition("×10")
    return float(f"{mantissa}e{exponent.translate(SUPERSCRIPT) or 0}")


def significant(text: str) -> int:
    """How many significant digits are written."""
    return len(text.lstrip("−").partition("×")[0].replace(".", "").lstrip("0"))


@pytest.mark.parametrize(
    ("x", "written"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1.00"),
        (-1.5, "−1.50"),
        (0.0697, "0.0697"),
        (0.001, "0.00100"),
        (0.00099949, "9.99×10⁻⁴"),
        (0.00099951, "0.00100"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (-9.996, "−10.0"),
        (99.96, "100"),
        (123.4, "123"),
        (99949.0, "99949"),
        (99951.0, "1.00×10⁵"),
        (123456.0, "1.23×10⁵"),
        (-123456.0, "−1.23×10⁵"),
        (9.996e9, "1.00×10¹⁰"),
        (1e300, "1.00×10³⁰⁰"),
        (1.7976931348623157e308, "1.80×10³⁰⁸"),
        (1e-9, "1.00×10⁻⁹"),
        (-2.5e-17, "−2.50×10⁻¹⁷"),
        (2.2250738585072014e-308, "2.23×10⁻³⁰⁸"),
        (5e-324, "4.94×10⁻³²⁴"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "—"),
    ],
)
def test_number(x: float, written: str) -> None:
    assert number(x) == written


@given(st.floats(-1e308, 1e308), st.integers(1, 6))  # rounding up beyond that cannot be read back
@example(9.995, 3)
@example(99.95, 3)
@example(0.9995, 3)
@example(9995.0, 3)
@example(5e-324, 3)
@example(1e-310, 3)
def test_number_keeps_its_digits(x: float, digits: int) -> None:
    text = number(x, digits)
    assert "-" not in text
    assert "e" not in text
    if x == 0:
        assert text == "0"
        return
    assert number(-x, digits) == (text[1:] if x < 0 else "−" + text)
    # Whole numbers below 10⁵ show all their digits; everything else exactly `digits`.
    assert significant(text) == digits or (significant(text) > digits and "." not in text and "×" not in text)
    # Half a unit of the last digit, and a little for subnormal numbers.
    assert abs(read(text) - x) <= 0.5001 * 10.0 ** (1 - digits) * abs(x) + 1e-320


@given(st.integers(-300, 300))
def test_number_of_a_power_of_ten(n: int) -> None:
    assert math.isclose(read(number(10.0**n)), 10.0**n, rel_tol=1e-12)
    assert re.fullmatch(r"[01.]+(×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?|[01]+", number(10.0**n))


@pytest.mark.parametrize(
    ("x", "digits", "written"),
    [
        (0.0, 1, "0.0 %"),
        (0.0782, 1, "7.8 %"),
        (-0.5, 1, "−50.0 %"),
        (1.0, 3, "100.000 %"),
        (0.99951, 1, "100.0 %"),
        (math.inf, 1, "∞"),
        (-math.inf, 1, "−∞"),
        (math.nan, 1, "—"),
    ],
)
def test_percent(x: float, digits: int, written: str) -> None:
    assert percent(x, digits) == written


@pytest.mark.parametrize(("x", "written"), [(0, "0.0000"), (0.5, "0.5000"), (0.46236, "0.4624"), (1, "1.0000")])
def test_parameter(x: float, written: str) -> None:
    assert parameter(x) == written


@pytest.mark.parametrize(
    ("text", "as_markdown", "as_html"),
    [
        ("π_θ", r"$\pi_{\theta}$", "π<sub>θ</sub>"),
        ("π_t", r"$\pi_{t}$", "π<sub>t</sub>"),
        ("π_ref", r"$\pi_{\mathrm{ref}}$", "π<sub>ref</sub>"),
        ("π_θ'", r"$\pi_{\theta}'$", "π<sub>θ</sub>'"),
        ("α_KL", r"$\alpha_{\mathrm{KL}}$", "α<sub>KL</sub>"),
        ("α_SNR", r"$\alpha_{\mathrm{SNR}}$", "α<sub>SNR</sub>"),
        ("π_θ^α", r"$\pi_{\theta}^{\alpha}$", "π<sub>θ</sub><sup>α</sup>"),
        ("π_t^(1−α)", r"$\pi_{t}^{1-\alpha}$", "π<sub>t</sub><sup>1−α</sup>"),
        ("η*", r"$\eta^*$", "η*"),
        ("α*(x)", r"$\alpha^*$(x)", "α*(x)"),
        ("KL(π_t‖π_θ)", r"KL($\pi_{t}$‖$\pi_{\theta}$)", "KL(π<sub>t</sub>‖π<sub>θ</sub>)"),
        ("q ∝ π_θ^α π_t^(1−α).", r"q ∝ $\pi_{\theta}^{\alpha}$ $\pi_{t}^{1-\alpha}$.", None),
        ("log q_α − q_1, q*", r"log $q_{\alpha}$ − $q_{1}$, $q^*$", "log q<sub>α</sub> − q<sub>1</sub>, q*"),
        (
            "E_θ[h], Var_θ[h]",
            r"$\mathbb{E}_{\theta}$[h], $\mathrm{Var}_{\theta}$[h]",
            "E<sub>θ</sub>[h], Var<sub>θ</sub>[h]",
        ),
        ("η ∈ [η_min, η_max]", r"η ∈ [$\eta_{\mathrm{min}}$, $\eta_{\mathrm{max}}$]", None),
        ("策略 π_θ 与 α_KL 之间", r"策略 $\pi_{\theta}$ 与 $\alpha_{\mathrm{KL}}$ 之间", None),
    ],
)
def test_symbols_in_text(text: str, as_markdown: str, as_html: str | None) -> None:
    assert markdown(text) == as_markdown
    if as_html is not None:
        assert html(text) == as_html


@pytest.mark.parametrize(
    "text", ["", "α", "ordinary words", "snake_case", "seq_1", "π_target", "α = 0.5", "_t", "2*3", "**bold**"]
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert markdown(text) == html(text) == text


@given(st.text())
def test_markdown_leaves_no_formula_open(text: str) -> None:
    assert (markdown(text).count("$") - text.count("$")) % 2 == 0


@pytest.mark.parametrize("name", SYMBOLS)
def test_symbol_is_sound(name: str) -> None:
    symbol = SYMBOLS[name]
    assert symbol.html.count("<sub>") == symbol.html.count("</sub>")
    assert symbol.latex.count("{") == symbol.latex.count("}")
    for theme in ("light", "dark"):
        assert re.fullmatch("#[0-9A-Fa-f]{6}", symbol.colour(theme))  # type: ignore[arg-type]
    assert symbol.colour("light") == symbol.light
    assert symbol.colour("dark") == symbol.dark
