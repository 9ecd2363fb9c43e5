"""Lookup of API keys in the database, with a cache of a few seconds."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from cachetools import TLRUCache
from prometheus_client import Counter

from app.database.errors import DatabaseError
from app.scaikey import api_keys
from app.scaikey.api_keys import ApiKey
from app.tasks.single_flight import SingleFlight

V = TypeVar("V")
#: An answer and when it was asked for, by the hash of the key.
_Recent: TypeAlias = TLRUCache[bytes, tuple[V, float]]


class Reader(Protocol):
    """What the lookup needs of the pool."""

    async def read(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a query; raises `DatabaseError`."""


class KeyLookup:
    """Finds the key that a caller sent.

    An answer is at most `ttl` seconds old, "there is no such key" included:
    that bounds how late a revocation is felt. At most `size` answers of each
    kind are remembered, by hash, never the key itself. Callers that ask for
    the same key while it is being looked up share one query. When the
    database fails, so does the lookup: an old answer is never served.
    """

    def __init__(
        self,
        *,
        database: Reader,
        ttl: float,
        size: int,
        clock: Callable[[], float],
        lookups: Counter,
    ) -> None:
        self._database = database
        # Apart, so that a flood of invented keys does not push real ones out.
        self._known: _Recent[ApiKey] = _recent(ttl, size, clock)
        self._unknown: _Recent[None] = _recent(ttl, size, clock)
        self._queries = SingleFlight[bytes, ApiKey | None]()
        #: How often `forget` was called: an answer that was asked for before is not remembered.
        self._forgotten = 0
        self._clock = clock
        self._lookups = lookups
        #: Looked up once: it is counted for nearly every request.
        self._remembered = lookups.labels(result="remembered")

    async def find(self, secret: str) -> ApiKey | None:
        """Return the key, revoked and expired ones too; None if there is none.

        Raises `DatabaseError`.
        """
        if (known := self.at_hand(secret)) is not None:
            return known
        key_digest = api_keys.digest(secret)
        if key_digest in self._unknown:
            self._remembered.inc()
            return None
        return await self._queries.ask(
            key_digest, lambda: self._ask(key_digest), name="look up an API key"
        )

    def at_hand(self, secret: str) -> ApiKey | None:
        """Return the key if it is remembered, which `find` would then return without waiting."""
        answer = self._known.get(api_keys.digest(secret))
        if answer is None:
            return None
        self._remembered.inc()
        return answer[0]

    def forget(self, key_id: str) -> None:
        """Have a key looked up anew the next time that it is sent."""
        for key_digest, (key, _) in list(self._known.items()):
            if key.key_id == key_id:
                del self._known[key_digest]
        self._forgotten += 1

    async def close(self) -> None:
        """Cancel the queries that are under way."""
        await self._queries.close()

    async def _ask(self, key_digest: bytes) -> ApiKey | None:
        asked_at = self._clock()  # from here on, the answer ages
        forgotten = self._forgotten
        try:
            rows = await self._database.read(*api_keys.lookup_statement(key_digest))
        except DatabaseError:
            self._lookups.labels(result="failed").inc()
            raise
        key = api_keys.found(rows, key_digest)
        if key is None:
            self._unknown[key_digest] = (None, asked_at)
        elif forgotten == self._forgotten:
            self._known[key_digest] = (key, asked_at)
        self._lookups.labels(result="unknown" if key is None else "known").inc()
        return key


def _recent(ttl: float, size: int, clock: Callable[[], float]) -> _Recent[V]:
    """Return a cache of `size` answers, each good until `ttl` seconds after its question."""
    return TLRUCache(size, lambda _key, answer, _now: answer[1] + ttl, timer=clock)
