"""Whether the coordinator takes calls, by the gRPC health protocol."""

import asyncio

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]  # no stubs
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]  # no stubs


async def coordinator_problem(
    channel: grpc.aio.Channel, *, api_secret: str, within: float
) -> str | None:
    """Return why the coordinator does not accept calls; None if it does.

    A coordinator without the health service is taken to be well once it
    answers at all. `within` is in seconds.
    """
    check = HealthStub(channel).Check
    try:
        answer: HealthCheckResponse = await check(
            HealthCheckRequest(), timeout=within, metadata=(("x-api-secret", api_secret),)
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        return _PROBLEMS.get(error.code(), f"it answers {error.code().name}")
    except grpc.aio.UsageError:
        return "the channel is closed"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return "the channel is closed"
    if answer.status != HealthCheckResponse.SERVING:
        return "it is not serving"
    return None


_PROBLEMS = {
    grpc.StatusCode.UNAVAILABLE: "it is unreachable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "it does not answer in time",
    grpc.StatusCode.UNAUTHENTICATED: "it rejects the API secret",
}
