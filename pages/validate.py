"""What is α* on your own logits? What was found in the files, all rows solved, the answer, what to take away."""

import streamlit as st

from geomix_app import shell, state
from geomix_app.views import found, reproduce, solving, tails, uploads
from geomix_app.views import validation as show

text = state.text()
shell.title("validate", text)
brought, topk = state.found(), state.topk()
if topk is not None:
    tails.show(text, topk)
elif brought is None:
    uploads.begin(text)
else:
    # In reading order; what depends on options further down is written into its place when they are known.
    answer = st.container()
    found.headline(text, brought)
    action = st.container()
    data = brought.dataset
    with solving.options(text):
        found.report(text, brought)
        plan = solving.plan(text, data)
    with action:
        run = solving.run(text, data, plan)
    if data is not None and run is not None and run.chunks:
        solved = show.Solved(run)
        with answer:
            show.answer(text, solved)
            show.counts(text, solved)
        show.distributions(text, solved)
        show.comparison(text, solved, len(data))
        show.rows(text, data, solved)
        show.take_away(text, data, solved)
        show.claim(text, solved)
        reproduce.show_rows(text, solved.plan)
