"""The connections of all watchers that have joined, by credential and by console session."""

import asyncio
from collections.abc import Iterator

from app.hub.connection import EXPIRED, Connection


class OpenStreams:
    """A set of connections with an index by what can revoke them."""

    def __init__(self) -> None:
        # Dicts for sets, since they keep the order of arrival.
        self._open: dict[Connection, None] = {}
        self._by_credential: dict[str, dict[Connection, None]] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a copy: connections may close meanwhile."""
        return iter(list(self._open))

    def add(self, connection: Connection) -> None:
        """Add one that is not there yet."""
        self._open[connection] = None
        for each in connection.caller.revocable_by:
            self._by_credential.setdefault(each, {})[connection] = None
        self._none_left.clear()

    def remove(self, connection: Connection) -> None:
        """Remove one that is there."""
        del self._open[connection]
        for each in connection.caller.revocable_by:
            group = self._by_credential[each]
            del group[connection]
            if not group:
                del self._by_credential[each]
        if not self._open:
            self._none_left.set()

    def credentials(self) -> set[str]:
        """Return the ids of the credentials and sessions behind the open streams."""
        return set(self._by_credential)

    def revoke(self, credential_id: str) -> None:
        """Close the streams that a credential or session opened, as if it had expired."""
        for connection in list(self._by_credential.get(credential_id, ())):
            connection.close(EXPIRED)

    async def none_left(self) -> None:
        """Wait until there are none."""
        await self._none_left.wait()
