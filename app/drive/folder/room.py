"""Room for files: asked for before anything is stored, counted over and over in the background."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from app.drive.folder import counting, tree
from app.drive.folder.ledger import Claim, Ledger
from app.drive.folder.staging import tenants_in
from app.drive.folder.upload_files import clear
from app.drive.folder.usage import Lease, Usage
from app.drive.problems import busy
from app.drive.threads import DriveThreads
from app.errors import ApiError
from app.files.copying import Abandoned
from app.files.directory import LimitReached
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()

#: Seconds between two passes over all tenants: with what a pass takes, a number is at most a
#: minute old.
INTERVAL: Final = 20.0
#: Seconds that an upload waits for a tenant's first count, and a pass for any.
_PATIENCE: Final = 10.0
#: Threads that count.
_THREADS: Final = 4
#: Whose calls are those for all tenants.
_NOBODY: Final = ""


class Room:
    """Knows what tenants have, and lets files in. `run` counts until it is cancelled.

    Counting has threads of its own: however long it takes, requests have theirs.
    """

    def __init__(self, root: Path, *, threads: DriveThreads, usage: Usage, lifetime: float) -> None:
        self._root = root
        self._requests = threads
        self._usage = usage
        self._lifetime = lifetime
        # A tenant has one of them: a few whose counts take long hold up nobody else's.
        self._threads = DriveThreads(
            threads=_THREADS,
            waiting=10_000,
            share=1 / _THREADS,
            patience=None,
            name="drive-count",
        )
        self._ledger = Ledger(root)
        self._abandoned = threading.Event()
        self._counts: SingleFlight[str, None] = SingleFlight()

    @property
    def quota(self) -> int:
        """Bytes that a tenant may have; 0 is no limit."""
        return self._usage.quota

    def used(self, tenant_id: str) -> int:
        """Return what a tenant has, and what it is about to have."""
        return self._usage.used(tenant_id)

    async def close(self) -> None:
        """Stop counting."""
        self._abandoned.set()
        await self._counts.close()
        self._threads.close()
        self._ledger.close()

    async def run(self) -> None:
        """Count all tenants, clear away what has expired, and begin anew, until cancelled."""
        while True:
            for tenant_id in await self._tenants():
                try:
                    # A count that takes longer goes on beside those of others.
                    async with asyncio.timeout(_PATIENCE):
                        await self.count(tenant_id)
                except TimeoutError:
                    log.info("drive_count_slow", tenant_id=tenant_id)
                except Exception:
                    # A fault with one tenant's files must not end the counting of all.
                    log.exception("drive_count_failed", tenant_id=tenant_id)
            await asyncio.sleep(INTERVAL)

    async def _tenants(self) -> list[str]:
        try:
            return await self._threads.run(_NOBODY, partial(tenants_in, self._root))
        except (ApiError, OSError) as error:
            # Of the drive's own directory. It may come back: a disk that is mounted late.
            log.warning("drive_not_counted", reason=str(error))
            return []

    @asynccontextmanager
    async def leased(self, tenant_id: str, size: int) -> AsyncIterator[Lease]:
        """Set room aside for a file of this size in the block. Raises `ApiError`."""
        await self._known(tenant_id)
        claim = Claim()
        try:
            free, own_free, others = await self._requests.run(
                tenant_id, partial(self._claimed, tenant_id, claim, size)
            )
            self._usage.saw_others(tenant_id, others)
            lease = self._usage.lease(tenant_id, size, free=free, own_free=own_free, claim=claim)
        except BaseException:
            self._requests.post(tenant_id, partial(self._ledger.end, tenant_id, claim, 0))
            raise
        try:
            yield lease
        finally:
            self._usage.end(lease)
            end = partial(self._ledger.end, tenant_id, claim, lease.growth)
            self._requests.post(tenant_id, end)

    def _claimed(self, tenant_id: str, claim: Claim, size: int) -> tuple[int, int | None, int]:
        others = self._ledger.claim(tenant_id, claim, size)
        own = counting.own_disk(self._root, tenant_id)
        own_free = None if own is None else counting.free_bytes(own)
        return counting.free_bytes(self._root), own_free, others

    def claim(self, lease: Lease) -> int:
        """Have other replicas know how large a lease is; return what they have let in.

        For threads.
        """
        return self._ledger.claim(lease.tenant_id, lease.claim, lease.size)

    def saw_others(self, tenant_id: str, size: int) -> None:
        """Note what other replicas have let in."""
        self._usage.saw_others(tenant_id, size)

    def add(self, tenant_id: str, size: int) -> None:
        """Note by what a tenant has grown; less than 0 is what has gone."""
        self._usage.add(tenant_id, size)
        self._requests.post(tenant_id, partial(self._ledger.add, tenant_id, size))

    def moved(self, tenant_id: str, size: int) -> None:
        """Note that an upload's file has come to its place."""
        self._usage.moved(tenant_id, size)

    def awaits(self, tenant_id: str, size: int) -> None:
        """Note what unfinished uploads will write; less than 0 is what they have written."""
        self._usage.awaits(tenant_id, size)

    async def check_quota(self, tenant_id: str) -> None:
        """Raise `ApiError` if the tenant has more than it may."""
        await self._known(tenant_id)
        self._usage.check_quota(tenant_id)

    def look(self, size: int) -> int:
        """Return what the disk has left; for threads.

        Raises `ApiError` unless a piece of this size may come: whoever else writes to the
        disk is not asked, and room that was set aside may be gone.
        """
        free = counting.free_bytes(self._root)
        self._usage.check_free(size, free=free)
        return free

    def clear_soon(self, tenant_id: str) -> None:
        """Have removed what the tenant has deleted."""
        self._threads.post(tenant_id, partial(self._clear, tenant_id))

    async def _known(self, tenant_id: str) -> None:
        if self._usage.known(tenant_id):
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.count(tenant_id)
        except TimeoutError:
            raise busy() from None

    async def count(self, tenant_id: str) -> None:
        """Clear away what has expired of a tenant, and count the rest."""
        await self._counts.ask(
            tenant_id, partial(self._count_now, tenant_id), name=f"drive-count-{tenant_id}"
        )

    async def _count_now(self, tenant_id: str) -> None:
        await self._threads.run(tenant_id, partial(self._clear, tenant_id))
        mark = await self._threads.run(tenant_id, partial(self._ledger.mark, tenant_id))
        self._usage.count_begins(tenant_id)
        try:
            counted = await self._threads.run(
                tenant_id, partial(counting.used_bytes, self._root, tenant_id, self._abandoned)
            )
        except LimitReached as error:
            self._usage.count_ends(tenant_id, 0, problem=str(error.strerror))
        else:
            self._usage.count_ends(tenant_id, counted)
        others = await self._threads.run(tenant_id, partial(self._ledger.counted, tenant_id, mark))
        self._usage.saw_others(tenant_id, others)
        awaited = await self._threads.run(
            tenant_id, partial(counting.awaited_bytes, self._root, tenant_id)
        )
        self._usage.count_awaited(tenant_id, awaited)

    def _clear(self, tenant_id: str) -> None:
        with suppress(Abandoned):
            tree.remove_deleted(self._root, tenant_id)
            expired = clear(self._root, tenant_id, lifetime=self._lifetime)
            if expired:
                log.info("drive_uploads_expired", tenant_id=tenant_id, uploads=expired)
