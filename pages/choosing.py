"""Which α should be chosen? KL symmetry and SNR side by side, and what each costs in the other's terms."""

import streamlit as st

from geomix_app import controls, shell
from geomix_app.views import choosing as show

view = shell.open_page("choosing")
shell.require_family(view)
shell.answer(show.answer(view))
controls.alpha_bar(view.text, controls.marks(view.row))

left, middle, right = st.columns(3, gap="medium")
with left:
    show.delta(view)
with middle:
    show.crossing(view)
with right:
    show.log_partition_minimum(view)

if view.pair.covered:
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show.snr(view)
    with right:
        show.signal_and_noise(view)
    show.snr_remarks(view)
else:
    shell.uncovered_notice(view)

show.choices(view)
show.choice_verdicts(view)
