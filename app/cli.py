"""The command line: `geomix app [streamlit options]`."""

from pathlib import Path

import click


@click.group()
@click.version_option(package_name="geomix")
def main() -> None:
    """Geometric mixtures of policies: the app."""


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def app(options: tuple[str, ...]) -> None:
    """Run the app; OPTIONS go to Streamlit (for example --server.port 8600)."""
    from streamlit.web.cli import main as streamlit  # slow to import, and not needed for --help

    # The settings beside main.py apply in whatever folder this is started; flags and STREAMLIT_* variables override.
    streamlit.main(["run", str(Path(__file__).parent / "main.py"), *options], prog_name="streamlit")


if __name__ == "__main__":
    main()
