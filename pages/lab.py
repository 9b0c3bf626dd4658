"""Whose samples teach the most? N samples of each distribution, measured: curves, a table, one repetition, claims."""

from geomix_app import shell
from geomix_app.views import lab as show
from geomix_app.views import lab_play, reproduce
from geomix_app.views import lab_results as results

view = shell.open_page("lab")
shell.require_family(view)
shell.require_coverage(view)
show.require_distance(view)

bench = show.controls(view)
shell.answer(results.answer(view, bench))
show.guess(view, bench)
show.running(view, bench)
if bench.trials:
    results.reply(view, bench)
    results.curves(view, bench)
    results.table(view, bench)
    lab_play.show(view, bench)
show.verdicts(view)
reproduce.show(view, show.settings(bench))
