"""An HTTP/2 connection for unary gRPC reads, on the event loop and without threads.

It returns what the peer answers. Whatever else happens to a read, it is None, and the read
is made again by gRPC, which has retries and load balancing. So only what may be repeated
goes here.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from app.bridge.settings import UpstreamSettings
from app.bridge.transport import frames
from app.bridge.transport.answers import Answer, answer_of
from app.bridge.transport.frames import (
    FIRST_WINDOW,
    LAST_STREAM,
    MAX_CONTENT,
    MAX_WINDOW,
    PREFACE,
    Flag,
    Frame,
    FrameReader,
    Kind,
    ProtocolError,
    Setting,
)
from app.bridge.transport.header_blocks import Fields, fields_of

#: Bytes of a header block, its continuations included.
_MAX_BLOCK: Final = 64 * 1024
#: Bytes of a request, and of its header block, that go here: each in a frame.
MAX_REQUEST: Final = MAX_CONTENT - 5
MAX_HEAD: Final = 8 * 1024

_CANCEL: Final = 0x8
#: Bytes that the peer has not taken yet with which nothing more is written to it.
_MOST_WAITING: Final = 1024 * 1024
#: What a PING carries.
_PING: Final = bytes(8)


class _Read:
    """A read that is under way."""

    __slots__ = ("answer", "begin", "data", "deadline")

    def __init__(self, answer: "asyncio.Future[Answer | None]", deadline: float) -> None:
        self.answer = answer
        self.deadline = deadline
        #: The fields at the answer's begin; None until they are there.
        self.begin: Fields | None = None
        #: In one piece: a peer may send it in any number of frames, empty ones among them.
        self.data = bytearray()


class ReadConnection(asyncio.Protocol):
    """One connection. `on_end` is called once no new read may begin, `on_lost` once it is closed.

    A ping checks a peer that was silent for `keepalive_time` while reads wait. A connection
    on which nothing was read for as long is closed: it may have died unnoticed.
    """

    def __init__(
        self,
        *,
        settings: UpstreamSettings,
        on_end: Callable[["ReadConnection"], None],
        on_lost: Callable[["ReadConnection"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        #: Set when the connection may be used; an error if it never may.
        self.ready: asyncio.Future[None] = self._loop.create_future()
        # Who waits may have gone: asyncio would report the error as lost.
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._on_end = on_end
        self._on_lost = on_lost
        self._keepalive_time = settings.keepalive_time
        self._keepalive_timeout = settings.keepalive_timeout
        #: Bytes of an answer, with gRPC's five before it.
        self._max_answer = settings.max_message_bytes + 5
        #: What the peer may send of one answer, so that a longer one shows, and of all of them
        #: until some were taken.
        self._receive_window = min(self._max_answer + MAX_CONTENT, MAX_WINDOW)
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._reads: dict[int, _Read] = {}
        self._next_stream = 1
        self._ended = False
        self._paused = False
        #: What the peer lets us do.
        self._most_reads = MAX_WINDOW
        self._request_window = FIRST_WINDOW
        self._window = FIRST_WINDOW
        self._settings_received = False
        self._settings_taken = False
        #: Bytes that were received since the peer was last let send more.
        self._taken = 0
        #: A header block that goes on: its stream, whether it ends the stream, and what there is.
        self._block: tuple[int, bool, bytearray] | None = None
        #: When the peer was last heard of. No read that begins changes it: it may be the next one
        #: of many that nobody answers.
        self._silent_since = self._loop.time()
        self._pinged = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether no new read may begin, ever."""
        return self._ended

    def has_room(self, head: int, message: int) -> bool:
        """Return whether a read with so many bytes may begin now."""
        return (
            not self._ended
            and not self._paused
            and len(self._reads) < self._most_reads
            and message <= MAX_REQUEST
            and head <= MAX_HEAD
            and message + 5 <= min(self._window, self._request_window)
        )

    async def read(self, head: bytes, message: bytes, *, deadline: float) -> Answer | None:
        """Return the answer; None if there is none until `deadline`, or not one of gRPC's.

        `has_room` was asked just before. `deadline` is a time of the loop's clock.
        """
        number = self._next_stream
        self._next_stream += 2
        answer: asyncio.Future[Answer | None] = self._loop.create_future()
        self._reads[number] = _Read(answer, deadline)
        self._window -= len(message) + 5
        self._write(frames.request(number, head, message))
        self._wake_at(deadline)
        if self._next_stream > LAST_STREAM:
            self._end()
        try:
            return await answer
        finally:
            if number in self._reads:  # cancelled
                self._drop(number)

    def retire(self) -> None:
        """Begin no new read; it closes when those that are under way are answered."""
        self._end()

    def close(self) -> None:
        """Close it at once; reads that are under way get None."""
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what we demand."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        demands = {
            # Equal header blocks then have equal meanings.
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: self._receive_window,
        }
        self._write(PREFACE + frames.settings(demands))
        if self._receive_window > FIRST_WINDOW:
            self._write(frames.window_update(0, self._receive_window - FIRST_WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        """Have the reads that wait made otherwise."""
        self._transport = None
        self._end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for read in self._reads.values():
            if not read.answer.done():
                read.answer.set_result(None)
        self._reads.clear()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the connection was lost"))
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The peer takes nothing: nothing more is asked here."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False

    def data_received(self, data: bytes) -> None:
        """Take what the peer sends."""
        self._silent_since = self._loop.time()
        self._pinged = False
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except ProtocolError:
            self.close()
            return
        if self._taken > self._receive_window // 2:
            self._write(frames.window_update(0, self._taken))
            self._taken = 0

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if self._block is not None and kind != Kind.CONTINUATION:
            raise ProtocolError("a header block was broken off")
        if kind == Kind.DATA:
            self._take_data(frame)
        elif kind == Kind.HEADERS:
            ends, block = bool(frame.flags & Flag.END_STREAM), frames.block_of(frame)
            if frame.flags & Flag.END_HEADERS:
                self._take_block(frame.stream, ends, block)
            else:
                self._block = (frame.stream, ends, bytearray(block))
        else:
            frames.check(frame)
            self._take_other(frame)

    def _take_other(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == Kind.CONTINUATION:
            self._go_on(frame)
        elif kind == Kind.RST_STREAM:
            self._check_begun(frame.stream)
            self._finish(frame.stream, None)
        elif kind == Kind.WINDOW_UPDATE:
            self._widen(frame)
        elif kind == Kind.SETTINGS:
            self._take_settings(frame)
        elif kind == Kind.PING:
            if not frame.flags & Flag.ACK:
                self._write(frames.frame(Kind.PING, Flag.ACK, 0, frame.content))
        elif kind == Kind.GOAWAY:
            self._go_away(frames.number_of(frame))
        elif kind == Kind.PUSH_PROMISE:
            raise ProtocolError("nothing may be pushed")

    def _take_data(self, frame: Frame) -> None:
        self._taken += len(frame.content)
        read = self._reads.get(frame.stream)
        if read is None:
            self._check_begun(frame.stream)
            return
        read.data += frame.content
        if (
            read.begin is None
            # gRPC takes none that is padded, and says so.
            or frame.flags & Flag.PADDED
            or not len(read.data) <= frames.announced(read.data) <= self._max_answer
        ):
            self._drop(frame.stream)
        elif frame.flags & Flag.END_STREAM:
            self._finish(frame.stream, None)

    def _check_begun(self, stream: int) -> None:
        """Check that a read had this number: one that is over may be told of a while longer."""
        if not stream % 2 or stream >= self._next_stream:
            raise ProtocolError("a frame is of a stream that nobody began")

    def _widen(self, frame: Frame) -> None:
        more = frames.number_of(frame)
        if not more:
            raise ProtocolError("a window is widened by nothing")
        # A request fits into its own stream's first window.
        if not frame.stream:
            self._window += more
            if self._window > MAX_WINDOW:
                raise ProtocolError("a window is too wide")

    def _take_block(self, stream: int, ends: bool, block: bytes) -> None:
        read = self._reads.get(stream)
        if read is None:
            self._check_begun(stream)
            return
        fields = fields_of(block)
        if fields is None or (read.begin is not None and not ends):
            self._drop(stream)
        elif not ends:
            read.begin = fields
        else:
            begin = fields if read.begin is None else read.begin
            self._finish(stream, answer_of(begin, bytes(read.data), fields))

    def _go_on(self, frame: Frame) -> None:
        if self._block is None or self._block[0] != frame.stream:
            raise ProtocolError("a header block goes on that did not begin")
        stream, ends, block = self._block
        block += frame.content
        ends_block = frame.flags & Flag.END_HEADERS
        if len(block) > _MAX_BLOCK or not (frame.content or ends_block):
            raise ProtocolError("a header block is too long, or goes on with nothing")
        if ends_block:
            self._block = None
            self._take_block(stream, ends, bytes(block))

    def _take_settings(self, frame: Frame) -> None:
        if frame.flags & Flag.ACK:
            if frame.content:
                raise ProtocolError("settings are taken with others")
            self._settings_taken = True
        else:
            for name, value in frames.settings_of(frame):
                if name == Setting.MAX_CONCURRENT_STREAMS:
                    self._most_reads = value
                elif name == Setting.INITIAL_WINDOW_SIZE:
                    self._request_window = value
            self._write(frames.frame(Kind.SETTINGS, Flag.ACK, 0, b""))
            self._settings_received = True
        if self._settings_received and self._settings_taken and not self.ready.done():
            self.ready.set_result(None)
            self._wake_at(self._silent_since + self._keepalive_time)

    def _go_away(self, last: int) -> None:
        """Begin nothing more; what the peer will not answer is made otherwise."""
        for number in [each for each in self._reads if each > last]:
            self._finish(number, None)
        self._end()

    def _finish(self, number: int, answer: Answer | None) -> None:
        read = self._reads.pop(number, None)
        if read is not None and not read.answer.done():
            read.answer.set_result(answer)
        self._close_if_over()

    def _drop(self, number: int) -> None:
        """End a read that is not answered, or not well."""
        self._write(frames.reset(number, _CANCEL))
        self._finish(number, None)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(self)
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._ended and not self._reads and self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > _MOST_WAITING:
            # It has us answer, and takes no answer.
            self.close()
            return
        self._transport.write(data)

    def _wake_at(self, time: float) -> None:
        """Have `_look` run by a time of the loop's clock, or sooner."""
        if self._transport is None or (self._timer is not None and self._timer_at <= time):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = time
        self._timer = self._loop.call_at(time, self._look)

    def _look(self) -> None:
        """End what is late."""
        self._timer = None
        now = self._loop.time()
        for number in [each for each, read in self._reads.items() if read.deadline <= now]:
            self._drop(number)
        due = self._silent_since + self._keepalive_time
        if self._pinged:
            due += self._keepalive_timeout
        if now >= due:
            if self._pinged or not self._reads:
                self.close()
                return
            self._pinged = True
            self._write(frames.frame(Kind.PING, 0, 0, _PING))
            due += self._keepalive_timeout
        self._wake_at(min([due, *(read.deadline for read in self._reads.values())]))
