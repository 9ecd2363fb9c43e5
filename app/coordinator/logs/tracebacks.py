"""Recognizes the lines of Python's tracebacks, each of which stays an entry of its own."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from app.coordinator.logs.levels import is_leading, split_rank, without_colours

#: A traceback is told as one up to so many lines, and for so many seconds from its first line on.
MOST_LINES: Final = 200
MOST_SECONDS: Final = 1.0
#: Ranks whose lines come by one output, each with a traceback of its own.
_MOST_RANKS: Final = 64

#: A line has it that begins one.
BEGINNING: Final = b"Traceback (most recent call last):"
_START: Final = re.compile(r"\s*(?:\+ )?(?:Exception Group )?Traceback \(most recent call last\):")
#: What a traceback ends with: `ValueError: x`, `KeyboardInterrupt`.
_EXCEPTION: Final = re.compile(r"[^\W\d][\w.<>]*(?::|\s*$)")
_CHAIN: Final = re.compile(
    r"(?:During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):"
)

_T = TypeVar("_T")


class _At(Enum):
    FRAMES = auto()
    #: Behind the exception; another one may follow that it caused.
    END = auto()
    #: Between two exceptions.
    CHAIN = auto()


@dataclass(slots=True)
class _Block(Generic[_T]):
    head: _T
    began: float
    #: Of an exception group: all its lines are indented.
    group: bool
    at: _At = _At.FRAMES
    lines: int = 1


class Tracebacks(Generic[_T]):
    """The tracebacks among the lines of one output."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` is steady, in seconds."""
        self._clock = clock
        #: By the rank that lines begin with.
        self._blocks: dict[str, _Block[_T]] = {}

    @property
    def idle(self) -> bool:
        """Whether a line is part of a traceback only if it begins one."""
        return not self._blocks

    def take(self, text: str, line: _T) -> _T | None:
        """Return the first line of the traceback that a line is part of, which may be itself.

        None if it is part of none. `text` is what the line says.
        """
        rank, text = split_rank(without_colours(text))
        now = self._clock()
        block = self._blocks.get(rank)
        if block is not None and (block.lines >= MOST_LINES or now - block.began >= MOST_SECONDS):
            del self._blocks[rank]
            block = None
        if start := _START.match(text):
            if block is None or block.at is not _At.CHAIN:
                if len(self._blocks) >= _MOST_RANKS:
                    self._blocks.clear()
                self._blocks[rank] = _Block(line, now, group="Group" in start[0])
                return line
            block.at = _At.FRAMES
        elif block is None or not _is_part(block, text):
            self._blocks.pop(rank, None)
            return None
        block.lines += 1
        return block.head if block.at is not _At.END or text.strip() else None


def _is_part(block: "_Block[_T]", text: str) -> bool:
    """Whether a line that starts no traceback belongs to one, or may lead back to it."""
    if block.at is _At.FRAMES:
        if text[:1].isspace():
            return True
        if block.group or is_leading(text) or not _EXCEPTION.match(text):
            return False
        block.at = _At.END
        return True
    if not text.strip():
        return True
    if _CHAIN.match(text):
        block.at = _At.CHAIN
        return True
    return False
