"""The Streamlit entry: navigation, the shared scenario in the sidebar, then the page."""

from importlib.resources import files
from pathlib import Path

import streamlit as st

from geomix_app import controls, state

PAGES = {
    "policies": ":material/bar_chart:",
    "geodesic": ":material/timeline:",
    "choosing": ":material/balance:",
    "progress": ":material/trending_up:",
    "validate": ":material/fact_check:",
}

# Found through the installed package: a path relative to this file would not exist in a wheel.
folder = Path(str(files("geomix_pages")))

st.set_page_config(page_title="geomix", page_icon="⚖️", layout="wide")
state.start()
text = state.text()
pages = {
    name: st.Page(
        folder / f"{name}.py", title=text(f"nav.{name}"), icon=icon, url_path=name, default=name == "policies"
    )
    for name, icon in PAGES.items()
}
page = st.navigation(list(pages.values()), position="top")
state.register_pages(pages)
state.enter(page.url_path)
controls.sidebar(text)
state.publish()
page.run()
