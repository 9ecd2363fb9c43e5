"""Reads of one job, each made once for all watchers that ask for it meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace

from app.hub.core.judging import Judging, Unjudged, judging_of
from app.hub.filters.judge import Judge
from app.hub.log_context import shared_context
from app.hub.upstream import JobKey, LogPage, Position, Upstream
from app.log_filter import LogFilter
from app.tasks.single_flight import SingleFlight


class JobReads:
    """What is being read of a job beside its stream; owned by the job's feed.

    The tasks that are returned must not be cancelled by callers, who await
    them through `asyncio.shield`. Each carries `request_id`, the request of the
    watcher that asked first.
    """

    def __init__(self, key: JobKey, *, upstream: Upstream, judge: Judge) -> None:
        self._key = key
        self._upstream = upstream
        self._judge = judge
        self._pages = SingleFlight[Hashable, LogPage]()
        self._verdicts = SingleFlight[Hashable, list[tuple[int, bool]]]()
        self._counts = SingleFlight[None, int]()

    def after(
        self,
        after: Position,
        *,
        through: int,
        asked: LogFilter,
        own: LogFilter,
        request_id: str,
        generation: int = 0,
    ) -> "asyncio.Task[LogPage]":
        """Return the task that reads the page behind `after` by the filter `asked`.

        Its entries are judged by the filter `own`. A log that was cut off and grew anew has other
        entries at the same places: its `generation` is another one.
        """
        return self._page(
            (after, asked, _by_more_than_level(own), generation),
            lambda: self._upstream.read_after(
                self._key, after, through=through, log_filter=asked, request_id=request_id
            ),
            own,
            request_id,
        )

    def tail(
        self, count: int, *, through: int, own: LogFilter, generation: int, request_id: str
    ) -> "asyncio.Task[LogPage]":
        """Return the task that reads the first page of the `count` newest entries that pass."""
        return self._page(
            (count, through, own, generation),
            lambda: self._upstream.read_tail(
                self._key, tail=count, through=through, log_filter=own, request_id=request_id
            ),
            own,
            request_id,
        )

    def before(
        self, before: int, *, limit: int, own: LogFilter, generation: int, request_id: str
    ) -> "asyncio.Task[LogPage]":
        """Return the task that reads the `limit` newest entries that pass before an offset."""
        return self._page(
            ("before", before, limit, own, generation),
            lambda: self._upstream.read_before(
                self._key, before, limit=limit, log_filter=own, request_id=request_id
            ),
            own,
            request_id,
        )

    def verdicts(
        self, log_filter: LogFilter, entries: Sequence[Unjudged], *, generation: int
    ) -> "asyncio.Task[list[tuple[int, bool]]]":
        """Return the task that judges entries, of that generation of the log."""
        return self._verdicts.start(
            (log_filter, generation, entries[0].offset, entries[-1].offset),
            lambda: self._judge.verdicts(log_filter, entries),
            name=f"hub-judge-{self._key.job_id}",
        )

    def _page(
        self,
        what: Hashable,
        read: Callable[[], Awaitable[LogPage]],
        own: LogFilter,
        request_id: str,
    ) -> "asyncio.Task[LogPage]":
        return self._pages.start(
            what,
            lambda: self._judged(read, own),
            name=f"hub-read-{self._key.job_id}",
            context=shared_context(tenant_id=self._key.tenant_id, request_id=request_id),
        )

    async def _judged(self, read: Callable[[], Awaitable[LogPage]], own: LogFilter) -> LogPage:
        page = await read()
        if _by_more_than_level(own) is None:
            return page
        entries = [Unjudged(each.offset, each.level, each.data) for each in page.records]
        said = await self._judge.verdicts(own, entries)
        return replace(page, verdicts=[passed for _, passed in said])

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
        await self._verdicts.close()
        await self._counts.close()


def _by_more_than_level(log_filter: LogFilter) -> LogFilter | None:
    """Return the filter, if an entry's level does not say whether it passes."""
    return None if judging_of(log_filter) is Judging.BY_LEVEL else log_filter
