"""A channel whose calls read their answers in another way than the stubs have it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc.aio
from typing_extensions import override

from app.bridge.transport.wrapped_channel import WrappedChannel

#: Reads a message from its bytes.
Parse: TypeAlias = Callable[[bytes], Any]


class ReadingChannel(WrappedChannel):
    """Wraps a channel, which it closes.

    What parses the answers of the methods below `prefix` is made by `reader_of`
    of the stub's own parser, once for each method.
    """

    def __init__(
        self, channel: grpc.aio.Channel, *, prefix: str, reader_of: Callable[[Parse], Parse]
    ) -> None:
        super().__init__(channel)
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


def reader_on(channel: grpc.aio.Channel, parse: Parse) -> Parse:
    """Return what reads the answers of a channel's calls that are given as bytes."""
    return channel.reader_of(parse) if isinstance(channel, ReadingChannel) else parse
