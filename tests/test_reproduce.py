"""What a reader takes away: scripts that print the page's numbers, the figures' data as CSV, figures as files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import machinery
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from apptest import EXPLORE, PAGES, figures, has, open_app, run, scenario, values
from apptest import go as follow
from streamlit.testing.v1 import AppTest

from geomix_app import compute, snippets
from geomix_app.catalogue import catalogue
from geomix_app.figures import export
from geomix_app.figures.style import Style
from geomix_app.notation import SYMBOLS
from geomix_app.scenario import CUSTOM, REAL, UPLOAD, Reshape, Scenario, TableRow
from geomix_core import exact_progress, solve_alpha
from geomix_core.claims import CLAIMS, Setting
from geomix_core.criteria import chernoff_information
from geomix_core.curves import expansion_error
from geomix_core.datasets import Dataset, bundled, open_dataset
from geomix_core.fixed_alpha import CHOICES, losses_of
from geomix_core.geodesics import e_geodesic, path_lengths
from geomix_core.overview import joined, overview
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights
from geomix_core.results import Plan, solve_chunks
from geomix_core.scenarios import FAMILIES, REFERENCES, real_rows, token_names
from geomix_core.summary import family_point, learning_point, pair_summary, top_tokens

EN = catalogue("en")
HOSTILE = ('"', "'", "\\", "a\"b'c", "x\ny", '"""', "#", "{i}", "\u202e\u2066", "词元", "=1+1", "\ud800", "\x00")


def opened(page: str, **query: str) -> AppTest:
    """The page with the block open."""
    at = open_app(page, **query)
    at.session_state["view.reproduce"] = True
    return run(at)


def script_of(at: AppTest) -> str:
    """The script that the page offers."""
    (code,) = at.main.code
    return str(code.value)


def executed(code: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The variables that a script leaves behind, and what it printed by its label; indented ones as "heading/label"."""
    out, variables = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(out):
        exec(compile(code, "script", "exec"), variables)
    printed, heading = {}, ""
    for line in out.getvalue().splitlines():
        label, _, value = line.strip().partition(": ")
        heading = "" if not line.startswith(" ") else heading
        printed[heading + label] = value
        if not line.startswith(" "):
            heading = f"{label}/"
    return variables, printed


def weights_of(s: Scenario) -> Weights:
    return "inverse" if s.weights == "inverse" else "importance"


def close(found: str, expected: float) -> None:
    np.testing.assert_allclose(float(found), expected, rtol=1e-6, atol=1e-12)


# --- the scripts: the same policies ------------------------------------------------------------------------------

SHAPED = Reshape(0.7, 40, 0.95)
POLICIES: dict[str, Scenario] = {
    "bundled row": Scenario(row=5),
    "no such row": Scenario(row=1_000),
    **{name: Scenario(source=name) for name in FAMILIES},
    "other parameters": Scenario(source="gaussian", parameters=(("vocabulary", 100), ("distance", 0.123), ("seed", 7))),
    **{f"reference {r}": Scenario(source="dirichlet", reference=r) for r in REFERENCES},
    "reshaped": Scenario(source="zipf", parameters=(("vocabulary", 1000),), theta=SHAPED, target=Reshape(1.5)),
    "cut": Scenario(target=Reshape(top_k=5)),
    "smoothed, reference": Scenario(source="top_k", epsilon=1e-3, reference="earlier"),
    "smoothed away": Scenario(source="three_tokens", epsilon=1.0),
    "table": Scenario(source=CUSTOM),
    "weights": Scenario(source=CUSTOM, table=(TableRow("a", 3, 1), TableRow("b", 1, 0))),
    "huge weights": Scenario(source=CUSTOM, table=(TableRow("a", 1e308, 1e-308), TableRow("b", 1e308, 2e-308))),
    "logits": Scenario(
        source=CUSTOM, table=(TableRow("a", 800.0, -np.inf), TableRow("b", -1.5, 0.25)), table_kind="logits"
    ),
    "hostile names": Scenario(source=CUSTOM, table=tuple(TableRow(n, 1 / 13, 1 / 13) for n in HOSTILE)),
}


def facts(s: Scenario, **changes: Any) -> snippets.Facts:
    """What the page would tell the script."""
    row = compute.row(s, None)
    about = compute.pair(row.key, row.batch)
    base = snippets.Facts(
        min(s.row, len(real_rows().theta) - 1), disjoint=about.disjoint, covered=about.covered, shares=False
    )
    return replace(base, **changes)


@pytest.mark.parametrize("name", POLICIES)
def test_scripts_build_the_policies_of_the_page(name: str) -> None:
    s = POLICIES[name]
    code = snippets.page("policies", s, facts(s), EN)
    variables, _ = executed(code)
    row = compute.row(s, None)
    batch: PolicyBatch = variables["batch"]
    for policy in ("theta", "target", "reference"):
        found, expected = getattr(batch, policy), getattr(row.batch, policy)
        assert (found is None) == (expected is None), policy
        if expected is not None:
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)
    assert list(variables["tokens"]) == list(row.tokens)
    assert max(map(len, code.splitlines())) <= 120
    code.encode("utf-8")


def test_scripts_read_uploaded_files_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    theta, target, base = rng.normal(size=(3, 4, 6))
    names = ("my 'θ' theta.npy", 'target "B".npy', "reference.npy")
    for name, array in zip(names, (theta, target, base), strict=True):
        np.save(tmp_path / name, array)
    monkeypatch.chdir(tmp_path)
    s = Scenario(source=UPLOAD, row=2, epsilon=0.01)
    for files, own in ((names[:2], False), (names, True)):
        data = open_dataset(*files)
        code = snippets.page("geodesic", s, snippets.Facts(2, files, own_reference=own), EN)
        variables, printed = executed(code)
        row = compute.row(s, data)
        np.testing.assert_allclose(variables["batch"].theta.numpy(), row.batch.theta.numpy(), rtol=1e-12)
        assert (variables["batch"].reference is not None) == own
        close(printed["KL(q||pi_t), nats"], family_point(row.batch, 0.5).kl_to_target)
    roles = (("theta", names[1]), ("target", names[0]))
    for chosen, data in (((), open_dataset(*names[:2])), (roles, open_dataset(*names[:2], roles=dict(roles)))):  # type: ignore[arg-type]
        plan = Plan(("kl_symmetry", "snr", "wald"), "inverse", (0.25, 1.5))
        code = snippets.rows(snippets.Facts(0, names[:2], chosen), plan, EN)
        assert max(map(len, code.splitlines())) <= 120
        same_as_the_page(data, plan, executed(code))


def same_as_the_page(data: Dataset, plan: Plan, ran: tuple[Mapping[str, Any], Mapping[str, str]]) -> None:
    """The script of all rows has the page's table, and prints its numbers."""
    variables, printed = ran
    table = joined(list(solve_chunks(data.pair, plan)))
    found = overview(table)
    assert variables["table"] == table
    assert printed["rows"] == str(found.rows)
    for group, count in found.groups.items():
        assert printed[f"rows {group}"] == str(count)
    close(printed["largest bound of a certified row"], found.bound or 0)
    for column, quantiles in found.quantiles.items():
        close(printed[f"{column}, quantile 0.5"], quantiles[0.5])
    losses = losses_of(data, plan, table, range(len(data)))
    for criterion in plan.criteria:
        for choice in CHOICES:
            median, high = printed[f"{criterion} lost by {choice}, median and 95 %"].split()
            close(median, losses.quantile(criterion, choice) or 0)
            close(high, losses.quantile(criterion, choice, 0.95) or 0)


def test_hostile_names_end_no_string_and_hide_nothing() -> None:
    for name in HOSTILE:
        literal = snippets._quoted(name)
        assert eval(literal) == name
        assert literal.isprintable()


# --- the scripts: the same numbers -------------------------------------------------------------------------------

SHOWN: dict[str, dict[str, str]] = {
    "bundled row": {"row": "2", "alpha": "0.37", "eta": "0.8"},
    "three tokens": {"source": "three_tokens", "alpha": "0.3"},
    "reference and weights": {"source": "gaussian", "reference": "uniform", "weights": "inverse", "eta": "0.05"},
    "table": {"source": CUSTOM, "table": '[["a",0.2,0.5],["b",0.3,0.3],["c",0.5,0.2]]', "kind": "probs"},
    "smoothed": {"source": "top_k", "epsilon": "0.001", "alpha": "0.9"},
    "identical": {"source": CUSTOM, "table": '[["a",0.5,0.5],["b",0.5,0.5]]', "kind": "probs"},
    "two tokens": {"source": "two_tokens"},
}
UNCOVERED: dict[str, dict[str, str]] = {
    "cut target": {"source": "top_k"},
    "disjoint": {"source": CUSTOM, "table": '[["a",1,0],["b",0,1]]', "kind": "probs"},
}


def check_policies(s: Scenario, row: compute.Row, printed: Mapping[str, str]) -> None:
    about = pair_summary(row.batch)
    close(printed["KL(pi_t||pi_theta), nats"], about.kl_target_theta)
    close(printed["chi2(pi_t||pi_theta)"], about.chi2)
    close(printed["total variation"], about.total_variation)
    close(printed["entropy of pi_t, nats"], about.entropy_target)
    assert int(printed["tokens in common"]) == about.common_size
    for i in top_tokens(row.batch, 14):
        theta, target = printed[f"token {row.tokens[int(i)]!r}"].split()
        close(theta, row.batch.theta[0, i].exp().item())
        close(target, row.batch.target[0, i].exp().item())


def check_geodesic(s: Scenario, row: compute.Row, printed: Mapping[str, str]) -> None:
    point = compute.family_point(row.key, s.alpha, row.batch)
    close(printed["Delta(alpha), nats"], point.delta)
    close(printed["KL(q||pi_theta), nats"], point.kl_to_theta)
    close(printed["KL(q||pi_t), nats"], point.kl_to_target)
    close(printed["ESS/N"], point.ess)
    result = solve_alpha(row.batch, "kl_symmetry")
    alpha, status = printed["alpha by kl_symmetry"].split()
    close(alpha, float(result.alpha[0]))
    assert status == result.status[0]
    close(printed["Chernoff information, nats"], chernoff_information(row.batch).item())
    lengths = path_lengths(row.batch)
    for name in ("e_geodesic", "m_geodesic", "fisher_rao"):
        close(printed[f"Fisher-Rao length, {name}"], getattr(lengths, name).item())


def check_choosing(s: Scenario, row: compute.Row, printed: Mapping[str, str]) -> None:
    weights = weights_of(s)
    covered = compute.pair(row.key, row.batch).covered
    for criterion in ("kl_symmetry", "snr", "wald") if covered else ("kl_symmetry",):
        result = solve_alpha(row.batch, criterion, weights)
        alpha, status = printed[f"alpha by {criterion}"].split()
        close(alpha, float(result.alpha[0]))
        assert status == result.status[0]
    close(printed["Chernoff information, nats"], chernoff_information(row.batch).item())
    now = compute.choice(row.key, "current", s.alpha, weights, row.batch)
    choices = [*compute.choices(row.key, weights, row.batch), now]
    assert {k.partition("/")[0] for k in printed if k.endswith("/ESS/N")} == {c.name for c in choices}
    for c in choices:
        of = f"{c.name}/"
        close(printed[f"{of}KL(q||pi_theta), nats"], c.kl_to_theta)
        close(printed[f"{of}KL(q||pi_t), nats"], c.kl_to_target)
        close(printed[f"{of}ESS/N"], c.ess)
        shares = {"share of the best SNR": c.snr_share, "share of the ceiling": c.ceiling_share}
        if c.snr is not None and c.best_progress is not None:
            close(printed[f"{of}SNR, with sign"], c.snr)
            close(printed[f"{of}progress at its best eta, nats"], c.best_progress)
        for label, share in shares.items():
            if of + label in printed:
                assert share is not None
                close(printed[of + label], share)


def check_progress(s: Scenario, row: compute.Row, printed: Mapping[str, str]) -> None:
    weights = weights_of(s)
    point = learning_point(row.batch, s.alpha, weights)
    close(printed["signal Phi_1, nats"], point.phi1)
    close(printed["noise Phi_2, nats^2"], point.phi2)
    close(printed["SNR"], point.signed_snr)
    close(printed["eta* = Phi_1/Phi_2"], point.quadratic_step)
    close(printed["best eta, exact"], point.exact_step)
    close(printed["progress at eta, nats"], exact_progress(row.batch, s.alpha, s.eta, weights).item())
    close(printed["ceiling KL(pi_t||pi_theta), nats"], pair_summary(row.batch).kl_target_theta)
    result = solve_alpha(row.batch, "kl_symmetry")
    places = {"pi_theta": 1.0, "pi_t": 0.0, "alpha_KL": float(result.alpha[0])}
    for name, alpha in places.items():
        gain = learning_point(row.batch, alpha, weights).exact_gain
        close(printed.get(f"best progress from {name}, nats", str(gain)), gain)
        assert f"best progress from {name}, nats" in printed or not result.solved[0]
    slope = expansion_error(row.batch, s.alpha, abs(point.quadratic_step) or 1.0, weights).second_slope
    close(printed["slope of the second-order error"], slope)


CHECKS: dict[str, Callable[[Scenario, compute.Row, Mapping[str, str]], None]] = {
    "policies": check_policies,
    "geodesic": check_geodesic,
    "choosing": check_choosing,
    "progress": check_progress,
}


def check_page(page: str, query: dict[str, str]) -> None:
    at = opened(page, **query)
    s = scenario(at)
    row = compute.row(s, None)
    _, printed = executed(script_of(at))
    CHECKS[page](s, row, printed)
    claims = [c for c in CLAIMS if c in printed]
    assert claims == sorted(set(at.session_state["shown"].claims), key=list(CLAIMS).index)
    for name in claims:
        verdict = compute.verdict(name, Setting(weights=weights_of(s), alpha=s.alpha), row)
        assert printed[name].split()[0] == verdict.outcome
        for number, value in verdict.numbers.items():
            found = re.search(rf"'{number}': ([^,}}]+)", printed[name])
            assert found
            # Some verdicts on the page are reached on the compressed row.
            np.testing.assert_allclose(float(found[1]), value, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("page", EXPLORE)
@pytest.mark.parametrize("name", SHOWN)
def test_scripts_print_what_the_page_shows(page: str, name: str) -> None:
    check_page(page, SHOWN[name])


@pytest.mark.parametrize(("page", "name"), [("policies", "disjoint"), ("choosing", "cut target")])
def test_scripts_ask_for_nothing_that_is_undefined(page: str, name: str) -> None:
    check_page(page, UNCOVERED[name])


def test_scripts_run_in_a_fresh_interpreter_that_has_only_the_core(tmp_path: Path) -> None:
    code = {p: script_of(opened(p)) for p in EXPLORE}
    code["validate"] = snippets.rows(snippets.Facts(0), Plan(), EN)
    for name, text in code.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    driver = (
        "import runpy, socket, sys\n"
        "sys.modules.update(streamlit=None, plotly=None, pandas=None, geomix_app=None)\n"
        "socket.socket.connect = None\n"
        f"for name in {list(code)}: print('##', name); runpy.run_path(name + '.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", driver], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    parts = dict(re.findall(r"## (\w+)\n((?:(?!## ).*\n)+)", done.stdout))
    assert set(parts) == set(code)
    batch = PolicyBatch.from_logits(real_rows().theta[0], real_rows().target[0])
    found = re.search(r"^KL\(pi_t\|\|pi_theta\), nats: (.*)$", parts["policies"], re.MULTILINE)
    assert found
    close(found[1], pair_summary(batch).kl_target_theta)
    assert "rows certified: 8" in parts["validate"]


def test_scripts_speak_the_readers_language_only_in_comments() -> None:
    s = Scenario(source=CUSTOM, table=(TableRow("a", 3, 1), TableRow("b", 1, 1)))
    english, chinese = (
        snippets.page("choosing", s, facts(s, claims=("theorem_1",)), catalogue(language)) for language in ("en", "zh")
    )
    bare = [re.sub(r"#.*", "", code).splitlines() for code in (english, chinese)]
    assert bare[0] == bare[1]
    assert english != chinese
    assert not re.search("[\u4e00-\u9fff]", "\n".join(bare[1]))


# --- the data ----------------------------------------------------------------------------------------------------


def table(at: AppTest, key: str) -> dict[str, np.ndarray]:
    """A figure's CSV as the page offers it, column by column."""
    columns = at.session_state["shown"].exhibits[key].columns
    rows = list(csv.DictReader(io.StringIO(export.to_csv(columns()))))
    assert rows
    found = {name: np.array([r[name] for r in rows]) for name in rows[0]}
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in found)
    return {
        name: column if name in ("path", "token_json") else np.array([float(x) if x else np.nan for x in column])
        for name, column in found.items()
    }


def same(trace: Mapping[str, Any], **expected: np.ndarray) -> None:
    for axis, column in expected.items():
        np.testing.assert_array_equal(values(trace[axis]), column)


def test_every_array_of_the_curves_has_a_column() -> None:
    for kind, columns in export.CURVES.items():
        assert set(columns) == {f.name for f in fields(kind) if f.type == "Array"}
        assert len(set(columns.values())) == len(columns)


def drawn(at: AppTest, key: str) -> dict[str, Any]:
    """The figure that the page offers under a key, as a reader would take it away."""
    found: dict[str, Any] = json.loads(at.session_state["shown"].exhibits[key].figure().to_json())
    return found


def test_data_of_the_policies_page() -> None:
    at = opened("policies", source="gaussian")
    tokens, ratio = table(at, "tokens"), table(at, "ratio")
    for policy in ("theta", "target"):
        (bars,) = [t for t in drawn(at, "tokens")["data"] if t["name"] == SYMBOLS[policy].html]
        same(bars, x=tokens[f"p_{policy}"])
    assert [json.loads(t) for t in tokens["token_json"]] == [token_names(1000)[int(i)] for i in tokens["token_id"]]
    edges = values(drawn(at, "ratio")["data"][0]["x"])
    np.testing.assert_array_equal(ratio["ell_low_nats"], edges[:-1])
    np.testing.assert_array_equal(ratio["ell_high_nats"], edges[1:])
    batch = compute.row(scenario(at), None).batch
    np.testing.assert_array_equal(ratio["mass_theta"], compute.histogram("test", batch).theta)


FAMILY = {
    "delta": {"delta_nats": "delta"},
    "crossing": {"kl_q_theta_nats": "kl_to_theta", "kl_q_target_nats": "kl_to_target"},
    "log_partition": {"log_Z_nats": "log_partition"},
}


@pytest.mark.parametrize("page", ["geodesic", "choosing"])
def test_data_of_the_family(page: str) -> None:
    at = opened(page)
    for key, symbols in FAMILY.items():
        found = table(at, key)
        for column, symbol in symbols.items():
            (curve,) = [t for t in drawn(at, key)["data"] if t.get("name") == SYMBOLS[symbol].html]
            same(curve, x=found["alpha"], y=found[column])


def test_data_of_the_geodesic_page() -> None:
    at = opened("geodesic", source="three_tokens", alpha="0.25")
    names = {EN.html(f"path.{p}"): p for p in ("e_geodesic", "m_geodesic", "fisher_rao")}
    for figure, axes in (
        ("plane", {"x": "kl_theta_nats", "y": "kl_target_nats"}),
        ("simplex", {"a": "p_token0", "b": "p_token1", "c": "p_token2"}),
    ):
        found = table(at, figure)
        paths = {names[t["name"]]: t for t in drawn(at, figure)["data"] if t.get("name") in names}
        assert set(paths) == set(names.values())
        for name, trace in paths.items():
            here = found["path"] == name
            same(trace, **{axis: found[column][here] for axis, column in axes.items()})
            assert (found["s"][here][0], found["s"][here][-1]) == (0, 1)
    tokens = table(at, "tokens")
    assert set(tokens) == {"token_id", "token_json", "p_theta", "p_q", "p_target"}
    (q,) = [t for t in drawn(at, "simplex")["data"] if t.get("text") == [SYMBOLS["q"].html]]
    batch = compute.row(scenario(at), None).batch
    np.testing.assert_allclose([values(q[axis])[0] for axis in "abc"], e_geodesic(batch, 0.25)[0].exp().numpy())
    np.testing.assert_allclose(np.sort(tokens["p_q"]), np.sort(e_geodesic(batch, 0.25)[0].exp().numpy()))


def test_data_of_the_choosing_page() -> None:
    at = opened("choosing")
    snr, signal, worst = table(at, "snr"), table(at, "signal"), table(at, "worst")
    same(drawn(at, "snr")["data"][0], x=snr["alpha"], y=np.abs(snr["snr_signed"]))
    same(drawn(at, "signal")["data"][0], y=np.abs(signal["phi1_nats"]))
    same(drawn(at, "signal")["data"][1], y=np.sqrt(signal["phi2_nats2"]))
    for i, column in enumerate(("progress_low_nats", "progress_high_nats", "worst_nats")):
        same(drawn(at, "worst")["data"][i], x=worst["alpha"], y=worst[column])
    batch = compute.row(scenario(at), None).batch
    for i in (10, 60):
        assert (worst["eta_low"][i], worst["eta_high"][i]) == (0.5, 2.0)
        exact = exact_progress(batch, float(worst["alpha"][i]), 2.0).item()
        np.testing.assert_allclose(worst["progress_high_nats"][i], exact, rtol=1e-5)


def test_data_of_the_progress_page() -> None:
    at = opened("progress", source="three_tokens", eta="0.3")
    step, error, grid, along = table(at, "step"), table(at, "error"), table(at, "map"), table(at, "slice")
    for trace, column in zip(
        drawn(at, "step")["data"], ("first_order_nats", "second_order_nats", "progress_nats"), strict=False
    ):
        same(trace, x=step["eta"], y=step[column])
    for trace, column in zip(drawn(at, "slice")["data"], ("best_gain_nats", "progress_nats"), strict=False):
        same(trace, x=along["alpha"], y=along[column])
    batch = compute.row(scenario(at), None).batch
    exact = exact_progress(batch, float(along["alpha"][40]), 0.3).item()
    np.testing.assert_allclose(along["progress_nats"][40], exact, rtol=1e-6)
    first = np.where(error["error_first_order_nats"] > 1e-17, error["error_first_order_nats"], np.nan)
    same(drawn(at, "error")["data"][0], x=error["eta"], y=first)
    heat, line = drawn(at, "map")["data"][:2]
    alpha, eta = values(heat["x"]), values(heat["y"])
    np.testing.assert_array_equal(grid["progress_nats"].reshape(len(alpha), len(eta)).T, values(heat["customdata"]))
    np.testing.assert_array_equal(grid["alpha"].reshape(len(alpha), -1)[:, 0], alpha)
    np.testing.assert_array_equal(grid["eta"][: len(eta)], eta)
    ridge = values(line["y"])
    best = grid["best_eta"].reshape(len(alpha), -1)[:, 0]
    np.testing.assert_array_equal(ridge[np.isfinite(ridge)], best[np.isfinite(ridge)])


def test_data_of_the_validate_page() -> None:
    table = joined(list(solve_chunks(bundled().pair, Plan())))
    rows = list(csv.DictReader(io.StringIO(export.to_csv(export.rows(table)))))
    assert [float(r["alpha_kl"]) for r in rows] == table["alpha_kl"]
    assert [float(r["kl_target_theta_nats"]) for r in rows] == table["kl_target_theta"]
    assert [int(r["row"]) for r in rows] == list(range(8))


def test_csv_keeps_digits_infinities_and_gaps_and_offers_no_formula() -> None:
    x = np.array([0.1 + 0.2, np.inf, np.nan, 5e-324])
    lines = export.to_csv({"x": x}).splitlines()
    assert lines == ["x", "0.30000000000000004", "inf", '""', "5e-324"]
    names = ["=1+1", "+1", "-1", "@a", " \n"]
    text = export.to_csv(export.tokens(np.arange(5), names, {}))
    cells = [r["token_json"] for r in csv.DictReader(io.StringIO(text))]
    assert all(cell.startswith('"') for cell in cells)
    assert [json.loads(cell) for cell in cells] == names


# --- the figures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_html_asks_no_other_host_for_anything(theme: Any) -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0]))
    exhibit = export.Exhibit("delta", 'a <b> "title"', lambda: figure)
    style = Style(catalogue("zh"), theme)
    page = export.to_html(style, exhibit)
    outside = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    assert "<title>a &lt;b&gt; &quot;title&quot;</title>" in outside
    assert '<html lang="zh">' in outside
    assert not re.search(r"<(link|img|iframe|script[^>]*\ssrc)|url\(|@import|https?:", outside)
    assert not re.search(r"<script[^>]*\s(src|href)=", page)
    assert 1e6 < len(page) < 6e6
    assert f"background:{style.paper}" in outside
    # The figure on the page stays as it was.
    assert figure.layout.paper_bgcolor is None


def test_images_come_from_the_server_only_where_it_can_draw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(at: AppTest) -> set[str]:
        return {str(b.key) for b in at.download_button}

    installed: list[object] = []
    monkeypatch.setattr(export, "find_spec", lambda _: installed[0] if installed else None)
    assert keys(opened("geodesic")) & {"b.reproduce.plane.svg", "b.reproduce.plane.png"} == set()
    installed.append(machinery.ModuleSpec("kaleido", None))
    assert keys(opened("geodesic")) >= {"b.reproduce.plane.svg", "b.reproduce.plane.png"}

    asked: dict[str, Any] = {}

    def to_image(figure: go.Figure, image_format: str, **options: Any) -> bytes:
        asked.update(options, format=image_format, paper=figure.layout.paper_bgcolor)
        return b"image"

    monkeypatch.setattr(go.Figure, "to_image", to_image)
    exhibit = export.Exhibit("delta", "title", lambda: go.Figure(layout={"height": 270}))
    assert export.to_image(Style(EN, "light"), exhibit, "png") == b"image"
    assert asked == {"format": "png", "width": export.WIDTH, "height": 270, "scale": 3, "paper": "#ffffff"}


def test_camera_saves_in_the_format_that_was_chosen() -> None:
    def cameras(at: AppTest) -> list[dict[str, Any]]:
        return [json.loads(e.proto.config)["toImageButtonOptions"] for e in at.get("plotly_chart")]

    at = opened("choosing")
    assert {(c["format"], c["scale"]) for c in cameras(at)} == {("svg", 1)}
    assert {c["filename"] for c in cameras(at)} == {"geomix_signal"}
    run(at.button_group(key="w.view.image").set_value("png"))
    assert {(c["format"], c["scale"]) for c in cameras(at)} == {("png", 3)}


# --- the block ---------------------------------------------------------------------------------------------------


OFFERED = {
    "policies": {"tokens", "ratio"},
    "geodesic": {"tokens", "crossing", "delta", "log_partition", "plane"},
    "choosing": {"crossing", "delta", "log_partition", "snr", "worst", "signal"},
    "progress": {"step", "slice", "map", "error"},
}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", EXPLORE)
def test_every_page_offers_its_script_and_figures(page: str, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    at = open_app(page, lang=language)
    text = catalogue(language)
    assert text("reproduce.title") in [e.label for e in at.expander]
    assert not at.main.code
    assert not at.download_button
    at.session_state["view.reproduce"] = True
    run(at)
    assert script_of(at).startswith(f"# geomix: {text.plain(f'page.{page}.title')}\n")
    offered = {str(b.key) for b in at.download_button}
    exhibits = at.session_state["shown"].exhibits
    # What the explorer draws can be taken away too.
    assert set(exhibits) >= set(figures(at)) | OFFERED[page]
    wanted = {f"b.reproduce.{key}.{kind}" for key in exhibits for kind in ("csv", "html")}
    assert offered == wanted | {f"b.reproduce.{page}.py"}
    assert has(at, "button_group", "w.view.image")


def test_block_stays_open_on_the_next_page_and_shows_that_pages_figures() -> None:
    at = follow(opened("policies"), "choosing")
    assert "solve_alpha" in script_of(at)
    assert set(at.session_state["shown"].exhibits) == OFFERED["choosing"]


def test_validate_offers_the_script_of_all_rows() -> None:
    at = open_app("validate")
    run({b.label: b for b in at.button}[EN("page.validate.example")].click())
    at.session_state["view.reproduce"] = True
    run(at)
    same_as_the_page(bundled(), Plan(("kl_symmetry", "snr", "wald")), executed(script_of(at)))
    shown = ("alpha_histogram", "alpha_criteria", "alpha_distance")
    kinds = {f"b.reproduce.{k}.{e}" for k in shown for e in ("csv", "html")}
    assert {str(b.key) for b in at.download_button} >= kinds | {"b.reproduce.validate.py"}
    swap = next(b for b in at.button if b.label == EN("page.validate.swap"))
    run(swap.click())
    run({b.label: b for b in at.button}[EN("page.validate.solve", rows="8")].click())
    same_as_the_page(bundled(swapped=True), Plan(("kl_symmetry", "snr", "wald")), executed(script_of(at)))


def test_every_page_is_covered_here() -> None:
    # The lab's and the derivation's scripts are run by their own pages' tests; the others have no row to recompute.
    assert set(CHECKS) | {"lab", "derivation"} | {"home", "validate", "claims", "glossary", "lecture"} == set(PAGES)
    assert set(snippets.PAGES) == set(CHECKS) | {"lab"}
    assert Scenario().source == REAL
