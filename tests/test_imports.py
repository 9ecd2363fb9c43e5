"""What each program of the one-machine stack does not import: it would hold it all its life."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
#: Seconds after which a program is given up: a net, not an expectation.
PATIENCE = 120

#: Runs a command as far as its last call, which is replaced, and prints the modules by then.
_SCRIPT = """
import importlib, sys
module, name, command = sys.argv[1:]
def served(*_, **__):
    print(*sorted(sys.modules))
    raise SystemExit
async def served_on_a_loop(*_, **__):
    served()
importlib.import_module("app.cli.main")
replaced = importlib.import_module(module)
getattr(replaced, name)  # It has to be there: the program would run without an end.
setattr(replaced, name, served if name == "run" else served_on_a_loop)
sys.argv[1:] = [command]
from app.__main__ import main
main()
"""

#: One of them leads to what it imports, and so to the rest of another program.
_GATEWAY = {"app.gateway.application", "app.api.endpoint", "app.bridge.client", "app.hub.hub"}
_COORDINATOR = {"app.coordinator.server", "app.coordinator.jobs.model", "app.coordinator.service"}
_SUPERVISOR = {"app.local.supervisor", "app.local.postgres"}
_ISSUER = {"app.issuer.server", "app.issuer.tokens"}
_MIGRATIONS = {"sqlalchemy", "alembic", "mako"}
_CLIENT = {"scaimind", "httpx2", "tomlkit", "pathspec", "yaml"}
_TRAINING = {"numpy", "pyarrow", "torch", "safetensors"}
_SERVERS = {"aiohttp", "grpc", "google.protobuf", "generated", "prometheus_client", "uvloop"}
#: `structlog` imports `rich`, where that is installed, and so Pygments.
_LOGGING = {"structlog", "rich", "pygments", "orjson"}

_FOREIGN = _MIGRATIONS | _CLIENT | _TRAINING


@pytest.mark.parametrize(
    ("command", "last", "others"),
    [
        (
            "serve",
            "app.gateway.run.serve",
            _FOREIGN | _COORDINATOR | _SUPERVISOR | _ISSUER | {"sqlite3", "fsspec", "psutil"},
        ),
        (
            "coordinator",
            "app.coordinator.program.serve",
            _FOREIGN | _GATEWAY | _SUPERVISOR | _ISSUER | {"psycopg2", "aiopg", "apispec"},
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
            | {"joserfc", "cryptography", "re2", "aiopg", "apispec", "app.issuer.server"},
        ),
    ],
)
def test_a_program_imports_nothing_of_the_others(
    tmp_path: Path, command: str, last: str, others: set[str]
) -> None:
    module, _, name = last.rpartition(".")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SCAIMIND_")} | {
        "PYTHONPATH": str(PROJECT),
        "SCAIMIND_DATABASE_DSN": "postgresql://nobody@127.0.0.1:1/nothing",
        "SCAIMIND_UPSTREAM_ADDRESS": "127.0.0.1:1",
        "SCAIMIND_UPSTREAM_API_SECRET": "an-api-secret",
        "SCAIMIND_COORDINATOR_API_SECRET": "an-api-secret",
        "SCAIMIND_ISSUER_CLIENT_SECRET": "a-client-secret",
        "SCAIMIND_DATA_DIR": str(tmp_path),
        "SCAIMIND_PORT": "0",
        # Has each program know the settings of all of them.
        "SCAIMIND_A_SETTING_OF_NOBODY": "",
    }
    done = subprocess.run(
        (sys.executable, "-c", _SCRIPT, module, name, command),
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert module in imported
    assert imported & others == set()
