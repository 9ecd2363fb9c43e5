"""Runs go on under agents of another release, and nothing that they record is lost."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from app.coordinator.driver.node_host import NodeAgentHost
from app.coordinator.engines.agent.answers import Answer
from app.coordinator.engines.agent.protocol import PROTOCOL
from generated.mindcoordinator.v1.cluster_pb2 import ListNodesRequest
from tests.coordinator.harness import Client, status_of
from tests.engines.direct import DirectCluster, coordinator_of
from tests.engines.test_remote_functional import COUNTING, FAST, assert_whole, eventually, go


class OldHost(NodeAgentHost):
    """Of a release whose agents do not tell their protocol."""

    @override
    async def open(self, term: int) -> Answer:
        kind, value = await super().open(term)
        return kind, value[:3]


async def problem_of(client: Client, node_id: str) -> str:
    """What `GET /cluster/nodes` says of a node that cannot be used; empty if it can."""
    answer = await client.call("ListNodes", ListNodesRequest(status_filter="OFFLINE"))
    return next((str(node) for node in answer.nodes if node.node_id == node_id), "")


async def test_a_run_whose_agent_speaks_another_protocol_goes_on_and_comes_in_later(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (coordinator, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (node_id,) = (await client.job(job_id)).node_ids
        direct.host = OldHost
        with capture_logs() as written:
            await direct.kill_agents(node_id)

            async def refused() -> bool:
                problem = await problem_of(client, node_id)
                return f"protocol 1, and this coordinator {PROTOCOL}" in problem

            await eventually(refused)
        assert [each for each in written if each["event"] == "agent_replaced"]
        assert [
            each
            for each in written
            if each["event"] == "part_not_followed" and "protocol 1" in each["reason"]
        ]
        await client.until_line(job_id, "waits on the node")
        engine = coordinator.controller._engine
        assert engine.agent_faults["protocol"]
        # It ends while nobody can follow it.
        await go(client, job_id)
        assert status_of(await client.job(job_id)) == "TRAINING"
        direct.host = NodeAgentHost
        await direct.kill_agents(node_id)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert_whole(entries)

        async def usable() -> bool:
            return not await problem_of(client, node_id)

        await eventually(usable)


async def test_an_agent_of_another_release_is_replaced_where_its_node_has_this_one(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (node_id,) = (await client.job(job_id)).node_ids
        made: list[str] = []

        def host(*about: Any) -> NodeAgentHost:
            made.append("made")
            return (OldHost if len(made) == 1 else NodeAgentHost)(*about)

        direct.host = host
        await direct.kill_agents(node_id)
        await eventually(lambda: _reached(made, 2))
        await go(client, job_id)
        assert_whole(await client.log(job_id))
        assert not await problem_of(client, node_id)


async def _reached(made: list[str], count: int) -> bool:
    return len(made) >= count
