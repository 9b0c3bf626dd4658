"""The command line: `geomix app`, `extract`, `solve`, `verify`, `inspect` (in `commands`), `break CLAIM`, `census`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geomix_app.commands import extract, inspect, solve, verify

if TYPE_CHECKING:
    from geomix_core.tilts import Weights


@click.group()
@click.version_option(package_name="geomix")
def main() -> None:
    """Geometric mixtures of policies: the app, and α of every row of your own logits."""


for command in (extract, solve, verify, inspect):
    main.add_command(command)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def app(options: tuple[str, ...]) -> None:
    """Run the app; OPTIONS go to Streamlit (for example --server.port 8600)."""
    from streamlit.web.cli import main as streamlit  # slow to import, and not needed for --help

    # The settings beside main.py apply in whatever folder this is started; flags and STREAMLIT_* variables override.
    streamlit.main(["run", str(Path(__file__).parent / "main.py"), *options], prog_name="streamlit")


@main.command(name="break")
@click.argument("claim", required=False)
@click.option("--expression", metavar="STATEMENT", help='A claim of your own, e.g. "KL(π_t‖π_θ) >= TV(π_θ, π_t)".')
@click.option("--weights", type=click.Choice(["importance", "inverse"]), default="importance", show_default=True)
@click.option("--assume", is_flag=True, help="Only where the hypotheses hold that the document leaves out.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def break_(
    claim: str | None, expression: str | None, weights: Weights, assume: bool, seconds: float, seed: int
) -> None:
    """Search for the smallest policies that break CLAIM or --expression; without either, list the claims."""
    from geomix_core.claims import CLAIMS, Setting, find_counterexample
    from geomix_core.claims.own import claim_of
    from geomix_core.claims.words import words
    from geomix_core.errors import ExpressionError

    if claim is not None and expression is not None:
        raise click.UsageError("CLAIM and --expression are two claims: name one.")
    if claim is None and expression is None:
        for name in CLAIMS:
            said = words(name, "en")
            click.echo(f"{name:28} {said.where}: {said.says}")
        return
    if expression is not None:
        try:
            attacked = claim_of(expression)
        except ExpressionError as error:
            raise click.BadParameter(str(error), param_hint="--expression") from error
    elif claim is not None and claim in CLAIMS:
        attacked = CLAIMS[claim]
    else:
        raise click.BadParameter(f"{claim!r} is not a claim; `geomix break` lists them.", param_hint="CLAIM")
    found = find_counterexample(attacked, Setting(weights=weights), assume=assume, seconds=seconds, seed=seed)
    click.echo(f"{found.status}: {found.tried:,} policies in {found.seconds:.1f} s")
    if found.counterexample is not None and found.verdict is not None:
        for policy, counts in found.counterexample.named.items():
            click.echo(f"  {policy:9} {' : '.join(map(str, counts))}")
        click.echo(f"  residual {found.verdict.residual:.6g}, tolerance {found.verdict.tolerance:.6g}")
        for name, value in found.verdict.numbers.items():
            click.echo(f"  {name:12} {value:.6g}")


@main.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("benchmarks/results"))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Also write what the app shows of it.")
def census(out: Path, seed: int, scale: float, ledger: Path | None) -> None:
    """Count how often each claim holds; writes census.json and census.md into OUT."""
    from geomix_core.census import all_sources, take_census, to_markdown, to_record
    from geomix_core.claims.ledger import compact

    sources = list(all_sources(seed, scale))
    with click.progressbar(length=len(sources), label="census", file=sys.stderr) as bar:
        counted = take_census(seed, scale, sources, on_progress=lambda done, total: bar.update(1))
    record = to_record(counted, f"geomix census --seed {seed} --scale {scale:g}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "census.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out / "census.md").write_text(to_markdown(record), "utf-8")
    if ledger is not None:
        ledger.write_text(json.dumps(compact(record), separators=(",", ":")) + "\n", "utf-8")
    click.echo(f"{counted.rows:,} rows in {counted.seconds:.0f} s")


if __name__ == "__main__":
    main()
