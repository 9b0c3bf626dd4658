"""Parts of the Policies page."""

from math import isfinite

import streamlit as st

from geomix_app import compute, shell
from geomix_app.explorer.component import Parts, explorer
from geomix_app.figures import export
from geomix_app.figures import tokens as figures
from geomix_app.notation import number, percent
from geomix_app.shell import View
from geomix_core.summary import top_tokens

LISTED = 14
"""Tokens that the page draws."""


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    p = view.pair
    return view.words("answer", kl=number(p.kl_target_theta), tv=percent(p.total_variation))


def tokens(view: View, share: float) -> None:
    """The tokens that matter, under both policies."""
    # The two ways to bring one's own policies stand below, folded.
    explorer(view, ("pair",), Parts(track=False, numbers=(), tokens=LISTED, share=share, below=80))
    offer_tokens(view, ("theta", "target"), LISTED)


def offer_tokens(view: View, policies: tuple[str, ...], count: int) -> None:
    """Bars of the tokens under the chosen policies ("q" is the mixture at the current α), to take away."""
    index = top_tokens(view.row.batch, count)
    batch = view.row.batch
    names = [view.row.tokens[int(i)] for i in index]

    def values() -> dict[str, figures.Array]:
        return {
            name: compute.mixture(batch, view.scenario.alpha)[index]
            if name == "q"
            else getattr(batch, name)[0][index.tolist()].exp().cpu().numpy()
            for name in policies
        }

    shell.offer(
        "tokens",
        view.text.plain("figure.tokens.title", count=len(index)),
        lambda: figures.token_bars(view.style, names, values(), log_scale=_long_tail(view)),
        lambda: export.tokens(index, names, values()),
    )


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
            (words("tv"), percent(p.total_variation), None),
            (words("entropy_theta"), number(p.entropy_theta), None),
            (words("entropy_target"), number(p.entropy_target), None),
            (words("overlap"), f"{p.common_size:,}", overlap),
        ],
        abreast=2,
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
    """The distribution of ℓ, and its means."""
    if view.pair.disjoint:
        return
    histogram = compute.histogram(view.row.key, view.row.batch)
    figure = figures.ratio_histogram(view.style, histogram, log_scale=_long_tail(view))
    title = view.text.plain("figure.ratio.title")
    shell.figure(figure, "ratio", title, lambda: export.histogram(histogram))
    p = view.pair
    if isfinite(p.kl_target_theta) and isfinite(p.kl_theta_target):
        means = {"target": number(p.kl_target_theta), "theta": number(-p.kl_theta_target)}
        shell.said(view.words("says_ratio", **means))
    else:
        shell.said(view.words("says_ratio_part", common=f"{p.common_size:,}", vocabulary=f"{p.vocab_size:,}"))


def _long_tail(view: View) -> bool:
    """With a long tail one token dwarfs the others on a linear scale."""
    return view.row.batch.vocab_size > 10
