"""What a channel has to wait for: pages of the log, and entries that are judged apart."""

import asyncio
from functools import partial
from typing import Protocol

import structlog

from app.errors import COORDINATOR_ERROR, FAILED_PRECONDITION, ApiError
from app.hub.core.cursors import Cursor
from app.hub.feed import Feed
from app.hub.upstream import LogPage, is_final
from app.tasks.backoff import Backoff

log = structlog.get_logger()


class Waiting(Cursor, Protocol):
    """The channel: a cursor of the feed's core."""

    def on_page(self, page: LogPage) -> bool:
        """Step by a page; whether it leads anywhere."""

    def on_lost(self, error: ApiError) -> None:
        """Note that what comes next cannot be read."""

    def on_feed_changed(self) -> None:
        """Note that there may be something to read."""


class LogReads:
    """At most one read of a channel at a time; one that fails is made again, for a while."""

    __slots__ = ("_backoff", "_channel", "_failing_since", "_pending", "_request_id")

    #: First pause after a page could not be read, in seconds.
    SHORTEST_PAUSE = 0.1

    def __init__(self, channel: Waiting, *, request_id: str) -> None:
        self._channel = channel
        self._request_id = request_id
        self._pending: (
            asyncio.Task[LogPage]
            | asyncio.Task[list[tuple[int, bool]]]
            | asyncio.TimerHandle
            | None
        ) = None
        #: Since when no page can be read, in seconds of the loop's clock.
        self._failing_since: float | None = None
        self._backoff: Backoff | None = None

    @property
    def waiting(self) -> bool:
        """Whether something is awaited."""
        return self._pending is not None

    def cancel(self) -> None:
        """Wait no more. A read goes on for all others who wait for it."""
        if isinstance(self._pending, asyncio.TimerHandle):
            self._pending.cancel()
        self._pending = None

    def ask(self, feed: Feed) -> None:
        """Have the page behind the channel's position read."""
        core, channel = feed.core, self._channel
        read = feed.reads.after(
            core.position_of(channel),
            through=core.page_through(channel),
            asked=core.page_filter(channel),
            own=channel.filter,
            generation=core.generation,
            request_id=self._request_id,
        )
        self._pending = read
        read.add_done_callback(partial(self._take_page, feed=feed))

    def judge(self, feed: Feed, most: int) -> None:
        """Have the entries judged that come next."""
        core, channel = feed.core, self._channel
        judging = feed.reads.verdicts(
            channel.filter, core.to_judge(channel, most), generation=core.generation
        )
        self._pending = judging
        judging.add_done_callback(
            partial(self._take_verdicts, feed=feed, generation=core.generation)
        )

    def _take_verdicts(
        self, judging: "asyncio.Task[list[tuple[int, bool]]]", *, feed: Feed, generation: int
    ) -> None:
        if self._pending is not judging:
            return
        self._pending = None
        if judging.cancelled():
            return
        if (error := judging.exception()) is not None:
            log.error("hub_filter_crashed", job_id=feed.key.job_id, exc_info=error)
            self._channel.on_lost(ApiError(COORDINATOR_ERROR))
        else:
            feed.core.take_verdicts(self._channel.filter, generation, judging.result())
        self._channel.on_feed_changed()

    def _take_page(self, read: "asyncio.Task[LogPage]", *, feed: Feed) -> None:
        if self._pending is not read:
            return
        self._pending = None
        if read.cancelled():
            return
        error = read.exception()
        if error is None:
            if self._channel.on_page(read.result()):
                self._backoff = self._failing_since = None
                self._channel.on_feed_changed()
                return
            error = ApiError(COORDINATOR_ERROR)
        elif not isinstance(error, ApiError):
            log.error("hub_read_crashed", job_id=feed.key.job_id, exc_info=error)
            error = ApiError(COORDINATOR_ERROR)
        now = feed.loop.time()
        if self._failing_since is None:
            self._failing_since = now
        too_long = now - self._failing_since >= feed.settings.outage_limit
        if too_long or (is_final(error.kind) and error.kind is not FAILED_PRECONDITION):
            self._channel.on_lost(error)
            self._channel.on_feed_changed()
            return
        # An unknown epoch is in here too: the feed will learn of the new one.
        if self._backoff is None:
            longest = feed.settings.reconnect_max
            self._backoff = Backoff(shortest=self.SHORTEST_PAUSE, longest=longest)
        self._pending = feed.loop.call_later(self._backoff.pause(), self._try_again)

    def _try_again(self) -> None:
        self._pending = None
        self._channel.on_feed_changed()
