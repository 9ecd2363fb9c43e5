"""A hundred watchers follow jobs on a real Ray cluster while its parts are killed."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import all_online, driver_of, until, whole_log
from tests.coordinator.harness import Client, Killable, status_of
from tests.engines.crowd import assert_runs, counting, crowd, go

pytestmark = pytest.mark.slow

WATCHERS = 100


class Faults:
    """Kills parts of the cluster, and starts again what nothing else does."""

    def __init__(self, ray: RayCluster, data: Path, chance: random.Random) -> None:
        self._ray = ray
        self._data = data
        self._chance = chance
        self._stack = AsyncExitStack()
        self.running: Killable
        self.user: Client

    async def start_coordinator(self, port: int = 0) -> None:
        """Start one; `port` is that of the one before."""
        await self._stack.aclose()
        self.running = await self._stack.enter_async_context(
            coordinator(self._ray, self._data, port=port)
        )
        self.user = await self._stack.enter_async_context(client(self.running, self._data))

    async def strike(self, victim: str) -> None:
        """Kill one."""
        match victim:
            case "raylet":
                number = self._chance.randint(1, 3)
                await asyncio.to_thread(self._ray.kill_worker, number)
                await asyncio.to_thread(self._ray.start_worker, number)
            case "actor":
                # There is none for a moment where a raylet was killed.
                if actors := await asyncio.to_thread(self._ray.actors):
                    self._chance.choice(actors).kill()
            case "driver":
                # The one before may have been killed a moment ago.
                await until("there is a driver", self._kill_driver)
            case "control service":
                await asyncio.to_thread(self._ray.restart_control_service)
            case "coordinator":
                await self.running.stop(signal.SIGKILL)
                await self.start_coordinator(self.running.port)

    async def _kill_driver(self) -> bool:
        driver = driver_of(self.running.process.pid)
        if driver is not None:
            driver.kill()
        return driver is not None

    async def close(self) -> None:
        """Stop the coordinator."""
        await self._stack.aclose()


@asynccontextmanager
async def faults(ray: RayCluster, data: Path, chance: random.Random) -> AsyncIterator[Faults]:
    """Faults of a coordinator's cluster."""
    found = Faults(ray, data, chance)
    try:
        await found.start_coordinator()
        yield found
    finally:
        await found.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_hundred_watchers_miss_nothing_whoever_is_killed_at_whatever_moment(
    ray: RayCluster, tmp_path: Path, migrated_dsn: str, seed: int
) -> None:
    chance = random.Random(seed)
    victims = ["raylet", "actor", "driver", "control service", "coordinator"] * 2
    chance.shuffle(victims)
    retried = {"max_retries": 10}
    async with faults(ray, tmp_path / "data", chance) as world:
        await all_online(world.user)
        submit = world.user.submit
        gang = await submit(
            counting(pause=0.1),
            resource_config={"gpu_count": 3, "node_count": 3},
            training_config=retried,
        )
        singles = [
            await submit(
                counting(pause=0.1), resource_config={"gpu_count": 1}, training_config=retried
            )
            for _ in range(3)
        ]
        fails = await submit(counting(status=3), training_config=retried)
        cancelled = await submit(counting(), training_config=retried)
        watched = [gang, *singles]
        async with crowd(migrated_dsn, f"127.0.0.1:{world.running.port}") as watchers:
            for job_id in watched:
                watchers.follow(job_id, WATCHERS // len(watched))
            await watchers.until_each_has(3)
            for victim in victims:
                # A moment that is so many lines later; what was killed before may be away yet.
                await watchers.until_more(WATCHERS * chance.randint(2, 40))
                sys.stdout.write(f"killing: {victim}\n")
                await world.strike(victim)
            await watchers.until_more(WATCHERS * 20)
            user = world.user
            await user.call("CancelJob", CancelJobRequest(job_id=cancelled))
            for job_id in (*watched, fails):
                await go(user, job_id)
            logs: dict[str, list[LogEntry]] = {
                job_id: await whole_log(user, job_id) for job_id in (*watched, fails, cancelled)
            }
            await watchers.until_ended()
            tally = watchers.judged(logs)
        expected = {**dict.fromkeys(watched, "COMPLETED"), fails: "FAILED", cancelled: "CANCELLED"}
        for job_id, status in expected.items():
            job = await user.job(job_id)
            assert status_of(job) == status, job.error_message
        runs = [assert_runs(logs[gang], ranks=3)]
        runs += [assert_runs(logs[job_id]) for job_id in (*singles, fails)]
        assert tally.clients == WATCHERS
        assert not tally.bad, (tally.lost, tally.doubled, set(tally.wrong))
        sys.stdout.write(
            f"{tally.clients} watchers got {tally.lines} lines; runs of the jobs: {runs};"
            f" the cluster has {ray.memory() / 1e6:.0f} MB, started in {ray.started_in}\n"
        )
        await all_online(user)
