"""Objects in S3, or in what speaks its protocol."""

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO, Final, cast

from typing_extensions import override

from app.files.copying import Abandoned
from app.files.directory import LimitReached
from app.objects.s3_connection import S3Connection, S3Place
from app.objects.s3_entries import MAX_KEY, folder_of, not_of_s3, object_of
from app.objects.s3_errors import NOTHING_THERE, refusal
from app.objects.s3_files import send_file
from app.objects.s3_reader import S3Reader
from app.objects.s3_uploads import MOST_PARTS, S3Uploads
from app.objects.store import (
    ChangedObject,
    KeyFolder,
    Listing,
    ObjectReader,
    ObjectStore,
    StoredObject,
)
from app.objects.uploads import PartedUploads

#: Bytes that are asked for at once, and of a part that is sent.
_BLOCK: Final = 16 * 1024 * 1024
#: S3's limits: keys of one page, and keys that one call removes.
_PAGE: Final = 1000


class S3Store(ObjectStore):
    """Keeps nothing of what it was told: others write to the bucket."""

    def __init__(self, place: S3Place) -> None:
        """Connects to nothing yet. Raises DriveRefused if the file with credentials cannot be
        used."""
        self.place = place
        self.connection = S3Connection(place)
        self._prefix = place.prefix
        self._uploads = S3Uploads(self.connection, self)

    @property
    @override
    def longest_key(self) -> int:
        return MAX_KEY - len(self._prefix)

    @property
    @override
    def uploads(self) -> PartedUploads:
        return self._uploads

    @override
    def check(self) -> None:
        next(self.objects("", limit=1), None)

    @override
    def objects(self, prefix: str, *, limit: int | None = None) -> Iterator[StoredObject]:
        left = limit
        for page in self._pages(prefix, page=_PAGE if left is None else min(left, _PAGE)):
            for entry in page.get("Contents", ()):
                if left == 0:
                    return
                if left is not None:
                    left -= 1
                yield object_of(entry, self._prefix)

    @override
    def children(
        self, prefix: str, *, after: str = "", page: int
    ) -> Iterator[StoredObject | KeyFolder]:
        asked = {"Delimiter": "/"}
        if after:
            # Behind all that is in the folder, if it is one's.
            last = f"{after}\U0010ffff" if after.endswith("/") else after
            # No key is longer than what is left of it here; the rest is looked at below.
            start = (self._prefix + last).encode()[:MAX_KEY]
            asked["StartAfter"] = start.decode(errors="ignore")
        behind = after.encode()
        for answer in self._pages(prefix, page=min(page, _PAGE), **asked):
            found: list[StoredObject | KeyFolder] = [
                *(object_of(each, self._prefix) for each in answer.get("Contents", ())),
                *(folder_of(each, self._prefix) for each in answer.get("CommonPrefixes", ())),
            ]
            found.sort(key=lambda each: each.key.encode())
            # An object of the prefix itself is what some clients make for an empty folder.
            yield from (each for each in found if each.key != prefix and each.key.encode() > behind)

    @override
    def listing(self, prefix: str, *, limit: int) -> Listing:
        objects: list[StoredObject] = []
        folders: list[str] = []
        for each in self.children(prefix, page=limit + 1):
            if isinstance(each, KeyFolder):
                folders.append(each.key.removeprefix(prefix).removesuffix("/"))
            else:
                objects.append(each)
            if len(objects) + len(folders) > limit:
                raise LimitReached(f"there are more than {limit} entries")
        return Listing(objects, folders)

    @override
    def read(self, key: str, *, limit: int) -> bytes:
        found = next(self.objects(key, limit=1), None)
        if found is None or found.key != key:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if found.size > limit:
            raise LimitReached(f"it has more than {limit} bytes")
        if not found.size:
            return b""  # S3 has no part of it
        with self.connection.failures():
            # It may be another one by now, of any size.
            content: bytes = self.connection.files.cat_file(
                self.connection.path(key), start=0, end=limit + 1
            )
        if len(content) > limit:
            raise LimitReached(f"it has more than {limit} bytes")
        return content

    @override
    def open(self, found: StoredObject) -> BinaryIO:
        path = self.connection.path(found.key)
        with self.connection.failures():
            opened = self.connection.files.open(path, "rb", block_size=_BLOCK)
        if opened.details["ETag"] != found.etag:
            raise ChangedObject
        return cast(BinaryIO, _OpenObject(opened, self.connection))

    @override
    def reader(self, found: StoredObject, start: int, stop: int) -> ObjectReader:
        return S3Reader(self.connection, found, start, stop)

    @override
    def fetch(self, found: StoredObject, target: int, abandoned: threading.Event) -> None:
        written = 0
        with self.open(found) as content:
            while written < found.size:
                if abandoned.is_set():
                    raise Abandoned
                block = content.read(min(_BLOCK, found.size - written))
                if not block:
                    raise ChangedObject
                _write(target, block)
                written += len(block)

    @override
    def write(self, key: str, content: bytes) -> None:
        self._uploads.put(key, content)

    @override
    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        size = os.fstat(source).st_size
        part = max(_BLOCK, -(-size // MOST_PARTS))
        send_file(self.connection, self._uploads, key, source, abandoned, size=size, part=part)
        if (stored := next(self.objects(key, limit=1), None)) is None or (
            (stored.key, stored.size) != (key, size)
        ):
            raise ChangedObject
        return stored

    @override
    def remove(self, keys: Iterable[str]) -> None:
        left = iter(keys)
        while some := list(islice(left, _PAGE)):
            names = [{"Key": self._prefix + key} for key in some]
            asked = {"Objects": names, "Quiet": True}
            answer = self.connection.call("delete_objects", Delete=asked)
            for each in answer.get("Errors", ()):
                if (code := each.get("Code")) not in NOTHING_THERE:
                    raise refusal(code, self.place.bucket)

    @override
    def close(self) -> None:
        self.connection.close()

    def _pages(self, prefix: str, *, page: int, **asked: Any) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            more = {"ContinuationToken": token} if token else {}
            answer = self.connection.call(
                "list_objects_v2", Prefix=self._prefix + prefix, MaxKeys=page, **asked, **more
            )
            yield answer
            if not answer.get("IsTruncated"):
                return
            before, token = token, answer.get("NextContinuationToken") or ""
            if not token or token == before:
                # It would go on for ever.
                raise not_of_s3()


class _OpenObject:
    """An open object whose failures are those of `ObjectStore`. A context manager."""

    def __init__(self, opened: Any, connection: S3Connection) -> None:
        self._opened = opened
        self._connection = connection

    def __enter__(self) -> "_OpenObject":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def read(self, size: int = -1) -> bytes:
        with self._connection.failures():
            content: bytes = self._opened.read(size)
            return content


def _write(target: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(target, rest) :]
