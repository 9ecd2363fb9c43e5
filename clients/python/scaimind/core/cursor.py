"""Places in a job's log."""

from dataclasses import dataclass

from scaimind.errors import ScaiMindError


@dataclass(frozen=True, slots=True, order=False)
class Cursor:
    """Behind the entry `offset` of the log `epoch`. Its text is the stream's event id."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return the cursor of an id. Raises `ScaiMindError` if it is none."""
        epoch, colon, offset = text.rpartition(":")
        if not colon or not epoch or not (offset.isascii() and offset.isdigit()):
            raise ScaiMindError(f"{text[:80]!r} is no cursor; one looks like '4f1c...:4711'.")
        return cls(epoch, int(offset[:19]))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"
