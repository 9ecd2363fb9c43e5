"""The feeds of a process: one for each job that is watched, within the bounds over all of them."""

import asyncio

import structlog

from app.errors import SHUTTING_DOWN, ApiError
from app.hub.core.flush_pacer import FlushPacer
from app.hub.core.history_budget import HistoryBudget
from app.hub.feed import Feed
from app.hub.filters.judge import Judge
from app.hub.limits import StreamLimits
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey, Upstream
from app.tasks.turns import Turns

log = structlog.get_logger()


class FeedTable:
    """Makes feeds and ends them. Owned by the hub, within its event loop."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        settings: HubSettings,
        observer: HubObserver,
        pacer: FlushPacer,
        limits: StreamLimits,
        judge: Judge,
        turns: Turns,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._observer = observer
        self._pacer = pacer
        self._limits = limits
        self._judge = judge
        self._loop = asyncio.get_running_loop()
        self._turns = turns
        self._history = HistoryBudget(limit=settings.history_bytes_total, observer=observer)
        self._feeds: dict[JobKey, Feed] = {}
        #: Feeds of logs that their jobs no longer have, until their watchers have left.
        self._outdated: set[Feed] = set()
        #: Feeds on their way out.
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False

    def get(self, key: JobKey, *, request_id: str) -> Feed:
        """Return a job's feed, which may be opening. Raises `ApiError` at a limit."""
        if self._closing:
            raise ApiError(SHUTTING_DOWN, retry_after=1)
        feed = self._feeds.get(key)
        if feed is not None and feed.outdated:
            self._outdated.add(self._feeds.pop(key))
            feed = None
        if feed is None:
            self._limits.check_feed(key.tenant_id, self._feeds)
            feed = self._feeds[key] = Feed(
                key,
                upstream=self._upstream,
                settings=self._settings,
                pacer=self._pacer,
                turns=self._turns,
                observer=self._observer,
                on_gone=self._end,
                budget=self._history,
                judge=self._judge,
                request_id=request_id,
            )
        return feed

    def job_deleted(self, key: JobKey) -> None:
        """Fail all feeds of a job that is no more."""
        for feed in (self._feeds.get(key), *self._outdated):
            if feed is not None and feed.key == key:
                feed.job_deleted()

    def stop(self) -> None:
        """Make no further feed; those that are there go on until `close`."""
        self._closing = True

    async def close(self) -> None:
        """End all feeds; their watchers must have left or been closed."""
        self.stop()
        for feed in (*self._feeds.values(), *self._outdated):
            self._end(feed)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def sweep(self, now: float, wall: float) -> None:
        """Check the quiet streams of all feeds."""
        for feed in (*self._feeds.values(), *self._outdated):
            try:
                feed.sweep(now, wall)
            except Exception:  # the other jobs' streams keep their keepalives and limits
                log.exception("hub_sweep_failed", job_id=feed.key.job_id)

    def _end(self, feed: Feed) -> None:
        """Take a feed out, so that a new watcher gets a new one, and end it."""
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
        elif feed in self._outdated:
            self._outdated.discard(feed)
        else:
            return
        task = self._loop.create_task(feed.aclose(), name=f"hub-end-{feed.key.job_id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
