"""The object store of a coordinator that may be replaced: others write to it then."""

import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from typing_extensions import override

from app.coordinator.leadership.leadership import Leadership
from app.coordinator.leadership.while_leading import WhileLeading
from app.objects.store import KeyFolder, Listing, ObjectReader, ObjectStore, StoredObject
from app.objects.uploads import PartedUploads


class LedStore(ObjectStore):
    """A store that is changed only while its coordinator leads: else LeadershipLost is raised, of
    a large object also between two of its parts. It is read by anybody."""

    def __init__(self, store: ObjectStore, leadership: Leadership) -> None:
        """Closing it closes `store`."""
        self._store = store
        self._leadership = leadership

    @property
    @override
    def longest_key(self) -> int:
        return self._store.longest_key

    @property
    @override
    def uploads(self) -> PartedUploads:
        self._leadership.check()
        return self._store.uploads

    @override
    def check(self) -> None:
        self._store.check()

    @override
    def objects(self, prefix: str, *, limit: int | None = None) -> Iterator[StoredObject]:
        return self._store.objects(prefix, limit=limit)

    @override
    def children(
        self, prefix: str, *, after: str = "", page: int
    ) -> Iterator[StoredObject | KeyFolder]:
        return self._store.children(prefix, after=after, page=page)

    @override
    def listing(self, prefix: str, *, limit: int) -> Listing:
        return self._store.listing(prefix, limit=limit)

    @override
    def read(self, key: str, *, limit: int) -> bytes:
        return self._store.read(key, limit=limit)

    @override
    def open(self, found: StoredObject) -> BinaryIO:
        return self._store.open(found)

    @override
    def reader(self, found: StoredObject, start: int, stop: int) -> ObjectReader:
        return self._store.reader(found, start, stop)

    @override
    def fetch(self, found: StoredObject, target: int, abandoned: threading.Event) -> None:
        self._store.fetch(found, target, abandoned)

    @override
    def write(self, key: str, content: bytes) -> None:
        self._leadership.check()
        self._store.write(key, content)

    @override
    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        self._leadership.check()
        return self._store.upload(key, source, WhileLeading(abandoned, self._leadership))

    @override
    def remove(self, keys: Iterable[str]) -> None:
        self._store.remove(self._wanted(keys))

    def _wanted(self, keys: Iterable[str]) -> Iterator[str]:
        """Yield keys that the store takes a call's worth of at a time."""
        for key in keys:
            self._leadership.check()
            yield key

    @override
    def close(self) -> None:
        self._store.close()
