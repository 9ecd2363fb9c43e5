"""A connection of psycopg2 that an event loop can watch whatever becomes of its socket.

aiopg has the loop watch the socket itself, and libpq opens, closes and changes
it as it likes: when the server refuses, resets or restarts, or has several
addresses. uvloop then keeps a dead handle under the descriptor's number, and
whatever gets that number next can never be watched: after a restart of the
server, connecting fails for ever.

So the loop is given a selector to watch, which is one descriptor from the
beginning to the end, and which is told what to wait for on the socket.

uvloop keeps a dead handle under the number of a descriptor that had an error, and
can then watch no other one with that number. Hence the loop watches a selector for
each connection instead of its socket.
"""

import selectors
from typing import Any

from psycopg2 import Error, extensions

#: libpq's status of a connection that can be used.
_CONNECTION_OK = 0
_EVENTS = {
    extensions.POLL_OK: selectors.EVENT_READ,
    extensions.POLL_READ: selectors.EVENT_READ,
    extensions.POLL_WRITE: selectors.EVENT_WRITE,
}


class PolledConnection(extensions.connection):
    """For `connection_factory`. Never asks to wait for more than to be readable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._selector = selectors.DefaultSelector()
        self._watched = super().fileno()
        self._selector.register(self._watched, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def fileno(self) -> int:
        """Return the descriptor that the loop watches."""
        descriptor: int = self._selector.fileno()
        return descriptor

    def poll(self) -> int:
        """Go on; what to wait for, where writing is waited for on the selector's inside."""
        try:
            state: int = super().poll()
        except Error:
            if self.info.status != _CONNECTION_OK:
                # aiopg looks whether the descriptor is still good, and takes it
                # out of the loop if not. Nobody else would, before its number
                # is given to the next connection.
                self._selector.close()
            raise
        # By now it may be another socket, even under the same number.
        self._selector.unregister(self._watched)
        self._watched = super().fileno()
        self._selector.register(self._watched, _EVENTS[state])
        return extensions.POLL_READ if state == extensions.POLL_WRITE else state

    def close(self) -> None:
        """Close the connection and what watched it."""
        super().close()
        self._selector.close()
