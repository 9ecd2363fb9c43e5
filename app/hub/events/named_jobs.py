"""The states of jobs that are named, of a coordinator that has no stream of all states.

Each job's own stream, which all who watch the job share, tells of a new
status; then the job is read again. What changes otherwise is seen at the next
of the reads that come again and again for all selections of the tenant.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from secrets import token_hex

import structlog

from app.caller import Caller
from app.errors import (
    COORDINATOR_ERROR,
    COORDINATOR_TIMEOUT,
    JOB_DELETED,
    JOB_NOT_FOUND,
    SHUTTING_DOWN,
    ApiError,
)
from app.hub.events.polled_states import PolledStates
from app.hub.events.sources import GetFeed
from app.hub.events.views import Views
from app.hub.feed import Feed
from app.hub.log_context import shared_context
from app.hub.selection.record import TenantRecord
from app.hub.selection.states import (
    JobChange,
    JobState,
    StatesBatch,
    StatesStart,
)
from app.hub.settings import HubSettings
from app.hub.upstream import is_final
from app.tasks.backoff import Backoff

log = structlog.get_logger()


class NamedJobs:
    """Lives while it is held; then `on_gone` is called once.

    Its record is its own: a client that comes back to another one starts with
    the whole state.
    """

    def __init__(
        self,
        tenant_id: str,
        job_ids: Iterable[str],
        *,
        polled: PolledStates,
        get_feed: GetFeed,
        settings: HubSettings,
        wall: Callable[[], float],
        on_gone: Callable[["NamedJobs"], None],
        request_id: str,
    ) -> None:
        self.key = (tenant_id, frozenset(job_ids))
        self.record = TenantRecord(most=settings.events_record_jobs)
        self.views = Views(self.record, most=settings.events_jobs)
        self.failure: ApiError | None = None
        self._tenant = Caller(tenant_id=tenant_id, user_id=None, request_id=request_id)
        self._polled = polled
        self._get_feed = get_feed
        self._settings = settings
        self._wall = wall
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._holders = 0
        self._states: dict[str, JobState | None] = {}
        self._complete = asyncio.Event()
        self._epoch = token_hex(8)
        for job_id in self.key[1]:
            polled.listen(job_id, self._take_read)
        self._tasks = [
            self._loop.create_task(
                self._run(job_id),
                name=f"hub-named-{job_id}",
                context=shared_context(tenant_id=tenant_id, request_id=request_id),
            )
            for job_id in sorted(self.key[1])
        ]

    def hold(self) -> None:
        """Keep it alive until `release`."""
        self._holders += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self._holders -= 1
        if not self._holders:
            self._on_gone(self)

    async def ready(self, *, nodes: bool, queue: bool) -> None:
        """Wait until the state of each job is known; of nothing else. Raises `ApiError`."""
        try:
            async with asyncio.timeout(self._settings.open_timeout):
                await self._complete.wait()
        except TimeoutError:
            raise ApiError(COORDINATOR_TIMEOUT) from None
        if self.failure is not None:
            raise self.failure

    async def reach(self, version: int) -> bool:
        """Whether all that changed behind a version is known."""
        return self.record.floor <= version <= self.record.version

    async def aclose(self) -> None:
        """End all tasks; those who watched must have left."""
        self.failure = self.failure or ApiError(SHUTTING_DOWN, retry_after=1)
        for job_id in self.key[1]:
            self._polled.unlisten(job_id, self._take_read)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, job_id: str) -> None:
        try:
            await self._follow(job_id)
        except Exception:
            log.exception("hub_named_job_crashed", job_id=job_id)
            self._fail()

    def _fail(self) -> None:
        """End it and its streams: one of the jobs is not followed any more."""
        if self.failure is None:
            self.failure = ApiError(COORDINATOR_ERROR)
            self._complete.set()
            self._on_gone(self)
            self.views.break_all()

    async def _follow(self, job_id: str) -> None:
        """Follow one job until it is gone."""
        settings = self._settings
        backoff = Backoff(shortest=settings.reconnect_min, longest=settings.reconnect_max)
        while True:
            try:
                await self._hold_feed(job_id, backoff)
                return
            except ApiError as error:
                if error.kind in (JOB_NOT_FOUND, JOB_DELETED):
                    self._take(job_id, None)
                    return
                if is_final(error.kind):
                    log.warning("hub_named_job_lost", job_id=job_id, code=error.kind.code)
                    self._take(job_id, self._states.get(job_id))
                    return
            await asyncio.sleep(backoff.pause())

    async def _hold_feed(self, job_id: str, backoff: Backoff) -> None:
        """Read the job at first and whenever its status is another one. Raises `ApiError`."""
        feed = self._get_feed(self._tenant.tenant_id, job_id, self._tenant.request_id)
        news = _News(feed)
        feed.hold()
        feed.listeners[news] = None
        try:
            await feed.opened()
            while True:
                status = feed.status
                await self._polled.read(job_id)
                backoff.reset()
                await news.wait_for(partial(_differs, feed, status))
                if feed.failure is not None:
                    raise feed.failure
        finally:
            feed.listeners.pop(news, None)
            feed.release()

    def _take_read(self, job_id: str, state: JobState | None) -> None:
        try:
            self._take(job_id, state)
        except Exception:  # the other selections that name the job go on
            log.exception("hub_named_job_crashed", job_id=job_id)
            self._fail()

    def _take(self, job_id: str, state: JobState | None) -> None:
        """Note a job's state; None if it is not there."""
        known = self._states.get(job_id)
        self._states[job_id] = state
        if not self._complete.is_set():
            if self._states.keys() == self.key[1]:
                self._begin()
            return
        if known != state:
            change = JobChange(self.record.version + 1, job_id, state)
            self.views.take(StatesBatch(changes=[change]), self._wall())

    def _begin(self) -> None:
        states = [state for _, state in sorted(self._states.items()) if state is not None]
        changes = [
            JobChange(version, state.job_id, state) for version, state in enumerate(states, 1)
        ]
        batch = StatesBatch(
            start=StatesStart(self._epoch, reset=True), changes=changes, synced=len(changes)
        )
        self.views.take(batch, self._wall())
        self._complete.set()


class _News:
    """Wakes a task when something has changed in a feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._changed = asyncio.Event()

    def on_feed_changed(self) -> None:
        """Wake it."""
        self._changed.set()

    async def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something is so."""
        while not happened():
            self._changed.clear()
            await self._changed.wait()


def _differs(feed: Feed, status: str) -> bool:
    return feed.failure is not None or feed.status != status
