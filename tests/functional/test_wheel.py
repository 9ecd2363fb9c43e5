"""The distribution: built, installed into an environment of its own, and run from there."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import __version__
from tests.functional.stack import PATIENCE, PROJECT, Stack

UV = Path(sys.executable).with_name("uv")


def run(*command: str | Path, cwd: Path) -> str:
    finished = subprocess.run(
        command,
        cwd=cwd,
        # uv leaves the files there that it locks.
        env={**os.environ, "TMPDIR": str(cwd)},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: building leaves files in its tree."""
    copy = tmp_path_factory.mktemp("source") / "tree"
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, copy)
    for name in ("app", "generated"):
        shutil.copytree(
            PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    # With the environment's own setuptools: the same one each time.
    run(
        UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable,
        "--out-dir", copy / "dist", cwd=copy,
    )  # fmt: skip
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Iterator[Path]:
    """Where jobs of any user can read it, as in an image; pytest's directories are private."""
    with tempfile.TemporaryDirectory(prefix="scaimind-wheel-") as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        run(UV, "venv", "--quiet", "--python", sys.executable, directory / "venv", cwd=directory)
        install = (UV, "pip", "install", "--quiet", "--python", directory / "venv/bin/python")
        locked = PROJECT / "requirements/local.txt"
        run(*install, "--require-hashes", "--requirement", locked, cwd=directory)
        # The lock has all that it needs: nothing else is fetched.
        run(*install, "--no-deps", "--offline", wheel, cwd=directory)
        run(UV, "pip", "check", "--python", directory / "venv/bin/python", cwd=directory)
        yield directory


def test_an_installed_wheel_runs_the_whole_stack(environment: Path, tmp_path: Path) -> None:
    command = environment / "venv/bin/scaimind-gateway"
    with Stack(tmp_path / "var", command=[str(command)], cwd=environment) as stack:
        page = f"{stack.url}/v1/modules/scaimind/docs"
        with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
            assert answer.status == 200
        job_id = stack.submit(steps="20")
        assert stack.await_status(job_id, "COMPLETED", "FAILED")["status"] == "COMPLETED"


def test_the_version_stands_in_one_place(wheel: Path) -> None:
    assert wheel.name == f"scaimind_gateway-{__version__}-py3-none-any.whl"
    others = [
        str(path)
        for path in (PROJECT / "Dockerfile", PROJECT / "setup.cfg", PROJECT / "pyproject.toml")
        if __version__ in path.read_text()
    ]
    assert others == []


def test_the_command_is_that_of_the_checkout(environment: Path) -> None:
    installed = run(environment / "venv/bin/scaimind-gateway", "--help", cwd=environment)
    here = run(sys.executable, "-m", "app", "--help", cwd=PROJECT)
    assert installed.replace("scaimind-gateway", "python -m app") == here
