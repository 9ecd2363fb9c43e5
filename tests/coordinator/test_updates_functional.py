"""UpdateJob and a retry's key over the wire."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1 import jobs_pb2
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    Job,
    ListJobsRequest,
    RetryJobRequest,
    UpdateJobRequest,
)
from tests.coordinator.harness import Client, running, status_of
from tests.coordinator.scripts import WAITS


async def update(client: Client, job_id: str, *paths: str, **changes: Any) -> Job:
    job: Job = await client.call(
        "UpdateJob",
        UpdateJobRequest(job_id=job_id, update_mask=FieldMask(paths=paths), **changes),
    )
    return job


async def refused(client: Client, job_id: str, *paths: str, **changes: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await update(client, job_id, *paths, **changes)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize("ended", [False, True])
async def test_name_and_labels_change_in_any_state_and_stay(tmp_path: Path, ended: bool) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS, labels={"team": "nlp", "draft": "yes"})
        await client.until_line(job_id, "ready")
        if ended:
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.end(job_id)
        before = await client.job(job_id)
        job = await update(
            client, job_id, "name", "labels.draft", "labels.a.b", name="New", labels={"a.b": "c"}
        )
        assert (job.name, dict(job.labels)) == ("New", {"team": "nlp", "a.b": "c"})
        assert job.revision == before.revision + 1
        assert job == await client.job(job_id)
        # The same again is no change.
        assert (await update(client, job_id, "name", name="New")).revision == job.revision
        assert await refused(client, job_id, "name", name="x", revision=before.revision) is (
            grpc.StatusCode.ABORTED
        )
        job = await update(client, job_id, "labels", revision=job.revision)
        assert (job.name, dict(job.labels)) == ("New", {})
        listed = await client.call("ListJobs", ListJobsRequest(name_contains="NEW"))
        assert [each.job_id for each in listed.jobs] == [job_id]
        if not ended:
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.end(job_id)
    async with running(tmp_path) as (_, client):
        job = await client.job(job_id)
        assert (job.name, dict(job.labels)) == ("New", {})


async def test_what_cannot_be_changed(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("pass")
        before = await client.end(job_id)
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        assert await refused(client, job_id, "status") is invalid
        assert await refused(client, job_id, "labels.type") is invalid
        assert await refused(client, job_id, "labels", labels={"type": "x"}) is invalid
        assert await refused(client, job_id, "labels.scaimind/x") is invalid
        assert await refused(client, job_id, "name", name=" ") is invalid
        assert await refused(client, job_id, "name", name="x" * 257) is invalid
        assert await refused(client, "job-none", "name", name="x") is grpc.StatusCode.NOT_FOUND
        assert await client.job(job_id) == before


async def test_lists_are_filtered_by_every_field(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        old = await client.submit("pass", labels={"team": "nlp"})
        await client.end(old)
        now = Timestamp()
        now.GetCurrentTime()
        new = await client.submit("pass", name="-nightly")
        await client.end(new)

        async def ids(**wanted: Any) -> list[str]:
            page = await client.call("ListJobs", ListJobsRequest(**wanted))
            assert page.total_count == len(page.jobs)
            return [each.job_id for each in page.jobs]

        assert await ids(label_filter={"team": "nlp"}) == [old]
        assert await ids(name_contains="NIGHT") == [new]
        assert await ids(user_ids=["someone"]) == [new, old]
        assert await ids(user_ids=["nobody"]) == []
        assert await ids(created_after=now) == [new]
        assert await ids(created_after=Timestamp(seconds=2**62)) == []
        assert await ids(kind=jobs_pb2.JOB_KIND_EVALUATION) == []
        assert await ids(kind=jobs_pb2.JOB_KIND_TRAINING) == [new, old]


async def test_a_key_of_a_retry_makes_one_child(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("raise SystemExit(3)")
        assert status_of(await client.end(job_id)) == "FAILED"
        request = RetryJobRequest(job_id=job_id, idempotency_key="once")
        children = await asyncio.gather(*(client.call("RetryJob", request) for _ in range(5)))
        assert len({child.job_id for child in children}) == 1
        child = children[0].job_id
        await client.end(child)
        other = RetryJobRequest(job_id=child, idempotency_key="once")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("RetryJob", other)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        await client.call("DeleteJob", DeleteJobRequest(job_id=child))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("RetryJob", request)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
