"""Sends what an agent's run records straight to the coordinator, as the contract of
`mindcoordinator.internal.v1` has it.

The agents listen on their nodes' addresses, where others may reach them, too:
each has a secret, which the coordinator is told through the cluster. All that is
sent here is input: of a bounded length, checked before anything is done for it.

A connection of asyncio's own, and not a call of gRPC: that one hands each
message over from thread to thread, which takes longer than all else (decision 0049).
"""

import asyncio
import hmac
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import structlog

from app.coordinator.engines.agent.agent import RunAgent
from app.coordinator.engines.agent.answers import (
    ANOTHER,
    ANOTHER_PROTOCOL,
    DONE,
    Answer,
    answer_of,
)
from app.coordinator.engines.agent.framing import (
    NotAMessage,
    framed,
    notice_lost_peers,
    read_message,
)
from app.coordinator.engines.agent.newcomers import Newcomers
from app.coordinator.engines.agent.protocol import PROTOCOL, told
from app.coordinator.engines.agent.records import Records
from app.coordinator.storage.records import MAX_NUMBER
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb

#: Seconds after which a message comes also if nothing is new.
SILENCE: Final = 5.0
#: Seconds that a request may take to come: it follows the connection at once.
_REQUEST: Final = 5.0
#: Bytes of a request, at most.
_LONGEST_REQUEST: Final = 4 * 1024
#: Connections of those who know the secret, at the same time. The coordinator has one.
_CONNECTIONS: Final = 4

log = structlog.get_logger("scaimind.coordinator")


class RecordsServer:
    """Serves one agent, on its event loop."""

    def __init__(self, agent: RunAgent, *, host: str, job_id: str = "", run: int = 0) -> None:
        """`host` is an address of this node, that of its interface to the others. The records
        are those of the job's run."""
        self._agent = agent
        self._host = host
        self._greeting = pb.AgentGreeting(protocol=PROTOCOL, job_id=job_id, run=run)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        #: Those that have not greeted.
        self.newcomers = Newcomers()
        #: Those that know the secret, the oldest first.
        self._known: dict[asyncio.Task[None], None] = {}
        #: The one that is told what is recorded: the newest.
        self._told: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        #: Where it listens, host:port; empty while it does not.
        self.address = ""
        self.secret = secrets.token_hex(32)

    async def start(self) -> None:
        """Listen, unless it does already. Raises OSError."""
        async with self._starting:
            if self._server is not None:
                return
            self._server = await asyncio.start_server(self._connected, self._host, 0)
            host = f"[{self._host}]" if ":" in self._host else self._host
            self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening; connections end."""
        server, self._server, self.address = self._server, None, ""
        if server is not None:
            server.close()
            for each in self._connections:
                each.cancel()
            if self._connections:
                await asyncio.wait(self._connections)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self._server is None or peer is None:
            # It is being closed, or the connection is gone already.
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="connection of this agent")
        self._connections.add(task)
        task.add_done_callback(self._disconnected)
        # One that is cancelled before it has begun is left open else.
        task.add_done_callback(lambda _: writer.transport.abort())
        self.newcomers.admit(task, peer[0])

    def _disconnected(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self.newcomers.leave(task)
        self._known.pop(task, None)
        if self._told is task:
            self._told = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("records_not_sent", exc_info=error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            notice_lost_peers(writer)
            async with asyncio.timeout(_REQUEST):
                request = await read_message(reader, pb.WatchRunRequest, most=_LONGEST_REQUEST)
            async with aclosing(self._messages(request)) as messages:
                async for message in messages:
                    writer.write(framed(message))
                    # Whoever reads slowly is waited for: what is recorded is on the disk.
                    await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, NotAMessage):
            # Whoever it was asks again.
            return

    async def _messages(self, request: pb.WatchRunRequest) -> AsyncGenerator[pb.RunRecords, None]:
        if not hmac.compare_digest(request.secret.encode(), self.secret.encode()):
            yield _failure((ANOTHER, "this is another agent"))
            return
        self._know()
        greeting = pb.RunRecords(greeting=self._greeting)
        if (theirs := told(request.protocol)) != PROTOCOL:
            log.error("coordinator_refused", protocol=theirs, own_protocol=PROTOCOL)
            text = f"this agent speaks protocol {PROTOCOL}, and the coordinator {theirs}"
            greeting.MergeFrom(_failure((ANOTHER_PROTOCOL, text)))
            yield greeting
            return
        yield greeting
        if problem := self._problem(request):
            log.warning("request_refused", reason=problem)
            raise NotAMessage(problem)
        epoch, line, snapshot = request.epoch, request.after_line, request.after_snapshot
        while True:
            kind, value = await answer_of(
                self._agent.records(
                    term=request.run.term,
                    epoch=epoch,
                    after_line=line,
                    after_snapshot=snapshot,
                    patience=SILENCE,
                )
            )
            if kind != DONE:
                yield _failure((kind, value))
                return
            self._end_the_one_before()
            found: Records = value
            if found.epoch != epoch:
                if epoch:
                    line = snapshot = 0
                epoch = found.epoch
            line = found.line_behind or line
            snapshot = found.snapshot_behind or snapshot
            yield _message(found)
            if found.end:
                return

    def _problem(self, request: pb.WatchRunRequest) -> str:
        """Return what no coordinator asks for, as a phrase; empty if it is none."""
        own = self._greeting
        if own.job_id and (own.job_id, own.run) != (request.run.job_id, request.run.run):
            return "a request for another run"
        if not all(0 <= each < MAX_NUMBER for each in (request.after_line, request.after_snapshot)):
            return "a number that no record has"
        return "" if 0 <= request.run.term < MAX_NUMBER else "a term that nobody has"

    def _know(self) -> None:
        """Note that this connection is by one that knows the secret."""
        task = asyncio.current_task()
        assert task is not None
        self.newcomers.leave(task)
        self._known[task] = None
        for oldest in [each for each in self._known if each is not self._told][:-_CONNECTIONS]:
            del self._known[oldest]
            oldest.cancel()

    def _end_the_one_before(self) -> None:
        """Have one connection that is told of the records: of a coordinator whose machine is gone
        one may be left."""
        task = asyncio.current_task()
        if self._told is not task:
            before, self._told = self._told, task
            if before is not None:
                before.cancel()


def _failure(answer: Answer) -> pb.RunRecords:
    kind, text = answer
    return pb.RunRecords(failure=pb.RunFailure(kind=kind, text=text))


def _message(found: Records) -> pb.RunRecords:
    return pb.RunRecords(
        epoch=found.epoch,
        first_line=found.first_line,
        lines=found.lines,
        first_snapshot=found.first_snapshot,
        snapshots=found.snapshots,
        end=found.end,
        lost_through=found.lost_through,
    )
