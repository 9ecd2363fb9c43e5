"""Streams that begin and break at the same place: their watchers are told, in bounded time."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.hub.conftest import GatewayMaker
from tests.hub.log_coordinator import JOB, Context, LogCoordinator, StandIn

Response = watch_pb2.WatchJobResponse


def start(coordinator: LogCoordinator, request: watch_pb2.WatchJobRequest) -> Response:
    log = coordinator.jobs[JOB]
    after = request.after.offset if request.HasField("after") else log.last
    beginning = watch_pb2.WatchStart(
        epoch=log.epoch, after_offset=after, first_offset=1, last_offset=log.last
    )
    return Response(start=beginning)


def breaking(
    coordinator: LogCoordinator, *messages: Response, status: grpc.StatusCode | None
) -> StandIn:
    """Begin where the watcher is, send `messages`, and break off."""

    async def watch(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        yield start(coordinator, request)
        for message in messages:
            yield message
        if status is not None:
            await context.abort(status, "at the same place again")

    return watch


def entry(offset: int, message: str) -> Response:
    return Response(
        logs=[watch_pb2.LogEntry(offset=offset, level=watch_pb2.LOG_LEVEL_INFO, message=message)]
    )


def end(last: int) -> Response:
    return Response(end=watch_pb2.WatchEnd(status=jobs_pb2.JOB_STATUS_COMPLETED, last_offset=last))


def after_a_sound_stream(
    coordinator: LogCoordinator, broken: asyncio.Event, fault: StandIn
) -> StandIn:
    """Serve the log until `broken` is set; every later stream has the fault."""
    streams = 0

    async def watch(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        nonlocal streams
        streams += 1
        if streams > 1:
            async for message in fault(request, context):
                yield message
            return
        beginning = start(coordinator, request)
        beginning.start.after_offset = 0
        yield beginning
        yield Response(logs=coordinator.jobs[JOB].entries)
        await broken.wait()

    return watch


def early_ok(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, status=None)


def wrong_end(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, end(2), status=None)


def end_beyond_the_log(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, end(9), status=None)


def too_large(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, entry(4, "x" * 17_000_000), status=None)


def internal(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, status=grpc.StatusCode.INTERNAL)


def exhausted(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, status=grpc.StatusCode.RESOURCE_EXHAUSTED)


def late(coordinator: LogCoordinator) -> StandIn:
    return breaking(coordinator, status=grpc.StatusCode.DEADLINE_EXCEEDED)


def repeating(coordinator: LogCoordinator) -> StandIn:
    """Send again what the watcher has had."""
    return breaking(coordinator, entry(2, "line 2"), entry(3, "line 3"), status=None)


def without_start(coordinator: LogCoordinator) -> StandIn:
    async def watch(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        yield entry(4, "of another log")

    return watch


def silent(coordinator: LogCoordinator) -> StandIn:
    async def watch(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        await asyncio.Event().wait()
        yield Response()

    return watch


def silent_behind_its_start(coordinator: LogCoordinator) -> StandIn:
    """Promise entries that do not come."""

    async def watch(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        beginning = start(coordinator, request)
        beginning.start.last_offset += 5
        yield beginning
        await asyncio.Event().wait()

    return watch


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (early_ok, "COORDINATOR_UNAVAILABLE"),
        (wrong_end, "COORDINATOR_ERROR"),
        (end_beyond_the_log, "COORDINATOR_ERROR"),
        (too_large, "COORDINATOR_ERROR"),
        (internal, "COORDINATOR_ERROR"),
        (exhausted, "RESOURCE_EXHAUSTED"),
        (late, "COORDINATOR_TIMEOUT"),
        (repeating, "COORDINATOR_ERROR"),
        (without_start, "COORDINATOR_ERROR"),
        (silent, "COORDINATOR_TIMEOUT"),
        (silent_behind_its_start, "COORDINATOR_TIMEOUT"),
    ],
)
async def test_a_stream_that_breaks_at_the_same_place_again_and_again_ends_with_what_was_lost(
    make_gateway: GatewayMaker,
    coordinator: LogCoordinator,
    fault: Callable[[LogCoordinator], StandIn],
    code: str,
) -> None:
    patience = 4 if fault in (silent, silent_behind_its_start) else 10
    gateway = await make_gateway(outage_limit=0.5, message_timeout=patience)
    await coordinator.log("line 1", "line 2", "line 3")
    broken = asyncio.Event()
    coordinator.stand_in = after_a_sound_stream(coordinator, broken, fault(coordinator))
    async with gateway.watch() as logs, gateway.watch("metrics") as metrics:
        assert await logs.logs(3) == ["line 1", "line 2", "line 3"]
        broken.set()
        for each in (logs, metrics):
            error = await each.next_named("error")
            assert error.data == {"error": "stream ended", "code": code, "retryable": True}
            assert await each.rest() == []
        assert error.epoch == "e1"
        # It was tried to go on.
        assert coordinator.watches > 1
    assert gateway.seen.most_upstreams == 1


@pytest.mark.parametrize("fault", [silent, silent_behind_its_start])
async def test_a_first_stream_that_says_nothing_is_an_answer(
    make_gateway: GatewayMaker,
    coordinator: LogCoordinator,
    fault: Callable[[LogCoordinator], StandIn],
) -> None:
    gateway = await make_gateway(message_timeout=0.1)
    coordinator.stand_in = fault(coordinator)
    async with gateway.watch() as watching:
        assert watching.status == 504
        assert watching.error["code"] == "COORDINATOR_TIMEOUT"
    await coordinator.until(watches=0)


async def test_a_job_that_goes_on_between_breaks_keeps_its_watchers(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(outage_limit=3, reconnect_min=0.2, reconnect_max=0.2)

    async def one_entry_each(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        yield start(coordinator, request)
        await coordinator.log("one more")
        yield entry(request.after.offset + 1, "one more")

    coordinator.stand_in = one_entry_each
    async with gateway.watch() as watching:
        # With pauses of 0.1 s and more, this takes longer than the limit.
        assert await watching.logs(40) == ["one more"] * 40


async def test_a_quiet_job_keeps_its_watchers_over_many_breaks(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(outage_limit=3, reconnect_min=0.01, reconnect_max=0.05)

    async def quiet(
        request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[Response]:
        yield start(coordinator, request)
        await asyncio.sleep(0.8)

    coordinator.stand_in = quiet
    async with gateway.watch() as watching:
        async with asyncio.timeout(60), coordinator.changed:
            # Longer than the limit, of which the streams were gone for less.
            await coordinator.changed.wait_for(lambda: coordinator.watches == 7)
        coordinator.stand_in = None
        await coordinator.log("line 1")
        assert await watching.logs(1) == ["line 1"]
