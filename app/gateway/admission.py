"""Which connections are taken: those for which there is room."""

from collections.abc import Callable

import structlog
from prometheus_client import Counter

log = structlog.get_logger()

#: Descriptors that connections leave to everything else: the database, the coordinator, files,
#: and sockets that are being taken over by streams.
_RESERVE = 256
#: Where the limit is so low that the reserve would be most of it.
_RESERVED_SHARE = 8


class Admission:
    """Counts a process's connections, and refuses those that are one too many.

    A refused connection is closed without an answer: proxies ask another
    replica, and an EventSource comes back, which it does not after an answer.
    `most` bounds the connections that are open at the same time;
    `descriptors` is the process's limit of open files, None if it has none.
    """

    #: Seconds between two log lines.
    LOG_INTERVAL = 10.0

    def __init__(
        self,
        *,
        most: int,
        descriptors: int | None,
        refused: Counter,
        clock: Callable[[], float],
    ) -> None:
        self._most = most
        self._descriptors = descriptors
        self._refused = refused
        self._clock = clock
        self._open = 0
        #: Refused connections that the log does not have yet, by reason.
        self._unlogged: dict[str, int] = {}
        self._logged_at: float | None = None

    def admit(self, descriptor: int) -> bool:
        """Return whether a new connection may stay; whoever was let in must `leave`.

        `descriptor` is its socket's. Since a new one has the lowest number that
        is free, all below it are taken.
        """
        limit = self._descriptors
        if self._open >= self._most:
            self._refuse("connections")
        elif limit is not None and descriptor >= limit - min(_RESERVE, limit // _RESERVED_SHARE):
            self._refuse("descriptors")
        else:
            self._open += 1
            self._log()
            return True
        return False

    def leave(self) -> None:
        """Note that a connection that was let in is over."""
        self._open -= 1
        self._log()

    def _refuse(self, reason: str) -> None:
        self._refused.labels(reason=reason).inc()
        self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
        self._log()

    def _log(self) -> None:
        """Log what was refused, unless it was logged just now."""
        if not self._unlogged:
            return
        now = self._clock()
        if self._logged_at is not None and now - self._logged_at < self.LOG_INTERVAL:
            return
        for reason, refused in self._unlogged.items():
            log.warning(
                "connections_refused",
                reason=reason,
                limit=self._most if reason == "connections" else self._descriptors,
                open=self._open,
                refused=refused,
                advice=_ADVICE[reason],
            )
        self._logged_at = now
        self._unlogged.clear()


_ADVICE = {
    "connections": "Raise SCAIMIND_MAX_CONNECTIONS, or limit connections at the ingress.",
    "descriptors": "Raise the hard limit of open files (ulimit -Hn), or scale out.",
}
