"""A channel that does what another one does, but for what a subclass overrides."""

from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from typing_extensions import override


class WrappedChannel(grpc.aio.Channel):
    """Wraps a channel, which it closes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @override
    def unary_unary(self, *given: Any, **named: Any) -> Any:
        return self._channel.unary_unary(*given, **named)

    @override
    def unary_stream(self, *given: Any, **named: Any) -> Any:
        return self._channel.unary_stream(*given, **named)

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
