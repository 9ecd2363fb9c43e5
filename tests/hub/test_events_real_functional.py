"""The stream over many jobs with a real coordinator, over its restarts and two replicas."""

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import DeleteJobRequest
from tests.coordinator.harness import SECRET, client_of, coordinator_process
from tests.hub.conftest import Gateway, gateway_to
from tests.hub.test_events_functional import beginning, jobs_of
from tests.hub.test_events_logs_functional import Dashboard

LINES = 400
SCRIPT = f"""
import time
for number in range({LINES}):
    print("line", number)
    if number % 20 == 0:
        time.sleep(0.05)
"""
JOBS = 3


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as running:
        yield running


async def test_each_line_of_each_job_comes_once_over_restarts_and_replicas(
    tmp_path: Path, replicas: AsyncExitStack
) -> None:
    drive = tmp_path / "drive"
    dashboard = Dashboard()
    query: dict[str, Any] = {"include": "jobs,logs,metrics,nodes,queue", "tail": 1_000_000}

    def ended() -> set[str]:
        return {event.data["job_id"] for event in dashboard.others if event.name == "end"}

    async with AsyncExitStack() as first:
        coordinator = await first.enter_async_context(coordinator_process(tmp_path))
        address = f"127.0.0.1:{coordinator.port}"
        gateways: list[Gateway] = [
            await replicas.enter_async_context(gateway_to(address, api_secret=SECRET))
            for _ in range(2)
        ]
        async with client_of(coordinator.port, drive, "acme") as client:
            jobs = [await client.submit(SCRIPT) for _ in range(JOBS)]
        for turn in range(4):
            sent: dict[str, Any] = {"last_event_id": dashboard.place} if dashboard.place else {}
            async with gateways[turn % 2].watch("events", **query, **sent) as watching:
                assert watching.status == 200, watching.body
                goal = min(dashboard.count() + LINES * JOBS // 6, LINES * JOBS // 2)
                await dashboard.follow(watching, partial(has_at_least, dashboard, goal))
        await coordinator.stop(signal.SIGKILL)
    async with coordinator_process(tmp_path, port=coordinator.port) as coordinator:
        async with gateways[0].watch("events", **query, last_event_id=dashboard.place) as watching:
            assert watching.status == 200, watching.body
            await dashboard.follow(watching, lambda: ended() == set(jobs))
            while not dashboard.place or watching.events[-1].name != "bookmark":
                dashboard.take(await watching.next())
        async with client_of(coordinator.port, drive, "acme") as client:
            for job in jobs:
                offsets = sorted(
                    dashboard.lines[job, next(e for j, e in dashboard.lines if j == job)]
                )
                log = await client.log(job)
                assert offsets == [entry.offset for entry in log if entry.level >= 2]
            assert not [each for each in dashboard.others if each.name == "gap"]
            assert {"node", "queue", "synced", "job"} <= {each.name for each in dashboard.others}
            await client.call("DeleteJob", DeleteJobRequest(job_id=jobs[0]))
        async with gateways[1].watch("events", **query, last_event_id=dashboard.place) as watching:
            events, _ = await beginning(watching)
            gone = [each.data for each in events if each.name == "job_gone"]
            assert gone == [{"job_id": jobs[0], "reason": "deleted"}]
            assert jobs_of(events) == []


def has_at_least(dashboard: Dashboard, count: int) -> bool:
    return dashboard.count() >= count
