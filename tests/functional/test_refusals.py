"""What stops a start: one line that says what is wrong, and a status that is not 0."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.stack import PATIENCE, PROJECT, Stack, environ

#: Root may write everywhere, but for this capability.
AS_ANYONE = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")


def refused(data_dir: Path, *command: str, **settings: str) -> str:
    """Run a command that has to refuse; the line that it says."""
    return refused_within((), data_dir, *command, **settings)


def refused_within(program: tuple[str, ...], data_dir: Path, *command: str, **settings: str) -> str:
    """The same, started by a program."""
    done = subprocess.run(
        (*program, sys.executable, "-m", "app", *(command or ("up",))),
        cwd=PROJECT,
        env=environ(data_dir, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done
    # An attempt to change something is an audit event, too.
    lines = [each for each in done.stderr.splitlines() if '"event":"audit"' not in each]
    (line,) = lines
    assert line.startswith("Error: ")
    return line


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(tmp_path / "var", SCAIMIND_PORT=port)
    assert f"Port {port} of 127.0.0.1" in line
    assert "SCAIMIND_PORT" in line
    assert not (tmp_path / "var").exists(), "something was started before the port was looked at"


@pytest.mark.parametrize("command", ["up", "serve", "issuer"])
@pytest.mark.parametrize(
    "host", ["gateway.invalid", "http://0.0.0.0", "198.51.100.7", "127.0.0.1:8080", "a..b"]
)
def test_a_host_that_is_not_this_machine(tmp_path: Path, host: str, command: str) -> None:
    variable = "SCAIMIND_ISSUER_HOST" if command == "issuer" else "SCAIMIND_HOST"
    done = subprocess.run(
        (sys.executable, "-m", "app", command),
        cwd=PROJECT,
        env=environ(
            tmp_path / "var",
            **{variable: host},
            SCAIMIND_UPSTREAM_ADDRESS="127.0.0.1:1",
            SCAIMIND_UPSTREAM_API_SECRET="the-api-secret",
            SCAIMIND_DATABASE_DSN="postgresql://127.0.0.1:1/x",
            SCAIMIND_ISSUER_CLIENT_SECRET="the-client-secret",
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {variable}: {host!r}")
    assert "127.0.0.1 to be reached from here alone" in line


@pytest.mark.parametrize("port", ["http", "70000"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    assert "SCAIMIND_PORT" in refused(tmp_path / "var", SCAIMIND_PORT=port)


@pytest.mark.parametrize("variable", ["SCAIMIND_HUB_LINGER", "SCAIMIND_COORDINATOR_STOP_GRACE"])
def test_a_bad_setting_of_a_child(tmp_path: Path, variable: str) -> None:
    assert variable in refused(tmp_path / "var", **{variable: "soon"})
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("below", ["", "below"])
def test_a_data_directory_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    line = refused(tmp_path / "file" / below)
    assert f"The data directory {tmp_path / 'file' / below} is not usable" in line
    assert "SCAIMIND_DATA_DIR" in line


def test_a_data_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    line = refused_within(AS_ANYONE if os.geteuid() == 0 else (), tmp_path / "var")
    assert "Permission denied" in line


def test_proc_cannot_be_written_to_by_anyone() -> None:
    assert "The data directory /proc/scaimind is not usable" in refused(Path("/proc/scaimind"))


def test_a_data_directory_in_use(stack: Stack) -> None:
    line = refused(stack.data_dir)
    assert f"{stack.data_dir} is in use by another run (process {stack.process.pid})" in line


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    line = refused(
        tmp_path / "var", SCAIMIND_DATABASE_DSN=f"postgresql://u:hidden@127.0.0.1:{port}/x"
    )
    assert "The database is not usable" in line
    assert "hidden" not in line


def test_a_coordinator_without_its_secret(tmp_path: Path) -> None:
    line = refused(tmp_path / "var", SCAIMIND_UPSTREAM_ADDRESS="127.0.0.1:1")
    assert "SCAIMIND_UPSTREAM_API_SECRET" in line


@pytest.mark.parametrize("command", ["migrate", "keys list", "keys revoke key_0"])
def test_commands_that_need_a_database(tmp_path: Path, command: str) -> None:
    line = refused(tmp_path / "var", *command.split())
    assert f"'up' is not running on {tmp_path / 'var'}" in line


def test_serve_without_settings(tmp_path: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "app", "serve"),
        cwd=PROJECT,
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "SCAIMIND_DATABASE_DSN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("found", ["3.10", None])
def test_no_python_that_is_new_enough(tmp_path: Path, found: str | None) -> None:
    """`scripts/run` on a machine whose only Python is too old, or that has none."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "env", "mkdir", "mktemp", "rm"):
        (programs / name).symlink_to(_which(name))
    if found:
        # Tells its version when asked to print, and fails the check for 3.11.
        python = programs / "python3"
        python.write_text(
            f'#!/bin/sh\ncase "$2" in *print*) echo {found};; *) exit 1;; esac\n', encoding="ascii"
        )
        python.chmod(0o755)
    done = subprocess.run(
        (PROJECT / "scripts" / "run",),
        env={"PATH": str(programs), "SCAIMIND_VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Python 3.11 or newer is needed")
    assert (found or "none") in line
    assert not (tmp_path / "venv").exists()


def test_a_python_without_the_packages() -> None:
    # -S: as a Python into which nothing was installed.
    done = subprocess.run(
        (sys.executable, "-S", "-m", "app", "token"),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {sys.executable} lacks the package ")
    assert "scripts/run" in line


def _which(name: str) -> Path:
    for folder in os.get_exec_path():
        if (path := Path(folder) / name).exists():
            return path
    raise AssertionError(f"{name} is not on the PATH")
