"""What an object store offers, and how it fails."""

import errno
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from app.objects.uploads import PartedUploads


class DriveUnavailable(OSError):
    """The store does not answer, or asks to slow down: the same may work in a moment.

    The message is a phrase for a job's owner.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EAGAIN, f"the drive cannot be reached at the moment ({reason})")


class DriveRefused(OSError):
    """The store does not let this deployment in, or has no such bucket: its operator has to act.

    The message is a phrase for a job's owner, without credentials.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(errno.EACCES, problem)


class DriveLacks(DriveRefused):
    """The store does not know what it was asked for: it speaks a part of S3's protocol."""


class ChangedObject(OSError):
    """An object is another one than that which was listed."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "it was changed while it was read")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of an object."""

    key: str
    size: int
    #: Another one when the object is written anew.
    etag: str
    #: When it was written, in microseconds since 1970.
    modified: int


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """What is below a slash in keys, as a directory has it."""

    #: Ends with the slash.
    key: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What is directly below a prefix, as a directory has it, by name."""

    objects: Sequence[StoredObject]
    #: Names of what has further objects below it.
    folders: Sequence[str]


class ObjectReader(Protocol):
    """A part of one version of an object, read once from its beginning to its end."""

    def read(self, size: int) -> bytes:
        """Return the next bytes, at least one and at most `size`; none at the end.

        Raises FileNotFoundError, ChangedObject, and as every call of the store.
        """

    def close(self) -> None:
        """Let go of the connection. It can be called in any thread, and twice."""


class ObjectStore(Protocol):
    """Blocks: call it in a thread. Safe to use from several threads.

    An object is there as a whole or not at all: whatever breaks off while one
    is written, the former one stays. Every call raises DriveUnavailable and
    DriveRefused. Keys are relative to the store's own prefix.
    """

    @property
    def longest_key(self) -> int:
        """Bytes that a key may have."""

    @property
    def uploads(self) -> PartedUploads:
        """Objects that are written in parts, and with conditions."""

    def check(self) -> None:
        """Raise DriveUnavailable or DriveRefused unless the store can be listed."""

    def objects(self, prefix: str, *, limit: int | None = None) -> Iterator[StoredObject]:
        """Yield what begins with `prefix`, by key, at most `limit` of them. The exact key is the
        first."""

    def children(
        self, prefix: str, *, after: str = "", page: int
    ) -> Iterator[StoredObject | KeyFolder]:
        """Yield what is directly below `prefix`, by key, and behind the key `after` in that order.

        `prefix` is empty or ends with a slash; an object of that very key is
        left out. The store is asked for `page` of them at a time, as far as it
        gives so many.
        """

    def listing(self, prefix: str, *, limit: int) -> Listing:
        """Return what is directly below `prefix`, which is empty or ends with a slash.

        Raises LimitReached if there is more than `limit`.
        """

    def read(self, key: str, *, limit: int) -> bytes:
        """Return a small object. Raises FileNotFoundError, LimitReached."""

    def open(self, found: StoredObject) -> BinaryIO:
        """Open an object to read any part of it; it has no descriptor.

        Raises FileNotFoundError; opening and reading raise ChangedObject.
        """

    def reader(self, found: StoredObject, start: int, stop: int) -> ObjectReader:
        """Return what reads the bytes from `start` up to `stop`, which are in the object; nothing
        is asked for before the first of them is wanted."""

    def fetch(self, found: StoredObject, target: int, abandoned: threading.Event) -> None:
        """Write an object's content to a descriptor that is empty.

        Raises FileNotFoundError, ChangedObject, Abandoned, OSError.
        """

    def write(self, key: str, content: bytes) -> None:
        """Write a small object."""

    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        """Write an object of a regular file's content. Raises ChangedObject if the file changes
        meanwhile, Abandoned, OSError."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are passed over. As many keys are held at a
        time as one call of the store removes."""

    def close(self) -> None:
        """Close the connections."""
