"""One stream of WatchJobs.

It reads the record of changes behind the version up to which it has told
everything, page by page, and so a stream that begins, one that goes on and one
whose reader is slow are the same: it holds one page at most, and between two
of its pages a job's states replace each other. Whoever reads slowly waits by
itself.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from app.coordinator.errors import InvalidArgument, Overloaded
from app.coordinator.failures import FailureBackoff, is_passing
from app.coordinator.jobs.changes.reader import ChangeReader, ChangesPage
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.store import Store
from app.coordinator.service.watch_jobs.looks import ClusterLooks
from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobsVersion,
    WatchJobsResponse,
    WatchJobsStart,
)

#: Seconds that changes wait for company when others have just gone.
COALESCE: Final = 0.02


async def watch_jobs(
    tenant_id: str,
    after: JobsVersion | None,
    *,
    store: Store,
    reader: ChangeReader,
    job_events: JobEvents,
    looks: ClusterLooks | None,
) -> AsyncGenerator[WatchJobsResponse, None]:
    """Everything that changes of a tenant's jobs, without end.

    From `after` on, or from the beginning where it is None or the record does
    not reach back to it. `looks`, unless it is None, adds nodes and the queue,
    from the message with `synced` on. Raises RequestError.
    """
    if after is not None and after.version < 0:
        raise InvalidArgument("after.version", "must be 0 or more")
    with job_events.subscribe_tenant(tenant_id) as news:
        reach = store.reach(tenant_id)
        resumes = (
            after is not None
            and after.epoch == store.epoch
            and reach.forgotten <= after.version <= reach.newest
        )
        version = after.version if after is not None and resumes else 0
        # The whole state knows nothing of what was deleted before.
        deletions_after = 0 if resumes else reach.newest
        message = WatchJobsResponse(start=WatchJobsStart(epoch=store.epoch, reset=not resumes))
        synced = False
        while True:
            news.clear()
            page = await _page(reader, tenant_id, version, deletions_after)
            if page.reach.forgotten > max(version, deletions_after):
                raise Overloaded(
                    "this stream was read so slowly that the record of changes has passed it;"
                    " open it again"
                )
            version = page.last
            message.changes.extend(page.changes)
            if page.complete and not synced:
                synced = True
                message.synced = version
            if synced and looks is not None:
                looks.add_to(message)
            if message.ListFields():
                yield message
                message = WatchJobsResponse()
                if page.complete:
                    await asyncio.sleep(COALESCE)
            if page.complete:
                await _wait(news, None if looks is None else looks.seconds_left())


async def _page(
    reader: ChangeReader, tenant_id: str, version: int, deletions_after: int
) -> ChangesPage:
    """Read the next page, as soon as it can be read."""
    backoff = FailureBackoff()
    while True:
        try:
            return await reader.page(tenant_id, version, deletions_after=deletions_after)
        except Exception as error:
            if not is_passing(error):
                raise
            await asyncio.sleep(backoff.after_failure())


async def _wait(news: asyncio.Event, seconds: float | None) -> None:
    """Return when there is news, or when the seconds have passed."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
