"""The environment that language models are trained in: a Python of its own, with its packages."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Bytes of pyvenv.cfg that are read.
_MAX_CONFIG: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class TrainersEnvironment:
    """What runs need of it. Whoever made it owns it: nothing here changes it."""

    python: Path
    #: Directories that a process must be able to read to run it.
    roots: tuple[Path, ...]


def find_environment(python: Path) -> TrainersEnvironment:
    """Return the environment of a Python. Looks at files only, and starts nothing.

    Raises OSError if there is no such program.
    """
    if not os.access(python, os.X_OK):
        # Its own error, with the reason.
        os.stat(python)
        raise PermissionError(f"{python} is not executable")
    root = python.parent.parent
    roots = {root: None, python.resolve().parent.parent: None}
    if (home := _home(root)) is not None:
        roots[home.parent] = None
    return TrainersEnvironment(python, tuple(roots))


def has_package(environment: TrainersEnvironment, name: str) -> bool:
    """Whether an environment has a package, by its folder. Starts nothing."""
    root = environment.python.parent.parent
    return any(root.glob(f"lib/python3.*/site-packages/{name}/__init__.py"))


def _home(root: Path) -> Path | None:
    """Return the directory of the Python that a virtual environment was made with (PEP 405)."""
    try:
        with open(root / "pyvenv.cfg", encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_CONFIG).splitlines()
    except OSError:
        return None
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and name.strip().lower() == "home":
            return Path(value.strip())
    return None
