"""Reads of one job, each made once for all watchers that ask for it meanwhile."""

import asyncio
from collections.abc import Hashable

from app.hub.log_context import shared_context
from app.hub.upstream import JobKey, LogPage, Position, Upstream
from app.tasks.single_flight import SingleFlight


class JobReads:
    """What is being read of a job beside its stream; owned by the job's feed.

    The tasks that are returned must not be cancelled by callers, who await
    them through `asyncio.shield`. Each carries `request_id`, the request of the
    watcher that asked first.
    """

    def __init__(self, key: JobKey, *, upstream: Upstream) -> None:
        self._key = key
        self._upstream = upstream
        self._pages = SingleFlight[Hashable, LogPage]()
        self._counts = SingleFlight[None, int]()

    def after(
        self, after: Position, *, through: int, level: int, request_id: str
    ) -> "asyncio.Task[LogPage]":
        """Return the task that reads the page of `level` and above behind `after`."""
        return self._pages.start(
            (after, level),
            lambda: self._upstream.read_after(
                self._key, after, through=through, level=level, request_id=request_id
            ),
            name=f"hub-read-{self._key.job_id}",
            context=shared_context(tenant_id=self._key.tenant_id, request_id=request_id),
        )

    def tail(
        self, count: int, *, through: int, level: int, request_id: str
    ) -> "asyncio.Task[LogPage]":
        """Return the task that reads the first page of the `count` newest entries of a level."""
        return self._pages.start(
            (count, through, level),
            lambda: self._upstream.read_tail(
                self._key, tail=count, through=through, level=level, request_id=request_id
            ),
            name=f"hub-read-{self._key.job_id}",
            context=shared_context(tenant_id=self._key.tenant_id, request_id=request_id),
        )

    def snapshots(self, *, request_id: str) -> "asyncio.Task[int]":
        """Return the task that reads the sequence of the newest snapshot."""
        return self._counts.start(
            None,
            lambda: self._upstream.count_snapshots(self._key, request_id=request_id),
            name=f"hub-read-{self._key.job_id}",
            context=shared_context(tenant_id=self._key.tenant_id, request_id=request_id),
        )

    async def close(self) -> None:
        """Cancel all reads, and wait for their end."""
        await self._pages.close()
        await self._counts.close()
