"""The selections that are watched of one record, and who is to be told of changes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from app.hub.selection.record import TenantRecord
from app.hub.selection.selection import Selection
from app.hub.selection.states import StatesBatch
from app.hub.selection.view import SelectionView

log = structlog.get_logger()

#: Told that there may be something to send.
OnNews: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Listener:
    #: Whether it is told of nodes and queue.
    cluster: bool
    #: Called when the view cannot be kept up to date any more.
    on_broken: Callable[[], None]


@dataclass(slots=True)
class _Watched:
    view: SelectionView
    holders: int = 0
    #: In order of arrival: a dict for a set.
    listeners: dict[OnNews, _Listener] = field(default_factory=dict)


class Views:
    """One view for each selection that somebody holds."""

    def __init__(self, record: TenantRecord, *, most: int) -> None:
        """`most` is how many jobs each tells of: the newest."""
        self._record = record
        self._most = most
        self._watched: dict[tuple[Selection, int], _Watched] = {}

    def hold(self, selection: Selection, *, follow: int) -> SelectionView:
        """Return the view of a selection, which stays until `release`."""
        key = (selection, follow)
        watched = self._watched.get(key)
        if watched is None:
            view = SelectionView(
                selection, record=self._record, follow=follow, most=self._most, now=time.time()
            )
            watched = self._watched[key] = _Watched(view)
        watched.holders += 1
        return watched.view

    def release(self, view: SelectionView) -> None:
        """Undo one `hold`."""
        watched = self._watched[view.key]
        watched.holders -= 1
        if not watched.holders:
            del self._watched[view.key]

    def listen(
        self,
        view: SelectionView,
        on_news: OnNews,
        *,
        cluster: bool,
        on_broken: Callable[[], None],
    ) -> None:
        """Call at each change of a view that is held, and of nodes and queue if wanted.

        `on_broken` is called where a fault of the gateway leaves the view behind.
        """
        self._watched[view.key].listeners[on_news] = _Listener(cluster, on_broken)

    def unlisten(self, view: SelectionView, on_news: OnNews) -> None:
        """Call no more."""
        self._watched[view.key].listeners.pop(on_news, None)

    def take(self, batch: StatesBatch, now: float) -> None:
        """Take a batch into the record and all views; `now` in seconds since 1970."""
        before = self._record.cluster_changes
        taken = self._record.take(batch)
        cluster = self._record.cluster_changes != before
        for watched in list(self._watched.values()):
            changed = watched.view.take(taken, now)
            for on_news, listener in list(watched.listeners.items()):
                if changed or (cluster and listener.cluster):
                    on_news()

    def look(self, now: float) -> None:
        """Let jobs leave that ended too long ago."""
        for watched in list(self._watched.values()):
            try:
                changed = watched.view.look(now)
            except Exception:  # the other selections go on
                log.exception("hub_events_look_failed")
                self._break(watched)
                continue
            if changed:
                for on_news in list(watched.listeners):
                    on_news()

    def break_all(self) -> None:
        """Let all who listen know that the record is not kept up to date any more."""
        for watched in list(self._watched.values()):
            self._break(watched)

    def _break(self, watched: _Watched) -> None:
        for listener in list(watched.listeners.values()):
            listener.on_broken()
