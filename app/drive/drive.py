"""What the routes of `/v1/drive/` ask of a drive, in whatever it keeps the files.

Every call raises `ApiError`. Names are those of the caller's tenant.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from app.drive.paths import DrivePath
from app.drive.versions import Preconditions, Version


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of a folder."""

    name: str
    #: `file`, `folder`, `link` or `special`.
    kind: str
    #: Nanoseconds since 1970; None if it has no time.
    modified_ns: int | None
    #: Whether a path can name it.
    addressable: bool
    #: Of a file.
    version: Version | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a folder, in the order in which it has them."""

    items: tuple[Item, ...]
    #: What the next page follows, if there are more.
    more_after: bytes | None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which entries are wanted: so many behind what a page has said."""

    size: int
    after: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was put into its place."""

    version: Version
    #: Of the file that it replaced, if there was one.
    before: Version | None
    #: Bytes that went with that.
    freed: int


class FoundFile(Protocol):
    """A file that is open to be read. One call at a time."""

    @property
    def version(self) -> Version:
        """As it was opened."""

    async def send(self, sock: int, part: range) -> int | None:
        """Send some bytes of the beginning of a part to a socket that does not block.

        Returns how many; None if the socket takes nothing at the moment, 0 if
        the file has ended. Each part begins where what was sent of the one
        before ended. Raises `ApiError`, OSError.
        """

    def end(self, then: Callable[[], None] = lambda: None) -> None:
        """Close it. `then` is called in a thread, once none uses the socket any more."""


class NewFile(Protocol):
    """A file on its way into its place: written in order, then stored. One call at a time."""

    async def write(self, data: bytes | bytearray) -> None:
        """Append."""

    async def store(self, preconditions: Preconditions) -> Stored:
        """Put the file into its place, if what is there is as demanded."""


class Drive(Protocol):
    """The files of all tenants.

    A file that is put into its place and what is deleted are so for good when the call returns.
    """

    async def read(self, tenant_id: str, path: DrivePath, page: PageRequest) -> FoundFile | Page:
        """Open the file that is there, for the caller to end; or list the folder."""

    async def find(self, tenant_id: str, path: DrivePath) -> None:
        """Raise `ApiError` unless a file that can be opened, or a folder, is there."""

    async def check_destination(
        self, tenant_id: str, path: DrivePath, preconditions: Preconditions
    ) -> None:
        """Raise `ApiError` if a file could not be put there now."""

    def staged(
        self, tenant_id: str, path: DrivePath, *, size: int | None
    ) -> AbstractAsyncContextManager[NewFile]:
        """Write a new file for a path; what is not stored in the block is gone after it.

        `size` is how large it will be, if that is known: room is set aside for it.
        """

    async def delete(
        self, tenant_id: str, path: DrivePath, *, recursive: bool, preconditions: Preconditions
    ) -> None:
        """Delete what is there."""
