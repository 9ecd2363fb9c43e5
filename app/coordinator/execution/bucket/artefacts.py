"""Artefacts and models in an object store."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
from typing_extensions import override

from app.coordinator.data.atlas import Atlas
from app.coordinator.data.bucket_drive import ATLAS, BucketDrive
from app.coordinator.data.conversion.conversion import Converter
from app.coordinator.data.drive import ATLAS_SCHEME, SCHEME, Place
from app.coordinator.execution.artefacts import Artefacts
from app.coordinator.storage.untrusted_json import BadJson, parse
from app.files.copying import Abandoned, Report, Twins
from app.files.directory import Directory, LimitReached
from app.files.walking import Limits
from app.objects.published import PublishedTrees
from app.objects.trees import upload_tree

#: Seconds between two looks at whether anybody still wants a version that waits for its turn.
_LOOK: Final = 0.2
#: Bytes of a manifest: it has an entry for each file.
_MAX_MANIFEST: Final = 256 * 1024 * 1024


class BucketArtefacts(Artefacts):
    """Brings them there. Objects replace those of their key one by one; the job is COMPLETED when
    all of them are there."""

    def __init__(
        self,
        *,
        bucket: BucketDrive,
        converter: Converter,
        limits: Limits,
        clock: Callable[[], int],
    ) -> None:
        super().__init__(
            drive=bucket,
            atlas=BucketAtlas(bucket),
            converter=converter,
            limits=limits,
            clock=clock,
        )
        self._bucket = bucket

    @override
    def _bring(
        self,
        made: Directory,
        place: Place,
        job_id: str,
        abandoned: threading.Event,
        *,
        noted: bool,
    ) -> Report:
        tenant_id = place.url.removeprefix(SCHEME).partition("/")[0]
        prefix = "/".join((tenant_id, *place.parts, ""))
        _, report = upload_tree(self._bucket.store, made, prefix, abandoned, limits=self._limits)
        return report

    @override
    @contextmanager
    def _twins(self, place: Place, report: Report) -> Iterator[Twins | None]:
        yield None


class BucketAtlas(Atlas):
    """Registers models: each version is a tree that is there as a whole, with its manifest."""

    def __init__(self, bucket: BucketDrive) -> None:
        assert bucket.atlas is not None
        super().__init__(bucket.atlas)
        self._bucket = bucket
        # Versions are counted on: one at a time gets the next. Only who leads registers.
        self._turns = threading.Lock()

    @override
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
        folder = f"{ATLAS}/{tenant_id}/{name}/"
        while not self._turns.acquire(timeout=_LOOK):
            if abandoned.is_set():
                raise Abandoned
        try:
            version = self._register(
                folder, files, {"name": name, "job_id": job_id, **about}, limits, abandoned
            )
        finally:
            self._turns.release()
        return f"{ATLAS_SCHEME}{tenant_id}/{name}@{version}"

    def _register(
        self,
        folder: str,
        files: Directory,
        manifest: dict[str, Any],
        limits: Limits,
        abandoned: threading.Event,
    ) -> int:
        """Return the version that the job has made, now or before."""
        store = self._bucket.store
        versions = self._bucket.versions(folder)
        for version in reversed(versions):
            if self._job_of(f"{folder}{version}/manifest.json") == manifest["job_id"]:
                return version
        version = max(versions, default=0) + 1
        trees = PublishedTrees(store, folder)
        trees.remove(str(version))
        found, report = upload_tree(
            store, files, f"{folder}{version}/files/", abandoned, limits=limits
        )
        listed = [
            {"path": each.path, "size_bytes": each.stored.size, "etag": each.stored.etag}
            for each in found
        ]
        about = {**manifest, "version": version, "size_bytes": report.size_bytes, "files": listed}
        store.write(f"{folder}{version}/manifest.json", orjson.dumps(about))
        trees.mark(str(version))
        return version

    def _job_of(self, key: str) -> object:
        """Return whose version a manifest is of; None for one that this program has not written:
        anybody with the bucket's credentials may put models there."""
        try:
            manifest = parse(self._bucket.store.read(key, limit=_MAX_MANIFEST))
        except (FileNotFoundError, LimitReached, BadJson):
            return None
        return manifest.get("job_id") if isinstance(manifest, dict) else None
