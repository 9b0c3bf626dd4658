"""A table in which readers write their own pair of policies."""

import math

import pandas as pd
import streamlit as st

from geomix_app import compute, shell, state
from geomix_app.scenario import CUSTOM, MAX_TABLE_ROWS, TableRow
from geomix_app.shell import View
from geomix_core.errors import GeomixError


def table(view: View) -> None:
    """Token names and weights; nothing changes until they are applied, and only if they make two policies."""
    words, scenario = view.words, view.scenario
    st.caption(words("edit_intro"))
    with st.form("editor", border=False):
        kind = st.segmented_control(
            words("table_kind"),
            ["probs", "logits"],
            default=scenario.table_kind,
            format_func=words,
            required=True,
        )
        columns = ["token", "theta", "target"] + (["reference"] if scenario.own_reference else [])
        edited = st.data_editor(
            pd.DataFrame([[getattr(r, c) for c in columns] for r in scenario.table], columns=columns),
            num_rows="dynamic",
            hide_index=True,
            key="editor_table",
            column_config={
                "token": st.column_config.TextColumn(
                    view.text.plain("page.policies.column_token"), required=True, max_chars=80
                ),
                "theta": st.column_config.NumberColumn(view.text.plain("page.policies.column_theta"), required=True),
                "target": st.column_config.NumberColumn(view.text.plain("page.policies.column_target"), required=True),
                "reference": st.column_config.NumberColumn(
                    view.text.plain("page.policies.column_reference"), required=True
                ),
            },
        )
        if st.form_submit_button(words("apply"), type="primary"):
            _apply(view, edited, str(kind))


def _apply(view: View, edited: pd.DataFrame, kind: str) -> None:
    """Show the table's policies if there are any in it; otherwise say why not, and keep the scenario."""
    rows = tuple(TableRow(str(token), *map(_number, weights)) for token, *weights in edited.itertuples(index=False))
    if not 1 <= len(rows) <= MAX_TABLE_ROWS:
        st.error(view.text("error.table_size", limit=MAX_TABLE_ROWS, found=len(rows)))
        return
    wanted = {"source": CUSTOM, "table": rows, "table_kind": kind, "row": 0, "parameters": ()}
    try:
        compute.check(state.preview(**wanted))
    except GeomixError as error:
        st.error(shell.message(view.text, error), icon=":material/error:")
        return
    state.update(**wanted)
    st.rerun()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
