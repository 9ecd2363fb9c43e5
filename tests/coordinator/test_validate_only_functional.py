"""A submission that is only checked: everything is checked, nothing happens."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.settings.scheduling import parse_queues
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    JobStatus,
    ListJobsRequest,
    SubmitJobResponse,
)
from tests.coordinator.harness import Client, running, status_of, submission
from tests.coordinator.scripts import WAITS

NODES = parse_virtual_nodes("v0:1xL4")
GPU = {"gpu_count": 1}


async def check(client: Client, **changes: Any) -> SubmitJobResponse:
    client.write("train.py", WAITS)
    request = submission(validate_only=True, **changes)
    answer: SubmitJobResponse = await client.call("SubmitJob", request)
    assert answer.HasField("check")
    assert not answer.job_id
    return answer


def stored(path: Path) -> list[str]:
    """What there is of jobs on the disk, and of keys in the store."""
    return sorted(str(each) for name in ("jobs", "secrets") for each in (path / name).rglob("*"))


async def test_nothing_is_stored_and_no_key_is_used(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        before = stored(tmp_path)
        secret = {"environment": {"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwx"}}
        answer = await check(client, idempotency_key="k", training_config=secret)
        assert answer.check.would_start
        assert (answer.check.waiting_for, answer.estimated_wait_seconds) == ("", 0)
        assert list(answer.check.warnings) == []
        assert stored(tmp_path) == before
        assert not (await client.call("ListJobs", ListJobsRequest())).jobs
        assert not coordinator.controller.scheduler.jobs
        assert coordinator.controller._store.reach("local").newest == 0
        # The key is free for another request, and that one's for this.
        request = submission(name="another", idempotency_key="k")
        submitted = await client.call("SubmitJob", request)
        await check(client, idempotency_key="k", training_config=secret)
        again = await client.call("SubmitJob", request)
        assert again.job_id == submitted.job_id
        assert not (await client.job(submitted.job_id)).training_config.environment


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"labels": {"": "x"}}, grpc.StatusCode.INVALID_ARGUMENT, "labels"),
        ({"resource_config": {"gpu_count": 9}}, grpc.StatusCode.FAILED_PRECONDITION, "no node"),
        (
            {"data_config": {"sources": [{"path": "scaidrive://local/missing.jsonl"}]}},
            grpc.StatusCode.FAILED_PRECONDITION,
            "data_config.sources.0.path",
        ),
    ],
)
async def test_what_a_submission_is_refused_for_it_is_refused_for(
    tmp_path: Path, changes: dict[str, Any], code: grpc.StatusCode, text: str
) -> None:
    async with running(tmp_path) as (_, client):
        told = []
        for asking in (check(client, **changes), client.submit(WAITS, **changes)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asking
            assert caught.value.code() is code
            told.append(str(caught.value.details()))
        assert text in told[0]
        assert told[0] == told[1]


async def test_what_a_job_would_wait_for(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        assert (await check(client, resource_config=GPU)).check.would_start
        cheap = {"priority": 1}
        runs = await client.submit(
            WAITS,
            resource_config=GPU,
            training_config=cheap,
            scheduling_config={"preemptible": True},
        )
        await client.until_line(runs, "ready")

        answer = await check(client, resource_config=GPU, training_config=cheap)
        assert not answer.check.would_start
        assert answer.check.waiting_for == "Resources that other jobs hold."
        assert answer.estimated_wait_seconds > 0
        assert answer.status == JobStatus.JOB_STATUS_QUEUED

        # Its rehearsal has stopped nobody.
        answer = await check(client, resource_config=GPU)
        assert answer.check.waiting_for == "1 job with a lower priority to be stopped for it."
        assert status_of(await client.job(runs)) == "TRAINING"

        waits = await client.submit(WAITS, resource_config=GPU, training_config=cheap)
        answer = await check(client, resource_config=GPU, training_config=cheap)
        assert answer.check.waiting_for == "Resources, behind 1 job in the queue."
        for job_id in (waits, runs):
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.end(job_id)

        later = Timestamp(seconds=int(time.time()) + 10**7)
        answer = await check(client, scheduling_config={"not_before": later})
        assert answer.check.waiting_for == f"Its not_before: {later.ToJsonString()}."
        assert answer.estimated_wait_seconds > 10**6
        assert answer.status == JobStatus.JOB_STATUS_PENDING

        await client.call("DrainNode", DrainNodeRequest(node_id="v0"))
        answer = await check(client, resource_config=GPU)
        assert answer.check.waiting_for == "Nodes that take no jobs: v0 (drained)."


async def test_what_is_probably_not_meant_is_a_warning(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        answer = await check(
            client,
            resource_config={"gpu_type": "L4", "gpu_memory_bytes": 5},
            data_config={"validation_split": 1.0},
            output_config={"model_name": "m"},
            scheduling_config={
                "node_ids": ["local", "lokal"],
                "not_before": Timestamp(seconds=1000),
            },
        )
        assert answer.check.would_start
        assert list(answer.check.warnings) == [
            "resource_config.gpu_type: has no effect without gpu_count.",
            "resource_config.gpu_memory_bytes: has no effect without gpu_count.",
            "scheduling_config.node_ids: these are not nodes: lokal.",
            "scheduling_config.not_before: has passed; the job does not wait for it.",
            "data_config.validation_split: leaves no records for training.",
            "output_config.model_name: has no effect without register_model.",
        ]


async def test_what_would_wait_waits_and_what_would_start_starts(tmp_path: Path) -> None:
    """The answer is that of the submission that follows, at the same moment."""
    async with running(tmp_path, virtual_nodes=NODES, clock=lambda: 1_800_000_000_000_000) as (
        _,
        client,
    ):
        started = []
        for _ in range(3):
            answer = await check(client, resource_config=GPU)
            request = submission(resource_config=GPU)
            submitted = await client.call("SubmitJob", request)
            waiting = submitted.status == JobStatus.JOB_STATUS_QUEUED
            assert answer.check.would_start is not waiting
            assert answer.status == submitted.status
            assert abs(answer.estimated_wait_seconds - submitted.estimated_wait_seconds) <= 1
            started.append(submitted.job_id)
        for job_id in reversed(started):
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.end(job_id)


async def test_a_job_without_a_longest_run_has_that_of_its_queue_and_is_told(
    tmp_path: Path,
) -> None:
    rules = parse_queues("night:max_runtime=3600")
    async with running(tmp_path, queues=rules) as (_, client):
        night = {"scheduling_config": {"queue_name": "night"}}
        told = (
            "scheduling_config.max_runtime_seconds: 3600, since queue night has that for jobs that"
            " set none."
        )
        answer = await check(client, **night)
        assert list(answer.check.warnings) == [told]
        own = {"scheduling_config": {"queue_name": "night", "max_runtime_seconds": 60}}
        assert not (await check(client, **own)).check.warnings
        submitted = await client.call("SubmitJob", submission(**night))
        assert submitted.message.endswith(told)
        job = await client.job(submitted.job_id)
        assert job.scheduling_config.max_runtime_seconds == 3600
        await client.until_line(submitted.job_id, ", for at most 3600 seconds.")
