"""Reads the store without holding up the event loop."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from app.coordinator.database.database import Database

T = TypeVar("T")


class StoreReader(Protocol):
    """Reads in a thread of its own, with a connection of its own. It sees what is committed.

    Nothing is open or running before the first read.
    """

    async def run(self, read: Callable[[Database], T]) -> T:
        """Return what `read` does, at one moment. Raises what it raises; sqlite3.Error or
        StoreUnavailable."""

    def close(self) -> None:
        """Wait for what is being read, and close the connection; before the store."""
