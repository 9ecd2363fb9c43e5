"""The environment that language models are trained in: a Python of its own, with its packages."""

import errno
import os
import stat
from collections.abc import Collection
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


def find_environment(python: Path, *, private: Collection[Path] = ()) -> TrainersEnvironment:
    """Return the environment of a Python. Looks at files only, and starts nothing.

    Raises OSError if there is no such program, or if jobs that read the environment would read
    what is `private` as well.
    """
    if not os.access(python, os.X_OK):
        # Its own error, with the reason.
        os.stat(python)
        raise PermissionError(f"{python} is not executable")
    # `/bin` may be a link to `/usr/bin`: what is above the one is all of the machine.
    roots = {python.parent.resolve().parent: None, python.resolve().parent.parent: None}
    if (home := _home(python.parent.parent)) is not None:
        roots[home.resolve().parent] = None
    for root in roots:
        if root == Path("/") or any(each.resolve().is_relative_to(root) for each in private):
            raise PermissionError(
                errno.EACCES, f"{root} would be open to jobs, and has more in it than Python"
            )
    return TrainersEnvironment(python, tuple(roots))


def has_package(environment: TrainersEnvironment, name: str) -> bool:
    """Whether an environment has a package, by its folder. Starts nothing."""
    root = environment.python.parent.parent
    return any(root.glob(f"lib/python3.*/site-packages/{name}/__init__.py"))


def closed_to_others(environment: TrainersEnvironment) -> Path | None:
    """Return the first directory on the way to the environment that other users cannot pass;
    None if they can read it. Raises OSError."""
    for root in environment.roots:
        for path in (*reversed(root.parents), root):
            if not path.stat().st_mode & stat.S_IXOTH:
                return path
    return None


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
