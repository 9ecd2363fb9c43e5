"""Whose call comes next: each owner's in their order, and no owner has all of the threads."""

import threading
from collections import Counter, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue of calls for threads to take. Safe to use from several threads.

    At most `most` calls of an owner are taken at a time; those beyond wait, and
    hold up nobody else's. Owners take turns.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._waiting: dict[str, deque[T]] = {}
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, owner: str, call: T) -> None:
        """Add a call behind those of its owner."""
        with self._changed:
            self._waiting.setdefault(owner, deque()).append(call)
            self._changed.notify()

    def take(self) -> tuple[str, T] | None:
        """Wait for a call whose turn it is; None once this is closed and no call waits.

        Whoever takes it calls `done` when it is over.
        """
        with self._changed:
            while True:
                if (owner := self._next()) is not None:
                    break
                if self._closed and not self._waiting:
                    return None
                self._changed.wait()
            calls = self._waiting.pop(owner)
            call = calls.popleft()
            if calls:
                # Behind all other owners.
                self._waiting[owner] = calls
            self._taken[owner] += 1
            return owner, call

    def done(self, owner: str) -> None:
        """Note that a call of this owner is over."""
        with self._changed:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]
            # All: it is for a thread that waits for a call, or for the end.
            self._changed.notify_all()

    def close(self) -> None:
        """Let threads end, behind the calls that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> str | None:
        return next((owner for owner in self._waiting if self._taken[owner] < self._most), None)
