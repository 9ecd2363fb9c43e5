"""A channel whose calls read their answers in another way than the stubs have it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio
from typing_extensions import override

#: Reads a message from its bytes.
Parse: TypeAlias = Callable[[bytes], Any]


class ReadingChannel(grpc.aio.Channel):
    """Wraps a channel, which it closes.

    What parses the answers of the methods below `prefix` is made by `reader_of`
    of the stub's own parser, once for each method.
    """

    def __init__(
        self, channel: grpc.aio.Channel, *, prefix: str, reader_of: Callable[[Parse], Parse]
    ) -> None:
        self._channel = channel
        self._prefix = prefix
        self.reader_of = reader_of

    def _of_method(
        self,
        call: Callable[..., Any],
        method: str,
        request_serializer: Any = None,
        response_deserializer: Parse | None = None,
        *given: Any,
        **named: Any,
    ) -> Any:
        """Make what calls a method, with the parameters of grpc.aio.Channel.unary_unary."""
        reader = response_deserializer
        if reader is not None and method.startswith(self._prefix):
            reader = self.reader_of(reader)
        return call(method, request_serializer, reader, *given, **named)

    @override
    def unary_unary(self, *given: Any, **named: Any) -> Any:
        return self._of_method(self._channel.unary_unary, *given, **named)

    @override
    def unary_stream(self, *given: Any, **named: Any) -> Any:
        return self._of_method(self._channel.unary_stream, *given, **named)

    @override
    def stream_unary(self, method: str, *given: Any, **named: Any) -> Any:
        return self._channel.stream_unary(method, *given, **named)

    @override
    def stream_stream(self, method: str, *given: Any, **named: Any) -> Any:
        return self._channel.stream_stream(method, *given, **named)

    @override
    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    @override
    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    @override
    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    @override
    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


def reader_on(channel: grpc.aio.Channel, parse: Parse) -> Parse:
    """Return what reads the answers of a channel's calls that are given as bytes."""
    return channel.reader_of(parse) if isinstance(channel, ReadingChannel) else parse
