"""An environment and a tenant's cache as they are on the disk."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.files.json_files import read_json

#: Microseconds for which an environment is used whose versions are not all settled.
MAX_AGE: Final = 7 * 24 * 3600 * 1_000_000


@dataclass(slots=True, kw_only=True, eq=False)
class Environment:
    """A finished environment. Times are in microseconds since 1970."""

    path: Path
    tenant_id: str
    #: What it was made of.
    key: str
    #: Whether the versions of all its packages are settled by that.
    pinned: bool
    size_bytes: int
    made_at: int
    last_used: int
    jobs: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        """The virtual environment."""
        return self.path / "env"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    def usable(self, now: int) -> bool:
        """Whether it is as good as a new one. A clock that was set back makes none too old."""
        return self.pinned or now - self.made_at < MAX_AGE


@dataclass(slots=True, kw_only=True, eq=False)
class Cache:
    """What a tenant's packages are made of."""

    path: Path
    tenant_id: str
    size_bytes: int = 0
    last_used: int = 0
    #: Whether packages are being made of it: it is a part of what was promised to those.
    busy: bool = False


def load(path: Path) -> Environment | None:
    """Return what a former coordinator finished; None of anything else."""
    marker = path / "environment.json"
    try:
        about = read_json(marker)
        if about is None:
            return None
        return Environment(
            path=path,
            last_used=marker.stat().st_mtime_ns // 1000,
            jobs=set(os.listdir(path / "jobs")),
            **about,
        )
    except (OSError, ValueError, TypeError):
        return None


def load_cache(path: Path) -> Cache | None:
    """Return what a former coordinator kept; None of anything else."""
    marker = path / "cache.json"
    try:
        about = read_json(marker)
        if about is None:
            return None
        return Cache(path=path, last_used=marker.stat().st_mtime_ns // 1000, **about)
    except (OSError, ValueError, TypeError):
        return None
