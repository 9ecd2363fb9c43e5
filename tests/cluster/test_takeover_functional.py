"""Two coordinators of one Ray cluster, on one database: the leader is killed, again and again."""

import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import all_online, whole_log
from tests.coordinator.harness import Client, Killable, status_of
from tests.coordinator.test_takeover_functional import until_it_names, until_leading
from tests.engines.crowd import assert_runs, counting, crowd, go

pytestmark = pytest.mark.slow

#: Seconds.
LEASE = 5.0


@dataclass
class Member:
    """One of the two."""

    running: Killable
    user: Client


@asynccontextmanager
async def member(ray: RayCluster, data: Path, dsn: str, *, port: int = 0) -> AsyncIterator[Member]:
    """A coordinator that leads or stands by."""
    settings = {"DATABASE_DSN": dsn, "LEASE_SECONDS": str(LEASE)}
    async with (
        coordinator(ray, data, port=port, settings=settings) as running,
        client(running, data) as user,
    ):
        yield Member(running, user)


async def test_the_next_leader_takes_runs_over_without_losing_or_repeating_anything(
    ray: RayCluster, tmp_path: Path, postgres_dsn: str, migrated_dsn: str
) -> None:
    chance = random.Random(5)
    data = tmp_path / "data"
    times: list[float] = []
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(member(ray, data, postgres_dsn))
        await until_leading(leader.user)
        standby = await stack.enter_async_context(member(ray, data, postgres_dsn))
        await all_online(leader.user)
        gang = await leader.user.submit(
            counting(), resource_config={"gpu_count": 3, "node_count": 3}
        )
        single = await leader.user.submit(counting(), resource_config={"gpu_count": 1})
        ports = (leader.running.port, standby.running.port)
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        watchers = await stack.enter_async_context(crowd(migrated_dsn, addresses))
        for job_id in (gang, single):
            watchers.follow(job_id, 10)
        await watchers.until_each_has(3)
        for _ in range(4):
            await watchers.until_more(20 * chance.randint(2, 60))
            # It has its engine open by then.
            await until_it_names(standby.user, leader.running.port)
            killed = time.monotonic()
            port = leader.running.port
            await leader.running.stop(signal.SIGKILL)
            await until_leading(standby.user)
            times.append(time.monotonic() - killed)
            leader = standby
            standby = await stack.enter_async_context(member(ray, data, postgres_dsn, port=port))
        await watchers.until_more(20 * 20)
        for job_id in (gang, single):
            await go(leader.user, job_id)
        logs = {job_id: await whole_log(leader.user, job_id) for job_id in (gang, single)}
        await watchers.until_ended()
        tally = watchers.judged(logs)
        for job_id, ranks in ((gang, 3), (single, 1)):
            job = await leader.user.job(job_id)
            assert status_of(job) == "COMPLETED", job.error_message
            assert assert_runs(logs[job_id], ranks=ranks) == 1
        assert not tally.bad, (tally.lost, tally.doubled, set(tally.wrong))
    sys.stdout.write(f"take-overs with Ray: {[round(each, 1) for each in times]} s\n")
