"""The watchers. Each steps its own stream forward; a live one does nothing by itself."""

import asyncio
from collections.abc import Iterator
from functools import partial

import structlog

from app.errors import COORDINATOR_ERROR, FAILED_PRECONDITION, JOB_NOT_FOUND, ApiError
from app.hub.close_reasons import CloseReason
from app.hub.connection import BROKEN, ENDED, TAIL_SENT, Closing, Connect
from app.hub.core.cursors import Cursor, Step
from app.hub.core.forms import Form
from app.hub.feed import Feed
from app.hub.joining.resuming import why_not_in_log
from app.hub.joining.tails import find_tail
from app.hub.upstream import LogPage, Position, is_final
from app.log_filter import LogFilter
from app.tasks.backoff import Backoff

log = structlog.get_logger()


class LogWatcher(Cursor):
    """A watcher of a job's log. Made by the hub, joined to its feed."""

    __slots__ = (
        "_backoff",
        "_failing_since",
        "_fetch",
        "_parts",
        "_prelude",
        "_scheduled",
        "connection",
        "feed",
    )

    #: First pause after a page could not be read, in seconds.
    SHORTEST_PAUSE = 0.1

    def __init__(self, *, feed: Feed, connect: Connect, log_filter: LogFilter, form: Form) -> None:
        self.connection = connect(self)
        super().__init__(
            log_filter=log_filter,
            form=form,
            chunked=self.connection.chunked,
            gzip=self.connection.gzip,
        )
        self.feed = feed
        feed.core.hold_filter(log_filter)
        self._prelude = b""
        #: Made when reading first fails: most watchers never need one.
        self._backoff: Backoff | None = None
        #: Since when no page can be read, in seconds of the loop's clock.
        self._failing_since: float | None = None
        self._scheduled = False
        #: What is left of a page that was read.
        self._parts: Iterator[LogPage] | None = None
        #: The page that is being read or the entries that are being judged, or the pause
        #: before a page is asked for again.
        self._fetch: (
            asyncio.Task[LogPage]
            | asyncio.Task[list[tuple[int, bool]]]
            | asyncio.TimerHandle
            | None
        ) = None

    async def join(
        self, *, tail: int, after: Position | None, first: int | None, follow: bool
    ) -> bool:
        """Find where to start: behind `after`, or at the offset `first`, or at the tail.

        False if the client has everything of a job that ended. Raises `ApiError` if the
        coordinator has to be asked and cannot answer.
        """
        core, feed = self.feed.core, self.feed
        page: LogPage | None = None
        missed: tuple[Position, str] | None = None
        if after is None and first is not None:
            missed = await self._join_at(first)
        elif after is None:
            page = await self._join_tail(tail)
        elif core.end is not None and after == Position(core.epoch, core.end.last_offset):
            return False
        elif (reason := await why_not_in_log(feed, after, request_id=self._request_id)) is None:
            core.join(self, after.offset)
        else:
            page = await self._join_tail(tail)
            missed = after, reason
        self._prelude = self._opening(missed)
        if not follow:
            self.until = core.flushed
        if page is not None:
            self._prelude += core.take_page(self, self._first_part(page))
        return True

    async def _join_tail(self, count: int) -> LogPage | None:
        """Join before the tail; the page with which it begins, if it had to be read."""
        core = self.feed.core
        offset, page = await find_tail(
            self.feed, count, log_filter=self.filter, request_id=self._request_id
        )
        core.join(self, offset)
        # Where the page may hide what is missing, it is read again without a filter.
        return page if page is not None and page.filter == core.page_filter(self) else None

    async def _join_at(self, first: int) -> tuple[Position, str] | None:
        """Join before the entry with this offset; at the head if there is none, which is told.

        Returns the place behind which nobody knows of entries, and why.
        """
        core = self.feed.core
        before = Position(core.epoch, first - 1)
        reason = await why_not_in_log(self.feed, before, request_id=self._request_id)
        if reason is None:
            core.join(self, before.offset)
            return None
        core.join(self, core.flushed)
        return before, reason

    def _opening(self, missed: tuple[Position, str] | None) -> bytes:
        """Return what the stream begins with.

        If nobody knows of entries behind a place, that is told. A client whose connection breaks
        before it is told comes back with that place.
        """
        position, retry_ms = self.feed.core.position_of(self), self.feed.settings.retry_ms
        if missed is None:
            return self.form.opening(position, retry_ms=retry_ms)
        after, reason = missed
        start = Position(after.epoch, after.offset + 1)
        return self.form.opening(after, retry_ms=retry_ms) + self.form.gap(
            start=start, end=None, reason=reason, position=position
        )

    @property
    def _request_id(self) -> str:
        return self.connection.caller.request_id

    def start(self, fd: int) -> None:
        """Begin to write to the client's socket, which is the watcher's from now on."""
        self.connection.open(fd)
        prelude, self._prelude = self._prelude, b""
        if self.connection.is_open:
            self._send(prelude)
            self.pump_soon()

    def stop(self) -> None:
        """Leave the cohort, so that no flush writes behind the final event."""
        if self.live:
            self.feed.core.fall_behind(self)

    def leave(self) -> None:
        """Leave the feed."""
        if self._fetch is not None and isinstance(self._fetch, asyncio.TimerHandle):
            self._fetch.cancel()
        self.feed.log_watchers.discard(self)
        self.feed.core.leave(self)
        self.feed.core.drop_filter(self.filter)

    def final_event(self, closing: Closing) -> bytes:
        """Return the last event: up to where everything was delivered, and the job's status."""
        position = self.feed.core.position_of(self)
        if closing.error is None:
            return self.form.end(position, self.feed.status)
        return self.form.error(
            closing.error,
            retryable=closing.retryable,
            position=position,
            retry_ms=closing.retry_ms,
        )

    def pump_soon(self) -> None:
        """Step in a later turn of the loop, so that others have theirs."""
        if not self._scheduled:
            self._scheduled = True
            self.feed.turns.call_soon(self.pump)

    def pump(self) -> None:
        """Step once, if it is behind and its socket takes more."""
        self._scheduled = False
        connection = self.connection
        if not connection.is_open or connection.unsent or self.live or self._fetch is not None:
            return
        try:
            step = self._step()
        except Exception:
            log.exception("hub_watcher_crashed", job_id=self.feed.key.job_id)
            connection.close(BROKEN)
            return
        if isinstance(step, bytes):
            self._send(step)
            self.pump_soon()
        elif step is Step.FETCH:
            self._ask_for_page()
        elif step is Step.JUDGE:
            self._have_judged()
        elif step is Step.DONE:
            connection.close(ENDED if self.feed.core.end is not None else TAIL_SENT)

    def _step(self) -> bytes | Step:
        """Step on: through the page that was read, then from the history."""
        if self._parts is not None:
            if (part := next(self._parts, None)) is not None:
                return self.feed.core.take_page(self, part)
            self._parts = None
        return self.feed.core.next(self, self.feed.loop.time())

    def _first_part(self, page: LogPage) -> LogPage:
        """Return what a page begins with; the rest is taken piece by piece."""
        self._parts = page.parts(self.feed.settings.slice_bytes)
        return next(self._parts)

    def _send(self, payload: bytes) -> None:
        if payload:
            self.connection.send(payload, self.feed.loop.time())
            self.feed.observer.delivered("logs", len(payload))

    def _ask_for_page(self) -> None:
        core = self.feed.core
        read = self.feed.reads.after(
            core.position_of(self),
            through=core.page_through(self),
            asked=core.page_filter(self),
            own=self.filter,
            generation=core.generation,
            request_id=self._request_id,
        )
        self._fetch = read
        read.add_done_callback(self._take_page)

    def _have_judged(self) -> None:
        core = self.feed.core
        generation = core.generation
        judging = self.feed.reads.verdicts(self.filter, core.to_judge(self), generation=generation)
        self._fetch = judging
        judging.add_done_callback(partial(self._take_verdicts, generation=generation))

    def _take_verdicts(
        self, judging: "asyncio.Task[list[tuple[int, bool]]]", *, generation: int
    ) -> None:
        self._fetch = None
        if not self.connection.is_open or judging.cancelled():
            return
        if (error := judging.exception()) is not None:
            log.error("hub_filter_crashed", job_id=self.feed.key.job_id, exc_info=error)
            self.connection.close(BROKEN)
            return
        self.feed.core.take_verdicts(self.filter, generation, judging.result())
        self.pump_soon()

    def _take_page(self, read: "asyncio.Task[LogPage]") -> None:
        self._fetch = None
        if not self.connection.is_open or read.cancelled():
            return
        error = read.exception()
        if error is None:
            self._use(read.result())
        elif not isinstance(error, ApiError):
            log.error("hub_read_crashed", job_id=self.feed.key.job_id, exc_info=error)
            self.connection.close(BROKEN)
        elif error.kind is JOB_NOT_FOUND:
            self.feed.job_deleted()
        elif is_final(error.kind) and error.kind is not FAILED_PRECONDITION:
            self.connection.close(Closing(CloseReason.UPSTREAM_FAILED, error.kind))
        else:
            # An unknown epoch is in here too: the feed will learn of the new one.
            self._ask_later(error)

    def _use(self, page: LogPage) -> None:
        """Step by a page. One that leads nowhere is as good as none: ask for it again later."""
        core = self.feed.core
        before, generation = self.offset, core.generation
        self._send(core.take_page(self, self._first_part(page)))
        if self.offset == before and self.generation == generation:
            self._parts = None
            self._ask_later(ApiError(COORDINATOR_ERROR))
        else:
            self._backoff, self._failing_since = None, None
            self.pump_soon()

    def _ask_later(self, error: ApiError) -> None:
        """Ask again for the page that could not be read, unless that has failed for too long."""
        settings, now = self.feed.settings, self.feed.loop.time()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= settings.outage_limit:
            self.connection.close(Closing(CloseReason.UPSTREAM_FAILED, error.kind, retryable=True))
            return
        if self._backoff is None:
            self._backoff = Backoff(shortest=self.SHORTEST_PAUSE, longest=settings.reconnect_max)
        self._fetch = self.feed.loop.call_later(self._backoff.pause(), self._ask_again)

    def _ask_again(self) -> None:
        self._fetch = None
        self.pump()
