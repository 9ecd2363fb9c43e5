"""Nodes of a real Ray cluster that stand still, are full, lie, or leave at the worst moment."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import (
    LINES,
    all_online,
    assert_whole,
    driver_of,
    go,
    node_states,
    until,
    whole_log,
)
from tests.coordinator.harness import Client, status_of

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
#: Seconds that an agent stands still: longer than its silence is believed.
STILL = 30.0
#: Bytes that a job writes as fast as it can.
OUTPUT = 200 * MIB
#: Writes lines of 1,000 characters, so many.
FLOOD = """
import os
text = "x" * 985
for number in range(1, {lines} + 1):
    print("number", number, text)
print("last", {lines}, flush=True)
"""


def flood(size: int) -> str:
    return FLOOD.format(lines=size // 1000)


async def assert_completed(user: Client, job_id: str) -> list[LogEntry]:
    entries = await whole_log(user, job_id)
    job = await user.job(job_id)
    assert status_of(job) == "COMPLETED", (job.error_message, entries[-3:])
    return entries


async def test_an_agent_that_stood_still_loses_and_doubles_nothing(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_id = await user.submit(LINES, resource_config={"gpu_count": 2})
        await user.until_line(job_id, "number 20")
        (agent,) = await asyncio.to_thread(ray.actors)
        agent.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(STILL)
        finally:
            agent.send_signal(signal.SIGCONT)
        await user.until_line(job_id, "number 2000")
        await go(user, job_id)
        assert_whole(await assert_completed(user, job_id), 1)


async def test_thirty_jobs_of_a_second_at_once_end_as_they_should(
    ray: RayCluster, tmp_path: Path
) -> None:
    script = "import time; print('number 1', flush=True); time.sleep(1); print('last 1')"
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_ids = await asyncio.gather(
            *(user.submit(script, resource_config={"cpu_count": 1}) for _ in range(30))
        )
        for job_id in job_ids:
            assert_whole(await assert_completed(user, job_id), 1)

        async def none_left() -> bool:
            return not await asyncio.to_thread(ray.actors)

        await until("no agent is left", none_left)


async def test_what_a_job_floods_is_held_back_and_not_in_memory(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_id = await user.submit(flood(OUTPUT), resource_config={"gpu_count": 1})
        await user.until_line(job_id, "number 1 ")
        driver = driver_of(running.process.pid)
        assert driver is not None
        watched = {
            "agent": (await asyncio.to_thread(ray.actors))[0],
            "driver": driver,
            "coordinator": psutil.Process(running.process.pid),
        }
        most = {name: each.memory_info().rss for name, each in watched.items()}
        first = dict(most)
        lines = 0
        # A watcher that takes its time, and is read slowly by nobody else.
        async with asyncio.timeout(600):
            async for message in user.watch(job_id):
                lines += sum(entry.message.startswith("number ") for entry in message.logs)
                for name, each in watched.items():
                    if each.is_running():
                        most[name] = max(most[name], _rss(each))
        assert lines == OUTPUT // 1000
        grown = {name: (most[name] - first[name]) // MIB for name in most}
        sys.stdout.write(f"{lines} lines of {OUTPUT // MIB} MiB; grown by MiB: {grown}\n")
        assert max(grown.values()) < OUTPUT // MIB // 2
        assert status_of(await user.end(job_id)) == "COMPLETED"


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
async def test_a_run_waits_for_room_on_a_node_whose_disk_is_full(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with (
        small_disk(data.with_suffix(".nodes"), "6m") as grow,
        coordinator(ray, data) as running,
        client(running, data) as user,
    ):
        await all_online(user)
        job_id = await user.submit(flood(16 * MIB), resource_config={"gpu_count": 1})
        # It is full by then, and goes on being so.
        await user.until_line(job_id, "number 2000 ")

        async def full() -> bool:
            found = await asyncio.to_thread(os.statvfs, data.with_suffix(".nodes"))
            return found.f_bavail * found.f_frsize < 256 * 1024

        await until("the disk is full", full)
        assert status_of(await user.job(job_id)) == "TRAINING"
        await asyncio.to_thread(grow, "64m")
        assert_whole(await assert_completed(user, job_id), 1)


@asynccontextmanager
async def small_disk(path: Path, size: str) -> AsyncIterator[Callable[[str], None]]:
    """A disk of its own, and what gives it another size."""
    await asyncio.to_thread(path.mkdir)

    def mount(size: str, *options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={size}")), "none"]
        subprocess.run([*command, str(path)], check=True)

    await asyncio.to_thread(mount, size)
    try:
        yield lambda size: mount(size, "remount")
    finally:
        # Whoever was there holds it for a moment longer.
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(path)], check=True)


async def test_a_node_that_leaves_and_returns_while_a_gang_begins(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        for _ in range(2):
            job_id = await user.submit(
                LINES,
                resource_config={"gpu_count": 6, "node_count": 3},
                training_config={"max_retries": 5},
            )

            async def begins() -> bool:
                return bool(await asyncio.to_thread(ray.actors))

            await until("the first agent is there", begins)
            await asyncio.to_thread(ray.kill_worker, 2)
            await asyncio.to_thread(ray.start_worker, 2)
            await user.until_line(job_id, "number 20")
            await go(user, job_id)
            entries = await assert_completed(user, job_id)
            assert_last_run_is_whole(entries, 3)
            await all_online(user)


def assert_last_run_is_whole(entries: Sequence[LogEntry], ranks: int) -> None:
    begun = max(entry.offset for entry in entries if " begins on " in entry.message)
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    for rank in range(ranks):
        said = [
            entry.message.split()
            for entry in entries
            if entry.offset > begun and entry.source == "stdout" and entry.rank == rank
        ]
        counted = [int(number) for word, number in said if word == "number"]
        assert counted == list(range(1, len(counted) + 1))
        assert said[-1] == ["last", str(len(counted))]


async def test_a_node_with_the_name_of_another_and_one_with_nonsense_hide_nobody(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        gpu = "scaimind/gpu-type=A100-99999999999999999GB"
        for number, labels in ((4, f"scaimind/node=n1,{gpu}"), (5, f"scaimind/node=n5,{gpu}")):
            await asyncio.to_thread(
                ray._ray,
                f"n{number}",
                *("--address", ray.address, "--node-ip-address", ray.ip_of(number)),
                *("--num-cpus", "4", "--num-gpus", "2", "--labels", labels),
            )
        try:
            wanted = dict.fromkeys(("n1", "n2", "n3", "n5"), "ONLINE")

            async def four() -> bool:
                return await node_states(user) == wanted

            await until("four nodes are online", four)
            log = data.with_suffix(".log")

            async def named() -> bool:
                return "node_name_taken" in await asyncio.to_thread(log.read_text)

            await until("the name is taken", named)
            job_id = await user.submit(
                "print('number 1'); print('last 1')",
                resource_config={"gpu_count": 8, "node_count": 4},
            )
            assert_whole(await assert_completed(user, job_id), 4)
        finally:
            for number in (4, 5):
                await asyncio.to_thread(ray.kill_worker, number)
