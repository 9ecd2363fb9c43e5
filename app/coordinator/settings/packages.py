"""Settings of the packages that jobs bring with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.configuration.section import Section, parsed
from app.configuration.values import (
    parse_count,
    parse_path,
    parse_seconds,
    parse_size,
    parse_url,
)

_NO_PATH: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PackageSettings(Section):
    """Packages of jobs (`framework.config.requirements`)."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    packages_index: str = parsed(
        "https://pypi.org/simple",
        "URL of the package index that packages of jobs come from, unless their requirements name "
        "another one. Jobs can read it: no credentials.",
        parse_url,
    )
    packages_wheels: Path | None = parsed(
        _NO_PATH,
        "Directory of wheels that packages of jobs come from instead, for machines without the "
        "network. Every user must be able to read it.",
        parse_path,
        example="/srv/wheels",
    )
    packages_timeout: float = parsed(
        1800.0, "Maximum time to install the packages of a job.", parse_seconds
    )
    environment_bytes: int = parsed(
        32 * 1024**3,
        "Maximum size of one environment of packages while it is made, with its tenant's cache.",
        parse_size,
    )
    environment_files: int = parsed(
        500_000, "Maximum number of files and directories of the same.", parse_count
    )
    packages_bytes: int = parsed(
        64 * 1024**3,
        "Size of all environments and caches of packages together. What no job uses is removed "
        "for new ones, the least recently used first, before they are made: each has up to "
        "environment_bytes promised. A job that finds no room waits for others to end.",
        parse_size,
    )
