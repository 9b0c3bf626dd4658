"""What was found in the files, before anything is solved: which array is which, what they hold, what looks odd."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import Catalogue
from geomix_app.notation import SYMBOLS, number
from geomix_app.views import uploads
from geomix_core.errors import GeomixError
from geomix_core.file_words import shape_of, show
from geomix_core.files import ROLES, Role
from geomix_core.found import Found
from geomix_core.inspection import ArrayReport
from geomix_core.kinds import KINDS, Finding, Kind

_SYMBOLS = {"theta": SYMBOLS["theta"].latex, "target": SYMBOLS["target"].latex, "reference": r"\pi_{\mathrm{ref}}"}
_HARD = "\u00a0"
"""A space that does not break a line."""


def headline(text: Catalogue, brought: Found) -> None:
    """What the rows are, in one line, and the ways to correct it; what is not settled yet."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if brought.pair is not None:
            st.markdown(uploads.described(text, brought), width="content")
            st.button(text("page.validate.swap"), on_click=_swap, args=(brought,), icon=":material/swap_vert:")
        uploads.replace_button(text, "validate")
    if brought.problem:
        message = shell.plain(brought.problem)
        st.warning(text("page.validate.unsettled_roles", message=message), icon=":material/help:")
    elif brought.kind is None:
        st.warning(text("page.validate.unsettled_kind"), icon=":material/help:")
    elif not state.runs():
        _advice(text, brought)


def report(text: Catalogue, brought: Found) -> None:
    """What is in the files and why it was taken for what it was; and the reader's own word on it."""
    if brought.pair is not None:
        st.markdown("\n".join(_table(text, brought)))
        st.markdown("\n".join(f"- {words}" for words in _words(text, brought)))
        if state.runs():
            _advice(text, brought)
    _change(text, brought)


def _advice(text: Catalogue, brought: Found) -> None:
    for advice in brought.inspection.suggestions:
        if not (advice.code.startswith("kind") and brought.kind_by == "reader"):
            st.info(text(f"advice.{advice.code}", **advice.numbers), icon=":material/lightbulb:")


def _table(text: Catalogue, brought: Found) -> Iterator[str]:
    """A line an array, in Markdown."""
    heads = ("policy", "array", "shape", "kind", "values", "support", "masked", "bad", "repeated")
    yield "| " + " | ".join(text(f"page.validate.{head}") for head in heads) + " |"
    yield "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for x in brought.inspection.arrays:
        cells = (
            f"${_SYMBOLS[x.role]}$",
            uploads.name_of(x.name),
            f"{shape_of(x.shape)} {x.dtype}".replace(" ", _HARD),
            text(f"page.validate.kind_{x.finding.kind}"),
            f"{number(x.lowest)}{_HARD}…{_HARD}{number(x.highest)}",
            f"{x.support[0]:,}" if x.support[0] == x.support[1] else f"{x.support[0]:,}{_HARD}…{_HARD}{x.support[1]:,}",
            *(_count(n) for n in (x.masked, x.nan_rows + x.inf_rows + x.empty_rows, x.repeated)),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _count(count: int) -> str:
    return f"**{count:,}**" if count else "0"


def _words(text: Catalogue, brought: Found) -> Iterator[str]:
    """Why, and what is odd about the pair."""
    found = brought.inspection
    yield text(f"page.validate.by_{found.assigned_by}")
    kind = text(f"page.validate.kind_{brought.kind or 'unclear'}")
    if brought.kind_by == "reader":
        yield text("page.validate.kind_by_reader", kind=kind)
    else:
        for x in _first_of_each_kind(found.arrays):
            why = _why(text, x.finding)
            yield text("page.validate.kind_by_numbers", kind=text(f"page.validate.kind_{x.finding.kind}"), why=why)
    for name in ("identical", "theta_lacks", "target_lacks", "disjoint"):
        count = getattr(found, name)
        if count:
            yield text(f"page.validate.{name}", count=f"**{count:,}**")
    for x in found.arrays:
        if x.far:
            yield f"{uploads.name_of(x.name)}: {text('page.validate.far', count=f'{x.far:,}')}"
    if brought.tokens is not None:
        yield text("page.validate.tokens_known", count=f"{len(brought.tokens):,}")


def _first_of_each_kind(arrays: tuple[ArrayReport, ...]) -> list[ArrayReport]:
    return list({x.finding.kind: x for x in reversed(arrays)}.values())


def _why(text: Catalogue, seen: Finding) -> str:
    centre = 1.0 if seen.kind == "probs" else 0.0
    return text(
        f"page.validate.why_{seen.kind}",
        low=number(seen.low),
        high=number(seen.high),
        error=number(max(abs(seen.low - centre), abs(seen.high - centre)), 1),
        looked=f"{seen.looked:,}",
    )


def _change(text: Catalogue, brought: Found) -> None:
    """The reader's own word on roles, kind and names."""
    _roles(text, brought)
    if brought.pair is None:
        return
    left, right = st.columns([2, 3], gap="medium")
    with left:
        kind = st.segmented_control(
            text("page.validate.kind"),
            KINDS,
            default=brought.kind,
            format_func=lambda k: text(f"page.validate.kind_{k}"),
            key=f"kind.{brought.kind}.{brought.kind_by}",
        )
        if kind is not None and kind != brought.kind:
            _choose_kind(brought, kind)
    with right:
        file = st.file_uploader(text("page.validate.tokens"), type=["json", "jsonl"], key=f"names.{brought.named}")
        if file is not None:
            uploads.take_names(text, brought, file)


def _roles(text: Catalogue, brought: Found) -> None:
    """A selector a policy; taken over once θ and target are different arrays."""
    labels = list(brought.arrays)
    chosen: dict[Role, str] = {}
    for column, role in zip(st.columns(len(ROLES), gap="medium"), ROLES, strict=True):
        # By number, since a stranger's label may be no text that can be sent to a browser.
        options = range(-1 if role == "reference" else 0, len(labels))
        now = labels.index(brought.roles[role]) if role in brought.roles else -1
        place = column.selectbox(
            text(f"page.validate.role_{role}"),
            options,
            index=options.index(now) if now in options else None,
            format_func=lambda i: _option(brought, "" if i < 0 else labels[i]),
            key=f"role.{role}.{now}",
        )
        if place is not None and place >= 0:
            chosen[role] = labels[place]
    if chosen != dict(brought.roles) and {"theta", "target"} <= chosen.keys():
        try:
            changed = brought.with_roles(chosen)
        except GeomixError as error:
            st.error(shell.message(text, error), icon=":material/error:")
            return
        state.set_found(changed)
        st.rerun()


def _option(brought: Found, label: str) -> str:
    return f"{show(label)} {shape_of(brought.arrays[label])}" if label else "—"


def _choose_kind(brought: Found, kind: Kind) -> None:
    state.set_found(brought.with_kind(kind))
    st.rerun()


def _swap(brought: Found) -> None:
    roles = dict(brought.roles)
    roles["theta"], roles["target"] = roles["target"], roles["theta"]
    state.set_found(brought.with_roles(roles))
