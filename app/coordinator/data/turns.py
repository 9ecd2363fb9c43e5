"""Who is next where tenants share a few places: one after the other, and none has all of them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Full(Exception):
    """No more may wait: in all, or of this tenant."""


class Turns:
    """Assigns places to tenants in turn; within a tenant in the order of its requests.

    A tenant has at most half of the places, and at most half of the room to
    wait, but one at least. Belongs to one event loop.
    """

    def __init__(self, *, places: int, room: int) -> None:
        """`room` is for those that have a place and those that wait for one."""
        self._free = places
        self._most_places = _half(places)
        self._room = room
        self._most_room = _half(room)
        self._placed: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        #: Who waits, by tenant: that whose turn is next comes first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant_id: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the context. Raises Full."""
        if self._present.total() >= self._room or self._present[tenant_id] >= self._most_room:
            raise Full
        self._present[tenant_id] += 1
        try:
            await self._wait(tenant_id)
            try:
                yield
            finally:
                self._give_back(tenant_id)
        finally:
            _take_one(self._present, tenant_id)

    async def _wait(self, tenant_id: str) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, deque()).append(place)
        self._give()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                # It was given one at the same moment.
                self._give_back(tenant_id)
            elif (queue := self._waiting.get(tenant_id)) is not None:
                with suppress(ValueError):
                    queue.remove(place)
                if not queue:
                    del self._waiting[tenant_id]
            raise

    def _give_back(self, tenant_id: str) -> None:
        self._free += 1
        _take_one(self._placed, tenant_id)
        self._give()

    def _give(self) -> None:
        """Assign free places to those who may have them."""
        while self._free and (tenant_id := self._next()) is not None:
            queue = self._waiting.pop(tenant_id)
            place = queue.popleft()
            if queue:
                # Behind all others.
                self._waiting[tenant_id] = queue
            if not place.done():
                self._free -= 1
                self._placed[tenant_id] += 1
                place.set_result(None)

    def _next(self) -> str | None:
        """The tenant whose turn it is; None if nobody who waits may have a place."""
        for tenant_id in self._waiting:
            if self._placed[tenant_id] < self._most_places:
                return tenant_id
        return None


def _half(number: int) -> int:
    return max(number // 2, 1)


def _take_one(counter: Counter[str], tenant_id: str) -> None:
    counter[tenant_id] -= 1
    if not counter[tenant_id]:
        del counter[tenant_id]
