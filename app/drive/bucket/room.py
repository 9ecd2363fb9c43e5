"""How much tenants have in a store, and whether more may come.

Counting asks the store for each thousand objects, so it is done when a tenant
writes, and not each time. What comes and goes through this process meanwhile
is added; what comes through others is seen by the next count: after ten
minutes, or as soon as this process would have let in a tenth of the room that
was left at the last one. So ten processes that count at the same time let in no
more than there is room for.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from app.drive.bucket.upload_records import declared_bytes
from app.drive.problems import busy
from app.drive.threads import DriveThreads
from app.errors import QUOTA_EXCEEDED, ApiError
from app.files.copying import Abandoned
from app.objects.store import ObjectStore
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()

#: Seconds after which a count is made anew, and that an upload waits for a first one.
_AGE: Final = 600.0
_PATIENCE: Final = 10.0
#: Of the room that a count left: what is let in before the next one, for which an upload waits.
_SHARE: Final = 0.1
#: Seconds between two counts, and how many times the length of a count: at most a tenth of the time
#: is spent on counting, or one count in `_AGE`.
_PAUSE: Final = 10.0
_PAUSE_TIMES: Final = 10.0
#: Threads that count, of which a tenant has one.
_THREADS: Final = 2
#: Objects of a tenant that are counted.
_MOST: Final = 5_000_000


@dataclass(slots=True)
class _Tenant:
    #: As of the last count, and when it began; None before the first one.
    counted: int | None = None
    counted_at: float = 0.0
    #: Seconds that it took.
    took: float = 0.0
    #: By what it has grown since that began.
    growth: int = 0
    #: What has come since the count began that runs now.
    growth_during_count: int = 0
    #: Why it cannot be counted.
    problem: str = ""
    leases: set["Lease"] = field(default_factory=set)

    @property
    def used(self) -> int:
        """What it has, and what it is about to have."""
        known = max(0, (self.counted or 0) + self.growth)
        return known + self.coming

    @property
    def coming(self) -> int:
        """What it is about to have."""
        return sum(each.size for each in self.leases)


@dataclass(slots=True, eq=False)
class Lease:
    """Room for a file that is being written."""

    _grow: Callable[[int], None]
    size: int = 0
    #: By how much the tenant has grown when it is given back.
    growth: int = 0

    def grow(self, size: int) -> None:
        """Make it at least so large. Raises `ApiError` (`QUOTA_EXCEEDED`) with the numbers."""
        if size > self.size:
            self._grow(size - self.size)
            self.size = size


class BucketRoom:
    """On the event loop; counts in threads of its own. `quota` 0 is no limit, and no count."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        quota: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.quota = quota
        self._monotonic = monotonic
        self._tenants: dict[str, _Tenant] = {}
        self._threads = DriveThreads(
            threads=_THREADS,
            waiting=10_000,
            share=1 / _THREADS,
            patience=None,
            name="drive-count",
            waits_for="store",
        )
        self._abandoned = threading.Event()
        self._counts: SingleFlight[str, None] = SingleFlight()

    async def close(self) -> None:
        """Stop counting."""
        self._abandoned.set()
        await self._counts.close()
        self._threads.close()

    def used(self, tenant_id: str) -> int:
        """Return what a tenant has, and what it is about to have."""
        return self._of(tenant_id).used

    def add(self, tenant_id: str, size: int) -> None:
        """Note by what a tenant has grown; less than 0 is what has gone."""
        its = self._of(tenant_id)
        its.growth += size
        its.growth_during_count += max(0, size)

    @asynccontextmanager
    async def leased(self, tenant_id: str, size: int) -> AsyncIterator[Lease]:
        """Set room aside for a file of this size in the block. Raises `ApiError`."""
        await self._known(tenant_id, size)
        its = self._of(tenant_id)
        lease = Lease(partial(self._check, its))
        lease.grow(size)
        its.leases.add(lease)
        try:
            yield lease
        finally:
            its.leases.discard(lease)
            self.add(tenant_id, lease.growth)

    async def check(self, tenant_id: str) -> None:
        """Raise `ApiError` if the tenant has more than it may."""
        await self._known(tenant_id, 0)
        self._check(self._of(tenant_id), 0)

    def _check(self, its: _Tenant, more: int) -> None:
        if not self.quota:
            return
        if its.problem:
            raise ApiError(QUOTA_EXCEEDED, f"Your tenant's files cannot be counted: {its.problem}.")
        if its.used + more > self.quota:
            raise ApiError(
                QUOTA_EXCEEDED,
                f"The file needs {more} bytes more, and your tenant has {its.used} of its"
                f" {self.quota} bytes on the drive. Delete files first.",
            )

    async def _known(self, tenant_id: str, more: int) -> None:
        """Count if it is time to, before `more` bytes are let in."""
        its = self._of(tenant_id)
        if not self.quota:
            return
        if its.counted is None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self.count(tenant_id)
            except TimeoutError:
                raise busy() from None
            return
        age = self._monotonic() - its.counted_at
        wanted = self._is_share(its, more) and age > max(_PAUSE, _PAUSE_TIMES * its.took)
        if not (wanted or age > _AGE):
            return
        counting = self._counts.start(
            tenant_id, partial(self._count_again, tenant_id), name=f"drive-count-{tenant_id}"
        )
        if wanted:
            # After that, what is known counts on.
            await asyncio.wait([counting], timeout=_PATIENCE)

    def _is_share(self, its: _Tenant, more: int) -> bool:
        """Whether this process would have let in its share of the room since the last count."""
        left = max(0, self.quota - (its.counted or 0))
        return its.growth + its.coming + more > _SHARE * left

    async def count(self, tenant_id: str) -> None:
        """Count what a tenant has. Raises `ApiError` if the store does not say."""
        await self._counts.ask(
            tenant_id, partial(self._count_now, tenant_id), name=f"drive-count-{tenant_id}"
        )

    async def _count_again(self, tenant_id: str) -> None:
        try:
            await self._count_now(tenant_id)
        except ApiError as error:
            # What is known counts on.
            log.warning("drive_not_counted", tenant_id=tenant_id, reason=error.message)

    async def _count_now(self, tenant_id: str) -> None:
        its = self._of(tenant_id)
        began = self._monotonic()
        its.growth_during_count = 0
        counted = await self._threads.run(tenant_id, partial(self._counted, tenant_id))
        its.problem = "" if counted is not None else f"there are more than {_MOST}"
        its.counted, its.counted_at = counted or 0, began
        its.took = self._monotonic() - began
        its.growth = its.growth_during_count

    def _counted(self, tenant_id: str) -> int | None:
        """Return the bytes of a tenant's objects, and what its uploads will have; None if there
        are too many objects."""
        total = declared_bytes(self._store, tenant_id)
        for number, each in enumerate(self._store.objects(f"{tenant_id}/"), start=1):
            if self._abandoned.is_set():
                raise Abandoned
            if number > _MOST:
                return None
            total += each.size
        return total

    def _of(self, tenant_id: str) -> _Tenant:
        return self._tenants.setdefault(tenant_id, _Tenant())
