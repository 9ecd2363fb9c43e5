"""The bound on the histories of all feeds together: what arrived first goes first."""

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Protocol

from app.hub.observer import HubObserver


class HistoryOwner(Hashable, Protocol):
    """A feed, as far as its history goes."""

    @property
    def oldest_arrival(self) -> float | None:
        """When the oldest entry arrived, by one clock for all; None if there is none."""

    def evict_oldest(self) -> None:
        """Drop the entries that arrived first, and account for them."""


class HistoryBudget:
    """Keeps the sum of all histories at or below `limit` bytes where entries can be dropped.

    Finding the oldest costs the logarithm of the number of feeds: owners stand
    in a heap by the arrival of their oldest entry. An arrival in the heap may
    be out of date, but never too late, since a history only loses its oldest
    entries; it is brought up to date when it comes to the top.
    """

    def __init__(self, *, limit: int, observer: HubObserver) -> None:
        self._limit = limit
        self._observer = observer
        self._size = 0
        #: Oldest arrival and ticket; a ticket without an owner is skipped.
        self._heap: list[tuple[float, int]] = []
        self._owners: dict[int, HistoryOwner] = {}
        self._tickets: dict[HistoryOwner, int] = {}
        self._next_ticket = count()

    def account(self, owner: HistoryOwner, change: int) -> None:
        """Note that a history grew by `change` bytes, or shrank; evict if they are too many."""
        self._size += change
        self._observer.history_size(self._size)
        if change <= 0:
            return
        if owner not in self._tickets:
            self._add(owner)
        while self._size > self._limit:
            before = self._size
            oldest = self._oldest()
            if oldest is None:
                return
            oldest.evict_oldest()
            if self._size >= before:
                # What is left waits to be flushed.
                return

    def forget(self, owner: HistoryOwner) -> None:
        """Never evict from a feed again; it accounts for its history itself."""
        ticket = self._tickets.pop(owner, None)
        if ticket is not None:
            del self._owners[ticket]
        if len(self._heap) > 2 * len(self._owners) + 64:
            self._heap = [each for each in self._heap if each[1] in self._owners]
            heapq.heapify(self._heap)

    def _add(self, owner: HistoryOwner) -> None:
        arrival = owner.oldest_arrival
        if arrival is not None:
            ticket = self._tickets[owner] = next(self._next_ticket)
            self._owners[ticket] = owner
            heapq.heappush(self._heap, (arrival, ticket))

    def _oldest(self) -> HistoryOwner | None:
        heap = self._heap
        while heap:
            arrival, ticket = heap[0]
            owner = self._owners.get(ticket)
            current = None if owner is None else owner.oldest_arrival
            if owner is None or current is None:
                heapq.heappop(heap)
                if owner is not None:
                    self.forget(owner)
            elif current == arrival:
                return owner
            else:
                heapq.heapreplace(heap, (current, ticket))
        return None
