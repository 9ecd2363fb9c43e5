"""A channel whose reads go over a connection of their own while there are many of them.

A call costs grpc.aio several times what it costs here: it has threads of its own, which
wake the event loop for each answer. What gets no answer is left to it, and what is to be
tried again.
"""

import asyncio
import re
from collections.abc import Callable, Collection
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from typing_extensions import override

from app.bridge.settings import UpstreamSettings
from app.bridge.transport.answers import Answer, failure
from app.bridge.transport.header_blocks import request_start, with_metadata
from app.bridge.transport.read_connection import ReadConnection
from app.bridge.transport.reading_channel import Parse
from app.bridge.transport.wrapped_channel import WrappedChannel
from app.tasks.backoff import Backoff

#: One address of a host: gRPC's other forms name several, of which it chooses.
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:/\[\],]+)):(?P<port>[0-9]{1,5})"
)
_LAST_PORT: Final = 65_535
#: Seconds that gRPC is given at least to make a read anew; with fewer left it is too late.
_LEAST_LEFT: Final = 0.01


def has_one_address(address: str) -> bool:
    """Return whether an address can be connected to without choosing among several."""
    match = _ADDRESS.fullmatch(address)
    return match is not None and int(match["port"]) <= _LAST_PORT


class DirectReads:
    """Holds the connection over which reads go, from `direct_reads` of them in a second on.

    Made on the event loop. `settings.address` is that of one host, in plain text.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        match = _ADDRESS.fullmatch(settings.address)
        assert match is not None
        self._host, self._port = match["ipv6"] or match["host"], int(match["port"])
        self.authority = settings.address
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(shortest=settings.reconnect_min, longest=settings.reconnect_max)
        self._not_before = 0.0
        self._current: ReadConnection | None = None
        #: When the current one was made.
        self._made_at = 0.0
        #: All that are open: one that ends goes on until its last read is answered.
        self._open: set[ReadConnection] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._second = 0.0
        self._reads = 0

    def connection(self) -> ReadConnection | None:
        """Return the connection for a read that begins now; None if gRPC has to make it."""
        if self._current is None:
            self._connect_if_busy()
        return self._current

    async def close(self) -> None:
        """Close all; reads that are under way are made by gRPC."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        for connection in tuple(self._open):
            connection.close()

    def _connect_if_busy(self) -> None:
        now = self._loop.time()
        if now - self._second >= 1.0:
            self._second, self._reads = now, 0
        self._reads += 1
        if (
            self._reads >= self._settings.direct_reads
            and now >= self._not_before
            and self._connecting is None
            and not self._closed
        ):
            self._connecting = self._loop.create_task(self._connect(), name="direct-reads-connect")

    async def _connect(self) -> None:
        connection = ReadConnection(
            settings=self._settings, on_end=self._ended, on_lost=self._open.discard
        )
        self._open.add(connection)
        self._not_before = self._loop.time() + self._backoff.pause()
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._loop.create_connection(lambda: connection, self._host, self._port)
                await connection.ready
            # It may have said that it goes away in the same breath: nobody would be told again.
            if not connection.ended:
                self._current, self._made_at = connection, self._loop.time()
        except (OSError, UnicodeError):
            # Also of a host that is no name. gRPC, which makes the reads meanwhile, says what is
            # wrong.
            pass
        finally:
            self._connecting = None
            if self._current is not connection:
                connection.close()
                self._open.discard(connection)

    def _ended(self, connection: ReadConnection) -> None:
        if self._current is connection:
            self._current = None
            now = self._loop.time()
            # One that is made and lost at once, again and again, is no success.
            if now - self._made_at > self._settings.reconnect_max:
                self._backoff.reset()
            self._not_before = max(self._not_before, now + self._backoff.pause())


class DirectChannel(WrappedChannel):
    """Wraps a channel, which it closes. The calls of `methods`, given in full, are reads."""

    def __init__(
        self, channel: grpc.aio.Channel, *, reads: DirectReads, methods: Collection[str]
    ) -> None:
        super().__init__(channel)
        self._reads = reads
        self._methods = frozenset(methods)

    @override
    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *given: Any,
        **named: Any,
    ) -> Any:
        call = self._channel.unary_unary(
            method, request_serializer, response_deserializer, *given, **named
        )
        if method not in self._methods:
            return call
        return _DirectRead(
            method,
            reads=self._reads,
            serialize=request_serializer,
            parse=response_deserializer,
            otherwise=call,
        )

    @override
    async def close(self, grace: float | None = None) -> None:
        await self._reads.close()
        await super().close(grace)


class _DirectRead:
    """Makes the calls of one method, as grpc.aio.UnaryUnaryMultiCallable does."""

    def __init__(
        self,
        method: str,
        *,
        reads: DirectReads,
        serialize: Callable[[Any], bytes],
        parse: Parse | None,
        otherwise: Callable[..., Any],
    ) -> None:
        self._method = method
        self._reads = reads
        self._serialize = serialize
        self._parse = parse
        self._otherwise = otherwise

    async def __call__(
        self,
        request: Message,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as grpc.aio has it
        metadata: tuple[tuple[str, str], ...] = (),
        **named: Any,
    ) -> Any:
        if timeout is not None and not named:
            connection = self._reads.connection()
            if connection is not None:
                message = self._serialize(request)
                start = request_start(self._method, self._reads.authority, timeout)
                head = with_metadata(start, metadata)
                if connection.has_room(len(head), len(message)):
                    loop = asyncio.get_running_loop()
                    deadline = loop.time() + timeout
                    answer = await connection.read(head, message, deadline=deadline)
                    if answer is not None and answer.code is not grpc.StatusCode.UNAVAILABLE:
                        return self._result(answer)
                    timeout = deadline - loop.time()
                    if timeout < _LEAST_LEFT:
                        raise failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
                    # A standby may answer so for ever, and each read would be made twice.
                    connection.retire()
        return await self._otherwise(request, timeout=timeout, metadata=metadata, **named)

    def _result(self, answer: Answer) -> Any:
        if answer.code is not grpc.StatusCode.OK:
            raise answer.error()
        if self._parse is None:
            return answer.message
        try:
            return self._parse(answer.message)
        except DecodeError:
            return None  # as grpc.aio does
