"""Jobs on a real Ray cluster: its nodes, gangs, and what survives whose death."""

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from generated.mindcoordinator.v1.cluster_pb2 import (
    DrainNodeRequest,
    EnableNodeRequest,
    ListNodesRequest,
    NodeStatus,
)
from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.coordinator.harness import Client, status_of

pytestmark = pytest.mark.slow

PATIENCE = 240.0
LINES = """
import os, pathlib, sys, time
go = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"]) / "go.pt"
number = 0
while not go.exists():
    number += 1
    print(f"number {number}", flush=True)
    time.sleep(0.005)
print(f"last {number}", flush=True)
"""


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> float:
    """Wait for something; returns the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None
    return loop.time() - began


async def node_states(user: Client) -> dict[str, str]:
    answer = await user.call("ListNodes", ListNodesRequest())
    return {
        node.node_id: NodeStatus.Name(node.status).removeprefix("NODE_STATUS_")
        for node in answer.nodes
    }


async def all_online(user: Client) -> None:
    async def online() -> bool:
        return await node_states(user) == dict.fromkeys(("n1", "n2", "n3"), "ONLINE")

    await until("three nodes are online", online)


async def whole_log(user: Client, job_id: str) -> list[LogEntry]:
    entries: list[LogEntry] = []
    async with asyncio.timeout(PATIENCE):
        async for message in user.watch(job_id):
            entries += message.logs
    return entries


async def go(user: Client, job_id: str) -> None:
    folder = user.drive / user.tenant / "jobs" / job_id / "checkpoints"
    await asyncio.to_thread((folder / "go.pt").write_text, "")


def numbers(entries: list[LogEntry], rank: int, node_id: str = "") -> list[int]:
    return [
        int(entry.message.split()[1])
        for entry in entries
        if entry.message.startswith("number ")
        and entry.rank == rank
        and node_id in ("", entry.node_id)
    ]


def assert_whole(entries: list[LogEntry], ranks: int) -> None:
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    for rank in range(ranks):
        (last,) = (
            int(entry.message.split()[1])
            for entry in entries
            if entry.message.startswith("last ") and entry.rank == rank
        )
        assert numbers(entries, rank) == list(range(1, last + 1)), rank


async def test_nodes_join_are_lost_and_return_and_drains_are_kept(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        await user.call("DrainNode", DrainNodeRequest(node_id="n3", reason="a fan"))
        await asyncio.to_thread(ray.kill_worker, 3)

        async def state(wanted: str) -> bool:
            return (await node_states(user)).get("n3") == wanted

        seen = await until("the loss is seen", lambda: state("OFFLINE"))
        sys.stdout.write(f"a lost node is OFFLINE after {seen:.1f} s\n")
        await asyncio.to_thread(ray.start_worker, 3)
        back = await until("the return is seen", lambda: state("DRAINED"))
        sys.stdout.write(f"a node that returned is there {back:.1f} s after ray start\n")
        await user.call("EnableNode", EnableNodeRequest(node_id="n3"))
        await all_online(user)


async def test_a_gang_of_three_meets_and_its_lines_are_whole(
    ray: RayCluster, tmp_path: Path
) -> None:
    script = """
        import os, socket
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        where = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if rank == 0:
            with socket.create_server(where) as server:
                peers = [server.accept()[0] for _ in range(size - 1)]
                for peer in peers:
                    peer.sendall(b"met")
        else:
            while True:
                try:
                    peer = socket.create_connection(where, timeout=60)
                    break
                except ConnectionRefusedError:
                    pass
            print(peer.recv(3).decode(), rank, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        for number in range(1, 501):
            print(f"number {number}", flush=True)
        print("last 500", flush=True)
        """
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_id = await user.submit(script, resource_config={"gpu_count": 6, "node_count": 3})
        entries = await whole_log(user, job_id)
        job = await user.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert_whole(entries, 3)
        assert len({entry.node_id for entry in entries if entry.source == "stdout"}) == 3


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_or_doubled_whoever_is_killed(
    ray: RayCluster, tmp_path: Path, seed: int
) -> None:
    """Actors, drivers and the control service in a random order, and then the coordinator."""
    chance = random.Random(seed)
    data = tmp_path / "data"
    victims = ["actor", "driver", "control service", "actor", "driver"]
    chance.shuffle(victims)
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_id = await user.submit(LINES, resource_config={"gpu_count": 6, "node_count": 3})
        await user.until_line(job_id, "number 20")
        port = running.port
        reached = 20
        for victim in victims:
            sys.stdout.write(f"killing: {victim}\n")
            match victim:
                case "actor":
                    chance.choice(await asyncio.to_thread(ray.actors)).kill()
                case "driver":
                    driver = driver_of(running.process.pid)
                    assert driver is not None
                    driver.kill()
                case _:
                    await asyncio.to_thread(ray.restart_control_service)
            reached += 200
            await user.until_line(job_id, f"number {reached}")
        await running.stop(signal.SIGKILL)
    async with coordinator(ray, data, port=port) as running, client(running, data) as user:
        await user.until_line(job_id, f"number {reached + 200}")
        await go(user, job_id)
        entries = await whole_log(user, job_id)
        job = await user.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert_whole(entries, 3)
        assert sum("Run 1 begins" in entry.message for entry in entries) == 1


async def test_a_killed_raylet_ends_its_runs_which_go_on_elsewhere(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_id = await user.submit(
            LINES, resource_config={"gpu_count": 2}, training_config={"max_retries": 3}
        )
        await user.until_line(job_id, "number 100")
        (lost,) = (await user.job(job_id)).node_ids
        number = int(lost[1:])
        await asyncio.to_thread(ray.kill_worker, number)
        await asyncio.to_thread(ray.start_worker, number)
        await user.until_line(job_id, "Run 2 begins")
        await go(user, job_id)
        entries = await whole_log(user, job_id)
        job = await user.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        begins = [e.offset for e in entries if e.message.startswith("Run 2 begins")]
        first = numbers([entry for entry in entries if entry.offset < begins[0]], 0)
        assert first == list(range(1, len(first) + 1))
        assert not [entry.message for entry in entries if "Gap" in entry.message]
        await all_online(user)


def driver_of(coordinator_pid: int) -> psutil.Process | None:
    """The driver of a coordinator; None if it has none at the moment."""
    for child in psutil.Process(coordinator_pid).children():
        with suppress(psutil.Error):
            if "app.coordinator.driver" in child.cmdline():
                return child
    return None
