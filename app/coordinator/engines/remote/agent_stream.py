"""The stream from an agent on a node: what a part of a run records there."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from app.coordinator.engines.agent.answers import (
    ANOTHER_PROTOCOL,
    IMPOSSIBLE,
    NOTHING_THERE,
    SUPERSEDED,
)
from app.coordinator.engines.agent.framing import (
    NotAMessage,
    framed,
    notice_lost_peers,
    read_message,
)
from app.coordinator.engines.agent.protocol import PROTOCOL, told
from app.coordinator.engines.agent.records_server import SILENCE
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.engines.remote.calls import (
    AnotherProtocol,
    BadMessage,
    DriverAway,
    NothingThere,
    superseded,
)
from app.shortening import shortened
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb

#: Seconds: a node whose power is off answers nothing, and breaks no connection either.
_CONNECT: Final = 10.0
_PATIENCE: Final = 3 * SILENCE
#: Bytes of a message, at most.
_LONGEST: Final = 8 * 1024 * 1024
#: Characters of an agent's reason that are kept.
_REASON: Final = 500


async def watch_run(
    agent: pb.OpenRunResponse, run: pb.RunRef, *, epoch: str, after_line: int, after_snapshot: int
) -> AsyncGenerator[pb.RunRecords, None]:
    """Yield what a part has recorded behind these numbers, up to its end.

    `agent` is where it is, as the driver has told it. Whoever takes what comes
    slowly is waited for. Raises DriverAway if it is not there any more, and as
    BadMessage and AnotherProtocol for what it says; NothingThere, CannotLaunch,
    LeadershipLost. The content of records is checked by who takes them.
    """
    request = pb.WatchRunRequest(
        run=run,
        epoch=epoch,
        after_line=after_line,
        after_snapshot=after_snapshot,
        secret=agent.agent_secret,
        protocol=PROTOCOL,
    )
    host, port = _place(agent.agent_address)
    try:
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise DriverAway(f"the agent at {agent.agent_address} is not reached ({error})") from error
    try:
        notice_lost_peers(writer)
        writer.write(framed(request))
        _check_greeting(await _next(reader), run)
        ended = False
        while not ended:
            records = await _next(reader)
            if records.HasField("greeting"):
                raise BadMessage("the agent has greeted twice")
            if records.HasField("failure"):
                _raise(records.failure, run.term)
            ended = bool(records.end)
            yield records
    finally:
        writer.transport.abort()


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not port.isascii() or not 0 < int(port[:6]) < 1 << 16:
        raise BadMessage("the agent's address is none")
    return host.strip("[]"), int(port)


def _check_greeting(first: pb.RunRecords, run: pb.RunRef) -> None:
    """Raise what the first message of a connection means, unless an agent of this run greets."""
    greeting, failure = first.greeting, first.failure
    if told(greeting.protocol) != PROTOCOL:
        # Of a release without greetings, it may also say that it is another run's, or has nothing.
        if not first.HasField("greeting") and first.HasField("failure"):
            _raise(failure, run.term)
        raise AnotherProtocol(greeting.protocol)
    if first.HasField("failure"):
        _raise(failure, run.term)
    if greeting.job_id and (greeting.job_id, greeting.run) != (run.job_id, run.run):
        raise BadMessage("the agent is another run's")


async def _next(reader: asyncio.StreamReader) -> pb.RunRecords:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await read_message(reader, pb.RunRecords, most=_LONGEST)
    except TimeoutError:
        raise DriverAway(f"the agent has said nothing for {_PATIENCE:g} s") from None
    except (OSError, EOFError) as error:
        raise DriverAway("the agent has closed the connection") from error
    except NotAMessage as error:
        raise BadMessage(f"the agent has sent what is no message ({error})") from None


def _raise(failure: pb.RunFailure, term: int) -> None:
    text = "".join(each for each in failure.text[:_REASON] if each.isprintable())
    match failure.kind:
        case kind if kind == IMPOSSIBLE:
            raise CannotLaunch(text)
        case kind if kind == NOTHING_THERE:
            raise NothingThere(text)
        case kind if kind == ANOTHER_PROTOCOL:
            raise AnotherProtocol(0)
        case kind if kind == SUPERSEDED:
            if not (text.isdecimal() and text.isascii() and term < int(text) < 1 << 63):
                raise BadMessage("the agent knows of a term that is not higher")
            raise superseded(text, term)
        case kind:
            raise DriverAway(f"{shortened(kind, 40)}: {text}")
