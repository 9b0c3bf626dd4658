"""Which two policies are we between? The pair on screen, its distances, and how to make your own."""

import streamlit as st

from geomix_app import shell
from geomix_app.views import editor, reproduce, uploads
from geomix_app.views import policies as show

view = shell.open_page("policies")
shell.answer(show.answer(view))

left, right = st.columns([64, 36], gap="medium")
with left:
    show.tokens(view, share=0.64)
with right:
    show.prompt(view)
    show.pair_numbers(view)
if not view.pair.covered:
    shell.uncovered_notice(view)

editing, uploading = st.columns(2, gap="medium")
with editing, st.expander(view.words("edit"), icon=":material/edit:"):
    editor.table(view)
with uploading, st.expander(view.words("upload"), icon=":material/upload_file:"):
    uploads.panel(view.text, key="policies")
show.ratio(view)
reproduce.show(view)
