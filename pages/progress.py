"""How far does one update get? Progress against η and against α, then over the whole plane, and its expansion."""

import streamlit as st

from geomix_app import shell
from geomix_app.views import progress as show
from geomix_app.views import reproduce

view = shell.open_page("progress")
shell.require_family(view)
shell.require_coverage(view)
shell.answer(show.answer(view))
show.slices(view)

left, right = st.columns(2, gap="medium")
with left:
    show.progress_map(view)
with right:
    show.expansion_error(view)
show.progress_verdicts(view)
reproduce.show(view)
