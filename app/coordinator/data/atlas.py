"""The local ScaiAtlas: models in versions, each as its files and a manifest.

    <root>/<tenant>/<name>/
        newest -> 3
        3/manifest.json
        3/files/...

`scaiatlas://<tenant>/<name>` is the newest version, `...@2` is one of them. A
version never changes. No job can write here.
"""

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final
from weakref import WeakValueDictionary

import orjson

from app.coordinator.data.drive import ATLAS_SCHEME, MODEL, NEWEST
from app.files.copying import Abandoned, Twins, copy_tree
from app.files.directory import Directory, Kind
from app.files.json_files import read_json
from app.files.names import is_utf8, printable
from app.files.staging import staged_directory
from app.files.walking import Limits, walk

_BLOCK: Final = 1024 * 1024
#: Seconds between two looks at whether anybody still wants a version that waits for its turn.
_LOOK: Final = 0.2


class Atlas:
    """Registers models. Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        #: One for each model that is being registered.
        self._locks: WeakValueDictionary[Path, _Lock] = WeakValueDictionary()
        self._locks_lock = threading.Lock()

    def register(
        self,
        *,
        tenant_id: str,
        name: str,
        files: Directory,
        job_id: str,
        about: dict[str, Any],
        limits: Limits,
        abandoned: threading.Event,
        twins: Twins | None = None,
    ) -> str:
        """Make a version of the files in `files`; returns its URL.

        A job makes one version, however often this is called for it. `about`
        goes into the manifest. Files that have `twins` are kept once, with them.
        Raises LimitReached, Abandoned, OSError.
        """
        folder = self._root / tenant_id / name
        folder.mkdir(parents=True, exist_ok=True)
        with self._turn(folder, abandoned), Directory.open(folder) as model:
            version = _version_of(model, folder, job_id)
            if version is None:
                version = max(_versions(model), default=0) + 1
                with staged_directory(model, str(version), label=job_id) as fresh:
                    with fresh.make_directory("files") as target:
                        copy_tree(files, target, abandoned, limits=limits, twins=twins)
                        listed = list(_listed(target, limits, abandoned))
                    manifest = {
                        "name": name,
                        "version": version,
                        "job_id": job_id,
                        **about,
                        "size_bytes": sum(file["size_bytes"] for file in listed),
                        "files": listed,
                    }
                    with fresh.create("manifest.json", durable=True) as file:
                        file.write(orjson.dumps(manifest))
            model.symlink(str(max(_versions(model))), NEWEST)
        return f"{ATLAS_SCHEME}{tenant_id}/{name}@{version}"

    @contextmanager
    def _turn(self, folder: Path, abandoned: threading.Event) -> Iterator[None]:
        """A model gets one version at a time; others do not wait for it. Raises Abandoned."""
        with self._locks_lock:
            lock = self._locks.setdefault(folder, _Lock())
        while not lock.lock.acquire(timeout=_LOOK):
            if abandoned.is_set():
                raise Abandoned
        try:
            yield
        finally:
            lock.lock.release()


class _Lock:
    """Is there as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def _versions(model: Directory) -> list[int]:
    return [int(entry.name) for entry in model.scan() if entry.name.isdecimal()]


def _version_of(model: Directory, folder: Path, job_id: str) -> int | None:
    """The version that a job made."""
    for version in sorted(_versions(model), reverse=True):
        manifest = read_json(folder / str(version) / "manifest.json")
        if manifest is not None and manifest.get("job_id") == job_id:
            return version
    return None


def _listed(
    root: Directory, limits: Limits, abandoned: threading.Event
) -> Iterator[dict[str, Any]]:
    """The files below a directory that nobody changes, as a manifest has them.

    JSON is UTF-8: of a path that is not, `path` has escapes, and `path_base64` its bytes.
    """
    for visit in walk(root, limits):
        if visit.entry.kind is not Kind.FILE:
            continue
        with visit.directory.open_file(visit.entry.name) as file:
            digest = _digest(file, abandoned)
            size = os.fstat(file.fileno()).st_size
        path = visit.path
        entry = {"path": path, "size_bytes": size, "sha256": digest}
        if not is_utf8(path):
            entry["path"] = printable(path)
            entry["path_base64"] = base64.b64encode(os.fsencode(path)).decode("ascii")
        yield entry


def _digest(file: BinaryIO, abandoned: threading.Event) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        if abandoned.is_set():
            raise Abandoned
        digest.update(block)
    return digest.hexdigest()


def is_model_name(name: str) -> bool:
    """Whether a model can be registered under this name."""
    match = MODEL.fullmatch(name)
    return match is not None and match["version"] is None and name != NEWEST
