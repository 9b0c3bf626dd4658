"""Which of the document's claims hold, here and elsewhere? The ledger, Break it, and a claim of one's own."""

import streamlit as st

from geomix_app import shell
from geomix_app.views import claims as show
from geomix_app.views import own_claim

view = shell.open_page("claims")
shell.answer(show.answer(view))
documents, own = show.tabs(view)

with documents:
    left, right = st.columns([7, 5], gap="medium")
    with left:
        chosen = show.ledger(view)
    with right:
        show.opened(view, chosen)
with own:
    own_claim.show(view)
