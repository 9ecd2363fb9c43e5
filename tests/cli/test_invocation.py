"""How the program calls itself: as it was called."""

import sys
from pathlib import Path

import pytest

from app.cli.invocation import command_line, program_name, stack_name

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("environ", "argv", "name"),
    [
        ({}, ["/project/app/__main__.py"], "python -m app"),
        ({}, ["/venv/bin/scaimind-gateway"], "scaimind-gateway"),
        ({"SCAIMIND_INVOKED_AS": "scripts/run"}, ["/p/app/__main__.py"], "scripts/run"),
        ({"SCAIMIND_INVOKED_AS": "my project/run"}, ["/p/app/__main__.py"], "'my project/run'"),
    ],
)
def test_help_calls_it_as_it_was_called(
    environ: dict[str, str], argv: list[str], name: str
) -> None:
    assert program_name(environ, argv) == name


def test_a_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    by_script = {"SCAIMIND_INVOKED_AS": "scripts/run"}
    usual = PROJECT / "var"
    assert command_line(by_script, "token", data_dir=usual) == "scripts/run token"
    assert command_line(by_script, "token", data_dir=Path("/my data")) == (
        "SCAIMIND_DATA_DIR='/my data' scripts/run token"
    )
    elsewhere = {**by_script, "SCAIMIND_VENV": "/venv"}
    assert command_line(elsewhere, "token", data_dir=usual) == (
        "SCAIMIND_VENV=/venv scripts/run token"
    )
    monkeypatch.setattr(sys, "argv", [str(PROJECT / "app" / "__main__.py")])
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "-m", "app", "up"])
    monkeypatch.chdir(PROJECT)
    assert command_line({}, "token", data_dir=Path("var")) == ".venv/bin/python -m app token"


def test_messages_name_the_command_that_runs_everything() -> None:
    assert stack_name({}) == "'up'"
    assert stack_name({"SCAIMIND_INVOKED_AS": "scripts/run"}) == "'scripts/run'"
