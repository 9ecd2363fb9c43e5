"""Who keeps the states of jobs: a tenant's feed, or one of named jobs where there is no such."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final, TypeVar

from app.caller import Caller
from app.errors import JOB_NOT_FOUND, NOT_IMPLEMENTED, SHUTTING_DOWN, ApiError
from app.hub.events.named_jobs import NamedJobs
from app.hub.events.polled_states import PolledStates
from app.hub.events.sources import GetFeed, StatesSource
from app.hub.events.tenant_feed import TenantFeed
from app.hub.limits import StreamLimits
from app.hub.observer import HubObserver
from app.hub.selection.selection import Interest
from app.hub.selection.size import check_named
from app.hub.selection.states import StatesUpstream
from app.hub.settings import HubSettings
from app.tasks.single_flight import SingleFlight

A = TypeVar("A")

#: Jobs that one request asks the coordinator for at the same time.
_AT_ONCE: Final = 8


class StateSources:
    """Opens each once for all who need it. `on_failed` is called with one that has failed."""

    def __init__(
        self,
        *,
        upstream: StatesUpstream,
        settings: HubSettings,
        observer: HubObserver,
        limits: StreamLimits,
        get_feed: GetFeed,
        on_failed: Callable[[StatesSource], None],
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._observer = observer
        self._limits = limits
        self._get_feed = get_feed
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._tenants: dict[str, TenantFeed] = {}
        self._named: dict[tuple[str, frozenset[str]], NamedJobs] = {}
        #: By tenant, for those.
        self._polled: dict[str, PolledStates] = {}
        self._authorizations = SingleFlight[tuple[str, str | None], None]()
        #: Those on their way out.
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False

    async def open(self, caller: Caller, interest: Interest) -> StatesSource:
        """Return who keeps the states, held, once everything is there that is wanted.

        Of a coordinator that does not tell of all jobs, those that are named are
        watched. Raises `ApiError`, also if the caller may not list jobs.
        """
        await self._authorize(caller)
        feed = self._tenant_feed(caller)
        source: StatesSource = feed
        feed.hold()
        try:
            await feed.ready(nodes=interest.nodes, queue=interest.queue)
            await self._until_named_are_known(caller, feed, interest)
        except BaseException as error:
            feed.release()
            if not isinstance(error, ApiError) or error.kind is not NOT_IMPLEMENTED:
                raise
        else:
            return source
        named = interest.selection.job_ids
        if interest.needs_states:
            raise ApiError(
                NOT_IMPLEMENTED,
                "The coordinator cannot stream all jobs (it does not implement "
                "WatchJobs). Name each job with job_id, and leave out the other conditions, nodes "
                "and queue.",
            )
        check_named(len(named), self._settings)
        await _a_few_at_a_time(sorted(named), lambda job_id: self._authorize_job(caller, job_id))
        source = self._named_jobs(caller, named)
        source.hold()
        try:
            await source.ready(nodes=False, queue=False)
        except BaseException:
            source.release()
            raise
        return source

    async def _until_named_are_known(
        self, caller: Caller, feed: TenantFeed, interest: Interest
    ) -> None:
        """Wait for jobs that were submitted so lately that the feed has not told of them yet.

        Of more than `events_followed` that are missing, the rest is not asked for.
        """
        named = interest.selection.job_ids
        missing = sorted(job_id for job_id in named if feed.record.get(job_id) is None)
        missing = missing[: self._settings.events_followed]
        there = await _a_few_at_a_time(missing, lambda each: self._is_to_come(caller, feed, each))
        await feed.until_known([each for each, comes in zip(missing, there, strict=True) if comes])

    async def _is_to_come(self, caller: Caller, feed: TenantFeed, job_id: str) -> bool:
        try:
            state = await self._upstream.read_state(caller, job_id)
        except ApiError as error:
            if error.kind is not JOB_NOT_FOUND:
                raise
            return False
        forgotten = feed.record.forgotten_until
        return state.ended_at is None or forgotten is None or state.ended_at > forgotten

    def _named_jobs(self, caller: Caller, job_ids: frozenset[str]) -> NamedJobs:
        if self._closing:
            raise ApiError(SHUTTING_DOWN, retry_after=1)
        key = (caller.tenant_id, job_ids)
        if key not in self._named:
            self._named[key] = NamedJobs(
                caller.tenant_id,
                job_ids,
                polled=self._polled_states(caller),
                get_feed=self._get_feed,
                settings=self._settings,
                wall=time.time,
                on_gone=self._end_named,
                request_id=caller.request_id,
            )
        return self._named[key]

    def _polled_states(self, caller: Caller) -> PolledStates:
        if caller.tenant_id not in self._polled:
            self._polled[caller.tenant_id] = PolledStates(
                Caller(tenant_id=caller.tenant_id, user_id=None, request_id=caller.request_id),
                upstream=self._upstream,
                interval=self._settings.events_poll,
            )
        return self._polled[caller.tenant_id]

    def _end_named(self, named: NamedJobs) -> None:
        if self._named.get(named.key) is not named:
            return
        del self._named[named.key]
        self._end_in_background(named.aclose())
        tenant_id, _ = named.key
        if not any(tenant == tenant_id for tenant, _ in self._named):
            self._end_in_background(self._polled.pop(tenant_id).aclose())

    async def _authorize_job(self, caller: Caller, job_id: str) -> None:
        """Ask for a job as this caller; one that is not there is told of later."""
        try:
            await self._upstream.read_state(caller, job_id)
        except ApiError as error:
            if error.kind is not JOB_NOT_FOUND:
                raise

    def _tenant_feed(self, caller: Caller) -> TenantFeed:
        if self._closing:
            raise ApiError(SHUTTING_DOWN, retry_after=1)
        feed = self._tenants.get(caller.tenant_id)
        if feed is None:
            if len(self._tenants) >= self._settings.max_feeds:
                raise self._limits.refusal("feeds")
            feed = self._tenants[caller.tenant_id] = TenantFeed(
                caller.tenant_id,
                upstream=self._upstream,
                settings=self._settings,
                observer=self._observer,
                on_gone=self._end,
                request_id=caller.request_id,
            )
        return feed

    def _end(self, feed: TenantFeed) -> None:
        """Take a feed out, so that a new client gets a new one, and end it."""
        if self._tenants.get(feed.tenant_id) is not feed:
            return
        del self._tenants[feed.tenant_id]
        if feed.failure is not None:
            self._on_failed(feed)
        self._end_in_background(feed.aclose())

    def _end_in_background(self, closing: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(closing, name="hub-end-states")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _authorize(self, caller: Caller) -> None:
        """Ask the coordinator for jobs as this caller; once for all who ask together.

        A coordinator that has no lists has no states of all jobs, either.
        """
        try:
            await self._authorizations.ask(
                (caller.tenant_id, caller.user_id),
                lambda: self._upstream.authorize_list(caller),
                name=f"hub-authorize-{caller.tenant_id}",
            )
        except ApiError as error:
            if error.kind is not NOT_IMPLEMENTED:
                raise

    def look(self, wall: float) -> None:
        """Let jobs leave that ended too long ago; `wall` in seconds since 1970."""
        for feed in list(self._tenants.values()):
            feed.views.look(wall)
        for named in list(self._named.values()):
            named.views.look(wall)

    async def close(self) -> None:
        """End all; the clients must have been closed."""
        self._closing = True
        for feed in list(self._tenants.values()):
            self._end(feed)
        for named in list(self._named.values()):
            self._end_named(named)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._authorizations.finish()


async def _a_few_at_a_time(job_ids: Sequence[str], ask: Callable[[str], Awaitable[A]]) -> list[A]:
    """Return the answers in order. A failure is raised, and no further job is asked for."""
    answers: list[A] = []
    for first in range(0, len(job_ids), _AT_ONCE):
        few = job_ids[first : first + _AT_ONCE]
        answers += await asyncio.gather(*(ask(job_id) for job_id in few))
    return answers
