"""How is the derivation presented? A lesson: which steps, on which policies; here or as a file."""

import streamlit as st

from geomix_app import shell
from geomix_app.views import lecture as show

view = shell.open_page("lecture")
lesson = show.lesson(view)
if show.presented(view, lesson):
    st.stop()
shell.answer(show.answer(view, lesson))
show.actions(view, lesson)
show.settings(view, lesson)

left, right = st.columns([6, 5], gap="medium")
with left:
    chosen = show.slides(view, lesson)
with right:
    show.selected(view, lesson, chosen)
