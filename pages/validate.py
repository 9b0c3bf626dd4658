"""What is α* on your own logits? Upload, solve every row, check, download, and open a row in the other pages."""

from geomix_app import shell, state
from geomix_app.views import reproduce, uploads, validation

text = state.text()
shell.title("validate", text)
pair = uploads.panel(text, key="validate", introduction=text("page.validate.intro"))
if pair is None:
    uploads.example(text)
else:
    reports = validation.solve(text, pair)
    if reports:
        validation.summary(text, reports)
        validation.distributions(text, reports)
        validation.rows(text, pair, reports)
        validation.cross_check(text, pair, reports)
        reproduce.show_rows(text)
