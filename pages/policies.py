"""Which two policies are we between? The pair on screen, its distances, and how to make your own."""

import streamlit as st

from geomix_app import shell
from geomix_app.views import editor, uploads
from geomix_app.views import policies as show

view = shell.open_page("policies")
shell.answer(show.answer(view))

show.pair_numbers(view)
left, right = st.columns([11, 9], gap="medium")
with left:
    show.tokens(view, ("theta", "target"))
with right:
    show.prompt(view)
    show.ratio(view)
if not view.pair.covered:
    shell.uncovered_notice(view)

editing, uploading = st.columns(2, gap="medium")
with editing, st.expander(view.words("edit"), icon=":material/edit:"):
    editor.table(view)
with uploading, st.expander(view.words("upload"), icon=":material/upload_file:"):
    uploads.panel(view.text, key="policies")
