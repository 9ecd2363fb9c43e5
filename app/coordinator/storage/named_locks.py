"""Locks by name, for what one thread at a time may make."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from app.files.copying import Abandoned

#: Seconds between two looks at whether who waits is still wanted.
_LOOK: Final = 0.1


class NamedLocks:
    """Safe to use from several threads. A name that was used once is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    @contextmanager
    def hold(
        self, name: str, abandoned: threading.Event, *, waits: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Let one at a time do what has this name; `waits` is called once if another one does.

        Raises Abandoned as soon as that is set while it waits.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(blocking=False):
            if waits is not None:
                waits()
            while not lock.acquire(timeout=_LOOK):
                if abandoned.is_set():
                    raise Abandoned
        try:
            yield
        finally:
            lock.release()
