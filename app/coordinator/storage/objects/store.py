"""What an object store offers to the coordinator and to the nodes, and how it fails."""

import errno
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol


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
class Listing:
    """What is directly below a prefix, as a directory has it, by name."""

    objects: Sequence[StoredObject]
    #: Names of what has further objects below it.
    folders: Sequence[str]


class ObjectStore(Protocol):
    """Blocks: call it in a thread. Safe to use from several threads.

    An object is there as a whole or not at all: whatever breaks off while one
    is written, the former one stays. Every call raises DriveUnavailable and
    DriveRefused. Keys are relative to the store's own prefix.
    """

    def check(self) -> None:
        """Raise DriveUnavailable or DriveRefused unless the store can be listed."""

    def objects(self, prefix: str, *, limit: int | None = None) -> Iterator[StoredObject]:
        """Yield what begins with `prefix`, by key, at most `limit` of them. The exact key is the
        first."""

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

    def fetch(self, found: StoredObject, target: int, abandoned: threading.Event) -> None:
        """Write an object's content to a descriptor that is empty.

        Raises FileNotFoundError, ChangedObject, Abandoned, OSError.
        """

    def write(self, key: str, content: bytes) -> None:
        """Write a small object."""

    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        """Write an object of a regular file's content. Raises ChangedObject if the file changes
        meanwhile, Abandoned, OSError."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are passed over."""

    def close(self) -> None:
        """Close the connections."""
