"""Two tenants on one coordinator: neither sees, counts or guesses the other's jobs.

The calls are those of the contract's service, whichever there are: a new one is tried, too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1 import coordinator_pb2
from generated.mindcoordinator.v1.cluster_pb2 import GetClusterStatusRequest
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, ListJobsRequest
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest
from tests.coordinator.harness import Client, running, status_of, submission
from tests.coordinator.scripts import WAITS

METHODS: Final = coordinator_pb2.DESCRIPTOR.services_by_name["MindCoordinator"].methods
#: Fields that name something of a tenant.
IDS: Final = ("job_id", "evaluation_id")
#: What a request needs beside the ids, so that it is not refused for something else.
ELSE: Final[dict[str, dict[str, Any]]] = {
    "SubmitEvaluation": {
        "benchmarks": [Benchmark(name="perplexity", dataset="scaidrive://other/data.jsonl")]
    },
}
NODES: Final = parse_virtual_nodes("v0:1xL4")


def id_of(method: MethodDescriptor) -> str | None:
    return next((name for name in IDS if name in method.input_type.fields_by_name), None)


NAMING: Final = [method.name for method in METHODS if id_of(method)]
#: Those that change nothing, of any job.
READING: Final = ("GetJob", "GetJobMetrics", "ListJobLogs", "WatchJob")
OPEN: Final = [method.name for method in METHODS if not id_of(method)]


async def answer(client: Client, method: MethodDescriptor, **fields: Any) -> Any:
    """What a call gives: a message, or its status and details."""
    request = GetMessageClass(method.input_type)(**ELSE.get(method.name, {}), **fields)
    try:
        if method.server_streaming:
            call = getattr(client.stub, method.name)(request, metadata=client.metadata)
            async with asyncio.timeout(60):
                return await anext(aiter(call))
        return await client.call(method.name, request)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()


@dataclass
class Theirs:
    """What one tenant has: a job that runs, one that waits, one that has ended, an evaluation."""

    owner: Client
    stranger: Client
    ids: dict[str, str]


@asynccontextmanager
async def two_tenants(tmp_path: Path) -> AsyncIterator[Theirs]:
    async with running(tmp_path, virtual_nodes=NODES) as (_, owner):
        stranger = Client(owner.stub, owner.drive, tenant="other")
        stranger.write("data.jsonl", '{"text": "a"}\n')
        data = owner.write("data.jsonl", '{"text": "a"}\n')
        gpu = {"gpu_count": 1}
        runs = await owner.submit(WAITS, name="confidential", resource_config=gpu)
        await owner.until_line(runs, "ready")
        waits = await owner.submit(WAITS, name="confidential", resource_config=gpu)
        ended = await owner.submit("pass", name="confidential")
        assert status_of(await owner.end(ended)) == "COMPLETED"
        evaluation = await owner.call(
            "SubmitEvaluation",
            SubmitEvaluationRequest(
                job_id=ended, benchmarks=[Benchmark(name="perplexity", dataset=data)]
            ),
        )
        await owner.end(evaluation.evaluation_id)
        ids = {
            "runs": runs,
            "waits": waits,
            "ended": ended,
            "evaluation": evaluation.evaluation_id,
        }
        yield Theirs(owner, stranger, ids)
        for job_id in (runs, waits):
            await owner.call("CancelJob", CancelJobRequest(job_id=job_id))
            await owner.end(job_id)


async def test_what_is_anothers_is_like_what_is_not_there(tmp_path: Path) -> None:
    assert {*READING, "CancelJob", "SubmitEvaluation", "GetEvaluation"} <= set(NAMING)
    async with two_tenants(tmp_path) as theirs:
        before = {each: await theirs.owner.job(each) for each in theirs.ids.values()}
        for method in METHODS:
            name = id_of(method)
            if name is None:
                continue
            nothing = await answer(theirs.stranger, method, **{name: "job-00000000000000000000"})
            assert nothing[0] is grpc.StatusCode.NOT_FOUND, method.name
            for what, known in theirs.ids.items():
                given = await answer(theirs.stranger, method, **{name: known})
                assert given == nothing, (method.name, what)
                if method.name in READING:
                    own = await answer(theirs.owner, method, **{name: known})
                    assert not isinstance(own, tuple), (method.name, what)
        assert before == {each: await theirs.owner.job(each) for each in before}


async def test_answers_about_all_tell_nothing_of_another_tenant(tmp_path: Path) -> None:
    async with two_tenants(tmp_path) as theirs:
        for method in METHODS:
            if method.name not in OPEN:
                continue
            fields = {"node_id": "v0"} if method.name in ("GetNode", "EnableNode") else {}
            said = str(await answer(theirs.stranger, method, **fields))
            for hint in (*theirs.ids.values(), "confidential", "scaidrive://local"):
                assert hint not in said, method.name
        stranger = theirs.stranger
        listed = await stranger.call("ListJobs", ListJobsRequest())
        assert (listed.total_count, list(listed.jobs), listed.next_page_token) == (0, [], "")
        queue = await stranger.call("GetQueueStatus", GetQueueStatusRequest())
        assert (queue.total_queued, list(queue.queued_jobs)) == (0, [])


async def test_the_cluster_counts_the_jobs_of_all_tenants(tmp_path: Path) -> None:
    async with two_tenants(tmp_path) as theirs:
        for who in (theirs.stranger, theirs.owner):
            cluster = await who.call("GetClusterStatus", GetClusterStatusRequest())
            assert (cluster.active_jobs, cluster.queued_jobs) == (1, 1)


async def test_a_page_token_is_of_no_use_to_another_tenant(tmp_path: Path) -> None:
    async with two_tenants(tmp_path) as theirs:
        page = await theirs.owner.call("ListJobs", ListJobsRequest(page_size=1))
        assert page.next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await theirs.stranger.call(
                "ListJobs", ListJobsRequest(page_size=1, page_token=page.next_page_token)
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_same_idempotency_key_is_another_tenants_own(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, owner):
        stranger = Client(owner.stub, owner.drive, tenant="other")
        jobs = []
        for client in (owner, stranger):
            request = submission(idempotency_key="once", name=f"of {client.tenant}")
            request.training_config.framework.custom_script_path = client.write("x.py", "pass")
            jobs.append((await client.call("SubmitJob", request)).job_id)
            assert status_of(await client.end(jobs[-1])) == "COMPLETED"
        assert len(set(jobs)) == 2


async def test_an_evaluation_is_its_tenants_own(tmp_path: Path) -> None:
    async with two_tenants(tmp_path) as theirs:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await theirs.stranger.call(
                "GetEvaluation", GetEvaluationRequest(evaluation_id=theirs.ids["evaluation"])
            )
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        # A model of another tenant cannot be evaluated by its address either.
        own = await theirs.stranger.submit("pass")
        await theirs.stranger.end(own)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await theirs.stranger.call(
                "SubmitEvaluation",
                SubmitEvaluationRequest(
                    job_id=own,
                    model_uri=f"scaidrive://local/jobs/{theirs.ids['ended']}/output",
                    **ELSE["SubmitEvaluation"],
                ),
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
