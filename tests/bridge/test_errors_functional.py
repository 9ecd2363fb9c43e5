"""The error table, row by row, over a real socket."""

import asyncio
from dataclasses import dataclass

import grpc
import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from app import errors
from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.errors import translated_errors
from app.bridge.settings import UpstreamSettings
from app.caller import Caller
from app.errors import ApiError, BrokenContract, ErrorKind
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, Job, ListJobsResponse
from generated.mindcoordinator.v1.watch_pb2 import WatchJobRequest, WatchJobResponse, WatchStart
from tests.bridge.calls import BY_METHOD
from tests.bridge.conftest import API_SECRET
from tests.scripted_coordinator import Context, Failure, ScriptedCoordinator

EVENT = "scaimind_coordinator_error"
HONEST = "the data set has no record 17"
LEAK = 'Traceback (most recent call last):\n  File "/srv/c/store.py", line 3, in get\nKeyError: 1'


@dataclass(frozen=True)
class Row:
    code: StatusCode
    status: int
    kind: ErrorKind
    #: Whether an honest detail reaches the caller, a log entry is always made,
    #: and the caller is told when to come back.
    shown: bool
    logged: bool = False
    retry_after: bool = False


TABLE = [
    Row(StatusCode.NOT_FOUND, 404, errors.JOB_NOT_FOUND, shown=True),
    Row(StatusCode.INVALID_ARGUMENT, 400, errors.INVALID_ARGUMENT, shown=True),
    Row(StatusCode.OUT_OF_RANGE, 400, errors.INVALID_ARGUMENT, shown=True),
    Row(StatusCode.PERMISSION_DENIED, 403, errors.COORDINATOR_PERMISSION_DENIED, shown=True),
    Row(StatusCode.UNAUTHENTICATED, 401, errors.COORDINATOR_UNAUTHENTICATED, shown=True),
    Row(StatusCode.ALREADY_EXISTS, 409, errors.ALREADY_EXISTS, shown=True),
    Row(StatusCode.FAILED_PRECONDITION, 409, errors.FAILED_PRECONDITION, shown=True),
    Row(StatusCode.ABORTED, 409, errors.FAILED_PRECONDITION, shown=True),
    Row(
        StatusCode.RESOURCE_EXHAUSTED, 429, errors.RESOURCE_EXHAUSTED, shown=True, retry_after=True
    ),
    Row(StatusCode.UNIMPLEMENTED, 501, errors.NOT_IMPLEMENTED, shown=True),
    Row(StatusCode.DEADLINE_EXCEEDED, 504, errors.COORDINATOR_TIMEOUT, shown=False, logged=True),
    Row(
        StatusCode.UNAVAILABLE,
        503,
        errors.COORDINATOR_UNAVAILABLE,
        shown=False,
        logged=True,
        retry_after=True,
    ),
    Row(
        StatusCode.CANCELLED,
        503,
        errors.COORDINATOR_UNAVAILABLE,
        shown=False,
        logged=True,
        retry_after=True,
    ),
    Row(StatusCode.INTERNAL, 500, errors.COORDINATOR_ERROR, shown=True, logged=True),
    Row(StatusCode.UNKNOWN, 500, errors.COORDINATOR_ERROR, shown=True, logged=True),
    Row(StatusCode.DATA_LOSS, 500, errors.COORDINATOR_ERROR, shown=True, logged=True),
]

by_code = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.code.name)


def test_the_table_has_every_status() -> None:
    assert {row.code for row in TABLE} | {StatusCode.OK} == set(StatusCode)


@by_code
async def test_an_honest_detail(
    row: Row, client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer("CancelJob", Failure(row.code, HONEST))

    with capture_logs() as logs, pytest.raises(ApiError) as failed:
        await client.cancel_job(caller, "j")

    assert failed.value.kind is row.kind
    assert failed.value.kind.status == row.status
    assert failed.value.message == (HONEST if row.shown else row.kind.text)
    assert (failed.value.retry_after is not None) == row.retry_after
    assert [entry["detail"] for entry in logs if entry["event"] == EVENT] == (
        [HONEST] if row.logged else []
    )


@by_code
async def test_a_detail_that_leaks(
    row: Row, client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer("CancelJob", Failure(row.code, LEAK))

    with capture_logs() as logs, pytest.raises(ApiError) as failed:
        await client.cancel_job(caller, "j")

    assert failed.value.kind is row.kind
    assert failed.value.message == row.kind.text
    [entry] = [entry for entry in logs if entry["event"] == EVENT]
    assert entry["detail"] == LEAK
    assert (entry["method"], entry["code"]) == ("CancelJob", row.code.name)


@by_code
async def test_no_detail(
    row: Row, client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer("CancelJob", Failure(row.code))

    with pytest.raises(ApiError) as failed:
        await client.cancel_job(caller, "j")

    assert failed.value.message == row.kind.text


@pytest.mark.parametrize(
    ("kind", "methods"),
    [
        (
            errors.JOB_NOT_FOUND,
            ["GetJob", "CancelJob", "PauseJob", "ResumeJob", "RetryJob", "GetJobMetrics"],
        ),
        (errors.NODE_NOT_FOUND, ["GetNode", "DrainNode", "EnableNode", "GetDataCache"]),
        (errors.EVALUATION_NOT_FOUND, ["GetEvaluation"]),
        (errors.NOT_FOUND, ["SubmitJob", "ListJobs", "SubmitEvaluation", "ValidateData"]),
    ],
    ids=lambda value: value.code if isinstance(value, ErrorKind) else "",
)
async def test_not_found_says_what(
    kind: ErrorKind,
    methods: list[str],
    client: CoordinatorClient,
    caller: Caller,
    coordinator: ScriptedCoordinator,
) -> None:
    for method in methods:
        coordinator.answer(method, Failure(StatusCode.NOT_FOUND, "no such thing"))
        with pytest.raises(ApiError) as failed:
            await BY_METHOD[method].make(client, caller)
        assert failed.value.kind is kind, method
        assert failed.value.message == "no such thing"


async def test_a_very_long_detail_stays_what_it_is(
    client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer("CancelJob", Failure(StatusCode.INTERNAL, LEAK + "x" * 30_000))

    with capture_logs() as logs, pytest.raises(ApiError) as failed:
        await client.cancel_job(caller, "j")

    assert failed.value.kind is errors.COORDINATOR_ERROR
    [entry] = [entry for entry in logs if entry["event"] == EVENT]
    assert entry["detail"].startswith(LEAK)
    assert len(entry["detail"]) < 30_000


async def test_an_answer_over_the_limit_is_no_exhaustion(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    settings = UpstreamSettings(
        address=coordinator.address, api_secret=API_SECRET, max_message_bytes=64 * 1024
    )
    coordinator.answer("ListJobs", ListJobsResponse(jobs=[Job(message="x" * 100_000)]))
    async with open_channel(settings) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        with pytest.raises(ApiError) as failed:
            await client.list_jobs(caller)

    assert failed.value.kind is errors.COORDINATOR_ERROR
    assert failed.value.retry_after is None


@pytest.mark.parametrize("size", [131_050, 140_000, 2_000_000])
@pytest.mark.parametrize("where", ["detail", "trailers", "headers"])
async def test_metadata_over_the_limit_is_no_exhaustion(
    size: int, where: str, caller: Caller
) -> None:
    """gRPC refuses what is over 128 KiB in several texts, all of them RESOURCE_EXHAUSTED."""

    async def answer(request: GetJobRequest, context: Context) -> Job:
        long = "x" * size
        match where:
            case "detail":
                await context.abort(StatusCode.INTERNAL, long)
            case "trailers":
                context.set_trailing_metadata((("long", long),))
            case _:
                await context.send_initial_metadata((("long", long),))
        return Job(job_id=request.job_id)

    limits = [("grpc.max_metadata_size", 2**24), ("grpc.absolute_max_metadata_size", 2**24)]
    async with ScriptedCoordinator(options=limits) as coordinator:
        coordinator.answer("GetJob", answer)
        settings = UpstreamSettings(address=coordinator.address, api_secret=API_SECRET)
        async with open_channel(settings) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            with pytest.raises(BrokenContract) as failed:
                await client.get_job(caller, "j")

    assert failed.value.breach == "too_large"
    assert failed.value.retry_after is None
    assert failed.value.message == errors.COORDINATOR_ERROR.text


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_request_over_the_limit_is_the_callers_affair(side: str, caller: Caller) -> None:
    limit = 64 * 1024
    options = [("grpc.max_receive_message_length", limit)] if side == "server" else []
    async with ScriptedCoordinator(options=options) as coordinator:
        settings = UpstreamSettings(
            address=coordinator.address,
            api_secret=API_SECRET,
            max_message_bytes=limit if side == "client" else 16 * limit,
        )
        async with open_channel(settings) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            with pytest.raises(ApiError) as failed:
                await client.submit_job(caller, {"name": "x" * 2 * limit})

    assert failed.value.kind is errors.PAYLOAD_TOO_LARGE
    assert failed.value.message == errors.PAYLOAD_TOO_LARGE.text


async def test_a_stream_that_breaks_while_it_is_read(
    channel: grpc.aio.Channel, coordinator: ScriptedCoordinator
) -> None:
    coordinator.answer(
        "WatchJob",
        [
            WatchJobResponse(start=WatchStart(epoch="e1")),
            Failure(StatusCode.NOT_FOUND, "no job j here"),
        ],
    )
    stub = MindCoordinatorStub(channel)
    seen = []

    async def watch() -> None:
        with translated_errors(method="WatchJob"):
            async for message in stub.WatchJob(WatchJobRequest(job_id="j")):
                seen.append(message.start.epoch)

    with pytest.raises(ApiError) as failed:
        await watch()

    assert seen == ["e1"]
    assert failed.value.kind is errors.JOB_NOT_FOUND
    assert failed.value.message == "no job j here"


async def test_an_error_of_ones_own_passes() -> None:
    own = ApiError(errors.NODE_NOT_FOUND)
    with pytest.raises(ApiError) as failed, translated_errors(method="GetNode"):
        raise own
    assert failed.value is own


async def test_a_cancelled_task_stays_cancelled() -> None:
    started = asyncio.Event()

    async def wait() -> None:
        with translated_errors(method="GetJob"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
