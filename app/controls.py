"""The controls that every page shares: the scenario in the sidebar."""

from __future__ import annotations

import numpy as np
import streamlit as st

from geomix_app import state
from geomix_app.catalogue import LANGUAGES, Catalogue
from geomix_app.scenario import CUSTOM, REAL, SOURCES, UPLOAD, Reshape
from geomix_core.progress import WEIGHTS
from geomix_core.scenarios import FAMILIES, REFERENCES, Parameter, real_rows


def scenario(text: Catalogue) -> None:
    """Language, policies, row, reference, weights, reshaping: the sidebar."""
    st.segmented_control(
        text("app.language"),
        list(LANGUAGES),
        format_func=lambda code: LANGUAGES[code],
        label_visibility="collapsed",
        required=True,
        **state.bind("language"),
    )
    st.selectbox(
        text("source.label"),
        [s for s in SOURCES if s != UPLOAD or state.upload() is not None or state.scenario().source == UPLOAD],
        format_func=lambda source: text.plain(f"source.{source}"),
        help=text("source.help"),
        **state.bind("source"),
    )
    _source_options(text)
    _reference(text)
    st.segmented_control(
        text("control.weights"),
        list(WEIGHTS),
        format_func=lambda w: text(f"weights.{w}"),
        help=text("control.weights_help"),
        required=True,
        **state.bind("weights"),
    )
    _reshape(text)


def _source_options(text: Catalogue) -> None:
    source = state.scenario().source
    if source == REAL:
        prompts = real_rows().prompts
        _keep_row_within(len(prompts) - 1)
        st.selectbox(
            text("control.row_real"),
            range(len(prompts)),
            format_func=lambda i: f"{i + 1} · {prompts[i].prompt}",
            **state.bind("row"),
        )
    elif source == UPLOAD:
        data = state.upload()
        if data is not None and len(data) > 1:
            last = len(data) - 1
            _keep_row_within(last)
            st.number_input(text("control.row_upload", last=last), 0, last, step=1, **state.bind("row"))
    elif source != CUSTOM:
        for parameter in FAMILIES[source].parameters:
            _parameter(text, parameter)


def _keep_row_within(last: int) -> None:
    """A link may name a row that this source does not have: it then gets the last."""
    if state.scenario().row > last:
        state.update(row=last)


def _parameter(text: Catalogue, p: Parameter) -> None:
    label, binding = text(f"parameter.{p.name}"), state.bind(f"parameters.{p.name}")
    value = state.scenario().parameter(p.name)
    if p.choices:
        options = sorted({*map(float, p.choices), value})
        st.select_slider(label, options, format_func=lambda x: f"{x:,.0f}" if p.whole else f"{x:g}", **binding)
    elif p.name == "distance":
        options = sorted({*(float(f"{x:.2g}") for x in np.logspace(-3, np.log10(4), 40)), value})
        st.select_slider(label, options, format_func=lambda x: f"{x:.3g}", **binding)
    elif p.name == "seed":
        st.number_input(label, float(p.low), float(p.high), step=1.0, format="%.0f", **binding)
    else:
        st.slider(label, float(p.low), float(p.high), step=float(p.step), format="%.0f" if p.whole else None, **binding)


def _reference(text: Catalogue) -> None:
    data = state.upload()
    if state.scenario().source == UPLOAD and data is not None and data.pair.reference is not None:
        st.caption(text("control.reference_upload"))
        return
    if state.scenario().own_reference:
        st.caption(text("control.reference_table"))
        return
    st.selectbox(
        text("control.reference"),
        REFERENCES,
        format_func=lambda r: text.plain(f"reference.{r}"),
        help=text("control.reference_help"),
        **state.bind("reference"),
    )


def _reshape(text: Catalogue) -> None:
    now = state.scenario()
    active = now.theta != Reshape() or now.target != Reshape() or now.epsilon > 0
    with st.expander(text("control.reshape_on" if active else "control.reshape"), key="reshape"):
        for policy in ("theta", "target"):
            st.markdown(f"**{text(f'control.of_{policy}')}**")
            st.slider(text("control.temperature"), 0.05, 4.0, step=0.05, **state.bind(f"{policy}.temperature"))
            cut, nucleus = st.columns(2)
            cut.number_input(text("control.top_k"), 0, None, step=1, **state.bind(f"{policy}.top_k"))
            nucleus.number_input(text("control.top_p"), 0.01, 1.0, step=0.01, **state.bind(f"{policy}.top_p"))
        st.select_slider(
            text("control.epsilon"),
            sorted({0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, now.epsilon}),
            format_func=lambda x: f"{x:g}",
            help=text("control.epsilon_help"),
            **state.bind("epsilon"),
        )
