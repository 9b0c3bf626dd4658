"""Figures: how much they send to a browser, what they load, what they make of hostile tokens, and their colours."""

from __future__ import annotations

import html
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from apptest import labels, points, trace, values

import geomix_app.figures as package
from geomix_app import compute
from geomix_app.catalogue import LANGUAGES, catalogue
from geomix_app.figures import criteria, geodesic, progress, rows, tokens
from geomix_app.figures.style import HELPER, Style, thin
from geomix_app.notation import SYMBOLS, Theme
from geomix_core import curves, summary
from geomix_core.criteria import solve_alpha
from geomix_core.geodesics import e_geodesic, path_lengths
from geomix_core.policies import PolicyBatch
from geomix_core.progress import exact_progress
from geomix_core.scenarios import synthetic, token_names

THEMES: tuple[Theme, ...] = ("light", "dark")
LIMIT = 2000
MAP_SIDE = 33
MAP_LIMIT = MAP_SIDE * MAP_SIDE


def spec(figure: go.Figure) -> dict[str, Any]:
    """The figure as the browser gets it."""
    found: dict[str, Any] = json.loads(figure.to_json())
    return found


@cache
def results(source: str, **parameters: float) -> dict[str, Any]:
    """Everything that the figures draw of one row, at (α, η) = (0.3, 0.7)."""
    row = synthetic(source, **parameters)
    kl, snr = solve_alpha(row, "kl_symmetry"), solve_alpha(row, "snr")
    lengths = path_lengths(row)
    index = summary.top_tokens(row, 14)
    named = {"theta": row.theta, "target": row.target, "q": e_geodesic(row, 0.3)}
    point = summary.learning_point(row, 0.3)
    return {
        "row": row,
        "names": [token_names(row.vocab_size)[int(i)] for i in index],
        "bars": {name: x[0][index.tolist()].exp().numpy() for name, x in named.items()},
        "histogram": summary.ratio_histogram(row),
        "family": curves.family_curves(row),
        "signal": curves.signal_curves(row),
        "steps": curves.step_curves(row, 0.3, 2.0),
        "error": curves.expansion_error(row, 0.3, abs(point.quadratic_step)),
        "map": curves.progress_map(row, 2.0),
        "slices": compute.slices(f"{source} {parameters}", (0.5, 2.0), "importance", row),
        "wald": solve_alpha(row, "wald"),
        "planes": curves.path_planes(
            row, (float(lengths.e_geodesic), float(lengths.m_geodesic), float(lengths.fisher_rao))
        ),
        "here": summary.family_point(row, 0.3),
        "point": point,
        "pair": summary.pair_summary(row),
        "alpha_kl": float(kl.alpha[0]),
        "maxima": snr.maxima[0],
        "now": exact_progress(row, 0.3, 0.7).item(),
    }


def draw(style: Style, r: dict[str, Any]) -> Iterator[tuple[str, go.Figure]]:
    """Every figure of the app by name."""
    for scale, log_scale in (("linear", False), ("log", True)):
        yield f"tokens, {scale}", tokens.token_bars(style, r["names"], r["bars"], log_scale=log_scale)
        yield f"ratio, {scale}", tokens.ratio_histogram(style, r["histogram"], log_scale=log_scale)
    yield "plane", geodesic.kl_plane(style, r["planes"], r["here"])
    yield "delta", criteria.delta(style, r["family"], 0.3, r["alpha_kl"])
    yield "crossing", criteria.crossing(style, r["family"], 0.3, r["alpha_kl"], 0.1)
    yield "log Z", criteria.log_partition(style, r["family"], 0.3, r["alpha_kl"])
    yield "snr", criteria.snr(style, r["signal"], 0.3, r["maxima"], r["pair"].snr_ceiling)
    yield "signal", criteria.signal_and_noise(style, r["signal"], 0.3)
    ceiling = r["pair"].kl_target_theta
    yield "step", progress.against_step(style, r["steps"], r["point"], 0.7, r["now"], ceiling)
    yield "slice", progress.along_alpha(style, r["slices"], 0.3, r["now"], ceiling)
    yield "worst", progress.worst(style, r["slices"], 0.3, r["wald"], ceiling)
    yield "error", progress.expansion_error(style, r["error"])
    yield "map", progress.progress_map(style, r["map"], 0.3, 0.7, ceiling)
    alphas = np.linspace(0, 1, 100_000)
    named = {"alpha_kl": alphas, "alpha_snr": alphas, "alpha_wald": alphas}
    number = np.arange(len(alphas))
    yield "rows", rows.alpha_histograms(style, named)
    yield "criteria", rows.criteria(style, alphas, alphas, number)
    yield "distances", rows.alpha_against_distance(style, 1 + alphas, named, number)
    if r["row"].vocab_size == 3:
        paths = {name: curves.simplex_path(r["row"], name) for name in ("m_geodesic", "fisher_rao", "e_geodesic")}
        ends = {name: getattr(r["row"], name)[0].exp().numpy() for name in ("theta", "target")}
        yield "simplex", geodesic.simplex(style, paths, ends, np.full(3, 1 / 3), ["A", "B", "C"])


# --- size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "parameters"), [("zipf", {"vocabulary": 152_000}), ("three_tokens", {})])
def test_no_figure_sends_more_than_two_thousand_points(source: str, parameters: dict[str, float]) -> None:
    style = Style(catalogue("en"), "light")
    sizes = {name: points(spec(figure)) for name, figure in draw(style, results(source, **parameters))}
    assert len(sizes) >= 15
    assert min(sizes.values()) > 0
    assert {name: n for name, n in sizes.items() if n > LIMIT} == {}
    # The heat map's cells, and two lines over it.
    assert MAP_LIMIT <= sizes["map"] <= MAP_LIMIT + 2 * MAP_SIDE
    assert max(n for name, n in sizes.items() if name != "map") <= 1850


@pytest.mark.parametrize("size", [1, 5, 399, 400, 401, 799, 12_345, 152_000])
def test_thin_keeps_ends_of_pairs_together(size: int) -> None:
    x = np.arange(size)
    a, b = thin(x, 2 * x)
    assert 0 < len(a) <= 400
    assert len(a) >= min(size, 200)
    assert a[0] == 0
    np.testing.assert_array_equal(b, 2 * a)


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("theme", THEMES)
def test_every_figure_names_itself_and_its_axes(language: str, theme: Theme) -> None:
    for name, figure in draw(Style(catalogue(language), theme), results("three_tokens")):
        layout = spec(figure)["layout"]
        assert len(layout["title"]["text"]) > len("<b></b>"), name
        for axis in ("xaxis", "yaxis"):
            # The bars' names of tokens and the triangle's corners need no title; histograms of rows have names.
            bare = name == "simplex" or (axis == "yaxis" and name.split(",")[0] in ("tokens", "rows"))
            assert bare or layout[axis]["title"]["text"], name
        words = list(labels(spec(figure)))
        assert not [w for w in words if "$" in w or "nan" in w.lower() or "{" in w or "_" in w], name


def test_curves_that_have_no_label_beside_them_have_a_legend() -> None:
    unlabelled = {"tokens, linear", "tokens, log", "ratio, linear", "ratio, log", "plane", "step", "error"}
    unlabelled |= {"distances", "simplex", "slice", "worst"}
    found = {name: spec(figure) for name, figure in draw(Style(catalogue("en"), "light"), results("three_tokens"))}
    assert unlabelled <= found.keys()
    for name in unlabelled:
        named = [t["name"] for t in found[name]["data"] if t.get("name") and t.get("showlegend", True)]
        assert len(set(named)) >= 2, name
        assert found[name]["layout"]["showlegend"], name


def test_figures_load_no_streamlit_and_core_loads_no_screen() -> None:
    modules = sorted(
        f"geomix_app.figures.{p.stem}" for p in Path(str(package.__file__)).parent.glob("*.py") if p.stem != "__init__"
    )
    assert len(modules) >= 6
    core = sorted(
        p.stem for p in Path(str(files("geomix_core"))).glob("*.py") if p.stem not in ("__init__", "__main__")
    )
    for imports, unwanted in (
        (modules, ["streamlit"]),
        ([f"geomix_core.{name}" for name in core], ["streamlit", "plotly", "geomix_app"]),
    ):
        code = f"import {', '.join(imports)}; import sys; print([m for m in {unwanted} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout.strip() == "[]"


# --- tokens from strangers ---------------------------------------------------------------------------------------

HOSTILE = [
    "<b>x</b>",
    '<a href="https://example.org">x</a>',
    "<br>",
    "&lt;",
    "a\nb",
    "a\r\nb",
    "\t",
    "$x$",
    "%{x}",
    '"',
    "'",
    "\u202eabc",
    "\u2066abc\u2069",
    "\u200b",
    "\ufeff",
    "\x00",
    "\x1b[31m",
    "\ud800",
    " ",
    "",
    "x" * 500,
    "<" * 500,
    "é",
    "中文",
    "🙂",
]


@pytest.mark.parametrize("token", HOSTILE)
def test_label_of_a_token_is_short_plain_text(token: str) -> None:
    label = tokens.token_label(token)
    shown = html.unescape(label)
    assert len(shown) <= 18
    assert bool(shown) == bool(token)
    assert "<" not in label
    assert ">" not in label
    assert shown.isprintable()
    assert not any("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" for c in shown)
    label.encode("utf-8")


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("Paris", "Paris"),
        (" Paris", "␣Paris"),
        ("  ", "␣␣"),
        ("a\nb", "a⏎b"),
        ("\t", "⇥"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("a & b", "a &amp; b"),
        ("$x$", "$x$"),
        ("\u202eabc", "\N{REPLACEMENT CHARACTER}abc"),
        ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopq…"),
        # Shortened first, escaped then: no entity is cut in two.
        ("&" * 30, "&amp;" * 17 + "…"),
    ],
)
def test_label_of_a_token(token: str, label: str) -> None:
    assert tokens.token_label(token) == label


PLOTLY_ENTITIES = {"amp", "lt", "gt", "nbsp", "times", "plusmn", "deg", "mu"}
"""The only named entities that plotly.js turns back into characters; it also reads &#39; and &#x27;."""


@pytest.mark.parametrize("token", HOSTILE)
def test_labels_use_only_entities_that_plotly_knows(token: str) -> None:
    label = tokens.token_label(token)
    named = [part.split(";")[0] for part in label.split("&")[1:]]
    assert [name for name in named if not name.startswith("#") and name not in PLOTLY_ENTITIES] == []


@pytest.mark.parametrize("log_scale", [False, True])
def test_bars_carry_hostile_tokens_as_text_only(log_scale: bool) -> None:
    names = [*HOSTILE, *HOSTILE]  # twice: equal labels must not share a row
    p = np.linspace(0.001, 0.02, len(names))
    figure = spec(
        tokens.token_bars(Style(catalogue("en"), "light"), names, {"theta": p, "target": p[::-1]}, log_scale=log_scale)
    )
    ticks = figure["layout"]["yaxis"]
    assert ticks["ticktext"] == [tokens.token_label(t) for t in names]
    for t in figure["data"]:
        assert len(set(values(t["y"]).tolist())) == len(names)
        assert "<b>" not in json.dumps([t["customdata"], ticks["ticktext"]])
    np.testing.assert_array_equal(values(trace(figure, SYMBOLS["theta"].html)["x"]), p)
    np.testing.assert_array_equal(values(trace(figure, SYMBOLS["target"].html)["x"]), p[::-1])


def test_log_bars_leave_out_what_has_no_logarithm() -> None:
    p = np.array([0.5, 0.0, 0.5])
    figure = spec(tokens.token_bars(Style(catalogue("en"), "light"), list("abc"), {"theta": p}, log_scale=True))
    assert figure["layout"]["xaxis"]["type"] == "log"
    np.testing.assert_array_equal(values(figure["data"][0]["x"]), [0.5, np.nan, 0.5])


# --- what is drawn is what was computed --------------------------------------------------------------------------


def curve_of(figure: go.Figure, name: str) -> tuple[np.ndarray, np.ndarray]:
    t = trace(spec(figure), name)
    return values(t["x"]), values(t["y"])


@pytest.mark.parametrize("theme", THEMES)
def test_curves_are_the_core_s(theme: Theme) -> None:
    style, r = Style(catalogue("en"), theme), results("three_tokens")
    family, signal, steps = r["family"], r["signal"], r["steps"]
    drawn = [
        (criteria.delta(style, family, 0.3, 0.5), "delta", family.alpha, family.delta),
        (criteria.crossing(style, family, 0.3, None, None), "kl_to_theta", family.alpha, family.kl_to_theta),
        (criteria.crossing(style, family, 0.3, None, None), "kl_to_target", family.alpha, family.kl_to_target),
        (criteria.log_partition(style, family, 0.3, None), "log_partition", family.alpha, family.log_partition),
        (criteria.signal_and_noise(style, signal, 0.3), "phi1", signal.alpha, np.abs(signal.phi1)),
        (criteria.signal_and_noise(style, signal, 0.3), "phi2", signal.alpha, np.sqrt(signal.phi2)),
        (progress.against_step(style, steps, r["point"], 0.7, 0.1, 1.0), "first_order", steps.eta, steps.first_order),
        (progress.against_step(style, steps, r["point"], 0.7, 0.1, 1.0), "second_order", steps.eta, steps.second_order),
    ]
    for figure, symbol, x, y in drawn:
        for found, expected in zip(curve_of(figure, SYMBOLS[symbol].html), (x, y), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15, err_msg=symbol)
        line = trace(spec(figure), SYMBOLS[symbol].html)["line"]
        assert (line["color"], line["dash"]) == (SYMBOLS[symbol].colour(theme), SYMBOLS[symbol].dash)


def test_slices_are_the_core_s_progress() -> None:
    style, r = Style(catalogue("en"), "light"), results("three_tokens")
    row, found = r["row"], r["slices"]
    figure = progress.worst(style, found, 0.3, r["wald"], 1.0)
    x, lower = curve_of(figure, style.words("explorer.worst"))
    for i in (0, 37, 100):
        ends = [exact_progress(row, float(x[i]), eta).item() for eta in (0.5, 2.0)]
        assert lower[i] == pytest.approx(min(ends), rel=1e-6, abs=1e-9)
    x, best = curve_of(progress.along_alpha(style, found, 0.3, 0.1, 1.0), style.words("explorer.best_eta"))
    for i in (0, 37, 100):
        gain = summary.learning_point(row, float(x[i])).exact_gain
        assert best[i] == pytest.approx(gain, rel=1e-6)
    wald = float(r["wald"].alpha[0])
    marked = [t for t in spec(figure)["data"] if any("Wald" in str(word) for word in t.get("text", ()))]
    assert [values(t["x"])[0] for t in marked] == [wald]
    assert marked[0]["marker"]["symbol"] == SYMBOLS["alpha_wald"].shape == "diamond"


def test_paths_in_the_plane_are_the_core_s() -> None:
    style, r = Style(catalogue("en"), "light"), results("three_tokens")
    figure = geodesic.kl_plane(style, r["planes"], r["here"])
    assert set(r["planes"]) == {"e_geodesic", "m_geodesic", "fisher_rao"}
    for name, path in r["planes"].items():
        x, y = curve_of(figure, style.words(f"path.{name}"))
        assert len(x) > 50, name
        finite = np.isfinite(path.kl_to_theta) & np.isfinite(path.kl_to_target)
        np.testing.assert_array_equal(x, path.kl_to_theta[finite])
        np.testing.assert_array_equal(y, path.kl_to_target[finite])


def test_errors_of_the_expansion_and_the_spread_of_ell_are_the_core_s() -> None:
    style, r = Style(catalogue("en"), "light"), results("three_tokens")
    drawn = spec(progress.expansion_error(style, r["error"]))["data"]
    for t, errors, slope in zip(
        drawn,
        (r["error"].first_order, r["error"].second_order),
        (r["error"].first_slope, r["error"].second_slope),
        strict=True,
    ):
        np.testing.assert_array_equal(values(t["x"]), r["error"].eta)
        shown = np.isfinite(values(t["y"]))
        assert shown.sum() > 20
        np.testing.assert_array_equal(values(t["y"])[shown], errors[shown])
        assert f"{slope:.2f}" in t["name"]
    spread = tokens.ratio_histogram(style, r["histogram"], log_scale=False)
    for policy in ("theta", "target"):
        x, y = curve_of(spread, SYMBOLS[policy].html)
        np.testing.assert_array_equal(x, r["histogram"].edges)
        np.testing.assert_array_equal(y[:-1], getattr(r["histogram"], policy))


def test_snr_is_drawn_apart_where_the_signal_is_negative() -> None:
    alpha = np.linspace(0, 1, 5)
    signed = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    figure = spec(
        criteria.snr(
            Style(catalogue("en"), "light"), curves.SignalCurves(alpha, signed, alpha, signed, alpha), 0.3, (), np.inf
        )
    )
    positive, negative = (values(t["y"]) for t in figure["data"][:2])
    np.testing.assert_array_equal(positive, [np.nan, np.nan, 0, 1, 2])
    np.testing.assert_array_equal(negative, [2, 1, np.nan, np.nan, np.nan])


def test_histogram_of_rows_counts_every_row_once() -> None:
    alphas = {"alpha_kl": np.array([0.0, 0.5, 0.5, 1.0]), "alpha_snr": np.array([0.25])}
    found = spec(rows.alpha_histograms(Style(catalogue("en"), "light"), alphas))
    assert [values(t["y"]).sum() for t in found["data"]] == [4, 1]
    # Each has an axis of its own, so that no criterion's bars hide another's.
    assert [t.get("yaxis", "y") for t in found["data"]] == ["y", "y2"]
    (low, high), (below, above) = (found["layout"][a]["domain"] for a in ("yaxis", "yaxis2"))
    assert below < above < low < high
    for i, name in enumerate(alphas):
        (label,) = [a for a in found["layout"]["annotations"] if a["text"] == SYMBOLS[name].html]
        assert ((low, below)[i]) < label["y"] < ((high, above)[i])
        assert label["font"]["color"] == found["data"][i]["marker"]["color"]


def test_map_shows_shares_of_the_ceiling() -> None:
    r = results("three_tokens")
    ceiling = r["pair"].kl_target_theta
    figure = spec(progress.progress_map(Style(catalogue("en"), "light"), r["map"], 0.3, 0.7, ceiling))
    heat = next(t for t in figure["data"] if t["type"] == "heatmap")
    expected = np.clip(r["map"].progress / ceiling, -1, 1).T
    np.testing.assert_allclose(values(heat["z"]).reshape(expected.shape), expected)
    ridge = trace(figure, Style(catalogue("en"), "light").words("figure.map.ridge"))
    inside = r["map"].best_eta <= r["map"].eta[-1]
    assert inside.any()
    np.testing.assert_array_equal(values(ridge["y"]), np.where(inside, r["map"].best_eta, np.nan))
    assert expected.max() <= 1 + 1e-12


# --- colours -----------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def paper(theme: Theme) -> str:
    return Style(catalogue("en"), theme).paper


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", THEMES)
def test_figures_and_page_have_one_background(theme: Theme) -> None:
    config = tomllib.loads((files("geomix_app") / ".streamlit" / "config.toml").read_text("utf-8"))
    assert paper(theme).lower() == config["theme"][theme]["backgroundColor"].lower()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_symbol_stands_out_from_the_background(symbol: str, theme: Theme) -> None:
    # WCAG 2.2, 1.4.11: graphical objects 3:1. Large text (1.4.3) has the same bound.
    assert contrast(SYMBOLS[symbol].colour(theme), paper(theme)) >= 3


@pytest.mark.parametrize("theme", THEMES)
def test_helper_lines_stand_out_from_the_background(theme: Theme) -> None:
    assert contrast(HELPER, paper(theme)) >= 3


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(
    "together",
    [
        ("theta", "target", "q"),
        ("e_geodesic", "m_geodesic", "fisher_rao"),
        ("progress", "second_order", "first_order"),
        ("phi1", "phi2"),
        ("kl_to_theta", "kl_to_target"),
    ],
)
def test_symbols_drawn_together_differ_in_colour_or_dash(together: tuple[str, ...], theme: Theme) -> None:
    looks = {(SYMBOLS[s].colour(theme), SYMBOLS[s].dash) for s in together}
    assert len(looks) == len(together)
    assert len({SYMBOLS[s].colour(theme) for s in together}) == len(together)


@pytest.mark.parametrize("build", [lambda s: s.figure("t", "x", "y")], ids=["figure"])
def test_text_of_figures_takes_the_theme_s_colour(build: Callable[[Style], go.Figure]) -> None:
    layout = spec(build(Style(catalogue("en"), "dark")))["layout"]
    for font in (layout["title"]["font"], layout["legend"]["font"], layout["xaxis"]["tickfont"]):
        assert "color" not in font


def test_degenerate_rows_are_drawn_too() -> None:
    # Identical policies: no curve has any height, no logarithm is finite.
    row = PolicyBatch.from_probs([0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    style = Style(catalogue("en"), "light")
    family, signal = curves.family_curves(row), curves.signal_curves(row)
    drawn = [
        criteria.delta(style, family, 0.5, 0.5),
        criteria.crossing(style, family, 0.5, 0.5, 0.0),
        criteria.log_partition(style, family, 0.5, 0.5),
        criteria.snr(style, signal, 0.5, (), 0.0),
        criteria.signal_and_noise(style, signal, 0.5),
        geodesic.kl_plane(style, curves.path_planes(row, (0.0, 0.0, 0.0)), summary.family_point(row, 0.5)),
        tokens.ratio_histogram(style, summary.ratio_histogram(row), log_scale=True),
    ]
    for figure in drawn:
        assert not [w for w in labels(spec(figure)) if "nan" in w.lower()]
        for axis in ("xaxis", "yaxis"):
            low, high = spec(figure)["layout"][axis].get("range", (0, 1))
            assert np.isfinite([low, high]).all()
