"""Coordinators whose database stands still, crashes or goes silent, one disaster upon another."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import grpc.aio
import pytest

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres_connection import PostgresAddress
from app.coordinator.ownership.moving import move_to_sqlite
from app.coordinator.program import STEPPED_DOWN
from app.coordinator.settings.coordinator import BadConfig
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from tests.coordinator.harness import PATIENCE, Client, config_for, status_of
from tests.coordinator.test_takeover_functional import COUNTS, Member, check_lines, go, member
from tests.coordinator.unlucky_database import behind_a_proxy, crash, standing_still

pytestmark = pytest.mark.slow

SCHEMA = "scaimind_coordinator"
LEASE = 5.0
#: Seconds that the database stands still: longer than the lease.
STILL = 8.0


class World:
    """Three coordinators: who has ended is replaced, as by a supervisor."""

    def __init__(self, path: Path, dsn: str, stack: AsyncExitStack) -> None:
        self.path = path
        self._dsn = dsn
        self._stack = stack
        self.members: list[Member] = []

    async def fill(self) -> None:
        """Have three that live."""
        self.members = [each for each in self.members if each.process.process.returncode is None]
        while len(self.members) < 3:
            self.members.append(
                await self._stack.enter_async_context(member(self.path, self._dsn, lease=LEASE))
            )


async def leader_of(members: Sequence[Member]) -> Member:
    """Wait until one of those that live leads."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for each in members:
            if each.process.process.returncode is None and await _leads(each):
                return each
        assert time.monotonic() < deadline, "nobody leads"
        await asyncio.sleep(0.1)


async def _leads(client: Client) -> bool:
    try:
        async with asyncio.timeout(3):
            await client.call("ListJobs", ListJobsRequest())
    except (grpc.aio.AioRpcError, TimeoutError):
        return False
    return True


def term_of(dsn: str) -> int:
    with closing(LeaderTable(PostgresAddress(dsn, SCHEMA), patience=PATIENCE)) as table:
        return table.read().term


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_to_the_leader_and_its_database_nothing_is_lost_or_doubled(
    tmp_path: Path, postgres_dsn: str, seed: int
) -> None:
    chance = random.Random(seed)
    disasters = ["kill", "stop", "silence", "crash", "still"] * 2
    chance.shuffle(disasters)
    took: list[tuple[str, float]] = []
    extra: list[str] = []
    async with AsyncExitStack() as stack:
        dsn, proxy = await stack.enter_async_context(behind_a_proxy(postgres_dsn))
        world = World(tmp_path / "data", dsn, stack)
        await asyncio.to_thread(world.path.mkdir)
        await world.fill()
        leader = await leader_of(world.members)
        jobs = [await leader.submit(COUNTS, resource_config={"cpu_count": 1}) for _ in range(3)]
        for job_id in jobs:
            await leader.until_line(job_id, "number 5")
        terms = [await asyncio.to_thread(term_of, postgres_dsn)]
        for disaster in disasters:
            began = time.monotonic()
            process = leader.process.process
            submitted = asyncio.create_task(leader.submit("print('extra')"), name="extra")
            match disaster:
                case "kill":
                    process.send_signal(signal.SIGKILL)
                case "stop":
                    process.send_signal(signal.SIGSTOP)
                case "silence":
                    proxy.swallow()
                case "crash":
                    await asyncio.to_thread(crash, postgres_dsn)
                case "still":
                    with standing_still(postgres_dsn):
                        await asyncio.sleep(STILL)
            others = [each for each in world.members if disaster != "stop" or each is not leader]
            leader = await leader_of(others)
            took.append((disaster, round(time.monotonic() - began, 1)))
            if disaster == "stop":
                process.send_signal(signal.SIGCONT)
                async with asyncio.timeout(PATIENCE):
                    assert await process.wait() == STEPPED_DOWN
            (answer,) = await asyncio.gather(submitted, return_exceptions=True)
            if isinstance(answer, str):
                # What was answered is there, whoever leads.
                extra.append(answer)
            terms.append(await asyncio.to_thread(term_of, postgres_dsn))
            with pytest.raises(BadConfig, match="another coordinator is using"):
                await asyncio.to_thread(
                    move_to_sqlite,
                    config_for(world.path, database_dsn=postgres_dsn),
                    progress=lambda *_: None,
                )
            await world.fill()
        leader = await leader_of(world.members)
        assert terms == sorted(terms)
        sys.stdout.write(f"{took}, terms {terms}\n")
        for job_id in jobs:
            await asyncio.to_thread(go, leader, job_id)
        for job_id in jobs:
            job = await leader.end(job_id)
            assert status_of(job) == "COMPLETED", job.error_message
            await check_lines(leader, job_id)
        for job_id in extra:
            assert status_of(await leader.end(job_id)) == "COMPLETED"
