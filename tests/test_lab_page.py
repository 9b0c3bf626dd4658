"""The Sampling lab under AppTest: the guess, the run beside the page, stop and go on; its numbers are the core's."""

from __future__ import annotations

import html
from functools import cache
from typing import Any

import numpy as np
import pytest
from apptest import assert_readable, figures, has, open_app, points, run, trace, values, words
from streamlit.testing.v1 import AppTest
from test_pages import DISJOINT, IDENTICAL, SCENARIOS

from geomix_app import compute
from geomix_app.catalogue import catalogue
from geomix_app.experiments import Experiment, Setup
from geomix_app.figures import export
from geomix_app.figures import lab as drawn
from geomix_app.figures.style import Style
from geomix_app.notation import SYMBOLS, percent
from geomix_app.scenario import Scenario
from geomix_app.views.lab import BASELINE, CHOSEN, CLAIMS, SIZES
from geomix_core.lab import PROPOSALS, Plan, Problem, Trial, attained, efficiency, play, propose
from geomix_core.lab import run as measured
from geomix_core.scenarios import synthetic

SMALL = {"source": "gaussian", "vocabulary": "100"}
BUDGET = 64
NAMES = (BASELINE, *(name for name in PROPOSALS if name in CHOSEN))


def opened(lang: str = "en", **query: str) -> AppTest:
    """The page on a small row, with a small budget and few repetitions."""
    at = open_app("lab", lang=lang, **(query or SMALL))
    at.session_state["view.lab_budget"] = BUDGET
    at.session_state["view.lab_repetitions"] = 50
    return run(at)


def experiment(at: AppTest) -> Experiment:
    found: Experiment = at.session_state["experiment"]
    return found


def finished(at: AppTest) -> AppTest:
    """The page after its experiment has ended."""
    experiment(at).wait(60)
    assert not experiment(at).running
    return run(at)


def measure(at: AppTest, guess: str | None = None) -> AppTest:
    """Answer the question, or skip it, and wait for the result."""
    if guess is None:
        run(at.button(key="b.lab_skip").click())
    else:
        run(at.radio(key="w.lab_guess").set_value(guess))
        run(at.button(key="b.lab_reveal").click())
    return finished(at)


@cache
def expected(names: tuple[str, ...] = NAMES, budget: int = BUDGET, seed: int = 0) -> list[Trial]:
    """What the core measures for the page on the small row, from the page's own batch: equal to the last bit."""
    row = compute.row(Scenario(source="gaussian", parameters=(("vocabulary", 100),)), None)
    problem = Problem(row.batch)
    proposals, plan = propose(problem, names).found, Plan("softmax_gradient", 50, seed)
    return [t for n in SIZES if n <= budget for t in measured(problem, proposals, n, plan)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_page_opens_on_every_scenario(name: str) -> None:
    assert_readable(open_app("lab", **SCENARIOS[name]))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_question_comes_first_and_is_shuffled(lang: str) -> None:
    at = opened(lang)
    assert not figures(at)
    offered = list(at.radio(key="w.lab_guess").options)
    text = words(at)
    assert sorted(offered) == sorted(text(f"lab.{name}") for name in NAMES)
    assert offered != [text(f"lab.{name}") for name in NAMES]
    assert at.button(key="b.lab_reveal").disabled
    assert_readable(at)


@pytest.mark.parametrize(("guess", "lang"), [(name, "en" if i % 2 else "zh") for i, name in enumerate(PROPOSALS)])
def test_every_guess_gets_its_reply(guess: str, lang: str) -> None:
    at = opened(lang)
    if guess not in NAMES:
        at.session_state["view.lab_names"] = [*CHOSEN, guess]
        run(at)
    measure(at, guess)
    text = words(at)
    (said,) = (m.value for m in at.markdown if m.value.startswith(":gray["))
    assert text("learn.asking.your_answer", answer=text(f"lab.{guess}")) in said
    trials = expected(tuple(n for n in PROPOSALS if n in NAMES or n == guess))
    goal = attained(trials)
    assert goal is not None
    arrived = [e for e in efficiency(trials, goal) if e.reach.status != "not_reached"]
    best = min(arrived, key=lambda e: (e.reach.status != "at_once", e.reach.samples)).proposal
    assert text("page.lab.fewest", name=text(f"lab.{best}"), share=percent(goal, 0)) in said
    mine = next(e for e in efficiency(trials, goal, best) if e.proposal == guess)
    right = guess == best or mine.interval.low <= 1 <= mine.interval.high
    assert text(f"learn.asking.{'right' if right else 'wrong'}") in said
    assert_readable(at)


def test_curves_bars_and_table_are_the_core_s() -> None:
    at = measure(opened())
    trials = expected()
    found = figures(at)
    assert set(found) == {"lab", "closed", "moved", "path"}
    for name in NAMES:
        curve = [t for t in trials if t.proposal == name]
        drawn_ = trace(found["lab"], SYMBOLS[drawn.SYMBOL[name]].html)
        assert values(drawn_["x"]).tolist() == [t.samples for t in curve]
        assert values(drawn_["y"]) == pytest.approx([t.mean / t.ceiling for t in curve])
        assert values(drawn_["customdata"]) == pytest.approx(
            np.array([[t.interval.low / t.ceiling, t.interval.high / t.ceiling] for t in curve])
        )
    (bars,) = found["closed"]["data"]
    at_64 = sorted((t for t in trials if t.samples == 64), key=lambda t: -t.mean)
    assert values(bars["customdata"])[:, 0] == pytest.approx([t.mean / t.ceiling for t in at_64])
    goal = attained(trials)
    assert goal is not None
    table = at.dataframe[0].value
    for (_, line), e in zip(table.iterrows(), efficiency(trials, goal), strict=True):
        assert line.iloc[0] == words(at).plain(f"lab.short_{e.proposal}")
        assert line.iloc[1].lstrip("≤> ") == f"{e.reach.samples:,.0f}"
        trial = next(t for t in at_64 if t.proposal == e.proposal)
        assert line.iloc[5] == percent(trial.mean / trial.ceiling)
        assert (line.iloc[6], line.iloc[7]) == (percent(trial.away, 0), str(trial.diverged))
    assert sum(map(points, found.values())) < 4000
    assert_readable(at)


def test_the_reader_s_goal_moves_the_table() -> None:
    at = measure(opened())
    run(at.select_slider(key=goal_slider(at)).set_value(0.05))
    assert "5 %" in at.main.markdown[0].value
    needed = [e.reach.samples for e in efficiency(expected(), 0.05)]
    assert [x.lstrip("≤> ") for x in at.dataframe[0].value.iloc[:, 1]] == [f"{n:,.0f}" for n in needed]


def goal_slider(at: AppTest) -> str:
    (key,) = (str(s.key) for s in at.select_slider if "lab_goal" in str(s.key))
    return key


def test_a_repetition_is_played() -> None:
    at = measure(opened())
    run(at.number_input(key="w.view.lab_repetition").set_value(7))
    run(at.slider(key="w.view.lab_at.64").set_value(10))
    problem = Problem(synthetic("gaussian", vocabulary=100))
    (proposal,) = propose(problem, ("kl_symmetry",)).found
    trial = next(t for t in expected() if t.proposal == "kl_symmetry" and t.samples == 64)
    played = play(problem, proposal, 64, Plan("softmax_gradient", 50), trial.step, 6)
    assert played.progress[-1] == pytest.approx(trial.progress[6])
    path = figures(at)["path"]["data"]
    assert values(path[0]["y"]) == pytest.approx(played.progress / trial.ceiling)
    assert len(values(path[1]["y"])) == 11
    after = trace(figures(at)["moved"], SYMBOLS["updated"].html)
    assert values(after["x"]) == pytest.approx(played.policies[10])
    (said,) = (m.value for m in at.markdown if m.value.startswith("Sample 10 of 64"))
    assert percent(played.progress[10] / trial.ceiling) in said


def test_stop_keeps_what_is_measured_and_going_on_changes_no_number() -> None:
    at = opened()
    run(at.button(key="b.lab_skip").click())
    experiment(at).stop()
    finished(at)
    whole = experiment(at)
    if has(at, "button", "b.lab_run"):  # it may have been quicker than the stop
        run(at.button(key="b.lab_run").click())
        finished(at)
    found = whole.trials(*wanted(at))
    for mine, theirs in zip(found, expected(), strict=True):
        assert (mine.proposal, mine.samples, mine.step) == (theirs.proposal, theirs.samples, theirs.step)
        assert np.array_equal(mine.progress, theirs.progress)
    assert not has(at, "button", "b.lab_run")


def wanted(at: AppTest) -> tuple[Any, tuple[int, ...]]:
    row = compute.row(at.session_state["scenario"], None)
    found = compute.proposals(row.key, "importance", NAMES, 0.5, row.batch)
    return found.found, tuple(n for n in SIZES if n <= BUDGET)


def test_an_experiment_stops_between_trials_and_skips_what_it_has() -> None:
    problem = Problem(synthetic("gaussian", vocabulary=100))
    proposals = propose(problem, ("on_policy", "off_policy")).found
    one = Experiment(Setup("row", "importance", Plan(repetitions=5)))
    one.stop()
    assert not one.running
    one.start(problem, proposals[:1], (4, 16))
    one.wait(60)
    assert one.done(proposals, (4, 16)) == 2
    assert one.trials(proposals, (4, 16)) == ()
    first = one.trials(proposals[:1], (4, 16))
    one.start(problem, proposals, (4, 16))
    one.wait(60)
    assert [t.samples for t in one.trials(proposals, (16, 4))] == [16, 16, 4, 4]
    assert all(a is b for a, b in zip(first, one.trials(proposals[:1], (4, 16)), strict=True))


def test_another_seed_is_another_experiment() -> None:
    at = measure(opened())
    before = experiment(at)
    run(at.number_input(key="w.view.lab_seed").set_value(1))
    assert experiment(at) is not before
    assert has(at, "button", "b.lab_run")
    run(at.button(key="b.lab_run").click())
    finished(at)
    ours = experiment(at).trials(*wanted(at))
    assert all(np.array_equal(a.progress, b.progress) for a, b in zip(ours, expected(seed=1), strict=True))


def test_what_cannot_be_sampled_says_why() -> None:
    at = opened(source="gaussian", vocabulary="100", reference="uniform")
    text = words(at)
    captions = [c.value for c in at.caption]
    assert f"{text('lab.optimum')}: {text('claim.reason.reference')}" in captions


def test_the_same_as_on_policy_is_said() -> None:
    at = opened()
    at.session_state["view.lab_names"] = ["snr"]
    run(at)
    measure(at)
    text = words(at)
    assert text("page.lab.same", name=text("lab.snr")) in [c.value for c in at.caption]


def test_rows_without_anything_to_learn() -> None:
    for query in (IDENTICAL, DISJOINT, {"source": "top_k"}):
        at = open_app("lab", **query)
        assert not at.radio
        assert at.info or at.warning


def test_the_document_s_claims_stand_beside_it() -> None:
    at = opened()
    claims = [m.value for m in at.markdown if words(at)("claim.computed") in m.value]
    assert len(claims) == len(CLAIMS)


def test_the_script_to_take_away_measures_the_same() -> None:
    at = measure(opened())
    at.session_state["view.reproduce"] = True
    run(at)
    (code,) = at.main.code
    variables: dict[str, Any] = {}
    exec(compile(code.value, "script", "exec"), variables)
    trials = expected()
    assert [(t.proposal, t.samples) for t in variables["trials"]] == [(t.proposal, t.samples) for t in trials]
    for ours, theirs in zip(variables["trials"], trials, strict=True):
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-6, abs=1e-9)
    goal = attained(trials)
    assert f"efficiency(trials, {goal!r})" in code.value


# --- figures -----------------------------------------------------------------------------------------------------


def trial(name: str, n: int, progress: list[float]) -> Trial:
    return Trial(name, n, "seed_tilt", 1.0, np.array(progress), 1.0)


def test_what_diverges_is_not_drawn_to_scale() -> None:
    trials = [trial("on_policy", 4, [0.3, 0.5]), trial("uniform", 4, [-1e9, 0.5])]
    style = Style(catalogue("en"), "light")
    names = {"on_policy": "a", "uniform": "b"}
    both = (drawn.against_samples(style, trials, 0.2, 4), drawn.closed(style, trials, names))
    curves, bars = (figure.to_dict()["layout"] for figure in both)
    for low, high in (curves["yaxis"]["range"], bars["xaxis"]["range"]):
        assert low >= -1
        assert 0.5 <= high <= 1.05


def test_labels_at_the_ends_do_not_overlap() -> None:
    trials = [trial(name, n, [0.1, 0.1001]) for name in PROPOSALS for n in (4, 16)]
    layout = drawn.against_samples(Style(catalogue("zh"), "dark"), trials, 0.05, 4).to_dict()["layout"]
    low, high = layout["yaxis"]["range"]
    ends = sorted(a["y"] for a in layout["annotations"] if a.get("xref") == "x domain")
    assert len(ends) == len(PROPOSALS)
    assert min(np.diff(ends)) > 0.05 * (high - low)
    assert ends[-1] <= high


def test_tokens_are_shown_as_text() -> None:
    problem, plan = Problem(synthetic("gaussian", vocabulary=10)), Plan(repetitions=2)
    (proposal,) = propose(problem, ("on_policy",)).found
    played = play(problem, proposal, 4, plan, 1.0)
    hostile = ["<b>x</b>"] * len(played.watched)
    target = problem.log_target.exp().numpy()[played.watched]
    figure = drawn.tokens_moved(Style(catalogue("en"), "light"), played, 2, hostile, target, "on_policy").to_dict()
    assert set(figure["layout"]["yaxis"]["ticktext"]) == {html.escape("<b>x</b>")}


def test_data_to_take_away() -> None:
    trials = [trial("on_policy", 4, [0.3, 0.5]), trial("uniform", 4, [-1.0, 0.5])]
    lines = export.to_csv(export.trials(trials)).splitlines()
    assert lines[0] == "samples_of,N,estimator,eta,repetition,progress_nats,share_of_kl"
    assert lines[3] == "uniform,4,seed_tilt,1.0,1,-1.0,-1.0"
    problem, plan = Problem(synthetic("gaussian", vocabulary=10)), Plan(repetitions=2)
    (proposal,) = propose(problem, ("on_policy",)).found
    played = play(problem, proposal, 4, plan, 1.0)
    target = problem.log_target.exp().numpy()[played.watched]
    moved = export.to_csv(export.moved(played, 4, ["t"] * 10, target)).splitlines()
    assert moved[0] == "token_id,token_json,p_theta,p_target,p_updated,drawn"
    assert sum(int(line.rsplit(",", 1)[1]) for line in moved[1:]) == 4
    path = export.to_csv(export.played(played, problem.ceiling)).splitlines()
    assert path[1] == "0,,0.0,0.0"
    assert len(path) == 6
