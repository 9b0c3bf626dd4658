"""What lies between π_t and π_θ? The geometric family as α moves, then beside the other two paths."""

import streamlit as st

from geomix_app import shell
from geomix_app.views import geodesic as show
from geomix_app.views import reproduce

view = shell.open_page("geodesic")
shell.require_family(view)
shell.answer(show.answer(view))
show.between(view)

left, right = st.columns([3, 2], gap="medium")
with left:
    show.kl_plane(view)
with right:
    show.origins(view)
reproduce.show(view)
