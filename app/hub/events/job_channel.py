"""A followed job's log and metrics, as a stream over many jobs reads them from the job's feed."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, Self

import structlog

from app.errors import COORDINATOR_ERROR, JOB_DELETED, JOB_NOT_FOUND, RATE_LIMITED, ApiError
from app.hub.core.cursors import Cursor, Step
from app.hub.events.log_reads import LogReads
from app.hub.events.snapshots import Snapshots
from app.hub.events.starting import Beginning, find_beginning
from app.hub.feed import Feed
from app.hub.selection.job_form import JobForm, job_form
from app.hub.selection.places import LogPlace, digest
from app.hub.selection.selection import Interest
from app.hub.upstream import LogPage, Position, is_final
from app.log_filter import LogFilter
from app.tasks.backoff import Backoff

log = structlog.get_logger()

_NOWHERE = LogPlace(b"\0" * 6, 0)


class FeedSource(Protocol):
    """Where feeds of jobs come from."""

    def feed(self, job_id: str) -> Feed:
        """Return the job's feed, which may be opening. Raises `ApiError` at a limit."""

    def count_filter(self, job_id: str, log_filter: LogFilter) -> Callable[[], None]:
        """Count a filter for the job until what is returned is called, once.

        Raises `ApiError` RATE_LIMITED if the job has too many already.
        """


class JobChannel(Cursor):
    """Reads one job's feed by a cursor of its own, which never joins the feed's cohorts.

    It begins behind a place, at the job's beginning, or before the newest
    entries. Failures that may pass are waited for; the client is told of the
    rest, and of a job that has too many filters already.
    """

    __slots__ = (
        "_backoff",
        "_done",
        "_feed",
        "_form",
        "_interest",
        "_notices",
        "_on_news",
        "_opening",
        "_page",
        "_page_from",
        "_parts",
        "_reached_head",
        "_reads",
        "_request_id",
        "_snapshots",
        "_source",
        "_start",
        "_uncount_filter",
        "job_id",
        "refusal",
    )

    def __init__(
        self,
        job_id: str,
        *,
        interest: Interest,
        start: LogPlace | int | None,
        source: FeedSource,
        request_id: str,
    ) -> None:
        """`start` is a place, a number of newest entries, or None for the beginning."""
        form = job_form(job_id)
        super().__init__(log_filter=interest.filter, form=form, chunked=False)
        self._form: JobForm = form
        self.job_id = job_id
        #: Why the feed could not be opened, where a limit of the gateway was reached.
        self.refusal: ApiError | None = None
        self._interest = interest
        self._start = start
        self._source = source
        self._request_id = request_id
        self._on_news: Callable[[], None] | None = None
        self._feed: Feed | None = None
        #: Opens the feed, or waits before the next attempt.
        self._opening: asyncio.Task[None] | asyncio.TimerHandle | None = None
        #: What is to be told before anything else.
        self._notices: deque[bytes] = deque()
        #: Events of a page that was read, the offset before them, and what is left of it.
        self._page = b""
        self._page_from = 0
        self._parts: Iterator[LogPage] = iter(())
        self._reads = LogReads(self, request_id=request_id)
        self._backoff: Backoff | None = None
        #: Before it is there, nothing is passed over.
        self._reached_head = False
        self._snapshots = Snapshots(form=form, interval=interest.interval)
        #: Where it ended, if there is no more to come.
        self._done: LogPlace | None = None
        #: Undoes the count of the filter for the job, once that was taken.
        self._uncount_filter: Callable[[], None] | None = None

    # Life

    def open(self) -> "asyncio.Task[None]":
        """Begin to open the feed; the task never fails."""
        self._opening = task = asyncio.get_running_loop().create_task(
            self._open(), name=f"hub-events-open-{self.job_id}"
        )
        return task

    def listen(self, on_news: Callable[[], None]) -> None:
        """Call this when there may be something to read."""
        self._on_news = on_news

    def close(self) -> None:
        """Read no more."""
        if self._opening is not None:
            self._opening.cancel()
        self._opening = None
        self._on_news = None
        self._leave()
        if self._uncount_filter is not None:
            self._uncount_filter()
            self._uncount_filter = None

    def fork(self) -> Self:
        """Return another one at the same place."""
        made = type(self)(
            self.job_id,
            interest=self._interest,
            start=self.place or self._start,
            source=self._source,
            request_id=self._request_id,
        )
        made._notices = deque(self._notices)
        made._done = self._done
        if self._done is not None:
            return made
        if self._uncount_filter is not None:
            # It is not refused: the filter is one that the job has.
            made._count_filter()
        if self._feed is None:
            made.open()
            return made
        self._feed.hold()
        made._enter(self._feed)
        made.offset = self._page_from if self._page else self.offset
        made.generation = self.generation
        made._reached_head = self._reached_head
        made._snapshots.take_place_of(self._snapshots)
        return made

    def on_feed_changed(self) -> None:
        """Note that there may be something to read."""
        if self._on_news is not None:
            self._on_news()

    def _count_filter(self) -> None:
        if self._interest.logs and self._uncount_filter is None:
            self._uncount_filter = self._source.count_filter(self.job_id, self.filter)

    async def _open(self) -> None:
        feed: Feed | None = None
        entered = False
        try:
            self._count_filter()
        except ApiError as error:
            self._opening = None
            self._refuse(error)
            self.on_feed_changed()
            return
        try:
            feed = self._source.feed(self.job_id)
            feed.hold()
            await feed.opened()
            beginning = await find_beginning(
                feed, self._start, self._interest, request_id=self._request_id
            )
            self._begin(feed, beginning)
            entered = True
        except ApiError as error:
            self._opening = None
            self._failed(error)
        except Exception:
            log.exception("hub_events_open_failed", job_id=self.job_id)
            self._opening = None
            self._failed(ApiError(COORDINATOR_ERROR))
        finally:
            if feed is not None and not entered:
                feed.release()
        self.on_feed_changed()

    def _begin(self, feed: Feed, beginning: Beginning) -> None:
        """Read a feed that is held already."""
        self._opening = None
        self._enter(feed)
        self.offset = beginning.offset
        self.generation = feed.core.generation
        self._snapshots.seen = beginning.seen
        if beginning.gap is None:
            return
        epoch, position = feed.core.epoch, Position(feed.core.epoch, beginning.offset)
        if beginning.gap_from is None:
            notice = self._form.unknown_gap(reason=beginning.gap, position=position)
        else:
            start = Position(epoch, beginning.gap_from)
            notice = self._form.gap(start=start, end=None, reason=beginning.gap, position=position)
        self._notices.append(notice)

    def _enter(self, feed: Feed) -> None:
        """Read a feed that is held already."""
        feed.listeners[self] = None
        feed.core.hold_filter(self.filter)
        self._feed = feed

    def _leave(self) -> None:
        feed, self._feed = self._feed, None
        self._reads.cancel()
        # Its place is before them: they will be read again.
        self._page, self._parts = b"", iter(())
        if feed is not None:
            feed.listeners.pop(self, None)
            feed.core.drop_filter(self.filter)
            feed.release()

    # Where it is

    @property
    def place(self) -> LogPlace | None:
        """Return what was delivered; None where that is not known yet."""
        if self._done is not None:
            return self._done
        if self._feed is None:
            if self._start is None:
                return _NOWHERE
            return self._start if isinstance(self._start, LogPlace) else None
        position = self._feed.core.position_of(self)
        return LogPlace(
            digest(position.epoch)[:6],
            self._page_from if self._page else position.offset,
            self._snapshots.sequence(position.epoch),
        )

    @property
    def due(self) -> float | None:
        """Return when there will be a snapshot that has to wait now; None if none has to."""
        return self._snapshots.due if self._feed is not None else None

    def same_place(self, other: Self) -> bool:
        """Whether both get the same from now on."""
        if self._done is not None or other._done is not None:
            same = self._done == other._done
            return same and not (self._notices or other._notices)
        return (
            self._feed is not None
            and self._feed is other._feed
            and (self.offset, self.generation, self._snapshots.seen)
            == (other.offset, other.generation, other._snapshots.seen)
            and not (self._page or other._page or self._notices or other._notices)
        )

    # What is next

    def next(self, most: int, now: float, *, pass_over: bool) -> bytes:
        """Return events of about `most` bytes at most, which count as delivered; maybe none."""
        if self._notices:
            return self._notices.popleft()
        feed = self._feed
        if feed is None:
            return b""
        if feed.failure is not None:
            self._lose(feed.failure)
            return self._notices.popleft() if self._notices else b""
        log_read, events = True, b""
        if self._interest.logs:
            events, log_read = self._next_of_log(feed, most, pass_over=pass_over)
        if self._interest.metrics:
            events += self._snapshots.next(feed, now)
        if not events and log_read and feed.core.end is not None:
            events = self._end(feed)
        return events

    def _next_of_log(self, feed: Feed, most: int, *, pass_over: bool) -> tuple[bytes, bool]:
        """Return the next events, and whether there will be no more."""
        if self._page:
            page, self._page = self._page, b""
            return page, False
        core = feed.core
        for part in self._parts:
            if events := core.take_page(self, part):
                return events, False
        while True:
            step = core.read(self, most)
            if isinstance(step, bytes):
                if step:
                    return step, False
            elif self._reads.waiting:
                return b"", False
            elif step is Step.JUDGE:
                self._reads.judge(feed, most)
                return b"", False
            elif step is Step.FETCH:
                if pass_over and self._reached_head and not core.in_hole(self):
                    return self._lag(feed), False
                self._reads.ask(feed)
                return b"", False
            else:
                self._reached_head = True
                return b"", step is Step.DONE

    def _lag(self, feed: Feed) -> bytes:
        """Pass over what was too much for the client."""
        epoch, first, last = feed.core.epoch, self.offset + 1, feed.core.history.base
        self.offset = last
        end = Position(epoch, last)
        return self._form.gap(start=Position(epoch, first), end=end, reason="lagging", position=end)

    def _end(self, feed: Feed) -> bytes:
        position = feed.core.position_of(self)
        self._done = self.place
        self._leave()
        return self._form.end(position, feed.status)

    # What has to be waited for

    def on_page(self, page: LogPage) -> bool:
        """Step by a page; whether it leads anywhere."""
        feed = self._feed
        if feed is None:
            return True
        before, generation = self.offset, self.generation
        self._parts = page.parts(feed.settings.slice_bytes)
        self._page, self._page_from = feed.core.take_page(self, next(self._parts)), before
        return self.offset != before or self.generation != generation

    def on_lost(self, error: ApiError) -> None:
        """Leave the feed: what comes next of its log cannot be read."""
        if self._feed is not None:
            self._lose(error)

    # Failures

    def _lose(self, error: ApiError) -> None:
        """Leave a feed that has failed, and come back to it if that may help."""
        place = self.place
        self._leave()
        self._start = place
        self._failed(error)

    def _failed(self, error: ApiError) -> None:
        if error.kind is RATE_LIMITED:
            self.refusal = error
        # Whether a job is gone the states tell: until they do, it may be there again.
        denied = error.kind in (JOB_NOT_FOUND, JOB_DELETED)
        if denied or not is_final(error.kind):
            pause = self._source_pause()
            self._opening = asyncio.get_running_loop().call_later(pause, self._open_again)
            return
        self._give_up("upstream_failed")

    def _refuse(self, error: ApiError) -> None:
        self.refusal = error
        self._give_up("too_many_filters")

    def _give_up(self, reason: str) -> None:
        """Read no more, and tell of it by a gap."""
        self._done = self.place or _NOWHERE
        position = Position("", self._done.offset)
        self._notices.append(self._form.unknown_gap(reason=reason, position=position))

    def _source_pause(self) -> float:
        if self._backoff is None:
            self._backoff = Backoff(shortest=1.0, longest=30.0)
        return self._backoff.pause()

    def _open_again(self) -> None:
        self.open()
