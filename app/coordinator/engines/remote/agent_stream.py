"""The stream from an agent on a node: what a part of a run records there."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from app.coordinator.engines.agent.answers import IMPOSSIBLE, NOTHING_THERE, SUPERSEDED
from app.coordinator.engines.agent.framing import (
    NotAMessage,
    framed,
    notice_lost_peers,
    read_message,
)
from app.coordinator.engines.agent.records_server import SILENCE
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.engines.remote.calls import DriverAway, NothingThere, superseded
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb

#: Seconds: a node whose power is off answers nothing, and breaks no connection either.
_CONNECT: Final = 10.0
_PATIENCE: Final = 3 * SILENCE
#: Bytes of a message, at most.
_LONGEST: Final = 64 * 1024 * 1024


async def watch_run(
    agent: pb.OpenRunResponse, run: pb.RunRef, *, epoch: str, after_line: int, after_snapshot: int
) -> AsyncGenerator[pb.RunRecords, None]:
    """Yield what a part has recorded behind these numbers, up to its end.

    `agent` is where it is, as the driver has told it. Whoever takes what comes
    slowly is waited for. Raises DriverAway if it is not there any more;
    NothingThere, CannotLaunch, LeadershipLost.
    """
    request = pb.WatchRunRequest(
        run=run,
        epoch=epoch,
        after_line=after_line,
        after_snapshot=after_snapshot,
        secret=agent.agent_secret,
    )
    host, _, port = agent.agent_address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError) as error:
        raise DriverAway(f"the agent at {agent.agent_address} is not reached ({error})") from error
    try:
        notice_lost_peers(writer)
        writer.write(framed(request))
        ended = False
        while not ended:
            records = await _next(reader)
            if records.HasField("failure"):
                _raise(records.failure, run.term)
            ended = bool(records.end)
            yield records
    finally:
        writer.transport.abort()


async def _next(reader: asyncio.StreamReader) -> pb.RunRecords:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await read_message(reader, pb.RunRecords, most=_LONGEST)
    except TimeoutError:
        raise DriverAway(f"the agent has said nothing for {_PATIENCE:g} s") from None
    except (OSError, EOFError) as error:
        raise DriverAway("the agent has closed the connection") from error
    except NotAMessage as error:
        raise DriverAway(f"the agent has sent what is no message ({error})") from None


def _raise(failure: pb.RunFailure, term: int) -> None:
    match failure.kind:
        case kind if kind == IMPOSSIBLE:
            raise CannotLaunch(failure.text)
        case kind if kind == NOTHING_THERE:
            raise NothingThere(failure.text)
        case kind if kind == SUPERSEDED:
            raise superseded(failure.text, term)
        case _:
            raise DriverAway(f"{failure.kind}: {failure.text}")
