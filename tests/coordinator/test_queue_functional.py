"""The queue as it is told: positions, waits from measured run times, queue names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest, GetQueueStatusResponse
from tests.coordinator.harness import Client, running, status_of, submission
from tests.coordinator.scripts import WAITS

NODES = parse_virtual_nodes("v0:1xL4")
GPU = {"gpu_count": 1}
SECOND = 1_000_000


class Clock:
    """The coordinator's clock; it stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


@asynccontextmanager
async def timed(path: Path) -> AsyncIterator[tuple[Client, Clock]]:
    clock = Clock()
    async with running(path, clock=clock, virtual_nodes=NODES) as (_, client):
        yield client, clock


async def queue_of(client: Client, name: str = "") -> GetQueueStatusResponse:
    answer: GetQueueStatusResponse = await client.call(
        "GetQueueStatus", GetQueueStatusRequest(queue_name=name)
    )
    return answer


async def finish(client: Client, *job_ids: str) -> None:
    for job_id in job_ids:
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)


async def test_waits_are_told_from_the_run_times_that_were_measured(tmp_path: Path) -> None:
    async with timed(tmp_path) as (client, clock):
        first = await client.submit(WAITS, resource_config=GPU)
        await client.until_line(first, "ready")
        clock.now += 120 * SECOND
        await finish(client, first)

        # From here on a run is expected to take 120 s; this one has run for 50.
        runs = await client.submit(WAITS, resource_config=GPU)
        await client.until_line(runs, "ready")
        clock.now += 50 * SECOND
        waits = []
        client.write("train.py", WAITS)
        for _ in range(3):
            # Of two of the same age neither is first.
            clock.now += 1
            answer = await client.call("SubmitJob", submission(resource_config=GPU))
            waits.append((answer.job_id, answer.estimated_wait_seconds))
        assert [seconds for _, seconds in waits] == [70, 190, 310]
        queue = await queue_of(client)
        told = [(job.job_id, job.estimated_wait_seconds) for job in queue.queued_jobs]
        assert told == waits
        assert queue.queued_jobs[2].queued_at.ToMicroseconds() == clock.now
        # A job without GPUs finds room on this machine at once.
        assert queue.estimated_wait_seconds == 0
        clock.now += 30 * SECOND
        queue = await queue_of(client)
        assert [job.estimated_wait_seconds for job in queue.queued_jobs] == [40, 160, 280]
        await finish(client, *(job_id for job_id, _ in reversed(waits)), runs)


async def test_positions_go_by_priority_then_age_in_each_queue(tmp_path: Path) -> None:
    async with timed(tmp_path) as (client, clock):
        runs = await client.submit(WAITS, resource_config=GPU)
        await client.until_line(runs, "ready")
        ids = {}
        for name, queue, priority in (
            ("a", "night", 5),
            ("b", "", 5),
            ("c", "night", 5),
            ("d", "night", 9),
            ("e", "", 0),
        ):
            clock.now += 1
            ids[name] = await client.submit(
                WAITS,
                name=name,
                resource_config=GPU,
                scheduling_config={"queue_name": queue},
                training_config={"priority": priority} if priority != 5 else {},
            )
        told = [
            (job.queue_name, job.position, job.name)
            for job in sorted(
                (await queue_of(client)).queued_jobs, key=lambda job: (job.queue_name, job.position)
            )
        ]
        assert told == [
            ("default", 1, "b"),
            ("default", 2, "e"),
            ("night", 1, "d"),
            ("night", 2, "a"),
            ("night", 3, "c"),
        ]
        night = await queue_of(client, "night")
        assert [job.name for job in night.queued_jobs] == ["d", "a", "c"]
        assert night.total_queued == 3
        assert (await queue_of(client, "nothing")).total_queued == 0
        # They are placed in this order, whatever their queue.
        started = []
        holder = runs
        for _ in range(5):
            await finish(client, holder)
            left = {job.job_id for job in (await queue_of(client)).queued_jobs}
            (name,) = [name for name in ids if ids[name] not in left and name not in started]
            started.append(name)
            holder = ids[name]
            await client.until_line(holder, "ready")
        assert started == ["d", "a", "b", "c", "e"]
        await finish(client, holder)


async def test_a_job_waits_until_its_priority_counts_against_newcomers(tmp_path: Path) -> None:
    async with timed(tmp_path) as (client, clock):
        runs = await client.submit(WAITS, resource_config=GPU)
        await client.until_line(runs, "ready")
        low = await client.submit(WAITS, resource_config=GPU, training_config={"priority": 1})
        clock.now += 1
        high = await client.submit(WAITS, resource_config=GPU, training_config={"priority": 8})
        queue = await queue_of(client)
        assert [(job.job_id, job.position) for job in queue.queued_jobs] == [(high, 1), (low, 2)]
        assert status_of(await client.job(runs)) == "TRAINING", "it is not preemptible"
        await finish(client, low, high, runs)
