"""The thirteen states and the moves between them, with real processes."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.jobs.model import JobRecord, ResourceRequest, StopReason
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import TERMINAL, Status
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import read_json
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    Job,
    JobStatus,
    PauseJobRequest,
    ResumeJobRequest,
    RetryJobRequest,
    SubmitJobRequest,
)
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest
from tests.coordinator.harness import Client, running, status_of
from tests.coordinator.scripts import COUNTS, WAITS, counted, counting

ONE_NODE = parse_virtual_nodes("v0:1xL4")


@asynccontextmanager
async def states_of(client: Client, job_id: str) -> AsyncIterator[list[str]]:
    """The states that a job goes through, in order; all of them are there after the block."""
    stream = client.watch(job_id, tail=0)
    first = await anext(stream)
    states = [JobStatus.Name(first.start.status).removeprefix("JOB_STATUS_")]

    async def follow() -> None:
        async for message in stream:
            for change in message.status_changes:
                state = JobStatus.Name(change.status).removeprefix("JOB_STATUS_")
                if state != states[-1]:
                    states.append(state)

    following = asyncio.create_task(follow())
    yield states
    async with asyncio.timeout(60):
        await following


async def test_every_state_is_reached(tmp_path: Path) -> None:
    seen: set[str] = set()
    async with running(tmp_path, virtual_nodes=ONE_NODE) as (_, client):
        soon = Timestamp()
        # Late enough for a watcher to come before it.
        soon.FromNanoseconds(time.time_ns() + 4_000_000_000)
        job_id = await client.submit(
            COUNTS,
            training_config={"environment": counting(60, 5)},
            scheduling_config={"not_before": soon},
        )
        async with states_of(client, job_id) as states:
            await client.until_line(job_id, "count 5")
            await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
            await client.until_status(job_id, "PAUSED")
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        starts = ["QUEUED", "SCHEDULING", "PREPARING", "TRAINING"]
        assert states == [
            *("PENDING", *starts, "CHECKPOINTING", "PAUSED"),
            *(*starts, "EXPORTING", "COMPLETED"),
        ]
        seen |= set(states)

        # A model that cannot be loaded: the evaluation runs, and fails.
        data = client.write("data.jsonl", '{"text": "a"}\n')
        client.write("model/unknown", "")
        request = SubmitEvaluationRequest(
            job_id=job_id,
            model_uri="scaidrive://local/model",
            benchmarks=[Benchmark(name="perplexity", dataset=data)],
        )
        evaluation = await client.call("SubmitEvaluation", request)
        async with states_of(client, evaluation.evaluation_id) as states:
            pass
        assert states[-2:] == ["EVALUATING", "FAILED"]
        seen |= set(states)

        low = await client.submit(
            WAITS,
            resource_config={"gpu_count": 1},
            scheduling_config={"preemptible": True},
            training_config={"priority": 1},
        )
        async with states_of(client, low) as states:
            await client.until_line(low, "ready")
            high = await client.submit(
                WAITS, resource_config={"gpu_count": 1}, training_config={"priority": 9}
            )
        assert states[-3:] == ["TRAINING", "CHECKPOINTING", "PREEMPTED"]
        seen |= set(states)

        async with states_of(client, high) as states:
            await client.until_line(high, "ready")
            await client.call("CancelJob", CancelJobRequest(job_id=high))
        assert states[-2:] == ["TRAINING", "CANCELLED"]
        seen |= set(states)
    assert seen == {status.name for status in Status}


#: What each request may be asked of. Asking again for what is under way counts, too.
LEGAL: dict[str, set[Status]] = {
    "CancelJob": set(Status) - TERMINAL,
    "PauseJob": {
        *(Status.SCHEDULING, Status.PREPARING, Status.TRAINING),
        *(Status.CHECKPOINTING, Status.EVALUATING),
    },
    "ResumeJob": {Status.PAUSED},
    "RetryJob": {Status.FAILED, Status.PREEMPTED},
}
REQUESTS: dict[str, Callable[..., Any]] = {
    "CancelJob": CancelJobRequest,
    "PauseJob": PauseJobRequest,
    "ResumeJob": ResumeJobRequest,
    "RetryJob": RetryJobRequest,
}


def record_in(status: Status) -> JobRecord:
    return JobRecord(
        job_id=f"job-{status.name.lower()}",
        tenant_id="local",
        user_id="",
        name="",
        submission=SubmitJobRequest(),
        resource_request=ResourceRequest(),
        created_at=1,
        updated_at=1,
        status=status,
        ended_at=1 if status in TERMINAL else 0,
        # A run that is being stopped for another reason than a request to pause.
        stop_reason=StopReason.PREEMPT if status is Status.CHECKPOINTING else StopReason.NONE,
    )


async def test_illegal_moves_are_refused_and_name_the_state(tmp_path: Path) -> None:
    records = [record_in(status) for status in Status]
    store = SqliteStore(tmp_path / "coordinator.db")
    with store.transaction():
        store.save_jobs(job for job in records if job.status in TERMINAL)
    store.close()
    refused: set[tuple[str, Status]] = set()
    async with running(tmp_path) as (coordinator, client):
        # No request leads to some of these states: they are put into the table's own dictionary.
        jobs = coordinator.controller.scheduler._table._jobs
        jobs.update({job.job_id: job for job in records if job.status not in TERMINAL})
        before = dict(jobs)
        for record, (method, legal) in itertools.product(records, LEGAL.items()):
            busy = method == "PauseJob" and record.status is Status.CHECKPOINTING
            if record.status in legal and not busy:
                continue
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call(method, REQUESTS[method](job_id=record.job_id))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION, (method, record)
            assert record.status.name in str(caught.value.details()), (method, record)
            refused.add((method, record.status))
        assert jobs == before, "what is refused changes nothing"
        jobs.clear()
    assert len(refused) == 4 * len(Status) - sum(map(len, LEGAL.values())) + 1


async def test_resume_from_a_named_checkpoint(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(COUNTS, training_config={"environment": counting(90, 20, 50)})
        for line in ("count 20", "count 50"):
            await client.until_line(job_id, line)
            await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
            job = await client.until_status(job_id, "PAUSED")
            if line == "count 20":
                await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        first, second = job.checkpoints
        assert first.step < second.step
        await client.call(
            "ResumeJob", ResumeJobRequest(job_id=job_id, checkpoint_id=first.checkpoint_id)
        )
        job = await client.end(job_id)
        assert (status_of(job), job.run_count) == ("COMPLETED", 3)
        expected = [*range(1, second.step + 1), *range(first.step + 1, 91)]
        entries = await client.log(job_id)
        assert counted(entries) == expected
        assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
        metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=job_id))
        points = sorted(metrics.points, key=lambda point: point.sequence)
        assert [point.step for point in points] == expected
        assert [point.sequence for point in points] == list(range(1, len(expected) + 1))


def trains(run: int, job: Job) -> bool:
    return job.run_count == run and status_of(job) == "TRAINING"


async def test_a_killed_runner_is_retried_as_often_as_allowed(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS, training_config={"max_retries": 1})
        for run in (1, 2):
            await client.until(job_id, partial(trains, run))
            directory = JobDir(tmp_path / "jobs" / job_id).run(run)
            async with asyncio.timeout(60):
                while (who := read_json(directory.runner)) is None:  # noqa: ASYNC110  # a file
                    await asyncio.sleep(0.01)
            os.kill(who["pid"], signal.SIGKILL)
        job = await client.end(job_id)
        assert (status_of(job), job.run_count) == ("FAILED", 2)
        assert "runner" in job.error_message


async def test_cancel_before_a_run(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=ONE_NODE) as (_, client):
        holds = await client.submit(WAITS, resource_config={"gpu_count": 1})
        waits = await client.submit(WAITS, resource_config={"gpu_count": 1})
        assert status_of(await client.job(waits)) == "QUEUED"
        job = await client.call("CancelJob", CancelJobRequest(job_id=waits, reason="no need"))
        assert (status_of(job), job.run_count) == ("CANCELLED", 0)
        assert "no need" in job.message
        # It is being prepared, or about to be.
        early = await client.submit(WAITS)
        await client.call("CancelJob", CancelJobRequest(job_id=early))
        job = await client.end(early)
        assert status_of(job) == "CANCELLED"
        await client.call("CancelJob", CancelJobRequest(job_id=holds))
        await client.end(holds)
