"""Sends what an agent's run records straight to the coordinator, as the contract of
`mindcoordinator.internal.v1` has it.

The agents listen on their nodes' addresses, where others may reach them, too:
each has a secret, which the coordinator is told through the cluster.

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
from app.coordinator.engines.agent.answers import ANOTHER, DONE, Answer, answer_of
from app.coordinator.engines.agent.framing import (
    NotAMessage,
    framed,
    notice_lost_peers,
    read_message,
)
from app.coordinator.engines.agent.records import Records
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb

#: Seconds after which a message comes also if nothing is new.
SILENCE: Final = 5.0
#: Seconds that a request may take to come.
_REQUEST: Final = 10.0
#: Bytes of a request, at most.
_LONGEST_REQUEST: Final = 64 * 1024
#: Connections at the same time. The coordinator has one.
_CONNECTIONS: Final = 32

log = structlog.get_logger("scaimind.coordinator")


class RecordsServer:
    """Serves one agent, on its event loop."""

    def __init__(self, agent: RunAgent, *, host: str) -> None:
        """`host` is an address of this node, that of its interface to the others."""
        self._agent = agent
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
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
        if self._server is None or len(self._connections) >= _CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="connection of this agent")
        self._connections.add(task)
        task.add_done_callback(self._disconnected)

    def _disconnected(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
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
        finally:
            writer.transport.abort()

    async def _messages(self, request: pb.WatchRunRequest) -> AsyncGenerator[pb.RunRecords, None]:
        if not hmac.compare_digest(request.secret.encode(), self.secret.encode()):
            yield _failure((ANOTHER, "this is another agent"))
            return
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
