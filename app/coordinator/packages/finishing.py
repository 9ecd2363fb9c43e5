"""What becomes of an environment once everything is installed: looked through, and closed."""

import os
import stat
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.coordinator.isolation.kernel import checked, libc
from app.coordinator.packages.base import INSTALLER, normalized
from app.files.directory import Directory, Kind, LimitReached, NotARegularFile
from app.files.removing import remove_tree
from app.files.walking import Limits, Position, walk

_BLOCK: Final = 512
_SUFFIX: Final = ".dist-info"


class BadEnvironment(Exception):
    """What was installed cannot be used; the message is a phrase."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an environment holds beside what the base has."""

    #: The packages' names, normalized.
    names: frozenset[str]
    size_bytes: int


def packages_of(root: Path) -> Path:
    """Return where a virtual environment has its packages."""
    places = {"base": str(root), "platbase": str(root)}
    return Path(sysconfig.get_path("purelib", "venv", places))


def finish(root: Path, *, files: int) -> Installed:
    """Take the stubs of the base's packages away, and leave nothing that can be written.

    Whatever built the packages has written there: no link is followed. Raises
    BadEnvironment, OSError.
    """
    with Directory.open(root) as environment:
        try:
            names = _remove_stubs(environment, packages_of(root).relative_to(root).parts)
        except (NotADirectoryError, FileNotFoundError):
            raise BadEnvironment("the directory of its packages is gone") from None
        try:
            size = _close(environment, Limits(entries=files))
        except LimitReached as error:
            raise BadEnvironment(error.strerror) from None
        # A power cut must not leave files without their content in what counts as finished.
        checked(libc.syncfs(environment.descriptor))
        return Installed(names, size)


def _remove_stubs(environment: Directory, way: tuple[str, ...]) -> frozenset[str]:
    found = set()
    with Position(environment) as position:
        for name in way:
            position.descend(name)
        packages = position.directory
        for entry in list(packages.scan()):
            if not entry.name.endswith(_SUFFIX) or entry.kind is not Kind.DIRECTORY:
                continue
            if _installer_of(packages, entry.name) == INSTALLER:
                remove_tree(packages, entry.name)
            else:
                found.add(normalized(entry.name.removesuffix(_SUFFIX).partition("-")[0]))
    return frozenset(found)


def _installer_of(packages: Directory, name: str) -> str:
    try:
        with packages.open_directory(name) as about, about.open_file("INSTALLER") as file:
            return file.read(100).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError, NotARegularFile):
        return ""


def _close(environment: Directory, limits: Limits) -> int:
    """Let everybody read all of it, and nobody write; returns its bytes on the disk."""
    size = 0
    os.fchmod(environment.descriptor, 0o555)
    for visit in walk(environment, limits):
        if visit.entry.kind is Kind.DIRECTORY:
            os.fchmod(visit.directory.descriptor, 0o555)
        elif visit.entry.kind is Kind.FILE:
            with visit.directory.open_file(visit.entry.name) as file:
                about = os.fstat(file.fileno())
                executable = 0o111 if about.st_mode & stat.S_IXUSR else 0
                os.fchmod(file.fileno(), 0o444 | executable)
                size += about.st_blocks * _BLOCK
        elif visit.entry.kind is Kind.SPECIAL:
            raise BadEnvironment(f"{visit.path!r} is neither a file nor a link")
    return size
