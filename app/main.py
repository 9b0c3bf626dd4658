"""The Streamlit entry: navigation, the shared scenario in the sidebar, then the page."""

from importlib.resources import files
from pathlib import Path

import streamlit as st
import torch

from geomix_app import compute, controls, state

# By group of the menu; those of none stand in front.
PAGES = {
    "": {"home": ":material/home:", "validate": ":material/fact_check:"},
    "learn": {
        "derivation": ":material/school:",
        "lecture": ":material/slideshow:",
        "claims": ":material/gavel:",
        "glossary": ":material/menu_book:",
    },
    "explore": {
        "policies": ":material/bar_chart:",
        "geodesic": ":material/timeline:",
        "choosing": ":material/balance:",
        "progress": ":material/trending_up:",
        "lab": ":material/science:",
    },
}

# Found through the installed package: a path relative to this file would not exist in a wheel.
folder = Path(str(files("geomix_pages")))

# One thread a session: rows are small, and threads that wait for each other on a busy server cost far more than they
# bring (measured: 0.02 s against 0.6 s for one α_KL at V = 49 152 with both cores busy).
torch.set_num_threads(1)

st.set_page_config(page_title="geomix", page_icon="⚖️", layout="wide")
state.start()
text = state.text()
menu = {
    text.plain(f"page.home.{group}") if group else "": [
        st.Page(
            folder / f"{name}.py", title=text.plain(f"nav.{name}"), icon=icon, url_path=name, default=name == "home"
        )
        for name, icon in pages.items()
    ]
    for group, pages in PAGES.items()
}
page = st.navigation(menu, position="top")
state.register_pages({found.url_path or "home": found for pages in menu.values() for found in pages})
state.enter(page.url_path)
# Streamlit has no setting for the space beside the figures, which need it on a 1440-pixel screen, nor for type that is
# larger on a projector.
st.html(
    '<style>[data-testid="stMainBlockContainer"] {padding-left: 2.5rem; padding-right: 2.5rem}'
    "@media (min-width: 1800px) {html {font-size: 19px !important}}</style>"
)
with st.sidebar:
    controls.scenario(text)
    state.publish()
page.run()
compute.settle_memory()
