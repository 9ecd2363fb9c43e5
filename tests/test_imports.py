"""What each program of the one-machine stack does not import: it would hold it all its life."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.local.variables import Program, given_to

PROJECT = Path(__file__).parents[1]
#: Seconds after which a program is given up: a net, not an expectation.
PATIENCE = 120

#: Runs a command as far as its last call, which is replaced when its module has been imported,
#: and prints the modules by then.
_SCRIPT = """
import importlib.util, sys
module, name, command = sys.argv[1:]
def served(*_, **__):
    print(*sorted(sys.modules))
    raise SystemExit
async def served_on_a_loop(*_, **__):
    served()
class Replacing:
    def find_spec(self, imported, path, target=None):
        if imported != module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(imported)
        run = spec.loader.exec_module
        def and_replace(loaded):
            run(loaded)
            getattr(loaded, name)  # It has to be there: the program would run without an end.
            setattr(loaded, name, served if name == "run" else served_on_a_loop)
        spec.loader.exec_module = and_replace
        return spec
sys.meta_path.insert(0, Replacing())
sys.argv[1:] = [command]
from app.__main__ import main
main()
"""

#: One of them leads to what it imports, and so to the rest of another program.
_GATEWAY = {"app.gateway.application", "app.api.endpoint", "app.bridge.client", "app.hub.hub"}
_COORDINATOR = {"app.coordinator.server", "app.coordinator.jobs.model", "app.coordinator.service"}
_SUPERVISOR = {"app.local.supervisor", "app.local.postgres", "app.cli.stack"}
_ISSUER = {"app.issuer.server", "app.issuer.tokens"}
_MIGRATIONS = {"sqlalchemy", "alembic", "mako"}
_CLIENT = {"scaimind", "httpx2", "tomlkit", "pathspec", "yaml"}
_TRAINING = {"numpy", "pyarrow", "torch", "safetensors"}
_SERVERS = {"aiohttp", "grpc", "google.protobuf", "generated", "prometheus_client", "uvloop"}
_LOGGING = {"structlog", "orjson"}
#: Of the client, and of SQLAlchemy. `structlog` imports them where they are installed, and `rich`
#: imports Pygments.
_OF_LOGS_FOR_PEOPLE = {"rich", "pygments", "greenlet"}
#: Of a drive in S3, which none of them is given here.
_STORE = {"fsspec", "s3fs", "aiobotocore", "botocore"}
#: Of engines other than that of one machine.
_CLUSTER = {"ray", "app.coordinator.engines.remote", "app.coordinator.engines.agent"}
#: Commands that are no programs.
_COMMANDS = {"app.cli.database", "app.cli.checks", "app.cli.reference"}

_FOREIGN = _MIGRATIONS | _CLIENT | _TRAINING | _OF_LOGS_FOR_PEOPLE | _COMMANDS


@pytest.mark.parametrize(
    ("command", "last", "others"),
    [
        (
            "serve",
            "app.gateway.run.serve",
            _FOREIGN | _COORDINATOR | _SUPERVISOR | _ISSUER | {"sqlite3", "psutil"} | _STORE,
        ),
        (
            "coordinator",
            "app.coordinator.program.serve",
            _FOREIGN
            | _GATEWAY
            | _SUPERVISOR
            | _ISSUER
            | {"psycopg2", "aiopg", "apispec"}
            | _STORE
            | _CLUSTER,
        ),
        (
            "issuer",
            "app.issuer.server.run",
            _FOREIGN
            | _GATEWAY
            | _COORDINATOR
            | _SUPERVISOR
            | {"grpc", "google.protobuf", "generated", "prometheus_client", "re2", "apispec"},
        ),
        (
            "up",
            "app.local.supervisor.up",
            _FOREIGN
            | _GATEWAY
            | _COORDINATOR
            | _SERVERS
            | _LOGGING
            | {"joserfc", "cryptography", "re2", "aiopg", "psycopg2", "apispec"}
            | {"app.issuer.server", "app.cli.services"},
        ),
    ],
)
def test_a_program_imports_nothing_of_the_others(
    tmp_path: Path, command: str, last: str, others: set[str]
) -> None:
    # Has each program know the settings of all of them.
    environ = _environ(tmp_path) | {"SCAIMIND_A_SETTING_OF_NOBODY": ""}
    assert _imported(tmp_path, command, last, environ) & others == set()


@pytest.mark.parametrize(
    ("program", "command", "last", "rooms"),
    [
        ("gateway", "serve", "app.gateway.run.serve", {"app.coordinator", "app.issuer"}),
        (
            "coordinator",
            "coordinator",
            "app.coordinator.program.serve",
            {"app.gateway", "app.api", "app.hub", "app.drive", "app.database", "app.issuer"},
        ),
        (
            "issuer",
            "issuer",
            "app.issuer.server.run",
            {"app.gateway", "app.api", "app.hub", "app.drive", "app.coordinator"},
        ),
    ],
)
def test_a_program_of_the_stack_imports_no_settings_of_the_others(
    tmp_path: Path, program: Program, command: str, last: str, rooms: set[str]
) -> None:
    """The supervisor gives it what it reads itself."""
    imported = _imported(tmp_path, command, last, given_to(program, _environ(tmp_path)))
    assert {each for each in imported if ".".join(each.split(".")[:2]) in rooms} == set()


def _environ(folder: Path) -> dict[str, str]:
    """What all programs together need."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SCAIMIND_")} | {
        "PYTHONPATH": str(PROJECT),
        "SCAIMIND_DATABASE_DSN": "postgresql://nobody@127.0.0.1:1/nothing",
        "SCAIMIND_UPSTREAM_ADDRESS": "127.0.0.1:1",
        "SCAIMIND_UPSTREAM_API_SECRET": "an-api-secret",
        "SCAIMIND_COORDINATOR_API_SECRET": "an-api-secret",
        "SCAIMIND_COORDINATOR_DRIVE_DIR": str(folder),
        "SCAIMIND_ISSUER_CLIENT_SECRET": "a-client-secret",
        "SCAIMIND_DATA_DIR": str(folder),
        "SCAIMIND_PORT": "0",
    }


def _imported(folder: Path, command: str, last: str, environ: Mapping[str, str]) -> set[str]:
    """What a program has imported when it begins to serve."""
    module, _, name = last.rpartition(".")
    done = subprocess.run(
        (sys.executable, "-c", _SCRIPT, module, name, command),
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert module in imported
    return imported
