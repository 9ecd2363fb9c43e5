"""An agent tells what its run records to those alone who have its secret."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, cast

import pytest

from app.coordinator.engines.agent.agent import RunAgent, Superseded
from app.coordinator.engines.agent.framing import framed, read_message
from app.coordinator.engines.agent.newcomers import Newcomers
from app.coordinator.engines.agent.protocol import PROTOCOL
from app.coordinator.engines.agent.records import Records
from app.coordinator.engines.agent.records_server import RecordsServer
from app.coordinator.engines.remote import agent_stream
from app.coordinator.engines.remote.agent_stream import watch_run
from app.coordinator.engines.remote.calls import AnotherProtocol, BadMessage, DriverAway
from app.coordinator.failures import LeadershipLost
from generated.mindcoordinator.internal.v1.engine_pb2 import (
    AgentGreeting,
    OpenRunResponse,
    RunRecords,
    RunRef,
    WatchRunRequest,
)

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
async def test_what_is_no_askedends_its_connection_alone(
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


async def test_connections_that_say_nothing_keep_nobody_out(server: RecordsServer) -> None:
    host, port = server.address.split(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(100)]
    try:
        async with asyncio.timeout(PATIENCE):
            assert [each.end for each in await watched(server.address, server.secret)] == [b"{}"]
            # All but the newest are dropped, before any time is up.
            with suppress(ConnectionResetError):
                assert not await silent[0][0].read()
            assert len(server.newcomers) < 20
    finally:
        for _, writer in silent:
            writer.transport.abort()


async def test_of_many_addresses_none_keeps_out_another() -> None:
    newcomers = Newcomers()
    silent = [asyncio.create_task(asyncio.Event().wait()) for _ in range(200)]
    for number, task in enumerate(silent):
        newcomers.admit(cast(Any, task), f"10.0.0.{number % 50}")
    own = asyncio.create_task(asyncio.Event().wait())
    newcomers.admit(cast(Any, own), "10.0.1.1")
    assert len(newcomers) <= 65
    await asyncio.sleep(0)
    assert not own.cancelling()
    assert silent[0].cancelling()
    for task in (own, *silent):
        task.cancel()
    await asyncio.wait([own, *silent])


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1])
async def test_a_coordinator_with_another_protocol_is_refused_with_both_numbers(
    server: RecordsServer, protocol: int
) -> None:
    host, port = server.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(framed(WatchRunRequest(secret=server.secret, protocol=protocol)))
    async with asyncio.timeout(PATIENCE):
        answer = await read_message(reader, RunRecords, most=1 << 20)
        with suppress(ConnectionResetError):
            assert not await reader.read()
    writer.close()
    assert answer.greeting.protocol == PROTOCOL
    assert f"{PROTOCOL}" in answer.failure.text
    assert f"{protocol or 1}" in answer.failure.text
    # Older coordinators know this field alone.
    assert answer.failure.kind


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1])
async def test_an_agent_with_another_protocol_is_told_of_with_both_numbers(protocol: int) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, WatchRunRequest, most=1 << 20)
        greeting = AgentGreeting(protocol=protocol) if protocol else None
        writer.write(framed(RunRecords(epoch="e", greeting=greeting)))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        host, port = other.sockets[0].getsockname()
        with pytest.raises(AnotherProtocol, match=f"{protocol or 1}.*{PROTOCOL}"):
            await watched(f"{host}:{port}", "a")


@pytest.mark.parametrize("address", ["", "a", "a:", ":1", "a:b", "a:0", "a:99999", "a:-1", "a:1e3"])
async def test_an_address_that_is_none_is_a_bad_message(address: str) -> None:
    with pytest.raises(BadMessage):
        await watched(address, "a")


@pytest.mark.parametrize(
    "asked",
    [
        WatchRunRequest(run=RunRef(job_id="another", run=1)),
        WatchRunRequest(run=RunRef(job_id="a", run=2)),
        WatchRunRequest(run=RunRef(job_id="a", run=1), after_line=-1),
        WatchRunRequest(run=RunRef(job_id="a", run=1), after_snapshot=2**62),
        WatchRunRequest(run=RunRef(job_id="a", run=1, term=-1)),
    ],
    ids=["job", "run", "line", "snapshot", "term"],
)
async def test_a_askedthat_no_coordinator_makes_is_answered_by_a_greeting_alone(
    asked: WatchRunRequest,
) -> None:
    server = RecordsServer(cast(RunAgent, Agent()), host="127.0.0.1", job_id="a", run=1)
    await server.start()
    try:
        host, port = server.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        asked.secret, asked.protocol = server.secret, PROTOCOL
        writer.write(framed(asked))
        async with asyncio.timeout(PATIENCE):
            await read_message(reader, RunRecords, most=1 << 20)
            with suppress(ConnectionResetError):
                assert not await reader.read()
        writer.close()
    finally:
        await server.close()


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_sent_at_random_the_next_one_is_answered(
    server: RecordsServer, seed: int
) -> None:
    chance = random.Random(seed)
    host, port = server.address.split(":")
    for _ in range(40):
        request = WatchRunRequest(
            run=RunRef(
                job_id="a" * chance.randrange(3), run=chance.choice([-(2**31), 0, 2**31 - 1])
            ),
            after_line=chance.choice([-(2**63), -1, 0, 2**53, 2**63 - 1]),
            after_snapshot=chance.choice([-1, 0, 2**63 - 1]),
            epoch=chance.choice(["", "e", "../x", "\u00e9" * 100]),
            secret=chance.choice(["", server.secret, "x" * 3000]),
            protocol=chance.choice([0, PROTOCOL, -1, 2**31 - 1]),
        )
        data = bytearray(framed(request))
        if chance.random() < 0.7:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(bytes(data[: chance.randrange(1, len(data) + 1)]))
        # Nobody reads the answer.
        writer.close()
    async with asyncio.timeout(PATIENCE):
        assert [each.end for each in await watched(server.address, server.secret)] == [b"{}"]
