"""The command line: help, version, and what `geomix app` hands to Streamlit. No server is started."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from streamlit.web import cli as streamlit_cli

import geomix_app
from geomix_app.cli import main
from geomix_core.claims import CLAIMS

MAIN = str(Path(str(geomix_app.__file__)).parent / "main.py")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_names_the_commands() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    for command in main.commands:
        assert f"  {command}" in result.output
    assert "app" in main.commands


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f" {command} [OPTIONS]" in result.output
    assert main.commands[command].help


def test_version_is_the_package_s() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert version("geomix") in result.output


def test_no_command_shows_the_help() -> None:
    result = invoke()
    assert "Usage:" in result.output
    assert "Traceback" not in result.output


def test_unknown_command_is_refused() -> None:
    result = invoke("serve")
    assert result.exit_code == 2
    assert "serve" in result.output


@pytest.mark.parametrize("options", [[], ["--server.port", "8600"], ["--server.headless=true", "--theme.base", "dark"]])
def test_app_runs_main_with_streamlit_s_options(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[list[str], str]] = []

    def streamlit(arguments: list[str], prog_name: str) -> None:
        called.append((arguments, prog_name))

    monkeypatch.setattr(streamlit_cli.main, "main", streamlit)
    result = invoke("app", *options)
    assert result.exit_code == 0, result.output
    assert called == [(["run", MAIN, *options], "streamlit")]
    assert Path(MAIN).is_file()


def test_help_does_not_wait_for_streamlit_or_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from geomix_app.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "print([m for m in ('streamlit', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_console_script_starts() -> None:
    script = Path(sys.executable).parent / "geomix"
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=True, timeout=120)
    assert version("geomix") in done.stdout


def test_break_lists_the_claims() -> None:
    result = invoke("break")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == list(CLAIMS)


def test_break_prints_the_smallest_counterexample() -> None:
    result = invoke("break", "section_4_2_shortest", "--seconds", "60")
    assert result.exit_code == 0
    assert "found" in result.output
    assert "theta     2 : 1 : 1" in result.output
    assert "target    1 : 2 : 1" in result.output


def test_break_says_how_many_policies_a_claim_survived() -> None:
    result = invoke("break", "theorem_4_identity", "--seconds", "0.2")
    assert result.exit_code == 0
    assert result.output.startswith("survived: ")


def test_break_attacks_a_claim_of_one_s_own() -> None:
    result = invoke("break", "--expression", "KL(π_t‖π_θ) = KL(π_θ‖π_t)", "--seconds", "60")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.output.splitlines()[1:]] == [
        ["theta", "1", ":", "1"],
        ["target", "2", ":", "1"],
        ["residual", "0.00225851,", "tolerance", "1.11552e-06"],
        ["left", "0.056633"],
        ["right", "0.0588915"],
    ]


def test_break_names_what_it_cannot_read() -> None:
    result = invoke("break", "--expression", "KL(π_t‖π_θ) = 1 = 2")
    assert result.exit_code == 2
    assert "Character 17: found “=”" in result.output
    assert invoke("break", "theorem_1", "--expression", "1 = 1").exit_code == 2


def test_break_refuses_what_is_no_claim() -> None:
    result = invoke("break", "theorem_9")
    assert result.exit_code == 2
    assert "theorem_9" in result.output
