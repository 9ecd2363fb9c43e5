"""Clients at the same place: what they get is read once, and written to each."""

import asyncio
import time
from collections.abc import Callable, Hashable

import structlog

from app.hub.coding.gzip_stream import SharedPieces
from app.hub.connection import BROKEN
from app.hub.core import frames
from app.hub.core.flush_pacer import FlushPacer
from app.hub.events.watcher import EventsWatcher
from app.hub.observer import HubObserver
from app.hub.selection.reader import Reader
from app.hub.settings import HubSettings

log = structlog.get_logger()


class CohortTable:
    """Where cohorts of the same selection find each other; one for all of a process."""

    def __init__(
        self,
        *,
        settings: HubSettings,
        observer: HubObserver,
        pacer: FlushPacer,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.settings = settings
        self.observer = observer
        self.pacer = pacer
        self.loop = loop
        #: All cohorts, in order of arrival.
        self.cohorts: dict[Cohort, None] = {}
        #: By what they are about, those that others join.
        self.heads: dict[Hashable, Cohort] = {}


class Cohort:
    """One reader, and at least one client that takes all that it reads.

    A client comes with a cohort of its own. At the head it joins the one that
    is there for its selection; when its socket is full it leaves it with a
    reader of its own. `on_empty` is called once nobody is left.
    """

    #: Of an interval, what has to pass between two steps. Feeds flush once an interval: a step
    #: that was late by chance would be an interval behind them from then on.
    PROMPT = 0.75

    def __init__(
        self,
        key: Hashable,
        reader: Reader,
        *,
        table: CohortTable,
        chunked: bool,
        gzip: bool,
        enter: Callable[["Cohort"], None],
        on_empty: Callable[["Cohort"], None],
    ) -> None:
        self.key = key
        self.reader = reader
        #: In order of arrival: a dict for a set.
        self.members: dict[EventsWatcher, None] = {}
        self._table = table
        self._chunked = chunked
        #: What the clients get in gzip; None if they get everything as it is.
        self._gzip = SharedPieces() if gzip else None
        self._enter = enter
        self._on_empty = on_empty
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._due: float | None = None
        self._stepped_at = float("-inf")
        self._written_at = table.loop.time()
        self._refreshed_at = self._written_at
        self._closed = False
        #: Since when its only client is behind since it does not take what there is.
        self._slow_since: float | None = None
        reader.on_news = self.wake
        table.cohorts[self] = None
        enter(self)

    # Members

    def add(self, watcher: EventsWatcher) -> None:
        """Take a client that is at the reader's place."""
        self.members[watcher] = None
        watcher.cohort = self
        if self._gzip is not None and watcher.connection.gzip is not None:
            watcher.connection.gzip.follow(self._gzip)

    def remove(self, watcher: EventsWatcher) -> None:
        """Let a client go."""
        self.members.pop(watcher, None)
        if watcher.connection.gzip is not None:
            watcher.connection.gzip.part()
        if not self.members:
            self._close()

    def break_off(self) -> None:
        """Close all clients' connections: a fault of the gateway keeps it from going on."""
        for watcher in list(self.members):
            watcher.connection.close(BROKEN)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._table.heads.get(self.key) is self:
            del self._table.heads[self.key]
        del self._table.cohorts[self]
        self.reader.close()
        self._on_empty(self)

    @property
    def blocked(self) -> bool:
        """Whether its only client takes nothing at the moment, or is not there yet."""
        if len(self.members) != 1:
            return not self.members
        [watcher] = self.members
        return bool(watcher.connection.unsent) or not watcher.connection.is_open

    # Steps

    def wake(self) -> None:
        """Step soon: at once if the last step is about an interval ago."""
        self._step_at(self._stepped_at + self._table.pacer.interval * self.PROMPT)

    def _step_at(self, due: float) -> None:
        if self._closed or (self._due is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = self._table.loop
        self._due = due
        if due <= loop.time():
            self._timer = loop.call_soon(self._step)
        else:
            self._timer = loop.call_at(due, self._step)

    def _step(self) -> None:
        self._timer = self._due = None
        if self._closed:
            return
        if self.blocked:
            # Others do not wait for it.
            if self._table.heads.get(self.key) is self:
                del self._table.heads[self.key]
            return
        self.step()
        if self._closed or self.blocked:
            return
        if not self.reader.more:
            self._slow_since = None
        if self.reader.more:
            # Others have their turn in between.
            self._step_at(self._stepped_at)
            return
        if self.reader.due is not None:
            self._step_at(max(self.reader.due, self._stepped_at + self._table.pacer.interval))
        if self.reader.at_head():
            self._meet()

    def step(self) -> None:
        """Read what is next and write it to all members."""
        table = self._table
        began, now = time.thread_time(), table.loop.time()
        self._stepped_at = now
        self.reader.pass_over = (
            self._slow_since is not None
            and now - self._slow_since >= table.settings.events_patience
        )
        try:
            payload = self.reader.next(now)
        except Exception:
            log.exception("hub_events_crashed")
            self.break_off()
            return
        if payload:
            self._broadcast(payload, now)
            cpu = time.thread_time()
            # What a step joins counts, as the entries of a flush do: the demand is what each by
            # itself would take.
            events = max(payload.count(b"\n\n"), 1)
            table.pacer.record(cpu - began, table.loop.time(), cpu=cpu, entries=events)

    def _broadcast(self, payload: bytes, now: float) -> None:
        """Write the same bytes to all members; whose socket is full leaves."""
        if len(self.members) == 1:
            [watcher] = self.members
            if watcher.retry_ms is not None:
                # Within the first event: some clients hand out a block without data.
                payload = b"retry: %d\n%b" % (watcher.retry_ms, payload)
                watcher.retry_ms = None
        coded = payload if self._gzip is None else self._gzip.take(payload)
        data = frames.chunk(coded) if self._chunked else coded
        self._written_at = now
        self._table.observer.delivered("events", len(payload) * len(self.members))
        full = [each for each in self.members if not each.connection.send_framed(data)]
        if len(self.members) > 1:
            for watcher in full:
                self._part(watcher, now)
        elif full and self._slow_since is None:
            self._slow_since = now

    def _part(self, watcher: EventsWatcher, now: float) -> None:
        """Move a client into a cohort of its own, at the same place."""
        apart = Cohort(
            self.key,
            self.reader.fork(),
            table=self._table,
            chunked=self._chunked,
            gzip=self._gzip is not None,
            enter=self._enter,
            on_empty=self._on_empty,
        )
        apart._written_at = self._written_at
        apart._slow_since = now
        self.remove(watcher)
        apart.add(watcher)

    def _meet(self) -> None:
        """Join the cohort that is there, if it is at the same place; else be the one."""
        heads = self._table.heads
        head = heads.get(self.key)
        if head is None:
            heads[self.key] = self
        elif head is not self and not head.blocked:
            head.step()
            if head.reader.same_place(self.reader):
                for watcher in list(self.members):
                    head.add(watcher)
                self.members.clear()
                self._close()
            head.wake()

    # The regular round

    def check(self, now: float, wall: float) -> None:
        """Check the clients; write keepalives, and bookmarks where nothing else was written."""
        settings = self._table.settings
        for watcher in list(self.members):
            watcher.connection.check(now, wall, write_timeout=settings.write_timeout)
        if self._closed or self.blocked:
            return
        if now - self._refreshed_at >= settings.bookmark_interval:
            self._refreshed_at = now
            if bookmark := self.reader.refresh(now):
                self._broadcast(bookmark, now)
        if now - self._written_at >= settings.keepalive_interval:
            self._broadcast(frames.KEEPALIVE, now)
