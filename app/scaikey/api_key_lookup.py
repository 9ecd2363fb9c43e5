"""API keys as the database has them, with answers that are remembered for a few seconds."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import Counter

from app.database.errors import DatabaseError
from app.scaikey import api_keys
from app.scaikey.api_keys import ApiKey

V = TypeVar("V")


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
        self._known = _Recent[ApiKey](ttl=ttl, size=size)
        self._unknown = _Recent[None](ttl=ttl, size=size)
        self._flights: dict[bytes, asyncio.Future[ApiKey | None]] = {}
        #: How often `forget` was called: an answer that was asked for before is not remembered.
        self._forgotten = 0
        self._clock = clock
        self._lookups = lookups

    async def find(self, secret: str) -> ApiKey | None:
        """Return the key, revoked and expired ones too; None if there is none.

        Raises `DatabaseError`.
        """
        key_digest = api_keys.digest(secret)
        now = self._clock()
        for recent in (self._known, self._unknown):
            if (entry := recent.get(key_digest, now)) is not None:
                self._lookups.labels(result="remembered").inc()
                return entry[0]
        while (flight := self._flights.get(key_digest)) is not None:
            await asyncio.wait((flight,))
            if not flight.cancelled():
                return flight.result()
        return await self._fly(key_digest)

    def forget(self, key_id: str) -> None:
        """Have a key looked up anew the next time that it is sent."""
        self._known.drop(lambda key: key.key_id == key_id)
        self._forgotten += 1

    async def _fly(self, key_digest: bytes) -> ApiKey | None:
        flight = self._flights[key_digest] = asyncio.get_running_loop().create_future()
        try:
            key = await self._ask(key_digest)
        except asyncio.CancelledError:
            flight.cancel()  # those who wait ask for themselves
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # nobody has to be waiting
            raise
        else:
            flight.set_result(key)
            return key
        finally:
            del self._flights[key_digest]

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
            self._unknown.put(key_digest, None, asked_at)
        elif forgotten == self._forgotten:
            self._known.put(key_digest, key, asked_at)
        self._lookups.labels(result="unknown" if key is None else "known").inc()
        return key


class _Recent(Generic[V]):
    """Newest answers; the oldest goes first when there are too many."""

    def __init__(self, *, ttl: float, size: int) -> None:
        self._ttl = ttl
        self._size = size
        # By age: an answer is put at the end and never moved.
        self._entries: OrderedDict[bytes, tuple[V, float]] = OrderedDict()

    def get(self, key: bytes, now: float) -> tuple[V, float] | None:
        """Return the answer and when it was asked for; None if there is none that counts."""
        entry = self._entries.get(key)
        if entry is not None and now - entry[1] >= self._ttl:
            del self._entries[key]
            return None
        return entry

    def drop(self, condition: Callable[[V], bool]) -> None:
        """Forget the answers of which `condition` holds."""
        for key in [key for key, (value, _) in self._entries.items() if condition(value)]:
            del self._entries[key]

    def put(self, key: bytes, value: V, asked_at: float) -> None:
        """Remember an answer."""
        self._entries.pop(key, None)
        self._entries[key] = (value, asked_at)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
