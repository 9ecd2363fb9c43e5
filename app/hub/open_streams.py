"""The connections of all watchers that have joined, by the credential that opened them."""

import asyncio
from collections.abc import Iterator

from app.hub.connection import EXPIRED, Connection


class OpenStreams:
    """A set of connections with an index by credential."""

    def __init__(self) -> None:
        # Dicts for sets, since they keep the order of arrival.
        self._by_credential: dict[str, dict[Connection, None]] = {}
        self._count = 0
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a copy: connections may close meanwhile."""
        return iter([each for group in self._by_credential.values() for each in group])

    def add(self, connection: Connection) -> None:
        """Add one that is not there yet."""
        group = self._by_credential.setdefault(connection.caller.credential_id, {})
        group[connection] = None
        self._count += 1
        self._none_left.clear()

    def remove(self, connection: Connection) -> None:
        """Remove one that is there."""
        credential_id = connection.caller.credential_id
        group = self._by_credential[credential_id]
        del group[connection]
        if not group:
            del self._by_credential[credential_id]
        self._count -= 1
        if not self._count:
            self._none_left.set()

    def credentials(self) -> set[str]:
        """Return the ids of the credentials behind the open streams."""
        return set(self._by_credential)

    def revoke(self, credential_id: str) -> None:
        """Close the streams that a credential opened, as if it had expired."""
        for connection in list(self._by_credential.get(credential_id, ())):
            connection.close(EXPIRED)

    async def none_left(self) -> None:
        """Wait until there are none."""
        await self._none_left.wait()
