"""A feed's newest metrics snapshot, and the watchers that are served with it."""

import asyncio

from app.hub.connection import SharedPayload
from app.hub.core import frames
from app.hub.observer import HubObserver
from app.hub.subscribers import MetricsSubscriber
from app.hub.upstream import Position


class MetricsCohorts:
    """Serves watchers of the same interval together, each snapshot at most once.

    A cohort is served at once when something is new, or an interval after it
    was last served.
    """

    def __init__(self, *, loop: asyncio.AbstractEventLoop, observer: HubObserver) -> None:
        #: The newest snapshot: its id and its event.
        self.newest: tuple[Position, SharedPayload] | None = None
        self._loop = loop
        self._observer = observer
        #: By interval; a dict for a set, since it keeps the order of arrival.
        self._cohorts: dict[int, dict[MetricsSubscriber, None]] = {}
        self._ticks: dict[int, asyncio.TimerHandle] = {}

    def take(self, position: Position, data: bytes) -> None:
        """Take a newer snapshot: its JSON, one line."""
        self.newest = (position, SharedPayload(frames.metrics_frame(position, data)))
        for interval in self._cohorts:
            if interval not in self._ticks:
                self._tick(interval)

    def sequence(self, epoch: str) -> int:
        """Return the sequence of the newest snapshot of this epoch; 0 if there is none."""
        if self.newest is None or self.newest[0].epoch != epoch:
            return 0
        return self.newest[0].offset

    def watchers(self) -> list[MetricsSubscriber]:
        """All who have joined."""
        return [each for cohort in self._cohorts.values() for each in cohort]

    def join(self, watcher: MetricsSubscriber) -> None:
        """Serve a watcher together with those of the same interval."""
        self._cohorts.setdefault(watcher.interval, {})[watcher] = None

    def leave(self, watcher: MetricsSubscriber) -> None:
        """Forget a watcher, if it has joined."""
        cohort = self._cohorts.get(watcher.interval, {})
        if watcher not in cohort:
            return
        del cohort[watcher]
        if not cohort:
            del self._cohorts[watcher.interval]
            tick = self._ticks.pop(watcher.interval, None)
            if tick is not None:
                tick.cancel()

    def close(self) -> None:
        """Serve nobody any more."""
        for tick in self._ticks.values():
            tick.cancel()
        self._ticks.clear()

    def _tick(self, interval: int) -> None:
        self._ticks.pop(interval, None)
        if self._serve(interval):
            self._ticks[interval] = self._loop.call_later(interval, self._tick, interval)

    def _serve(self, interval: int) -> bool:
        """Write the newest snapshot to the members that have not had it; whether any was."""
        assert self.newest is not None
        position, frame = self.newest
        served = 0
        for watcher in self._cohorts[interval]:
            if watcher.wants(position):
                watcher.give(position, frame)
                served += 1
        self._observer.delivered("metrics", len(frame.data) * served)
        return served > 0
