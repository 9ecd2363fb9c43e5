"""One client's stream: what was not taken yet, and how it ends."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from app.caller import Caller
from app.errors import AUTH_EXPIRED, INTERNAL_ERROR, JOB_DELETED, SHUTTING_DOWN, ErrorKind
from app.hub.close_reasons import CloseReason
from app.hub.coding.gzip_stream import HEADER, GzipStream, piece
from app.hub.core import frames
from app.hub.socket_pool import SocketPool, outstanding, reset
from app.hub.upstream import Position


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a stream ends, and the error that is sent to its client, if any."""

    reason: CloseReason
    error: ErrorKind | None = None
    retryable: bool = False
    #: The client's reconnection delay, if it differs from the one sent at the start.
    retry_ms: int | None = None


GONE = Closing(CloseReason.CLIENT_GONE)
STALLED = Closing(CloseReason.WRITE_TIMEOUT)
ENDED = Closing(CloseReason.JOB_ENDED)
TAIL_SENT = Closing(CloseReason.TAIL_SENT)
EXPIRED = Closing(CloseReason.AUTH_EXPIRED, AUTH_EXPIRED)
DELETED = Closing(CloseReason.JOB_DELETED, JOB_DELETED)
BROKEN = Closing(CloseReason.INTERNAL_ERROR, INTERNAL_ERROR, retryable=True)


def drained(*, retry_ms: int) -> Closing:
    """End the stream because this replica stops, with a reconnection delay."""
    return Closing(CloseReason.SHUTDOWN, SHUTTING_DOWN, retryable=True, retry_ms=retry_ms)


def event_of(closing: Closing, position: Position, status: str) -> bytes:
    """Return the final event of a job's stream that ends at a position."""
    if closing.error is None:
        return frames.end(position, status)
    return frames.error(
        closing.error,
        retryable=closing.retryable,
        position=position,
        retry_ms=closing.retry_ms,
    )


class Packer(Protocol):
    """A content coding, such as a `zlib.compressobj`."""

    def compress(self, data: bytes, /) -> bytes:
        """Take data; return what is ready of its coding, perhaps nothing."""

    def flush(self) -> bytes:
        """Return the rest: there is no more data."""


class SharedPayload:
    """Whole events that several watchers are sent, framed once for each way of sending them."""

    __slots__ = ("_framed", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._framed: dict[tuple[bool, bool], bytes] = {}

    def framed(self, *, chunked: bool, coded: bool) -> bytes:
        """Return it as it is written to a socket."""
        framed = self._framed.get((chunked, coded))
        if framed is None:
            data = piece(self.data) if coded else self.data
            framed = frames.chunk(data) if chunked else data
            self._framed[chunked, coded] = framed
        return framed


class Watcher(Protocol):
    """The owner of a stream."""

    def pump(self) -> None:
        """Continue: the client can be sent more."""

    def stop(self) -> None:
        """Send nothing more: the final event follows."""

    def leave(self) -> None:
        """Let go of the feed: the stream is over."""

    def final_event(self, closing: Closing) -> bytes:
        """Return the last event of the stream, which says why it ends."""


class Connection:
    """A watcher's socket, or the promise of one until `open`.

    When the stream is over, the watcher leaves its feed; then `on_closed` is
    called, once.
    """

    __slots__ = (
        "_blocked_at",
        "_complete",
        "_cut",
        "_fd",
        "_last_words_sent",
        "_on_closed",
        "_outstanding",
        "_packer",
        "_pending",
        "_pool",
        "_timer",
        "_watcher",
        "caller",
        "chunked",
        "closing",
        "gzip",
        "written_at",
    )

    #: How long a client that still takes bytes is given to take its last ones where its stream
    #: is broken off, in seconds.
    GRACE = 1.0

    def __init__(
        self,
        *,
        caller: Caller,
        chunked: bool,
        pool: SocketPool,
        watcher: Watcher,
        on_closed: "OnClosed",
        packer: Packer | None = None,
        gzip: GzipStream | None = None,
        cut: bool = False,
    ) -> None:
        self.caller = caller
        self.chunked = chunked
        self._watcher = watcher
        self._on_closed = on_closed
        self._pool = pool
        #: The content coding of a stream whose bytes are in part those of others.
        self.gzip = gzip
        #: Packs what `send` is given. Without `gzip`, nothing else may be sent then.
        self._packer = gzip or packer
        #: A stream that breaks off ends without the end of its body, so that the client notices.
        self._cut = cut
        #: Set once; the first reason counts.
        self.closing: Closing | None = None
        #: When something was last written, in seconds of the loop's clock.
        self.written_at = 0.0
        self._fd = -1
        #: What the kernel has not taken.
        self._pending: memoryview | None = None
        #: When the client was last seen to take something, while something is pending.
        self._blocked_at = 0.0
        self._outstanding = 0
        self._last_words_sent = False
        #: Whether the body is complete with what was written.
        self._complete = False
        self._timer: asyncio.TimerHandle | None = None

    def open(self, fd: int) -> None:
        """Begin to write to a socket, which is owned from now on."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._pool.add(fd, self)
        if self.gzip is not None:
            self.send_framed(frames.chunk(HEADER) if self.chunked else HEADER)
        if self.closing is not None:
            # It was to end while the headers were on their way.
            self._end()

    def abandon(self) -> None:
        """Close before `open`: the client has gone, or could not be answered."""
        self.closing = self.closing or GONE
        self._shut()

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._fd >= 0 and self.closing is None

    @property
    def unsent(self) -> int:
        """Bytes that wait here since the kernel does not take them."""
        return 0 if self._pending is None else len(self._pending)

    def send(self, payload: bytes, now: float) -> bool:
        """Write whole events; whether the client can be sent more at once."""
        self.written_at = now
        if self._packer is not None:
            payload = self._packer.compress(payload)
        if not payload:
            # An empty chunk would be the last one.
            return self._pending is None
        return self.send_framed(frames.chunk(payload) if self.chunked else payload)

    def send_shared(self, payload: "SharedPayload", now: float) -> bool:
        """Write whole events that others are sent, too; whether more can be sent at once."""
        self.written_at = now
        if self.gzip is not None:
            self.gzip.count(payload.data)
        return self.send_framed(payload.framed(chunked=self.chunked, coded=self.gzip is not None))

    def send_framed(self, data: bytes) -> bool:
        """Write what is framed and coded already, all of it; whether more can be sent at once."""
        if self._pending is not None:
            # A keepalive may have filled the socket while a page was being read.
            self._pending = memoryview(bytes(self._pending) + data)
            return False
        try:
            sent = os.write(self._fd, data)
        except OSError:
            # Also where the client is gone: told from here it would be in the middle of a round
            # over all watchers. Nothing is passed over until `on_writable` tries once more.
            sent = 0
        if sent == len(data):
            return True
        self._pending = memoryview(data)[sent:]
        self._blocked_at = asyncio.get_running_loop().time()
        self._outstanding = outstanding(self._fd)
        self._pool.await_room(self._fd, self, wanted=True)
        return False

    def on_readable(self) -> None:
        """Notice that the client has gone; what it says is not listened to."""
        try:
            gone = not os.read(self._fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self.close(GONE)

    def on_writable(self) -> None:
        """Write what is pending, then have the watcher go on."""
        if self._fd < 0:
            return
        if self._pending is not None:
            try:
                sent = os.write(self._fd, self._pending)
            except BlockingIOError:
                return
            except OSError:
                self.close(GONE)
                return
            self._blocked_at = asyncio.get_running_loop().time()
            if sent < len(self._pending):
                self._pending = self._pending[sent:]
                return
            self._pending = None
        self._pool.await_room(self._fd, self, wanted=False)
        if self.closing is None:
            self._watcher.pump()
        elif self._last_words_sent:
            self._shut()
        else:
            self._send_last_words()

    def check(self, now: float, wall: float, *, write_timeout: float) -> None:
        """Close it if its token has expired, or if the client takes nothing any more."""
        expires_at = self.caller.expires_at
        if expires_at is not None and expires_at.timestamp() <= wall:
            self.close(EXPIRED)
        elif self._pending is not None and (self.closing is None or self.closing.error is None):
            # The kernel may take nothing for long while the client reads slowly.
            left = outstanding(self._fd)
            if left < self._outstanding:
                self._blocked_at = now
            self._outstanding = left
            if now - self._blocked_at >= write_timeout:
                self.close(STALLED)

    def keep_alive(self, now: float, interval: float, data: bytes = frames.KEEPALIVE) -> None:
        """Write a keepalive if nothing was written for `interval` seconds."""
        if self.is_open and self._pending is None and now - self.written_at >= interval:
            self.send(data, now)

    def close(self, closing: Closing) -> None:
        """End the stream: at once, or when the client has taken the last events."""
        if self.closing is None:
            self.closing = closing
            if self._fd >= 0:
                self._end()
        elif self._fd >= 0:
            # It was ending, for as long as the client takes its last bytes.
            if closing in (GONE, STALLED):
                self._shut()
            else:
                self._end_soon()

    def _end(self) -> None:
        if self.closing in (GONE, STALLED):
            self._shut()
            return
        self._watcher.stop()
        if self.closing is not None and self.closing.error is not None:
            self._end_soon()
        # A client that was sent everything is waited for as while it was sent (`check`).
        if self._pending is None:
            self._send_last_words()

    def _end_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.GRACE, self._shut)

    def _send_last_words(self) -> None:
        assert self.closing is not None
        self._last_words_sent = True
        data = self._watcher.final_event(self.closing)
        self._complete = self.closing.error is None or not self._cut
        if self._packer is not None:
            data = self._packer.compress(data) + (self._packer.flush() if self._complete else b"")
        if self.chunked:
            data = frames.chunk(data) if data else b""
            data += frames.LAST_CHUNK if self._complete else b""
        if not data or self.send_framed(data):
            self._shut()

    def _shut(self) -> None:
        assert self.closing is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            self._pool.remove(self._fd)
            if self._cut and not self.chunked and not (self._complete and self._pending is None):
                # To HTTP/1.0, an orderly end would be the end of the body.
                reset(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._pending = None
        self._watcher.leave()
        self._on_closed(self, self.closing.reason)


#: Called when a stream is over, with its connection.
OnClosed: TypeAlias = Callable[[Connection, CloseReason], None]
#: Makes the connection of a watcher.
Connect: TypeAlias = Callable[[Watcher], Connection]
