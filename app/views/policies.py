"""Parts of the Policies page."""

import streamlit as st

from geomix_app import compute, controls, shell
from geomix_app.figures import tokens as figures
from geomix_app.notation import number, percent
from geomix_app.shell import View
from geomix_core.summary import top_tokens


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    p = view.pair
    return view.words("answer", kl=number(p.kl_target_theta), tv=percent(p.total_variation))


def tokens(view: View, policies: tuple[str, ...], height: int = 400) -> None:
    """Bars of the tokens that matter, under the chosen policies ("q" is the mixture at the current α)."""
    index = top_tokens(view.row.batch, 14 if height > 300 else 5)
    batch = view.row.batch
    values = {
        name: compute.mixture(batch, view.scenario.alpha)[index]
        if name == "q"
        else getattr(batch, name)[0][index.tolist()].exp().cpu().numpy()
        for name in policies
    }
    names = [view.row.tokens[int(i)] for i in index]
    place = st.container()
    figure = figures.token_bars(view.style, names, values, log_scale=_log_scale(view), height=height)
    with place:
        shell.figure(figure, "tokens", view.text.plain("figure.tokens.title", count=len(index)))


def pair_numbers(view: View) -> None:
    """Divergences, entropies and the overlap of supports."""
    p, words = view.pair, view.words
    overlap = words(
        "overlap_help",
        vocabulary=f"{p.vocab_size:,}",
        theta_mass=percent(p.theta_mass, 3),
        target_mass=percent(p.target_mass, 3),
    )
    shell.numbers(
        [
            (words("kl_target_theta"), number(p.kl_target_theta), None),
            (words("kl_theta_target"), number(p.kl_theta_target), None),
            (words("chi"), number(p.chi2), words("chi_help", ceiling=number(p.snr_ceiling))),
            (words("tv"), number(p.total_variation), None),
            (words("entropy_theta"), number(p.entropy_theta), None),
            (words("entropy_target"), number(p.entropy_target), None),
            (words("overlap"), f"{p.common_size:,}", overlap),
        ]
    )


def prompt(view: View) -> None:
    """What the model had seen, for a real row."""
    if view.row.prompt is not None:
        seen = view.row.prompt
        with st.container(border=True, gap="xsmall"):
            st.caption(view.words("prompt"))
            st.text(seen.prompt)
            if seen.response_prefix:
                st.caption(view.words("response"))
                st.text(seen.response_prefix + " ▁")


def ratio(view: View) -> None:
    """The distribution of ℓ."""
    if not view.pair.disjoint:
        histogram = compute.histogram(view.row.key, view.row.batch)
        log_scale = controls.scale_is_log(default=_long_tail(view))
        figure = figures.ratio_histogram(view.style, histogram, log_scale=log_scale, height=300)
        shell.figure(figure, "ratio", view.text.plain("figure.ratio.x"))


def _log_scale(view: View) -> bool:
    return controls.log_scale(view.text, default=_long_tail(view))


def _long_tail(view: View) -> bool:
    """With a long tail one token dwarfs the others on a linear scale."""
    return view.row.batch.vocab_size > 10
