"""Kills at the worst moments on a real Ray cluster, while watchers follow: several at once, and
while a run is submitted or started."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import all_online, driver_of, until, whole_log
from tests.cluster.test_takeover_functional import member
from tests.coordinator.harness import Client, Killable, status_of
from tests.coordinator.test_takeover_functional import until_it_names, until_leading
from tests.engines.crowd import Crowd, assert_runs, counting, crowd, go

pytestmark = pytest.mark.slow

WATCHERS = 20
GANG: Mapping[str, Any] = {"resource_config": {"gpu_count": 3, "node_count": 3}}
PAIR: Mapping[str, Any] = {"resource_config": {"gpu_count": 2, "node_count": 2}}
RETRIED: Mapping[str, Any] = {"training_config": {"max_retries": 10}}
#: Seconds for which nothing answers in the control service's place.
OUTAGE = 20.0


async def ended(user: Client, watchers: Crowd, jobs: Mapping[str, int]) -> list[int]:
    """Have jobs, each with its number of ranks, end; returns how often each has run.

    All completed, and no line is lost or doubled: not in their logs, and for no watcher.
    """
    for job_id in jobs:
        await go(user, job_id)
    logs: dict[str, Sequence[LogEntry]] = {job_id: await whole_log(user, job_id) for job_id in jobs}
    await watchers.until_ended()
    runs = []
    for job_id, ranks in jobs.items():
        job = await user.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        runs.append(assert_runs(logs[job_id], ranks=ranks))
    tally = watchers.judged({job_id: list(entries) for job_id, entries in logs.items()})
    assert not tally.bad, (tally.lost, tally.doubled, set(tally.wrong))
    sys.stdout.write(
        f"{tally.clients} watchers got {tally.lines} lines; runs of the jobs: {runs}\n"
    )
    return runs


async def test_a_raylet_and_the_leader_are_killed_in_the_same_second(
    ray: RayCluster, tmp_path: Path, postgres_dsn: str, migrated_dsn: str
) -> None:
    chance = random.Random(7)
    data = tmp_path / "data"
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(member(ray, data, postgres_dsn))
        await until_leading(leader.user)
        standby = await stack.enter_async_context(member(ray, data, postgres_dsn))
        await all_online(leader.user)
        jobs = {await leader.user.submit(counting(), **GANG, **RETRIED): 3}
        for _ in range(3):
            single = {"resource_config": {"gpu_count": 1}, **RETRIED}
            jobs[await leader.user.submit(counting(), **single)] = 1
        ports = (leader.running.port, standby.running.port)
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        watchers = await stack.enter_async_context(crowd(migrated_dsn, addresses))
        for job_id in jobs:
            watchers.follow(job_id, WATCHERS // len(jobs))
        await watchers.until_each_has(3)
        kills = 4
        for number in range(kills):
            await watchers.until_more(WATCHERS * chance.randint(2, 40))
            await until_it_names(standby.user, leader.running.port)
            worker, port = chance.randint(1, 3), leader.running.port
            killed = time.monotonic()
            await asyncio.gather(
                asyncio.to_thread(ray.kill_worker, worker), leader.running.stop(signal.SIGKILL)
            )
            if number % 2:
                await until_leading(standby.user)
            await asyncio.to_thread(ray.start_worker, worker)
            await until_leading(standby.user)
            await watchers.until_more(WATCHERS)
            sys.stdout.write(f"lines again {time.monotonic() - killed:.1f} s after both died\n")
            leader = standby
            standby = await stack.enter_async_context(member(ray, data, postgres_dsn, port=port))
        await watchers.until_more(WATCHERS * 20)
        runs = await ended(leader.user, watchers, jobs)
        assert max(runs) <= 1 + kills
        await all_online(leader.user)


async def kill_driver(running: Killable) -> None:
    """Kill it, and wait until another one is there."""
    killed: list[int] = []

    async def another() -> bool:
        driver = driver_of(running.process.pid)
        if driver is not None and not killed:
            driver.kill()
            killed.append(driver.pid)
        return driver is not None and killed[0] != driver.pid

    await until("there is another driver", another)


async def test_the_driver_is_killed_while_jobs_are_submitted(
    ray: RayCluster, tmp_path: Path, migrated_dsn: str
) -> None:
    """None may be run again: nothing of them was lost."""
    chance = random.Random(11)
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        address = f"127.0.0.1:{running.port}"
        for _ in range(4):
            async with crowd(migrated_dsn, address) as watchers:
                jobs: dict[str, int] = {}
                for asked, ranks in ((PAIR, 2), ({"resource_config": {"gpu_count": 1}}, 1)) * 2:
                    killing = asyncio.create_task(kill_driver(running), name="kill of the driver")
                    # The moment: before, while and after the run is started.
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    job_id = await user.submit(counting(), **asked)
                    jobs[job_id] = ranks
                    watchers.follow(job_id, WATCHERS // 4)
                    await killing
                await watchers.until_each_has(10)
                assert await ended(user, watchers, jobs) == [1] * len(jobs)


@pytest.mark.parametrize("before", [True, False])
async def test_the_control_service_is_away_for_long_while_a_gang_starts(
    ray: RayCluster, tmp_path: Path, migrated_dsn: str, before: bool
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        jobs = {await user.submit(counting(), resource_config={"gpu_count": 1}): 1}
        async with crowd(migrated_dsn, f"127.0.0.1:{running.port}") as watchers:
            watchers.follow(next(iter(jobs)), WATCHERS // 2)
            await watchers.until_each_has(3)
            start = None
            if before:
                start = await asyncio.to_thread(ray.kill_control_service)
            gang = await user.submit(counting(), **GANG)
            jobs[gang] = 3
            if start is None:
                await user.until_status(gang, "TRAINING")
                start = await asyncio.to_thread(ray.kill_control_service)
            watchers.follow(gang, WATCHERS // 2)
            try:
                # What has started is followed meanwhile.
                await watchers.until_more(WATCHERS * 5)
                await asyncio.sleep(OUTAGE)
            finally:
                await asyncio.to_thread(start)
            back = time.monotonic()
            await watchers.until_each_has(10)
            sys.stdout.write(f"the gang writes {time.monotonic() - back:.1f} s after the return\n")
            assert await ended(user, watchers, jobs) == [1, 1]
        await all_online(user)
