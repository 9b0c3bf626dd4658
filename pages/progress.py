"""How far does one update get? Progress against η, exact beside its expansion, and over the whole (α, η) plane."""

import streamlit as st

from geomix_app import controls, shell
from geomix_app.views import progress as show

view = shell.open_page("progress")
shell.require_family(view)
shell.require_coverage(view)
shell.answer(show.answer(view))
alpha, eta = st.columns(2, gap="medium")
with alpha:
    controls.alpha_bar(view.text, controls.marks(view.row), stacked=True)
with eta:
    controls.eta_bar(view.text, show.eta_marks(view), stacked=True)

left, right = st.columns([11, 9], gap="medium")
with left:
    show.against_step(view)
with right:
    show.progress_map(view)
show.progress_numbers(view)

left, right = st.columns([2, 3], gap="medium")
with left:
    show.expansion_error(view)
with right:
    show.progress_verdicts(view)
