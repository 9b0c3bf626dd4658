"""Why sample from a geometric mixture? The document's derivation, a step at a time, on the policies at hand."""

from geomix_app import shell
from geomix_app.views import derivation as show
from geomix_app.views import reproduce

view = shell.open_page("derivation")
step = show.current()
show.header(view, step)
if show.body(view, step):
    show.verdicts(view, step)
reproduce.show(view)
