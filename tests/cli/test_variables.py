"""The variables that programs read, and those that none does."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.cli.variables import Unknown, known_variables, unknown_variables

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SCAIMIND_POTR", "SCAIMIND_PORT"),
        ("scaimind_port", "SCAIMIND_PORT"),
        ("SCAIMIND_HUB_LINGRE", "SCAIMIND_HUB_LINGER"),
        ("SCAIMIND_ISSUER_PORTS", "SCAIMIND_ISSUER_PORT"),
        ("SCAIMIND_COORDINATOR_STOPGRACE", "SCAIMIND_COORDINATOR_STOP_GRACE"),
        ("SCAIMIND_DATADIR", "SCAIMIND_DATA_DIR"),
        ("SCAIMIND_CORS_ORIGIN", "SCAIMIND_CORS_ORIGINS"),
        ("SCAIMIND_COLOUR_OF_THE_SKY", ""),
    ],
)
def test_a_variable_that_no_program_reads_is_named(variable: str, meant: str) -> None:
    assert unknown_variables({variable: "x", "PATH": "/bin"}) == [Unknown(variable, meant)]


def test_what_kubernetes_sets_for_services_is_not_meant() -> None:
    links = {
        "SCAIMIND_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "SCAIMIND_GATEWAY_SERVICE_PORT_HTTP": "80",
        "SCAIMIND_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "SCAIMIND_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "SCAIMIND_GATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
    }
    assert unknown_variables(links) == []


def test_every_variable_that_a_document_names_is_known() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        variable
        for page in pages
        for variable in re.findall(r"\bSCAIMIND_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)", page.read_text())
    }
    assert named
    prefixes = {each.rsplit("_", 1)[0] for each in known_variables()}
    assert named - known_variables() - prefixes == set()


def test_every_variable_that_the_code_names_is_known() -> None:
    named = {
        variable
        for path in (ROOT / "app").rglob("*.py")
        for variable in re.findall(r"\"(SCAIMIND_[A-Z0-9_]*[A-Z0-9])\"", path.read_text())
    }
    assert named - known_variables() == set()


def test_commands_for_people_warn_about_them() -> None:
    result = CliRunner().invoke(main, ["errors"], env={"SCAIMIND_POTR": "1", "SCAIMIND_PORT": "1"})
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: SCAIMIND_POTR is set, but no program reads it. Did you mean SCAIMIND_PORT?\n"
    )


def test_moving_a_store_warns_about_them() -> None:
    result = CliRunner().invoke(
        main,
        ["coordinator", "move-store", "--to", "postgresql"],
        env={"SCAIMIND_COORDINATOR_DATADIR": "/srv/jobs"},
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Warning: SCAIMIND_COORDINATOR_DATADIR is set, but no program reads it. "
        "Did you mean SCAIMIND_COORDINATOR_DATA_DIR?\n"
    )
