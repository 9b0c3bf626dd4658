"""What lies between π_t and π_θ? The geometric family as α moves, beside the other two paths."""

import streamlit as st

from geomix_app import controls, shell
from geomix_app.views import geodesic as show

view = shell.open_page("geodesic")
shell.require_family(view)
shell.answer(show.answer(view))
controls.alpha_bar(view.text, controls.marks(view.row))

left, right = st.columns(2, gap="medium")
with left:
    if view.row.batch.vocab_size == 3:
        show.simplex(view)
    else:
        show.tokens(view, ("theta", "q", "target"))
with right:
    show.kl_plane(view)
show.origins(view)

columns = st.columns(3 if view.row.batch.vocab_size == 3 else 2, gap="medium")
with columns[0]:
    show.log_partition_curve(view)
with columns[1]:
    show.ess_curve(view)
if view.row.batch.vocab_size == 3:
    with columns[2]:
        show.tokens(view, ("theta", "q", "target"), height=260)
