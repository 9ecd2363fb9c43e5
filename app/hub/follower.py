"""Follows one job's upstream stream to the end of its log, through breaks and holes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Generic, Protocol

import structlog

from app.errors import (
    COORDINATOR_ERROR,
    COORDINATOR_TIMEOUT,
    COORDINATOR_UNAVAILABLE,
    FAILED_PRECONDITION,
    ApiError,
)
from app.hub.core.cursors import C
from app.hub.core.feed_core import FeedCore
from app.hub.core.judging import ALL
from app.hub.core.outage import Outage
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.upstream import Batch, End, JobKey, LogPage, Position, Upstream, is_final
from app.tasks.backoff import Backoff

log = structlog.get_logger()


class Receiver(Protocol):
    """Takes what a stream brings: the job's feed."""

    @property
    def ended(self) -> bool:
        """Whether the job has ended and all of its log was taken."""

    def metrics_sequence(self) -> int:
        """Return the sequence of the newest snapshot of the current epoch; 0 if there is none."""

    def take(self, batch: Batch) -> None:
        """Take a batch into the core, and pass it on."""

    def take_end(self, end: End) -> None:
        """Take the end of the log if everything before it was taken."""

    def on_caught_up(self) -> None:
        """Note that everything was taken that existed when the stream began."""

    def on_change(self) -> None:
        """Pass on what has changed in the core otherwise."""


class Follower(Generic[C]):
    """Holds at most one upstream call at any time, behind the last entry of the core."""

    #: How often a log may become another one before its watchers are sent away.
    MOST_LOGS = 100

    def __init__(
        self,
        key: JobKey,
        *,
        core: FeedCore[C],
        receiver: Receiver,
        upstream: Upstream,
        settings: HubSettings,
        observer: HubObserver,
        request_id: str,
    ) -> None:
        self._key = key
        self._core = core
        self._receiver = receiver
        self._upstream = upstream
        self._settings = settings
        self._observer = observer
        self._request_id = request_id
        self._loop = asyncio.get_running_loop()
        self._outage = Outage(limit=settings.outage_limit, steady=settings.reconnect_max)
        self._backoff = Backoff(shortest=settings.reconnect_min, longest=settings.reconnect_max)
        #: When the upstream was lost; None while a stream has delivered everything there is.
        self._lost_at: float | None = None
        #: Whether the open stream, and whether any, has delivered what existed when it began.
        self._caught_up = False
        self._ever_caught_up = False
        #: The newest entry that ever was. One behind it is progress.
        self._newest = Position("", 0)
        #: When the call that is open was made, and what bounds the wait for its next message, up
        #: to the end of its log.
        self._opened_at = 0.0
        self._waiting: asyncio.Timeout | None = None
        self._urged = asyncio.Event()
        self._renewal: asyncio.TimerHandle | None = None

    async def run(self) -> ApiError | None:
        """Follow to the end of the log. Returns the error for which the job is lost for good.

        Before a stream has caught up, that is the first one.
        """
        while True:
            try:
                await self._follow()
            except ApiError as error:
                lost = error
            else:
                return None
            if is_final(lost.kind) or not self._ever_caught_up:
                return lost
            if self._core.generation > self.MOST_LOGS:
                return ApiError(COORDINATOR_ERROR)
            now = self._loop.time()
            if self._lost_at is None:
                self._lost_at = now
                log.warning("hub_upstream_lost", job_id=self._key.job_id, code=lost.kind.code)
            if self._outage.broke_off(now, lost.kind):
                return lost
            await self._pause(self._backoff.pause())

    def urge(self) -> None:
        """Open a new call soon: the coordinator has another log than the one that is followed.

        Calls are at least `reconnect_min` seconds apart, however often this is asked for.
        """
        if self._renewal is None:
            due = self._opened_at + self._settings.reconnect_min
            self._renewal = self._loop.call_at(max(due, self._loop.time()), self._renew)

    def _renew(self) -> None:
        self._renewal = None
        self._urged.set()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._loop.time())

    def _drop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, unless it is urged."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._urged.wait()

    async def _follow(self) -> None:
        """Hold one call until the job's log is complete. Raises `ApiError` if it breaks off."""
        self._caught_up = False
        self._opened_at = self._loop.time()
        self._urged.clear()
        self._drop_renewal()
        self._observer.upstream_opened()
        try:
            batches = self._upstream.watch(
                self._key,
                after=self._core.position,
                tail=self._settings.history_tail,
                after_sequence=self._receiver.metrics_sequence(),
                request_id=self._request_id,
            )
            async with aclosing(batches):
                await self._take_all(batches)
        finally:
            self._observer.upstream_closed()
            self._drop_renewal()

    async def _take_all(self, batches: AsyncIterator[Batch]) -> None:
        """Take a stream to its end; returns if that is the end of the log.

        A quiet job may be silent for any time, but not before its stream has
        delivered what there is: raises `ApiError` COORDINATOR_TIMEOUT.
        """
        # One for all messages of the stream, not one for each.
        waiting = self._waiting = asyncio.timeout(None)
        try:
            async with waiting:
                self._await_more(started=False)
                started = False
                async for batch in batches:
                    if started == (batch.start is not None):
                        raise ApiError(COORDINATOR_ERROR)
                    started, caught_up = True, self._caught_up
                    self._receiver.take(batch)
                    self._note_progress()
                    if batch.end is not None:
                        waiting.reschedule(None)
                        self._waiting = None
                        await self._end(batch.end)
                        return
                    if not caught_up or self._urged.is_set():
                        self._await_more(started=True)
        except TimeoutError:
            if not waiting.expired():
                raise
            await self._pass_a_hole_at_the_head()
            raise ApiError(COORDINATOR_TIMEOUT) from None
        finally:
            self._waiting = None
        raise ApiError(COORDINATOR_UNAVAILABLE)

    def _await_more(self, *, started: bool) -> None:
        """Bound the wait for the next message of the open stream."""
        assert self._waiting is not None
        if self._urged.is_set():
            self._waiting.reschedule(self._loop.time())
        else:
            patience = self._patience(started)
            due = None if patience is None else self._loop.time() + patience
            self._waiting.reschedule(due)

    def _patience(self, started: bool) -> float | None:
        """Return how long to wait for a stream's next message, in seconds; None for ever."""
        if self._caught_up:
            return None
        patience = self._settings.message_timeout
        if started and not self._ever_caught_up:
            # Watchers wait to join: a hole at the head has to be passed while they do.
            return min(patience, self._settings.open_timeout / 2)
        return patience

    def _note_progress(self) -> None:
        core = self._core
        if core.epoch != self._newest.epoch:
            # What another log held already is no progress.
            self._newest = Position(core.epoch, core.log_last)
        if core.last > self._newest.offset:
            self._newest = Position(core.epoch, core.last)
            self._outage.progressed()
            self._backoff.reset()
        if core.last >= core.log_last:
            self._on_caught_up()

    def _on_caught_up(self) -> None:
        if self._caught_up:
            return
        self._caught_up = self._ever_caught_up = True
        now = self._loop.time()
        self._outage.caught_up(now)
        if self._lost_at is not None:
            outage = round(now - self._lost_at, 3)
            log.info("hub_upstream_back", job_id=self._key.job_id, outage_seconds=outage)
            self._lost_at = None
        self._receiver.on_caught_up()

    # Holes that no later entry shows

    async def _pass_a_hole_at_the_head(self) -> None:
        """Go on behind entries that the stream owes, if the log has none of them."""
        core, owed = self._core, self._core.log_last
        if core.last >= owed:
            return
        page = await self._page_behind_stream(owed)
        if page is not None and not page.records and page.next_after >= owed:
            core.skip_to(owed)
            self._receiver.on_change()
            self._on_caught_up()

    async def _end(self, end: End) -> None:
        """Take the end of the log. Raises `ApiError` if the log's own end is another one.

        Where the stream left entries out before it, watchers fetch them, or are
        told that they are missing.
        """
        if self._receiver.ended:
            return
        page = None
        if end.last_offset > self._core.last:
            page = await self._page_behind_stream(end.last_offset)
        if page is None or not page.complete or page.last_offset != end.last_offset:
            raise ApiError(COORDINATOR_ERROR)
        self._core.skip_to(end.last_offset)
        self._receiver.take_end(end)
        self._receiver.on_change()
        self._on_caught_up()

    async def _page_behind_stream(self, through: int) -> LogPage | None:
        """Read behind what the stream delivered; None if the log is not the stream's."""
        position = self._core.position
        if position is None:
            return None
        try:
            page = await self._upstream.read_after(
                self._key, position, through=through, log_filter=ALL, request_id=self._request_id
            )
        except ApiError as error:
            if error.kind is FAILED_PRECONDITION:
                return None
            raise
        return page if page.epoch == position.epoch else None
