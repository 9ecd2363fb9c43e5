"""The command line itself; what the commands do is tested where they do it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from app.cli.database import columns
from app.cli.main import main


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name)


@pytest.mark.parametrize("names", [*commands(main)], ids=" ".join)
def test_every_command_has_help(names: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*names, "--help"])
    assert result.exit_code == 0
    usage, _, text = result.output.partition("\n\n")
    assert usage.startswith("Usage: ")
    assert len(text.split("Options:")[0]) > 40


def test_all_commands_are_known() -> None:
    assert {" ".join(names) for names in commands(main)} == {
        *(
            "",
            "up",
            "serve",
            "coordinator",
            "coordinator move-store",
            "migrate",
            "settings",
            "errors",
            "openapi",
        ),
        *("keys", "keys create", "keys list", "keys revoke"),
        *("issuer", "token", "health", "check-ingress"),
    }


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    script = (
        "import sys, app.cli.main\n"
        "print({'aiohttp', 'alembic', 'grpc', 'marshmallow', 'psycopg2'} & set(sys.modules))"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_a_store_is_not_moved_to_nowhere(tmp_path: Path) -> None:
    environ = {
        "SCAIMIND_COORDINATOR_API_SECRET": "the-secret-of-a-coordinator",
        "SCAIMIND_COORDINATOR_DATA_DIR": str(tmp_path),
    }
    arguments = ["coordinator", "move-store", "--to", "postgresql"]
    result = CliRunner().invoke(main, arguments, env=environ)
    assert result.exit_code == 1
    assert result.output == "Error: SCAIMIND_COORDINATOR_DATABASE_DSN: not set.\n"


def test_a_key_that_may_do_nothing_is_not_made() -> None:
    result = CliRunner().invoke(main, ["keys", "create", "--tenant", "t", "--user", "u"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: A key needs at least one --role")


def test_a_preset_that_there_is_not_is_refused() -> None:
    result = CliRunner().invoke(
        main, ["keys", "create", "--tenant", "t", "--user", "u", "--preset", "boss"]
    )
    assert result.exit_code == 2
    assert "'engineer'" in result.output


def test_columns_are_aligned_or_separated_by_tabs() -> None:
    rows = [("KEY", "NAME"), ("key_1", ""), ("k", "hers")]
    assert [*columns(rows, aligned=True)] == ["KEY    NAME", "key_1", "k      hers"]
    assert [*columns(rows, aligned=False)] == ["KEY\tNAME", "key_1\t", "k\thers"]
