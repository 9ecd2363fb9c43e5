"""Runs on the nodes of a cluster: with agents and the driver's service, but without Ray."""

import asyncio
import fcntl
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.cluster_pb2 import ListNodesRequest, NodeStatus
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest, LogEntry
from tests.coordinator.harness import PATIENCE, Client, status_of
from tests.engines.direct import DirectCluster, coordinator_of

#: Says its rank and counts until the file that it is told of is there.
COUNTING = """
import os, pathlib, sys, time
go = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"]) / "go.pt"
print("rank", os.environ.get("RANK", "0"), "of", os.environ.get("WORLD_SIZE", "1"), flush=True)
number = 0
while not go.exists():
    number += 1
    print(f"number {number}", flush=True)
    time.sleep(0.01)
print(f"last {number}", flush=True)
"""
FAST = {"ray_lost_node_seconds": 60.0, "stop_grace": 5.0}


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.02)


async def logged(client: Client, job_id: str) -> list[LogEntry]:
    """What of a log is there."""
    page = await client.call("ListJobLogs", ListJobLogsRequest(job_id=job_id, tail=10_000))
    return list(page.entries)


def numbers(entries: list[LogEntry], *, node_id: str = "", rank: int = 0) -> list[int]:
    return [
        int(entry.message.split()[1])
        for entry in entries
        if entry.message.startswith("number ")
        and entry.rank == rank
        and node_id in ("", entry.node_id)
    ]


def assert_whole(entries: list[LogEntry], *, rank: int = 0) -> None:
    """Every line once, in order, up to the last that its process wrote."""
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    last = [e.message for e in entries if e.message.startswith("last ") and e.rank == rank]
    assert len(last) == 1
    found = numbers(entries, rank=rank)
    assert found == list(range(1, int(last[0].split()[1]) + 1))


async def go(client: Client, job_id: str) -> None:
    folder = client.drive / client.tenant / "jobs" / job_id / "checkpoints"
    (folder / "go.pt").write_text("")


async def test_nothing_is_lost_or_doubled_when_agents_and_the_driver_die(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (node_id,) = (await client.job(job_id)).node_ids
        await direct.kill_agents(node_id)
        await client.until_line(job_id, "number 50")
        await direct.restart_driver()
        await go(client, job_id)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert_whole(entries)
        assert sum("Run 1 begins" in entry.message for entry in entries) == 1

        # What the node has kept of it goes.
        async def forgotten() -> bool:
            return not list((tmp_path / "nodes").glob("*/*/*/*"))

        await eventually(forgotten)


async def test_a_gang_meets_at_its_first_node_and_ends_together(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        import json, os, sys, time
        names = ("RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
        print(json.dumps({name: os.environ[name] for name in names}), flush=True)
        if os.environ["RANK"] == "1":
            sys.exit(7)
        time.sleep(600)
        """
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        job_id = await client.submit(script, resource_config={"gpu_count": 6, "node_count": 3})
        entries = await client.log(job_id)
        told = {e.rank: json.loads(e.message) for e in entries if e.message.startswith("{")}
        job = await client.job(job_id)
        assert status_of(job) == "FAILED"
        assert "status 7" in job.error_message
        assert told[1]["WORLD_SIZE"] == "3"
        assert {each["MASTER_ADDR"] for each in told.values()} == {"127.0.0.1"}
        assert len({each["MASTER_PORT"] for each in told.values()}) == 1


async def test_a_lost_nodes_run_goes_on_elsewhere_and_its_lines_are_whole(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        training = {"max_retries": 2}
        job_id = await client.submit(
            COUNTING, resource_config={"gpu_count": 2}, training_config=training
        )
        await client.until_line(job_id, "number 20")
        (lost,) = (await client.job(job_id)).node_ids
        await direct.lose(lost)
        status = {}

        async def offline() -> bool:
            answer = await client.call("ListNodes", ListNodesRequest())
            status.update({node.node_id: node.status for node in answer.nodes})
            return bool(status[lost] == NodeStatus.NODE_STATUS_OFFLINE)

        await eventually(offline)
        # It comes back, with what the run has recorded there, but takes no jobs.
        await direct.join(lost)
        entries: list[LogEntry] = []
        async with asyncio.timeout(PATIENCE):
            async for message in client.watch(job_id):
                entries += message.logs
                if "Run 2 begins" in " ".join(entry.message for entry in message.logs):
                    await go(client, job_id)
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert lost not in job.node_ids
        first = numbers(entries, node_id=lost)
        assert first == list(range(1, len(first) + 1))
        assert not [entry.message for entry in entries if "Gap" in entry.message]
        assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))


async def test_a_node_that_does_not_return_leaves_a_gap_with_its_reason(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**FAST, "ray_lost_node_seconds": 0.5}
    async with coordinator_of(direct, tmp_path, monkeypatch, **settings) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (lost,) = (await client.job(job_id)).node_ids
        await direct.lose(lost)
        entries = await client.log(job_id)
        assert status_of(await client.job(job_id)) == "FAILED"
        (gap,) = [entry.message for entry in entries if entry.message.startswith("Gap")]
        assert lost in gap


async def test_a_lost_disk_leaves_a_gap_with_its_reason(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (lost,) = (await client.job(job_id)).node_ids
        await direct.lose(lost)
        await asyncio.to_thread((tmp_path / "nodes").rename, tmp_path / "broken")
        await direct.join(lost)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "FAILED"
        assert "disk is lost" in job.error_message
        assert [entry for entry in entries if entry.message.startswith("Gap")]


@pytest.mark.parametrize("left", [b"", b"{}", b"[]", b"\xff"])
async def test_a_run_whose_record_is_damaged_on_its_node_is_ended_there_and_leaves_a_gap(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (node,) = (await client.job(job_id)).node_ids
        (part,) = await asyncio.to_thread(lambda: list((tmp_path / "nodes").rglob("part.json")))
        await asyncio.to_thread(part.write_bytes, left)
        await direct.kill_agents(node)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "FAILED"
        assert "disk is lost" in job.error_message
        assert [e.message for e in entries if e.message.startswith("Gap") and node in e.message]
        # Its runner, which holds this lock, is gone; all that was there may be, too.
        lock = JobDir(part.parent / "jobs" / job_id).lock
        with suppress(FileNotFoundError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


async def test_what_a_node_keeps_of_a_run_that_is_over_goes_when_it_returns(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**FAST, "ray_lost_node_seconds": 0.5}
    async with coordinator_of(direct, tmp_path, monkeypatch, **settings) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        (lost,) = (await client.job(job_id)).node_ids
        await direct.lose(lost)
        await client.end(job_id)
        # Another coordinator's on the same node, and a run that goes on.
        other = tmp_path / "nodes" / "another" / lost / "job-1" / "1"
        await asyncio.to_thread(other.mkdir, parents=True)
        running = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(running, "number 5")

        def kept() -> set[str]:
            return {each.parent.name for each in (tmp_path / "nodes").glob("*/*/*/*")}

        assert kept() == {job_id, running, "job-1"}
        await direct.join(lost)
        await direct.examined(lost)

        async def gone() -> bool:
            return await asyncio.to_thread(kept) == {running, "job-1"}

        await eventually(gone)
        await go(client, running)
        assert_whole(await client.log(running))


async def test_the_log_of_a_gang_has_one_bound(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        import time
        for number in range(1, 401):
            print("number", number, "x" * 70, flush=True)
            time.sleep(0.002)
        """
    bound = 64 * 1024
    settings = {**FAST, "job_log_bytes": bound}
    async with coordinator_of(direct, tmp_path, monkeypatch, **settings) as (_, client):
        job_id = await client.submit(script, resource_config={"gpu_count": 2, "node_count": 2})
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        texts = [entry.message for entry in entries if entry.source == "coordinator"]
        assert len([text for text in texts if "later lines are left out" in text]) == 1
        (left,) = [text for text in texts if "of this run were left out" in text]
        kept = [entry for entry in entries if entry.source == "stdout"]
        assert len(kept) + int(left.split()[0]) == 800
        # What came in one batch is taken as a whole.
        assert sum(len(entry.message) for entry in kept) < 1.5 * bound
        for rank in (0, 1):
            found = numbers(entries, rank=rank)
            assert found == list(range(1, len(found) + 1))


async def test_a_run_stops_that_was_asked_to_while_the_driver_was_away(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 5")
        direct.away = True
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        async with asyncio.timeout(PATIENCE):
            await direct.refused.wait()
        # Its lines come all the same.
        number = numbers(await logged(client, job_id))[-1]
        await client.until_line(job_id, f"number {number + 20}")
        direct.away = False
        assert status_of(await client.end(job_id)) == "CANCELLED"


async def test_what_runs_and_what_waits_is_told_to_whoever_can_add_nodes(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**FAST, "ray_autoscaling": True}
    async with coordinator_of(direct, tmp_path, monkeypatch, **settings) as (_, client):
        await client.submit("", resource_config={"gpu_count": 8, "cpu_count": 64})
        wanted = {"GPU": 8, "CPU": 64}
        async with asyncio.timeout(PATIENCE):
            while not any(wanted in each for each in direct.requested):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_coordinator_takes_up_what_the_one_before_has_launched(
    direct: DirectCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (coordinator, client):
        job_id = await client.submit(COUNTING, resource_config={"gpu_count": 1})
        await client.until_line(job_id, "number 20")
        # As if it were killed: no run is asked to leave.
        coordinator.controller._tasks.let_go()
        monkeypatch.setattr(coordinator.controller, "close", _nothing)
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (_, client):
        await client.until_line(job_id, "number 60")
        await go(client, job_id)
        assert_whole(await client.log(job_id))
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED"


async def _nothing() -> None:
    """Do nothing."""
