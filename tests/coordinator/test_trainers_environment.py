"""What jobs may read of the environment that models are trained in."""

import sys
from pathlib import Path

import pytest

from app.coordinator.trainers.environment import find_environment


def python_in(root: Path, home: str = "") -> Path:
    python = root / "bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    if home:
        (root / "pyvenv.cfg").write_text(f"version = 3.11\nHome = {home}\n")
    return python


def test_it_is_the_environment_and_the_python_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "base/bin").mkdir(parents=True)
    python = python_in(tmp_path / "env", str(tmp_path / "base/bin"))
    found = find_environment(python)
    assert found.python == python
    real = Path(sys.executable).resolve().parent.parent
    assert set(found.roots) == {tmp_path / "env", tmp_path / "base", real}


def test_a_python_that_is_not_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_environment(tmp_path / "bin/python")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    with pytest.raises(PermissionError):
        find_environment(tmp_path / "bin/python")


def test_nothing_around_the_coordinators_own_data_becomes_open_to_jobs(tmp_path: Path) -> None:
    python = python_in(tmp_path)
    find_environment(python, private=[tmp_path.parent / "data"])
    with pytest.raises(PermissionError):
        find_environment(python, private=[tmp_path / "data"])
    with pytest.raises(PermissionError):
        find_environment(python_in(tmp_path / "env", "/nowhere"))
