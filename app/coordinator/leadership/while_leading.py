"""Whether long work is still wanted, by a coordinator that may be replaced meanwhile."""

import threading

from typing_extensions import override

from app.coordinator.leadership.leadership import Leadership


class WhileLeading(threading.Event):
    """Set when another event is. Whoever asks learns besides that this coordinator no longer
    leads: `is_set` and `wait` raise LeadershipLost then.

    Work that asks before each of its steps changes nothing more once another
    coordinator may lead, even where it stood still between two of them.
    """

    def __init__(self, abandoned: threading.Event, leadership: Leadership) -> None:
        super().__init__()
        self._abandoned = abandoned
        self._leadership = leadership

    @override
    def is_set(self) -> bool:
        self._leadership.check()
        return self._abandoned.is_set()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        self._abandoned.wait(timeout)
        return self.is_set()
