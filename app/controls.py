"""The controls that every page shares: the scenario in the sidebar, and the bars for α and η."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from geomix_app import compute, state
from geomix_app.catalogue import LANGUAGES, Catalogue
from geomix_app.scenario import CUSTOM, REAL, SOURCES, UPLOAD, Reshape
from geomix_core.progress import WEIGHTS
from geomix_core.scenarios import FAMILIES, REFERENCES, Parameter, real_rows

ETA_CHOICES = tuple(float(f"{x:.3g}") for x in np.logspace(-3, 2, 201))
"""Learning rates from 0.001 to 100, forty to a decade."""


def sidebar(text: Catalogue) -> None:
    """Language, policies, row, reference, weights, reshaping."""
    with st.sidebar:
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
            format_func=lambda source: text(f"source.{source}"),
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


def alpha_bar(text: Catalogue, marks: Mapping[str, float | None]) -> None:
    """The α slider with buttons that set it to marked values (None: that mark does not exist here)."""
    slider, buttons = st.columns([5, 4], vertical_alignment="bottom", gap="medium")
    slider.slider(
        text("control.alpha"),
        0.0,
        1.0,
        step=0.0001,
        format="%.4f",
        help=text("control.alpha_help"),
        **state.bind("alpha"),
    )
    shown = {
        "snap_target": 0.0,
        "snap_kl": marks.get("kl"),
        "snap_half": 0.5,
        "snap_snr": marks.get("snr"),
        "snap_theta": 1.0,
    }
    with buttons.container(horizontal=True, gap="small"):
        for name, value in shown.items():
            if value is not None:
                st.button(
                    text(f"control.{name}"),
                    key=f"b.{name}",
                    on_click=state.update,
                    kwargs={"alpha": round(value, 4)},
                    help=f"α = {value:.4f}",
                )


def eta_bar(text: Catalogue, marks: Mapping[str, float]) -> None:
    """The η slider (logarithmic) with buttons that set it to η* and to the exact optimum."""
    slider, buttons = st.columns([5, 4], vertical_alignment="bottom", gap="medium")
    current = state.scenario().eta
    slider.select_slider(
        text("control.eta"),
        sorted({*ETA_CHOICES, current}),
        format_func=lambda eta: f"{eta:.4g}",
        help=text("control.eta_help"),
        **state.bind("eta"),
    )
    with buttons.container(horizontal=True, gap="small"):
        for name, value in marks.items():
            if np.isfinite(value) and 0 < value <= 1000:
                st.button(
                    text(f"control.{name}"),
                    key=f"b.{name}",
                    on_click=state.update,
                    kwargs={"eta": float(f"{value:.6g}")},
                    help=f"η = {value:.4g}",
                )


def log_scale(text: Catalogue) -> bool:
    """Whether probabilities are drawn on a logarithmic scale."""
    chosen = st.segmented_control(
        text("control.scale"),
        ["linear", "log"],
        format_func=lambda s: text(f"control.scale_{s}"),
        label_visibility="collapsed",
        required=True,
        **state.bind_view("scale", "linear"),
    )
    return chosen == "log"


def _source_options(text: Catalogue) -> None:
    scenario = state.scenario()
    if scenario.source == REAL:
        prompts = real_rows().prompts
        st.selectbox(
            text("control.row_real"),
            range(len(prompts)),
            format_func=lambda i: f"{i + 1} · {prompts[i].prompt}",
            **state.bind("row"),
        )
    elif scenario.source == UPLOAD:
        pair = state.upload()
        if pair is not None and len(pair.theta) > 1:
            last = len(pair.theta) - 1
            st.number_input(text("control.row_upload", last=last), 0, last, step=1, **state.bind("row"))
    elif scenario.source != CUSTOM:
        for parameter in FAMILIES[scenario.source].parameters:
            _parameter(text, parameter)


def _parameter(text: Catalogue, p: Parameter) -> None:
    label, binding = text(f"parameter.{p.name}"), state.bind(f"parameters.{p.name}")
    value = state.scenario().parameter(p.name)
    if p.choices:
        options = sorted({*p.choices, value})
        st.select_slider(label, options, format_func=lambda x: f"{x:,.0f}" if p.whole else f"{x:g}", **binding)
    elif p.name == "distance":
        options = sorted({*(float(f"{x:.2g}") for x in np.logspace(-3, np.log10(4), 40)), value})
        st.select_slider(label, options, format_func=lambda x: f"{x:.3g}", **binding)
    elif p.name == "seed":
        st.number_input(label, p.low, p.high, step=1.0, format="%.0f", **binding)
    else:
        st.slider(label, p.low, p.high, step=p.step, format="%.0f" if p.whole else None, **binding)


def _reference(text: Catalogue) -> None:
    scenario, pair = state.scenario(), state.upload()
    if scenario.source == UPLOAD and pair is not None and pair.reference is not None:
        st.caption(text("control.reference_upload"))
        return
    st.selectbox(
        text("control.reference"),
        REFERENCES,
        format_func=lambda r: text(f"reference.{r}"),
        help=text("control.reference_help"),
        **state.bind("reference"),
    )


def _reshape(text: Catalogue) -> None:
    scenario = state.scenario()
    active = scenario.theta != Reshape() or scenario.target != Reshape() or scenario.epsilon > 0
    with st.expander(text("control.reshape_on" if active else "control.reshape"), key="reshape"):
        for policy in ("theta", "target"):
            st.markdown(f"**{text(f'control.of_{policy}')}**")
            st.slider(text("control.temperature"), 0.05, 4.0, step=0.05, **state.bind(f"{policy}.temperature"))
            cut, nucleus = st.columns(2)
            cut.number_input(text("control.top_k"), 0, None, step=1, **state.bind(f"{policy}.top_k"))
            nucleus.number_input(text("control.top_p"), 0.01, 1.0, step=0.01, **state.bind(f"{policy}.top_p"))
        st.select_slider(
            text("control.epsilon"),
            sorted({0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, scenario.epsilon}),
            format_func=lambda x: f"{x:g}",
            help=text("control.epsilon_help"),
            **state.bind("epsilon"),
        )


def marks(row: compute.Row) -> dict[str, float | None]:
    """α_KL and α_SNR of the row, where they exist, for the α bar."""
    pair = compute.pair(row.key, row.batch)
    if pair.disjoint:
        return {}
    found: dict[str, float | None] = {"kl": compute.family(row.key, row.batch).alpha_kl}
    if pair.covered:
        found["snr"] = compute.signal(row.key, state.weights(), row.batch).alpha_snr
    return found
