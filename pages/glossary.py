"""What does each symbol mean? Its name in both languages, its definition, and where it is used."""

from geomix_app import shell, state
from geomix_app.views import glossary as show

text = state.text()
shell.title("glossary", text)
shell.answer(show.answer(text))
show.entries(text)
