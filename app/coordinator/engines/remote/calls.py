"""Calls of the driver, with failures as exceptions of the engine."""

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, NoReturn

import grpc
import grpc.aio

from app.coordinator.engines.agent.protocol import PROTOCOL, told
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.failures import LeadershipLost


class DriverAway(Exception):
    """The driver, or the agent behind it, cannot be asked at the moment. For operators."""


class BadMessage(DriverAway):
    """An agent has sent what none sends. Nothing of it was heeded: it is asked again."""


class AnotherProtocol(DriverAway):
    """An agent, of which a run may go on, speaks another protocol. The message says what to do."""

    def __init__(self, theirs: int) -> None:
        """`theirs` is its number, as it was told."""
        super().__init__(
            f"The agent of a run there speaks protocol {told(theirs)}, and this coordinator"
            f" {PROTOCOL}: install the coordinator's release on the node and start its Ray again."
            " What the run records until then waits on the node."
        )


class NodeLost(Exception):
    """The node is not part of the cluster, or not any more."""


class NothingThere(Exception):
    """The node has nothing of the run: it was never started there, or the disk is lost."""


async def answered(call: Awaitable[Any], *, term: int = 0) -> Any:
    """Await a call that is made for a term. Raises the above, CannotLaunch, LeadershipLost."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        _translated(error, term)


async def streamed(call: Any, *, term: int = 0) -> AsyncGenerator[Any, None]:
    """Yield what a call streams, and end it with the generator. Raises as `answered`."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        _translated(error, term)
    finally:
        call.cancel()


def _translated(error: grpc.aio.AioRpcError, term: int) -> NoReturn:
    text = error.details() or ""
    match error.code():
        case grpc.StatusCode.FAILED_PRECONDITION:
            raise CannotLaunch(text) from None
        case grpc.StatusCode.NOT_FOUND:
            raise NodeLost(text) from None
        case grpc.StatusCode.DATA_LOSS:
            raise NothingThere(text) from None
        case grpc.StatusCode.ABORTED:
            # It answers with the highest term.
            raise superseded(text, term) from None
        case grpc.StatusCode.UNIMPLEMENTED:
            raise AnotherProtocol(int(text) if text.isdecimal() else 0) from None
        case _:
            raise DriverAway(f"{error.code().name}: {text}") from error


def superseded(newest: str, term: int) -> LeadershipLost:
    """Return what is raised where a higher term is known than the coordinator's own."""
    return LeadershipLost(f"term {newest} has begun, and this coordinator leads for term {term}")
