"""The local ScaiAtlas: models in versions, each as its files and a manifest.

    <root>/<tenant>/<name>/
        newest -> 3
        3/manifest.json
        3/files/...

`scaiatlas://<tenant>/<name>` is the newest version, `...@2` is one of them. A
version never changes.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .copying import copy_tree
from .drive import ATLAS_SCHEME, MODEL, NEWEST
from .jobdir import read_json, write_json


class Atlas:
    """Registers models. Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def register(
        self,
        *,
        tenant_id: str,
        name: str,
        files: Path,
        job_id: str,
        about: dict[str, Any],
        abandoned: threading.Event,
    ) -> str:
        """Make a version of the files below `files`; returns its URL.

        A job makes one version, however often this is called for it. `about`
        goes into the manifest. Raises Abandoned, OSError.
        """
        folder = self._root / tenant_id / name
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            version = _version_of(folder, job_id)
            if version is None:
                version = max(_versions(folder), default=0) + 1
                self._make(folder, version, files, job_id, about, abandoned)
            _point_at(folder, max(_versions(folder)))
        return f"{ATLAS_SCHEME}{tenant_id}/{name}@{version}"

    def _make(
        self,
        folder: Path,
        version: int,
        files: Path,
        job_id: str,
        about: dict[str, Any],
        abandoned: threading.Event,
    ) -> None:
        fresh = folder / f".{job_id}.partial"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir()
            copy_tree(files, fresh / "files", abandoned)
            listed = list(_listed(fresh / "files"))
            write_json(
                fresh / "manifest.json",
                {
                    "name": folder.name,
                    "version": version,
                    "job_id": job_id,
                    **about,
                    "size_bytes": sum(file["size_bytes"] for file in listed),
                    "files": listed,
                },
            )
            fresh.rename(folder / str(version))
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def _versions(folder: Path) -> list[int]:
    return [int(entry.name) for entry in os.scandir(folder) if entry.name.isdecimal()]


def _version_of(folder: Path, job_id: str) -> int | None:
    """The version that a job made."""
    for version in sorted(_versions(folder), reverse=True):
        manifest = read_json(folder / str(version) / "manifest.json")
        if manifest is not None and manifest["job_id"] == job_id:
            return version
    return None


def _point_at(folder: Path, version: int) -> None:
    link = folder / f".{NEWEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(str(version))
    link.replace(folder / NEWEST)


def _listed(root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield {
                "path": str(path.relative_to(root)),
                "size_bytes": path.stat().st_size,
                "sha256": digest,
            }


def is_model_name(name: str) -> bool:
    """Whether a model can be registered under this name."""
    match = MODEL.fullmatch(name)
    return match is not None and match["version"] is None and name != NEWEST
