"""An agent tells what its run records to those alone who have its secret."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from app.coordinator.engines.agent.agent import RunAgent, Superseded
from app.coordinator.engines.agent.records import Records
from app.coordinator.engines.agent.records_server import RecordsServer
from app.coordinator.engines.remote.agent_stream import watch_run
from app.coordinator.engines.remote.calls import DriverAway
from app.coordinator.failures import LeadershipLost
from generated.mindcoordinator.internal.v1.engine_pb2 import OpenRunResponse, RunRecords, RunRef


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
    with pytest.raises(DriverAway, match="UNAUTHENTICATED"):
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
