"""The home page under AppTest: the explorer on the row on screen, and three ways in."""

from __future__ import annotations

import numpy as np
import pytest
from apptest import address, explorer, go, move, open_app, scenario, told, words

from geomix_app.explorer.data import PANELS
from geomix_app.notation import SYMBOLS, runs
from geomix_app.scenario import CUSTOM, Scenario
from geomix_app.views.home import WAYS
from geomix_core import solve_alpha
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import real_rows
from geomix_core.summary import pair_summary, top_tokens


def bundled() -> PolicyBatch:
    return PolicyBatch.from_logits(real_rows().theta[0], real_rows().target[0])


def test_app_opens_on_the_explorer_with_no_choice_made() -> None:
    at = open_app("home")
    assert [s.value for s in at.subheader] == [words(at)("page.home.title")]
    assert scenario(at) == Scenario()
    header, arrays = explorer(at)
    row = bundled()
    assert header["panels"] == list(PANELS)
    assert header["notes"] == {}
    assert (header["alpha"], header["eta"]) == (0.5, 1.0)
    assert header["scalars"]["ceiling"] == pytest.approx(pair_summary(row).kl_target_theta)
    np.testing.assert_allclose(arrays["tokens.theta"], row.theta[0][top_tokens(row, 9).tolist()], rtol=1e-12)
    assert real_rows().prompts[0].prompt in at.main.markdown[0].value.replace("\\", "")
    assert not at.warning
    assert not at.error


def test_marks_are_what_the_criteria_choose() -> None:
    header, _ = explorer(open_app("home"))
    marks = {m["symbol"]: m["alpha"] for m in header["marks"]}
    row = bundled()
    assert marks.keys() == {"0", "½", "1", "alpha_kl", "alpha_snr", "alpha_wald"}
    assert marks["alpha_kl"] == round(float(solve_alpha(row).alpha[0]), 4)
    assert marks["alpha_snr"] == round(float(solve_alpha(row, "snr").alpha[0]), 4)
    assert marks["alpha_wald"] == pytest.approx(float(solve_alpha(row, "wald").alpha[0]), abs=1e-4)
    assert [m["alpha"] for m in header["marks"]] == sorted(marks.values())


def test_three_ways_in_and_nothing_else() -> None:
    at = open_app("home")
    links = at.main.get("page_link")
    assert [link.proto.page for link in links] == list(WAYS.values())
    assert not at.main.button
    assert not at.main.slider


def test_explorer_follows_the_scenario() -> None:
    at = open_app("home", source="gaussian", alpha="0.25", eta="3", weights="inverse")
    header, _ = explorer(at)
    assert (header["alpha"], header["eta"]) == (0.25, 3.0)
    assert header["axis"]["reach"] >= 3
    go(at, "choosing")
    move(at, alpha=0.4)
    go(at, "home")
    again, _ = explorer(at)
    assert again["alpha"] == 0.4
    assert again["key"] == header["key"]


DISJOINT = {"source": CUSTOM, "table": '[["a",1,0],["b",0,1]]', "kind": "probs"}
IDENTICAL = {"source": CUSTOM, "table": '[["a",0.2,0.2],["b",0.3,0.3],["c",0.5,0.5]]', "kind": "probs"}


@pytest.mark.parametrize(
    ("query", "noted", "remarked", "key"),
    [
        (DISJOINT, set(PANELS), set(), "notice.disjoint"),
        ({"source": "top_k", "keep": "1"}, {"snr", "progress"}, {"delta"}, "status.no_interior_root"),
        (IDENTICAL, {"snr", "progress"}, {"delta", "snr"}, "status.identical"),
        ({"source": "two_tokens"}, set(), {"snr"}, "status.flat"),
    ],
    ids=["disjoint", "uncovered", "identical", "flat"],
)
def test_what_cannot_be_drawn_is_said(query: dict[str, str], noted: set[str], remarked: set[str], key: str) -> None:
    at = open_app("home", **query)
    header, _ = explorer(at)
    assert set(header["notes"]) == noted
    assert set(header["remarks"]) == remarked
    seen = [told(t) for t in (*header["notes"].values(), *header["remarks"].values())]
    assert told(runs(words(at).html(key))) in seen  # type: ignore[arg-type]
    # Where every α solves a criterion it marks none.
    symbols = {m["symbol"] for m in header["marks"]}
    assert symbols & SYMBOLS.keys() <= {"alpha_kl", "alpha_wald"}


def test_tokens_are_sent_as_text() -> None:
    table = '[["<b>x</b>",1,2],["a & b",2,1],[" lead",3,3]]'
    header, _ = explorer(open_app("home", source=CUSTOM, table=table, kind="probs"))
    assert set(header["tokens"]) == {"<b>x</b>", "a & b", "␣lead"}


def test_language_and_theme_are_the_reader_s() -> None:
    header, _ = explorer(open_app("home", lang="zh"))
    assert header["language"] == "zh"
    assert told(header["words"]["log"]) == "对数"
    assert header["symbols"]["q"]["light"] != header["symbols"]["q"]["dark"]
    assert header["symbols"]["theta"]["runs"] == [["π", 0], ["θ", -1]]


def test_home_is_the_default_page_and_keeps_the_link() -> None:
    assert address(open_app("home", alpha="0.25")) == {"lang": "en", "alpha": "0.25"}
