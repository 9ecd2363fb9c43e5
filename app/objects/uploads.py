"""Objects that are written in parts, and with conditions, as an object store offers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to be under a key for an object to be written there: whatever, unless set."""

    #: This version.
    etag: str = ""
    #: Nothing.
    absent: bool = False

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.etag) or self.absent


ANY_OBJECT = Condition()


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part that has come."""

    #: From 1 on, in the order of the object.
    number: int
    size: int
    etag: str


class PartedUploads(Protocol):
    """Blocks: call it in a thread. Safe to use from several threads.

    An object in parts is there when it is completed, as a whole; until then
    nobody sees it, and its parts stay until it is completed or aborted. A
    store forgets them only where it is told to. Every call raises
    DriveUnavailable and DriveRefused; those with an upload's id
    FileNotFoundError, if it is over.
    """

    def put(self, key: str, content: bytes, condition: Condition = ANY_OBJECT) -> None:
        """Write a small object at once. Raises ChangedObject if the condition is not met,
        DriveLacks if the store knows no conditions."""

    def begin(self, key: str) -> str:
        """Begin an object in parts; returns the upload's id."""

    def send(self, key: str, upload: str, number: int, content: bytes) -> StoredPart:
        """Write a part, in the place of one of that number."""

    def parts(self, key: str, upload: str) -> list[StoredPart]:
        """Return the parts that have come, in their order."""

    def complete(
        self,
        key: str,
        upload: str,
        parts: Sequence[StoredPart],
        condition: Condition = ANY_OBJECT,
    ) -> None:
        """Have the object be there. Raises as `put`."""

    def abort(self, key: str, upload: str) -> None:
        """Forget the parts; those of an upload that is over are passed over."""
