"""The base environment: the packages of the Python that the coordinator runs with.

An environment of a job adds to it. What the base has is a constraint, and is
imported from there.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import site
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Who a stub says has installed it: so it is told from what was installed meanwhile.
INSTALLER: Final = "scaimind"
#: Bytes of a package's metadata that are kept: its description is behind what matters.
_MAX_METADATA: Final = 256 * 1024
#: The file that makes an environment import what the base has. It comes last by its name.
_PATHS: Final = "zz_scaimind_base.pth"


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed package."""

    #: Normalized (PEP 503).
    name: str
    version: str
    #: Its metadata's head, as it was installed.
    metadata: str


@dataclass(frozen=True, slots=True)
class Base:
    """What there is at a moment; an operator may install packages while the coordinator runs."""

    distributions: tuple[Distribution, ...]
    #: The directories that they are in.
    directories: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What tells two bases apart: their packages, Python, and platform."""
        told = [
            *(sys.implementation.name, platform.python_version(), sys.base_prefix, sys.prefix),
            *(sysconfig.get_platform(), *platform.libc_ver()),
            *self.directories,
            *(f"{each.name}=={each.version}" for each in self.distributions),
        ]
        return hashlib.sha256("\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def constraints(self) -> str:
        """The packages as a file of constraints."""
        return "".join(f"{each.name}=={each.version}\n" for each in self.distributions)

    def add_to(self, packages: Path) -> None:
        """Have an environment, whose packages go into `packages`, find those of the base.

        Installers find them too: each has a stub there, of its metadata alone.
        `remove_stubs` takes those away again. Raises OSError.
        """
        lines = "".join(
            f"import site; site.addsitedir({directory!r})\n" for directory in self.directories
        )
        (packages / _PATHS).write_text(lines, encoding="utf-8")
        for each in self.distributions:
            stub = packages / f"{each.name.replace('-', '_')}-{each.version}.dist-info"
            stub.mkdir()
            (stub / "METADATA").write_text(each.metadata, encoding="utf-8", errors="replace")
            (stub / "INSTALLER").write_text(INSTALLER, encoding="ascii")
            (stub / "RECORD").touch()


def find_base() -> Base:
    """Return the base of this process's Python. Blocks shortly."""
    directories = [path for path in dict.fromkeys(site.getsitepackages()) if os.path.isdir(path)]
    found: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions(path=directories):
        if (each := _read(distribution)) is not None:
            # As with imports the first one counts.
            found.setdefault(each.name, each)
    return Base(tuple(found[name] for name in sorted(found)), tuple(directories))


def normalized(name: str) -> str:
    """Return a package's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(distribution: importlib.metadata.Distribution) -> Distribution | None:
    """Return what is told of a package; None if its metadata are damaged."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = text.partition("\n\n")[0][:_MAX_METADATA]
    fields = dict(_fields(head.splitlines()))
    name, version = fields.get("name", ""), fields.get("version", "")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not re.fullmatch(r"[\w.!+-]+", version):
        return None
    return Distribution(normalized(name), version, f"{head}\n")


def _fields(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            yield name.strip().lower(), value.strip()
