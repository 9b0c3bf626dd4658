"""One catalogue in two languages: the same keys and placeholders; every key that the code asks for, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

import pytest
from apptest import PAGES

from geomix_app.catalogue import LANGUAGES, catalogue, entries
from geomix_app.explorer.component import ROWS
from geomix_app.scenario import SOURCES
from geomix_app.shell import written
from geomix_app.views.home import WAYS
from geomix_core.claims import CLAIMS, Outcome, Setting, Verdict, check_all
from geomix_core.claims.rows import section_5_4_alpha_over_rows
from geomix_core.claims.words import reasons, words
from geomix_core.datasets import bundled
from geomix_core.files import ROLES
from geomix_core.fixed_alpha import CHOICES
from geomix_core.inspection import ADVICE
from geomix_core.intervals import COLUMNS as INTERVALS
from geomix_core.kinds import KINDS
from geomix_core.overview import REASONS, joined
from geomix_core.policies import PolicyBatch
from geomix_core.progress import WEIGHTS
from geomix_core.results import COLUMNS, CRITERIA, Plan, solve_chunks
from geomix_core.scenarios import FAMILIES, REFERENCES, synthetic
from geomix_core.status import Status
from geomix_core.tails import TailStatus

ROOT = Path(__file__).resolve().parent.parent
KEYS = entries("en")


# --- the two languages -------------------------------------------------------------------------------------------


def test_languages_have_the_same_keys() -> None:
    assert set(LANGUAGES) == {"en", "zh"}
    en, zh = entries("en"), entries("zh")
    assert sorted(en.keys() - zh.keys()) == []
    assert sorted(zh.keys() - en.keys()) == []


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", KEYS)
def test_languages_have_the_same_placeholders(key: str) -> None:
    en, zh = (placeholders(entries(language)[key]) for language in ("en", "zh"))
    assert en == zh
    assert "" not in en


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_empty_or_padded(language: str) -> None:
    assert [k for k, v in entries(language).items() if not v.strip() or v != v.strip() or "\n" in v] == []


def test_chinese_speaks_chinese() -> None:
    # Formulas, units of the interface that stay Latin, and names are no sentences.
    english = [k for k, v in entries("zh").items() if v == KEYS[k] and re.search(r"[a-z]{3,} [a-z]{2,}", v)]
    assert english == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_entry_renders_in_every_form(language: str) -> None:
    text = catalogue(language)
    for key, raw in entries(language).items():
        filled = dict.fromkeys(placeholders(raw), "7")
        for rendered in (text(key, **filled), text.html(key, **filled), text.plain(key, **filled)):
            assert rendered
            assert "{" not in re.sub(r"\$[^$]*\$", "", rendered)
        assert "$" not in text.html(key, **filled)


def test_values_are_not_taken_for_placeholders() -> None:
    assert catalogue("en").plain("upload.rejected", name="{message}", message="{0}").startswith("{message} ")


NUMBER = re.compile(r"(?<![\w.])\d+[.,]\d+|\d{2,}|\d+ ?%")
SETTINGS = {
    "notice.smooth_now": {"0.001"},  # what the button sets
    "lab.defensive": {"90", "10"},  # what the distribution is
    "page.lab.about_defensive": {"10"},
    "tail.determined_says": {"0.01"},  # the width that is asked for
    "page.claims.census_interval": {"95"},
    "page.claims.study_ratio": {"95"},
    "page.lab.column_needed_between": {"95"},
    "page.lab.column_factor_between": {"95"},
    "explorer.says_kls_both": {"100"},  # "of 100 samples, so many"
    "explorer.says_kls_target": {"100"},
    "explorer.says_kls_theta": {"100"},
    "page.validate.example_says": {"135"},  # names
    "page.validate.mixture_help": {"32"},
    "page.validate.crosscheck_result": {"64"},
}
"""Numbers that a text may have: settings, levels of confidence, names. No measured one is among them."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_measured_number_stands_in_a_text(language: str) -> None:
    """Sections apart, what a reader is told in numbers comes from the core when the page is made."""

    def numbers(raw: str) -> set[str]:
        left = re.sub(r"\{\w+\}|§\d+(?:\.\d+)?(?:[–-]\d+(?:\.\d+)?)?|<[^>]+>", "", raw)
        return {n.rstrip(" %") for n in NUMBER.findall(left)}

    told = entries(language)
    for key, raw in told.items():
        claim, _, field = key.rpartition(".")
        if field in ("says", "test", "needs", "proof") and key.startswith("claim."):
            continue  # the document's words, the tolerance of a test, literature
        allowed = SETTINGS.get(key, set())
        if field in ("holds", "fails") and claim.startswith("claim."):
            allowed = numbers(told[f"{claim}.says"]) | numbers(told[f"{claim}.test"])
        assert numbers(raw) <= allowed, (key, raw)


# --- what the code asks for --------------------------------------------------------------------------------------

SCREEN = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("pages/*.py")])
ASKING = {"text", "words", "plain", "html"}
ANY = "[^.]+"


def prefix_of(path: Path) -> str:
    """What `words` adds to a key: nothing in figures, the page's own section elsewhere."""
    if "figures" in path.parts:
        return ""
    page = {"editor": "policies", "validation": "validate"}.get(path.stem, path.stem)
    return f"page.{page}." if page in PAGES else ""


def patterns(node: ast.expr) -> Iterator[str]:
    """The keys that an expression can be, as regular expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    elif isinstance(node, ast.IfExp):
        yield from patterns(node.body)
        yield from patterns(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        variants = [""]
        for place, part in enumerate(node.values):
            if isinstance(part, ast.FormattedValue):
                # A variable in front may hold several parts ("claim.theorem_4"), any other holds one.
                free = [ANY] if place else [f"(?:{ANY}\\.)*{ANY}"]
                ends = list(patterns(part.value)) if isinstance(part.value, ast.IfExp) else free
            else:
                ends = [re.escape(str(part.value))] if isinstance(part, ast.Constant) else []
            variants = [v + end for v in variants for end in ends]
        yield from variants


def asked() -> Iterator[tuple[str, str, bool]]:
    """(where, pattern, literal) for every key that the screen's sources ask a catalogue for."""
    for path in SCREEN:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            of_streamlit = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "st"
            if name not in ASKING or of_streamlit:
                continue
            prefix = prefix_of(path) if name == "words" else ""
            for pattern in patterns(node.args[0]):
                literal = ANY not in pattern
                # A key made of variables alone says nothing; the families below say what it can be.
                if literal or re.search("[a-z]", pattern.replace(ANY, "").replace("page", "")):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", re.escape(prefix) + pattern, literal


def test_scan_sees_the_sources() -> None:
    found = list(asked())
    assert len([1 for *_, literal in found if literal]) > 80
    assert {w.split(":")[0].split("/")[0] for w, *_ in found} == {"app", "pages"}


def test_every_literal_key_exists() -> None:
    missing = [(w, p) for w, p, literal in asked() if literal and not any(re.fullmatch(p, key) for key in KEYS)]
    assert missing == []


def test_every_composed_key_has_an_entry() -> None:
    missing = [(w, p) for w, p, literal in asked() if not literal and not any(re.fullmatch(p, key) for key in KEYS)]
    assert missing == []


def families() -> dict[str, set[str]]:
    """Keys that are composed at run time, from the enumerations that they are composed of."""
    compared = [name for name, claim in CLAIMS.items() if claim.measure is not None]
    assert len(compared) >= 30
    parameters = {p.name for f in FAMILIES.values() for p in f.parameters}
    offered = {"policies": {"probs", "logits"}}
    return {
        "navigation": {f"nav.{p}" for p in PAGES} | {f"page.{p}.title" for p in PAGES},
        "statuses": {f"status.{s}" for s in (*Status, "invalid")},
        "names of statuses": {f"status_name.{s}" for s in (*Status, "invalid")},
        "outcomes": {f"claim.{o}" for o in Outcome},
        "sources": {f"source.{s}" for s in SOURCES},
        "parameters": {f"parameter.{p}" for p in parameters},
        "references": {f"reference.{r}" for r in REFERENCES},
        "weights": {f"weights.{w}" for w in WEIGHTS},
        "claims": {f"claim.{c}.{k}" for c in CLAIMS for k in ("where", "says", "test")},
        "hypotheses and proofs": {
            f"claim.{c}.{k}" for c in CLAIMS for k in ("needs", "proof") if getattr(words(c, "en"), k)
        },
        "findings": {f"claim.{c}.{k}" for c in compared for k in (Outcome.HOLDS, Outcome.FAILS)},
        "reasons": {f"claim.reason.{reason}" for reason in reasons()},
        "choices": {f"explorer.choice_{c}" for c in ROWS},
        "kinds of table": {f"page.policies.{k}" for k in offered["policies"]},
        "ways in": {f"page.home.{w}" for w in WAYS},
        "paths": {f"path.{p}" for p in ("e_geodesic", "m_geodesic", "fisher_rao")},
        "assignment": {f"page.validate.by_{how}" for how in ("name", "order", "reader")},
        "roles": {f"page.validate.role_{role}" for role in ROLES},
        "kinds": {f"page.validate.{k}_{kind}" for k in ("kind", "why") for kind in (*KINDS, "unclear")},
        "advice": {f"advice.{code}" for code in ADVICE},
        "attention": {f"page.validate.attention_{reason}" for reason in REASONS if reason},
        "losses": {f"page.validate.loss_{c}" for c in CRITERIA} | {f"page.validate.choice_{c}" for c in CHOICES},
        "tails": {f"tail.{s}{says}" for s in TailStatus for says in ("", "_says")},
    }


@pytest.mark.parametrize("family", families())
def test_every_member_of_a_family_has_an_entry(family: str) -> None:
    assert sorted(families()[family] - KEYS.keys()) == []


CLOSED = (
    "advice",
    "tail",
    "nav",
    "status",
    "status_name",
    "source",
    "parameter",
    "reference",
    "weights",
    "path",
    "claim.reason",
)


@pytest.mark.parametrize("section", CLOSED)
def test_no_entry_is_left_of_a_member_that_went(section: str) -> None:
    known = set().union(*families().values()) | {p.replace("\\", "") for _, p, literal in asked() if literal}
    assert sorted(k for k in KEYS if k.startswith(f"{section}.") and k not in known) == []


def test_every_column_of_the_tables_is_one_of_the_results() -> None:
    columns = {k.removeprefix("column.") for k in KEYS if k.startswith("column.")}
    assert columns <= {*COLUMNS, *INTERVALS, "attention", "prompt"}


def test_every_error_code_that_the_app_raises_has_words() -> None:
    codes = {
        str(node.exc.args[0].value)
        for path in SCREEN
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and node.exc.args
        and isinstance(node.exc.args[0], ast.Constant)
        and getattr(node.exc.func, "id", "").endswith("Error")
        and re.fullmatch(r"[a-z_]+", str(node.exc.args[0].value))
    }
    assert "upload_missing" in codes
    assert sorted(f"error.{c}" for c in codes if f"error.{c}" not in KEYS) == []


def test_every_entry_is_used() -> None:
    known = set().union(*families().values())
    patterns_ = {p for _, p, _ in asked()}
    # "control.…" would pass for a use of the whole section: its members must stand somewhere by name. So must the
    # codes of errors, which come from what was raised.
    whole = {p for p in patterns_ if re.fullmatch(r"[a-z]+\\\.\[\^\.\]\+", p)}
    used = [re.compile(p) for p in patterns_ - whole]
    sections = [re.compile(p) for p in (*whole, rf"error\.{ANY}")]
    sources = "\n".join(path.read_text("utf-8") for path in SCREEN)

    def is_used(key: str) -> bool:
        if key in known or any(p.fullmatch(key) for p in used):
            return True
        by_name = any(p.fullmatch(key) for p in sections) and f'"{key.rsplit(".", 1)[-1]}"' in sources
        # A key may also travel through a variable, in full.
        return by_name or f'"{key}"' in sources

    assert whole
    unused = [key for key in KEYS if not is_used(key)]
    assert not unused, "\n".join(unused)


# --- claims ------------------------------------------------------------------------------------------------------

CLAIM_KEYS = [key for key in KEYS if key.startswith("claim.")]


def test_claims_speak_with_the_core_s_words() -> None:
    for language in LANGUAGES:
        of_claims = {k: v for k, v in entries(language).items() if re.match(r"claim\.\w+\.", k)}
        told = {
            f"claim.{name}.{field}": getattr(words(name, language), field)
            for name in CLAIMS
            for field in ("where", "says", "test", "needs", "proof", "holds", "fails")
        }
        assert {k: v for k, v in of_claims.items() if not k.startswith("claim.reason.")} == {
            k: v for k, v in told.items() if v
        }


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", CLAIM_KEYS)
def test_claims_leave_nothing_to_markdown(key: str, language: str) -> None:
    raw = entries(language)[key]
    rendered = catalogue(language)(key, **dict.fromkeys(placeholders(raw), "7"))
    assert "$$" not in rendered
    prose = re.sub(r"\$[^$]*\$|\*\*", "", rendered)
    # A symbol that notation does not know would stay as typed, or be taken for emphasis; brackets for a link.
    assert [mark for mark in ("_", "*", "`", "](", "<b", "\\", "$") if mark in prose] == []


@cache
def verdicts() -> tuple[Verdict, ...]:
    """All claims checked on rows that between them hold, fail and do not apply."""
    rows = [
        synthetic("gaussian"),
        synthetic("two_tokens"),
        synthetic("top_k"),
        synthetic("near_identical", sigma=1e-6),
        PolicyBatch.from_probs([0.5, 0.5], [0.5, 0.5]),
    ]
    return tuple(
        found.verdict(0) for row in rows for w in WEIGHTS for found in check_all(row, Setting(weights=w)).values()
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_is_told_in_numbers(language: str) -> None:
    text = catalogue(language)
    decided = [v for v in verdicts() if v.outcome is not Outcome.DOES_NOT_APPLY]
    assert {v.claim for v in decided} == {name for name, claim in CLAIMS.items() if claim.measure is not None}
    for v in decided:
        told = text.plain(f"claim.{v.claim}.{v.outcome}", **written(v))
        assert not re.search(r"\b(nan|inf|None)\b|[{}]", told), told
    silent = [v for v in verdicts() if v.outcome is Outcome.DOES_NOT_APPLY]
    assert silent
    assert [v for v in silent if f"claim.reason.{v.reason}" not in text] == []


@pytest.mark.parametrize(
    ("claim", "name", "value", "as_written"),
    [
        ("theorem_4_exists", "alpha", 0.51744, "0.5174"),
        ("theorem_3_minimax", "alpha_wald", 1.0, "1.0000"),
        ("theorem_3_minimax", "eta_low", 0.5, "0.5"),
        ("theorem_4_exists", "low", 0.5, "0.500000000000"),
        ("theorem_4_exists", "at_one", -0.0797, "−0.0797"),
        ("section_4_3_ends", "off_theta", 0.48664, "48.7 %"),
        ("section_5_1_search", "found", 0.25, "0.2500"),
        ("section_5_1_search", "maxima", 2.0, "2"),
        ("section_5_4_alpha", "gap", 0.48257, "0.4826"),
        ("section_5_4_snr", "loss", 0.4558, "45.6 %"),
        ("section_5_4_snr", "at_kl", 0.17651, "0.177"),
        ("section_6_2_stable", "listed", 0.5, "0.5000"),
        ("section_6_2_stable", "error", 0.4996, "0.4996"),
        ("section_6_5_off_policy", "ess_at_kl", 0.9486, "94.9 %"),
        ("section_6_5_uniform", "tokens", 152000.0, "152,000"),
        ("section_6_5_uniform", "accepted", 2.351e-5, "0.00235 %"),
        ("section_7_3_efficiency", "repetitions", 2048.0, "2,048"),
        ("section_7_3_efficiency", "doubled", 32.0, "32"),
        ("section_7_3_efficiency", "gain_error", 2.325e-5, "2.32×10⁻⁵"),
        ("section_7_3_efficiency", "samples", 16.0, "16"),
        ("section_4_2_shortest", "excess", 0.02617, "2.62 %"),
        ("theorem_1", "remainder", 3.757e-8, "3.76×10⁻⁸"),
    ],
)
def test_numbers_of_a_finding_are_written_as_what_they_are(
    claim: str, name: str, value: float, as_written: str
) -> None:
    assert name in {n for v in verdicts() if v.claim == claim for n in v.numbers}
    assert written(Verdict(claim, Outcome.HOLDS, numbers={name: value})) == {name: as_written}


def test_every_alpha_and_share_of_a_claim_is_written_as_one() -> None:
    for v in verdicts():
        told = written(v)
        for name, value in v.numbers.items():
            if name.startswith("alpha"):
                assert told[name] == f"{value:.4f}"
            if name in ("loss", "excess", "share", "apart", "accepted", "rejected", "drift"):
                assert told[name].endswith(" %")


@pytest.mark.parametrize("language", LANGUAGES)
def test_agreement_over_many_rows_is_told(language: str) -> None:
    table = joined(list(solve_chunks(bundled().pair, Plan())))
    found = section_5_4_alpha_over_rows(table)
    assert placeholders(entries(language)["page.validate.agree"]) == found.numbers.keys()
    assert written(found) == {"near": "0", "rows": "8", "share": "0 %"}
    nothing = section_5_4_alpha_over_rows(table | {"status": ["invalid"] * 8})
    assert f"claim.reason.{nothing.reason}" in entries(language)
