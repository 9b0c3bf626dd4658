"""What is this about? The explorer on a real row, and three ways in."""

from geomix_app import shell
from geomix_app.explorer.component import Parts, explorer
from geomix_app.views import home as show

view = shell.open_page("home")
shell.answer(show.answer(view))
explorer(view, parts=Parts(below=80, says=False))
show.ways_in(view)
