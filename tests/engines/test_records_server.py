"""An agent tells what its run records to those alone who have its secret."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import cast

import pytest

from app.coordinator.engines.agent.agent import RunAgent, Superseded
from app.coordinator.engines.agent.records import Records
from app.coordinator.engines.agent.records_server import RecordsServer
from app.coordinator.engines.remote import agent_stream
from app.coordinator.engines.remote.agent_stream import watch_run
from app.coordinator.engines.remote.calls import DriverAway
from app.coordinator.failures import LeadershipLost
from generated.mindcoordinator.internal.v1.engine_pb2 import OpenRunResponse, RunRecords, RunRef

PATIENCE = 60


class Agent:
    """Has recorded that its run is over, and knows of term 2."""

    async def records(self, *, term: int, **_: object) -> Records:
        if term < 2:
            raise Superseded(2)
        return Records(epoch="e", end=b"{}")


@pytest.fixture
async def server() -> AsyncIterator[RecordsServer]:
    server = RecordsServer(cast(RunAgent, Agent()), host="127.0.0.1")
    await server.start()
    yield server
    await server.close()


async def watched(address: str, secret: str, *, term: int = 2) -> list[RunRecords]:
    agent = OpenRunResponse(agent_address=address, agent_secret=secret)
    run = RunRef(job_id="a", run=1, node_id="n", term=term)
    stream = watch_run(agent, run, epoch="", after_line=0, after_snapshot=0)
    return [each async for each in stream]


async def test_whoever_has_the_secret_is_told_up_to_the_end(server: RecordsServer) -> None:
    assert [each.end for each in await watched(server.address, server.secret)] == [b"{}"]


@pytest.mark.parametrize("given", ["", "wrong"])
async def test_nobody_else_is_told_anything(server: RecordsServer, given: str) -> None:
    with pytest.raises(DriverAway, match="another agent"):
        await watched(server.address, given)


async def test_a_replaced_coordinator_is_told_that_it_was(server: RecordsServer) -> None:
    with pytest.raises(LeadershipLost, match="term 2 has begun"):
        await watched(server.address, server.secret, term=1)


async def test_an_agent_that_is_closed_is_away(server: RecordsServer) -> None:
    address = server.address
    await server.close()
    assert not server.address
    with pytest.raises(DriverAway):
        await watched(address, server.secret)


@pytest.mark.parametrize("sent", [b"\xff" * 8, b"\x00\x00\x00\x04\xff\xff\xff\xff", b"\x00\x00"])
async def test_what_is_no_request_ends_its_connection_alone(
    server: RecordsServer, sent: bytes
) -> None:
    host, port = server.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):
            assert not await reader.read()
    writer.close()
    assert [each.end for each in await watched(server.address, server.secret)] == [b"{}"]


async def test_a_newer_connection_ends_the_one_before() -> None:
    """Of a coordinator whose machine is gone, one is left."""

    class Agent:
        """Has something for those alone who begin."""

        async def records(self, *, after_line: int, **_: object) -> Records:
            if after_line % 10:
                await asyncio.Event().wait()
            return Records(epoch="e", first_line=after_line + 1, line_count=1)

    server = RecordsServer(cast(RunAgent, Agent()), host="127.0.0.1")
    await server.start()
    told = OpenRunResponse(agent_address=server.address, agent_secret=server.secret)
    run = RunRef(job_id="a", run=1, node_id="n", term=2)
    try:
        async with (
            asyncio.timeout(PATIENCE),
            aclosing(watch_run(told, run, epoch="", after_line=0, after_snapshot=0)) as before,
            aclosing(watch_run(told, run, epoch="", after_line=10, after_snapshot=0)) as after,
        ):
            assert (await anext(before)).first_line == 1
            assert (await anext(after)).first_line == 11
            with pytest.raises(DriverAway, match="closed"):
                await anext(before)
    finally:
        await server.close()


async def test_an_agent_that_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_stream, "_PATIENCE", 0.05)
    done = asyncio.Event()

    async def stopped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    async with await asyncio.start_server(stopped, "127.0.0.1", 0) as silent:
        host, port = silent.sockets[0].getsockname()
        with pytest.raises(DriverAway, match="said nothing"):
            await watched(f"{host}:{port}", "a")
        done.set()


async def test_whoever_opens_it_while_it_begins_to_listen_is_told_where() -> None:
    server = RecordsServer(cast(RunAgent, Agent()), host="127.0.0.1")
    addresses: list[str] = []

    async def opened() -> None:
        await server.start()
        addresses.append(server.address)

    try:
        await asyncio.gather(opened(), opened())
    finally:
        await server.close()
    assert addresses[0]
    assert addresses == [addresses[0]] * 2
