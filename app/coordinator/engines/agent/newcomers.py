"""The connections to an agent that have not greeted yet: anybody on its network can open some."""

import asyncio
from collections import Counter
from typing import Final

#: Those of one address, and of all.
_OF_ONE: Final = 8
_OF_ALL: Final = 64


class Newcomers:
    """Bounded, and never closed to one more: the oldest gives way to it, of the same address if
    that has many. So nobody keeps out whoever greets soon. On one event loop."""

    def __init__(self) -> None:
        #: In the order in which they came, with their addresses.
        self._waiting: dict[asyncio.Task[None], str] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def admit(self, connection: asyncio.Task[None], address: str) -> None:
        """Take in a connection, served by a task, which is cancelled where it gives way."""
        if list(self._waiting.values()).count(address) >= _OF_ONE:
            self._drop_oldest_of(address)
        elif len(self._waiting) >= _OF_ALL:
            ((crowded, _),) = Counter(self._waiting.values()).most_common(1)
            self._drop_oldest_of(crowded)
        self._waiting[connection] = address

    def leave(self, connection: asyncio.Task[None]) -> None:
        """Let go of one that has greeted, or has ended."""
        self._waiting.pop(connection, None)

    def _drop_oldest_of(self, address: str) -> None:
        oldest = next(each for each, whose in self._waiting.items() if whose == address)
        del self._waiting[oldest]
        oldest.cancel()
