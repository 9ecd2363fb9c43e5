"""What a store keeps of uploads: beside the tenants' folders, where no URL leads.

    .uploads/<tenant>/open/<id>/record     what is known about it, in JSON
    .uploads/<tenant>/open/<id>/tail-<n>   what has come behind its first n parts
    .uploads/<tenant>/done/<id>            as the record, once the file is in its place

The parts are those of an object in parts under the file's own key (S3's
multipart upload): all of the same size, so that whoever writes the n-th writes
the same bytes. The functions block, for threads, and raise OSError and `ApiError`.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import orjson

from app.drive.bucket.keys import UPLOADS
from app.drive.tenants import is_tenant
from app.drive.uploads import MAX_INFO, MOST_UPLOADS, UploadInfo
from app.errors import RATE_LIMITED, UPLOAD_NOT_FOUND, ApiError
from app.files.directory import LimitReached
from app.objects.store import ObjectStore, StoredObject

_OPEN: Final = "open"
_DONE: Final = "done"
_RECORD: Final = "record"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Parts of an upload, and bytes of one: more than this program makes.
_MOST_PARTS: Final = 10_000
_LARGEST_PART: Final = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known about an upload."""

    info: UploadInfo
    #: Bytes of a part.
    part: int
    #: The store's id of the object in parts; empty before the first.
    upload: str = ""
    #: How many parts count.
    parts: int = 0

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read what is stored. Raises ValueError, KeyError."""
        stored: dict[str, Any] = orjson.loads(content)
        record = cls(
            info=UploadInfo.parse(orjson.dumps(stored["info"])),
            part=stored["part"],
            upload=stored["upload"],
            parts=stored["parts"],
        )
        if not (
            0 < record.part <= _LARGEST_PART
            and 0 <= record.parts <= _MOST_PARTS
            and isinstance(record.upload, str)
        ):
            raise ValueError("it is no record of an upload")
        return record

    def dump(self) -> bytes:
        """Return what is stored."""
        return orjson.dumps(
            {
                "info": orjson.loads(self.info.dump()),
                "part": self.part,
                "upload": self.upload,
                "parts": self.parts,
            }
        )

    @property
    def declared(self) -> int:
        """Bytes that the file will have, or those that have come in parts."""
        return max(self.info.length or 0, self.parts * self.part)


class Records:
    """Those of one tenant."""

    def __init__(self, store: ObjectStore, tenant_id: str) -> None:
        self._store = store
        self._open = f"{UPLOADS}/{tenant_id}/{_OPEN}/"
        self._done = f"{UPLOADS}/{tenant_id}/{_DONE}/"

    def check_room(self) -> None:
        """Raise `ApiError` (`RATE_LIMITED`) if the tenant has too many unfinished uploads."""
        count = sum(1 for _, _ in zip(self._ids(), range(MOST_UPLOADS), strict=False))
        if count >= MOST_UPLOADS:
            raise ApiError(
                RATE_LIMITED,
                f"Your tenant has {count} unfinished uploads, of at most {MOST_UPLOADS}."
                " Finish or end some first.",
            )

    def read(self, upload_id: str) -> tuple[Record, float]:
        """Return what is known of an upload, and when it changed last. Raises `ApiError`
        (`UPLOAD_NOT_FOUND`)."""
        if not _ID.fullmatch(upload_id):
            raise ApiError(UPLOAD_NOT_FOUND)
        folder = f"{self._open}{upload_id}/"
        found = list(self._store.objects(folder, limit=_MOST_PARTS))
        key = f"{folder}{_RECORD}"
        if not any(each.key == key for each in found):
            key = f"{self._done}{upload_id}"
            found = [each for each in self._store.objects(key, limit=1) if each.key == key]
        record = self._parsed(key)
        if not found or record is None:
            raise ApiError(UPLOAD_NOT_FOUND)
        return record, changed_at(found)

    def write(self, record: Record) -> None:
        """Store what is known of an unfinished upload."""
        key = f"{self._open}{record.info.upload_id}/{_RECORD}"
        self._store.uploads.put(key, record.dump())

    def tail(self, record: Record) -> bytes:
        """Return what has come behind the parts."""
        try:
            return self._store.read(self._tail(record), limit=record.part)
        except (FileNotFoundError, LimitReached):
            return b""

    def tail_size(self, record: Record) -> int:
        """Return the bytes of `tail`."""
        key = self._tail(record)
        found = next(self._store.objects(key, limit=1), None)
        if found is None or found.key != key or found.size > record.part:
            return 0
        return found.size

    def write_tail(self, record: Record, content: bytes) -> None:
        """Store what has come behind the parts."""
        self._store.uploads.put(self._tail(record), content)

    def remove_tails(self, record: Record) -> None:
        """Forget what had come behind fewer parts."""
        folder = f"{self._open}{record.info.upload_id}/"
        kept = (f"{folder}{_RECORD}", self._tail(record))
        self._store.remove(each.key for each in self._store.objects(folder) if each.key not in kept)

    def finish(self, record: Record, tag: str) -> Record:
        """Note that the file is in its place, with its entity tag."""
        done = replace(record, info=replace(record.info, stored=tag))
        self._store.uploads.put(f"{self._done}{record.info.upload_id}", done.dump())
        self.remove(record.info.upload_id)
        return done

    def remove(self, upload_id: str) -> None:
        """Forget an unfinished upload; the record goes last, so that it is found again."""
        folder = f"{self._open}{upload_id}/"
        keys = [each.key for each in self._store.objects(folder)]
        self._store.remove(sorted(keys, key=lambda key: key.endswith(f"/{_RECORD}")))

    def remove_done(self, upload_id: str) -> None:
        """Forget a finished upload."""
        self._store.remove([f"{self._done}{upload_id}"])

    def unfinished(self) -> Iterator[tuple[str, Record | None, float]]:
        """Yield ids of uploads, what is known of them, and when they changed last."""
        for upload_id in list(self._ids()):
            folder = f"{self._open}{upload_id}/"
            found = list(self._store.objects(folder, limit=_MOST_PARTS))
            if found:
                yield upload_id, self._parsed(f"{folder}{_RECORD}"), changed_at(found)

    def finished(self) -> Iterator[tuple[str, float]]:
        """Yield ids of finished uploads, and when they were."""
        for each in self._store.objects(self._done):
            yield each.key.removeprefix(self._done), changed_at([each])

    def _ids(self) -> Iterator[str]:
        for each in self._store.children(self._open, page=MOST_UPLOADS):
            upload_id = each.key.removeprefix(self._open).removesuffix("/")
            if _ID.fullmatch(upload_id):
                yield upload_id

    def _parsed(self, key: str) -> Record | None:
        with suppress(FileNotFoundError, LimitReached, ValueError, KeyError, TypeError):
            return Record.parse(self._store.read(key, limit=2 * MAX_INFO))
        return None

    def _tail(self, record: Record) -> str:
        return f"{self._open}{record.info.upload_id}/tail-{record.parts}"


def changed_at(found: list[StoredObject]) -> float:
    """Return when one of these was written last, in seconds since 1970."""
    return max(each.modified for each in found) / 1_000_000


def declared_bytes(store: ObjectStore, tenant_id: str) -> int:
    """Return what a tenant's unfinished uploads will take."""
    records = (record for _, record, _ in Records(store, tenant_id).unfinished())
    return sum(record.declared for record in records if record is not None)


def tenants_with_uploads(store: ObjectStore) -> list[str]:
    """Return who has begun an upload."""
    found = (
        each.key.removeprefix(f"{UPLOADS}/").removesuffix("/")
        for each in store.children(f"{UPLOADS}/", page=1000)
    )
    return [tenant_id for tenant_id in found if is_tenant(tenant_id)]
