import asyncio
from typing import Any

import grpc
import pytest

from app import errors
from app.bridge.channel import IDEMPOTENT_READS, open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.settings import UpstreamSettings
from app.caller import Caller, DownstreamTokens
from app.errors import ApiError
from app.hub.upstream import LogPage
from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_TRAINING,
    Job,
    ListJobsResponse,
    SubmitJobResponse,
)
from tests.bridge.calls import BY_METHOD, CALLS, NOT_OF_THE_CLIENT, Call
from tests.bridge.conftest import API_SECRET
from tests.scripted_coordinator import SERVICE, Context, Failure, Raw, ScriptedCoordinator

Observed = list[tuple[str, str, float]]

UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")


def test_every_unary_method_of_the_service_has_one() -> None:
    assert {call.method for call in CALLS} | NOT_OF_THE_CLIENT == set(SERVICE.methods_by_name)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
async def test_request_metadata_deadline_and_observation(
    call: Call,
    client: CoordinatorClient,
    caller: Caller,
    coordinator: ScriptedCoordinator,
    settings: UpstreamSettings,
    observed: Observed,
) -> None:
    answer = await call.make(client, caller)

    assert isinstance(answer, dict | LogPage)
    [request] = coordinator.requests(call.method)
    assert request.message == call.request
    sent = {key: value for key, value in request.metadata.items() if key.startswith("x-")}
    assert sent == {
        "x-api-secret": API_SECRET,
        "x-tenant-id": "acme",
        "x-user-id": "ann",
        "x-request-id": "req_1",
    }
    more_work = call.method in ("SubmitJob", "SubmitEvaluation", "ValidateData")
    deadline = settings.submit_timeout if more_work else settings.unary_timeout
    assert request.time_remaining is not None
    assert deadline / 2 < request.time_remaining <= deadline + 1
    [(method, code, seconds)] = observed
    assert (method, code) == (call.method, "OK")
    assert seconds > 0


@pytest.mark.parametrize("method", ["SubmitJob", "ValidateData", "GetDataCache"])
async def test_downstream_tokens_are_forwarded(
    method: str, client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    tokens = DownstreamTokens(scaidrive="for.the.drive", scaiatlas="for.the.atlas")
    match method:
        case "SubmitJob":
            await client.submit_job(caller, {"name": "n"}, tokens=tokens)
        case "ValidateData":
            await client.validate_data(caller, {"data_sources": [{"path": "p"}]}, tokens=tokens)
        case _:
            await client.get_data_cache(caller, tokens=tokens)

    [request] = coordinator.requests(method)
    assert request.metadata["x-scaidrive-token"] == "for.the.drive"
    assert request.metadata["x-scaiatlas-token"] == "for.the.atlas"


async def test_answers_are_json(
    client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer(
        "ListJobs",
        ListJobsResponse(
            jobs=[Job(job_id="j", status=JOB_STATUS_TRAINING, revision=2**53 + 1)], total_count=1
        ),
    )

    answer = await client.list_jobs(caller)

    assert answer["total_count"] == 1
    assert answer["next_page_token"] == ""
    [job] = answer["jobs"]
    assert (job["job_id"], job["status"], job["revision"]) == ("j", "TRAINING", 2**53 + 1)


@pytest.mark.parametrize(
    "method", sorted(set(IDEMPOTENT_READS) & set(BY_METHOD)), ids=lambda method: method
)
async def test_reads_are_retried_while_unavailable(
    method: str,
    client: CoordinatorClient,
    caller: Caller,
    coordinator: ScriptedCoordinator,
    observed: Observed,
) -> None:
    coordinator.answer(method, UNAVAILABLE, UNAVAILABLE, coordinator.least(method))

    await BY_METHOD[method].make(client, caller)

    assert len(coordinator.requests(method)) == 3
    assert [(seen[0], seen[1]) for seen in observed] == [(method, "OK")]


async def test_reads_are_given_up_after_the_attempts_that_are_set(
    client: CoordinatorClient,
    caller: Caller,
    coordinator: ScriptedCoordinator,
    settings: UpstreamSettings,
    observed: Observed,
) -> None:
    coordinator.answer("GetJob", UNAVAILABLE)

    with pytest.raises(ApiError) as failed:
        await client.get_job(caller, "j")

    assert failed.value.kind is errors.COORDINATOR_UNAVAILABLE
    assert len(coordinator.requests("GetJob")) == settings.read_attempts
    assert [(seen[0], seen[1]) for seen in observed] == [("GetJob", "UNAVAILABLE")]


@pytest.mark.parametrize(
    "method", sorted(set(BY_METHOD) - set(IDEMPOTENT_READS)), ids=lambda method: method
)
async def test_what_changes_something_is_asked_once(
    method: str, client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer(method, UNAVAILABLE, coordinator.least(method))

    with pytest.raises(ApiError) as failed:
        await BY_METHOD[method].make(client, caller)

    assert failed.value.kind is errors.COORDINATOR_UNAVAILABLE
    assert len(coordinator.requests(method)) == 1


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "NOT_FOUND"])
async def test_reads_are_not_retried_for_other_reasons(
    code: str, client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer("GetJob", Failure(grpc.StatusCode[code]))

    with pytest.raises(ApiError):
        await client.get_job(caller, "j")

    assert len(coordinator.requests("GetJob")) == 1


async def test_one_attempt_means_no_retry(coordinator: ScriptedCoordinator, caller: Caller) -> None:
    settings = UpstreamSettings(address=coordinator.address, api_secret=API_SECRET, read_attempts=1)
    coordinator.answer("GetJob", UNAVAILABLE, Job())
    async with open_channel(settings) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        with pytest.raises(ApiError):
            await client.get_job(caller, "j")

    assert len(coordinator.requests("GetJob")) == 1


async def test_a_deadline_ends_a_call_that_is_not_answered(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    gone = asyncio.Event()

    async def never(_: Any, context: Context) -> Job:
        context.add_done_callback(lambda _: gone.set())
        await asyncio.Event().wait()
        return Job()

    coordinator.answer("GetJob", never)
    settings = UpstreamSettings(
        address=coordinator.address, api_secret=API_SECRET, unary_timeout=1.5
    )
    async with open_channel(settings) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        # The time is for the call alone: one that never arrived could not be seen to end.
        await channel.channel_ready()
        with pytest.raises(ApiError) as failed:
            await client.get_job(caller, "j")
        async with asyncio.timeout(60):
            await gone.wait()

    assert failed.value.kind is errors.COORDINATOR_TIMEOUT


async def test_a_cancelled_caller_cancels_the_call(
    client: CoordinatorClient,
    caller: Caller,
    coordinator: ScriptedCoordinator,
    observed: Observed,
) -> None:
    gone = asyncio.Event()

    async def never(_: Any, context: Context) -> Job:
        context.add_done_callback(lambda _: gone.set())
        await asyncio.Event().wait()
        return Job()

    coordinator.answer("GetJob", never)
    task = asyncio.create_task(client.get_job(caller, "j"))
    await coordinator.received("GetJob")
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await gone.wait()
    assert [(seen[0], seen[1]) for seen in observed] == [("GetJob", "CANCELLED")]


async def test_a_channel_that_closes_meanwhile_is_no_cancellation(
    client: CoordinatorClient,
    channel: grpc.aio.Channel,
    caller: Caller,
    coordinator: ScriptedCoordinator,
) -> None:
    async def never(_: Any, context: Context) -> Job:
        await asyncio.Event().wait()
        return Job()

    coordinator.answer("GetJob", never)
    task = asyncio.create_task(client.get_job(caller, "j"))
    await coordinator.received("GetJob")
    await channel.close()

    with pytest.raises(ApiError) as failed:
        await task
    assert failed.value.kind is errors.SHUTTING_DOWN


async def test_a_closed_channel(
    client: CoordinatorClient, channel: grpc.aio.Channel, caller: Caller, observed: Observed
) -> None:
    await channel.close()

    with pytest.raises(ApiError) as failed:
        await client.get_job(caller, "j")

    assert failed.value.kind is errors.SHUTTING_DOWN
    assert failed.value.retry_after == 2
    assert [(seen[0], seen[1]) for seen in observed] == [("GetJob", "CANCELLED")]


async def test_an_answer_that_is_not_the_message(
    client: CoordinatorClient,
    caller: Caller,
    coordinator: ScriptedCoordinator,
    observed: Observed,
) -> None:
    coordinator.answer("GetJob", Raw(b"\xff\xff\xff\xff"))

    with pytest.raises(ApiError) as failed:
        await client.get_job(caller, "j")

    assert failed.value.kind is errors.COORDINATOR_ERROR
    assert failed.value.message == errors.COORDINATOR_ERROR.text
    assert [(seen[0], seen[1]) for seen in observed] == [("GetJob", "DATA_LOSS")]


async def test_an_empty_answer_to_a_submission_has_its_shape(
    client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer("SubmitJob", SubmitJobResponse(job_id="j"))

    assert await client.submit_job(caller, {"name": "n"}) == {
        "job_id": "j",
        "status": "UNSPECIFIED",
        "message": "",
        "estimated_wait_seconds": 0,
    }
