"""The client's own tests, with every Python from 3.11 on that the machine has."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.functional.stack import CLIENT, PATIENCE

OLDEST = (3, 11)


def version_of(python: Path) -> tuple[int, int] | None:
    """Major and minor version of a Python that runs; None of one that does not."""
    asked = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            (python, "-c", asked), capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor = map(int, done.stdout.split())
    return major, minor


def pythons() -> dict[str, Path]:
    """One Python for each version, on the PATH or of pyenv."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    folders = [Path(each) for each in os.environ.get("PATH", os.defpath).split(":")]
    found: dict[str, Path] = {}
    for folder in (*sorted(versions.glob("*/bin")), *folders):
        for path in sorted(folder.glob("python3.*")):
            if re.fullmatch(r"python3\.\d+", path.name) is None:
                continue
            version = version_of(path)
            if version is not None and version >= OLDEST:
                found.setdefault(f"{version[0]}.{version[1]}", path)
    return found


@pytest.mark.slow
def test_every_python_of_the_machine_runs_it(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = pythons()
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in found
    record_property("Pythons", sorted(found))
    uv = Path(sys.prefix, "bin/uv")
    # A build leaves files beside what it builds.
    client = shutil.copytree(CLIENT, tmp_path / "client")
    ours = {name: text for name, text in os.environ.items() if not name.startswith("SCAIMIND_")}
    for version, python in found.items():
        venv = tmp_path / version
        for command in (
            (uv, "venv", "--quiet", "--python", python, venv),
            # As a distribution: what its setup.cfg names is all that it needs.
            (uv, "pip", "install", "--quiet", "--python", venv / "bin/python", client, "pytest"),
        ):
            subprocess.run(command, env=ours, check=True, timeout=10 * PATIENCE)
        pytest_command = (venv / "bin/python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider")
        done = subprocess.run(
            (*pytest_command, "--rootdir", client, "-c", os.devnull, client / "tests"),
            cwd=tmp_path,
            env={**ours, "PYTHONWARNINGS": "error::DeprecationWarning:scaimind"},
            capture_output=True,
            text=True,
            timeout=10 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, (version, done.stdout[-2000:])
        where = f"import scaimind; assert {str(venv)!r} in scaimind.__file__"
        subprocess.run((venv / "bin/python", "-P", "-c", where), cwd=tmp_path, check=True)
        shown = subprocess.run(
            (venv / "bin/scaimind", "--version"), capture_output=True, text=True, check=True
        )
        assert shown.stdout.startswith("scaimind, version ")
