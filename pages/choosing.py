"""Which α should be chosen? Three criteria, what each looks at, and what every choice costs in the others' terms."""

from geomix_app import shell
from geomix_app.views import choosing as show
from geomix_app.views import reproduce

view = shell.open_page("choosing")
shell.require_family(view)
shell.answer(show.answer(view))
show.criteria(view)

if view.pair.covered:
    show.snr_remarks(view)
    show.signal_and_noise(view)
else:
    shell.uncovered_notice(view)
show.choice_verdicts(view)
reproduce.show(view)
