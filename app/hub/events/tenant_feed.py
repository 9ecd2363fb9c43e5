"""A tenant's one stream of states, shared by all who watch some of its jobs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing, suppress

import structlog

from app.errors import (
    COORDINATOR_ERROR,
    COORDINATOR_TIMEOUT,
    COORDINATOR_UNAVAILABLE,
    RESOURCE_EXHAUSTED,
    SHUTTING_DOWN,
    ApiError,
)
from app.hub.core.outage import Outage
from app.hub.events.views import Views
from app.hub.log_context import shared_context
from app.hub.observer import HubObserver
from app.hub.selection.record import TenantRecord
from app.hub.selection.states import StatesBatch, StatesUpstream
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey, Position, is_final
from app.tasks.backoff import Backoff
from app.tasks.single_flight import SingleFlight

log = structlog.get_logger()


class TenantFeed:
    """Follows a tenant's states while somebody holds it, and `linger` seconds longer.

    When it is over, `on_gone` is called once; `failure` says why if the
    upstream has failed for good.
    """

    #: Calls at the same time that read what was deleted before the record began.
    CATCH_UPS = 2

    def __init__(
        self,
        tenant_id: str,
        *,
        upstream: StatesUpstream,
        settings: HubSettings,
        observer: HubObserver,
        on_gone: Callable[["TenantFeed"], None],
        request_id: str,
    ) -> None:
        self.tenant_id = tenant_id
        self.record = TenantRecord(most=settings.events_record_jobs)
        self.views = Views(self.record, most=settings.events_jobs)
        self.failure: ApiError | None = None
        self._upstream = upstream
        self._settings = settings
        self._observer = observer
        self._on_gone = on_gone
        self._request_id = request_id
        self._loop = asyncio.get_running_loop()
        self._holders = 0
        self._closed = False
        self._linger_timer: asyncio.TimerHandle | None = None
        self._complete: asyncio.Future[None] = self._loop.create_future()
        #: What is asked for beside states; it only grows.
        self._nodes = self._queue = False
        self._cluster_known = asyncio.Event()
        #: Set, and replaced by another, with each batch.
        self._news = asyncio.Event()
        self._outage = Outage(limit=settings.outage_limit, steady=settings.reconnect_max)
        self._backoff = Backoff(shortest=settings.reconnect_min, longest=settings.reconnect_max)
        self._newest = 0
        self._call: asyncio.Task[None] | None = None
        self._renewing = False
        self._catch_ups = SingleFlight[Position, bool]()
        #: Clients choose the versions: they must not choose how many calls there are.
        self._catch_up_turns = asyncio.Semaphore(self.CATCH_UPS)
        self._task = self._loop.create_task(
            self._run(),
            name=f"hub-states-{tenant_id}",
            context=shared_context(tenant_id=tenant_id, request_id=request_id),
        )

    # Life

    def hold(self) -> None:
        """Keep the feed alive until `release`."""
        self._holders += 1
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def release(self) -> None:
        """Undo one `hold`."""
        self._holders -= 1
        if self._holders == 0 and not self._closed:
            self._linger_timer = self._loop.call_later(self._settings.linger, self._on_gone, self)

    async def ready(self, *, nodes: bool, queue: bool) -> None:
        """Wait until the whole state is there, and nodes and queue as far as they are wanted.

        Raises the upstream's `ApiError` if it failed.
        """
        if (nodes and not self._nodes) or (queue and not self._queue):
            self._nodes, self._queue = self._nodes or nodes, self._queue or queue
            self._cluster_known.clear()
            self._renew()
        try:
            async with asyncio.timeout(self._settings.open_timeout):
                await asyncio.shield(self._complete)
                if (nodes or queue) and self.failure is None:
                    await self._cluster_known.wait()
        except TimeoutError:
            raise ApiError(COORDINATOR_TIMEOUT) from None
        if self.failure is not None:
            raise self.failure

    async def until_known(self, job_ids: Collection[str]) -> None:
        """Wait until the record has these jobs; not for ever, and not for a failed upstream."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.open_timeout):
                while self.failure is None and not all(map(self.record.get, job_ids)):
                    await self._news.wait()

    async def reach(self, version: int) -> bool:
        """Whether all that changed behind a version is known, also what was deleted.

        It is not where a job that was forgotten changed behind it.
        The coordinator is asked where the record does not reach back so far;
        what takes longer than `open_timeout` with the wait for its turn is not
        known. Raises `ApiError` if the coordinator cannot answer.
        """
        after = Position(self.record.epoch, version)
        if version < self.record.forgotten_version:
            return False
        if self._reaches(after):
            return True
        return await self._catch_ups.ask(
            after, lambda: self._catch_up(after), name=f"hub-states-behind-{self.tenant_id}"
        )

    def _reaches(self, after: Position) -> bool:
        record = self.record
        return after.epoch == record.epoch and record.floor <= after.offset <= record.version

    async def aclose(self) -> None:
        """End the upstream call and all timers; those who watched must have left."""
        self._closed = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._catch_ups.close()
        if not self._complete.done():
            self._fail(ApiError(SHUTTING_DOWN, retry_after=1))

    # Upstream

    async def _run(self) -> None:
        try:
            error = await self._follow()
        except Exception:
            log.exception("hub_states_crashed")
            error = ApiError(COORDINATOR_ERROR)
        self._fail(error)
        self._on_gone(self)

    def _fail(self, error: ApiError) -> None:
        self.failure = self.failure or error
        self._closed = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._cluster_known.set()
        self._tell_news()
        if not self._complete.done():
            self._complete.set_result(None)

    def _tell_news(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _follow(self) -> ApiError:
        """Follow the states for ever; returns the error for which they are lost for good."""
        while True:
            self._renewing = False
            self._call = self._loop.create_task(
                self._hold_call(), name=f"hub-states-call-{self.tenant_id}"
            )
            try:
                await self._call
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._renewing and task is not None and not task.cancelling():
                    continue
                raise
            except ApiError as error:
                lost = error
            finally:
                self._call.cancel()
            if is_final(lost.kind) or not self.record.complete:
                log.info("hub_states_failed", code=lost.kind.code)
                return lost
            log.warning("hub_states_lost", code=lost.kind.code)
            if self._outage.broke_off(self._loop.time(), lost.kind):
                return lost
            await asyncio.sleep(self._backoff.pause())

    def _renew(self) -> None:
        """Open the call anew, for more than it was opened for."""
        if self._call is not None and not self._call.done():
            self._renewing = True
            self._call.cancel()

    async def _hold_call(self) -> None:
        """Hold one call. Raises `ApiError` when it breaks off."""
        record = self.record
        after = Position(record.epoch, record.version) if record.complete else None
        with_cluster = self._nodes or self._queue
        self._observer.upstream_opened()
        try:
            batches = self._upstream.watch_jobs(
                self.tenant_id,
                after=after,
                nodes=self._nodes,
                queue=self._queue,
                request_id=self._request_id,
            )
            async with aclosing(batches):
                synced = False
                while (batch := await self._next(batches, synced)) is not None:
                    self._take(batch)
                    synced = synced or batch.synced is not None
                    if with_cluster and synced:
                        self._cluster_known.set()
        finally:
            self._observer.upstream_closed()
        raise ApiError(COORDINATOR_UNAVAILABLE)

    async def _next(self, batches: AsyncIterator[StatesBatch], synced: bool) -> StatesBatch | None:
        """Return the next batch. A stream may only be silent once it is synced."""
        patience = None if synced else self._settings.message_timeout
        try:
            async with asyncio.timeout(patience):
                return await anext(batches, None)
        except TimeoutError:
            raise ApiError(COORDINATOR_TIMEOUT) from None

    def _take(self, batch: StatesBatch) -> None:
        if batch.changes:
            self._observer.jobs_changed(self.tenant_id)
        self.views.take(batch, time.time())
        for change in batch.changes:
            if change.state is None:
                self._observer.job_deleted(JobKey(self.tenant_id, change.job_id))
        self._tell_news()
        record = self.record
        if record.crowded:
            raise ApiError(
                RESOURCE_EXHAUSTED,
                f"Your tenant has more than {self._settings.events_record_jobs} unfinished jobs: "
                "too many for this stream. Follow single jobs.",
            )
        if record.version > self._newest:
            self._newest = record.version
            self._outage.progressed()
        if batch.synced is not None:
            self._backoff.reset()
            self._outage.caught_up(self._loop.time())
            if not self._complete.done():
                self._complete.set_result(None)

    async def _catch_up(self, after: Position) -> bool:
        """Make the record reach back to a version; whether it does in time."""
        try:
            async with asyncio.timeout(self._settings.open_timeout), self._catch_up_turns:
                # While this waited, another may have gone back further.
                return self._reaches(after) or await self._read_deletions(after)
        except TimeoutError:
            return False

    async def _read_deletions(self, after: Position) -> bool:
        """Read what was deleted behind a version; False if that is not known, or too much."""
        deleted: dict[str, int] = {}
        batches = self._upstream.watch_jobs(
            self.tenant_id, after=after, nodes=False, queue=False, request_id=self._request_id
        )
        async with aclosing(batches):
            async for batch in batches:
                if batch.start is not None and batch.start.reset:
                    return False
                for change in batch.changes:
                    deleted.pop(change.job_id, None)
                    if change.state is None:
                        deleted[change.job_id] = change.version
                if len(deleted) > self.record.DELETIONS:
                    return False
                if batch.synced is not None:
                    return after.epoch == self.record.epoch and self.record.learn_deletions(
                        after.offset, batch.synced, deleted
                    )
        raise ApiError(COORDINATOR_UNAVAILABLE)
