"""What the coordinator announces, as the gateway asks for it: rarely, and once for all."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from app import errors
from app.bridge.client import CoordinatorClient
from app.bridge.features import Features
from app.caller import Caller
from app.errors import ApiError
from generated.mindcoordinator.v1.cluster_pb2 import ClusterStatus
from tests.scripted_coordinator import Context, Failure, ScriptedCoordinator

ANN = Caller(tenant_id="acme", user_id="ann", request_id="req_1")
BOB = Caller(tenant_id="globex", user_id="bob", request_id="req_2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def features(client: CoordinatorClient, clock: Clock) -> AsyncIterator[Features]:
    features = Features(client, clock=clock)
    yield features
    await features.close()


def announcing(*names: str) -> ClusterStatus:
    return ClusterStatus(features=names)


class Held:
    """Answers, with what is in `answer`, once the test lets it."""

    def __init__(self, answer: ClusterStatus | Failure) -> None:
        self.answer = answer
        self.gate = asyncio.Event()

    async def __call__(self, _: object, context: Context) -> ClusterStatus:
        await self.gate.wait()
        if isinstance(self.answer, Failure):
            await context.abort(self.answer.code, self.answer.detail)
            raise AssertionError
        return self.answer


async def test_a_feature_is_there_if_it_is_announced(
    coordinator: ScriptedCoordinator, features: Features
) -> None:
    coordinator.answer("GetClusterStatus", announcing("watch_jobs", "of_a_later_one"))
    assert await features.has(ANN, "watch_jobs")
    assert not await features.has(ANN, "validate_only")
    await features.require(ANN, "watch_jobs")
    with pytest.raises(ApiError, match="validate_only") as refused:
        await features.require(ANN, "validate_only")
    assert refused.value.kind is errors.NOT_IMPLEMENTED


async def test_a_coordinator_of_the_first_contract_announces_nothing(
    coordinator: ScriptedCoordinator, features: Features
) -> None:
    assert not await features.has(ANN, "watch_jobs")


async def test_an_answer_is_kept_for_a_minute_for_all_callers(
    coordinator: ScriptedCoordinator, features: Features, clock: Clock
) -> None:
    coordinator.answer("GetClusterStatus", announcing("watch_jobs"), announcing())
    assert await features.has(ANN, "watch_jobs")
    clock.now += 59.9
    assert await features.has(BOB, "watch_jobs")
    assert len(coordinator.requests("GetClusterStatus")) == 1
    clock.now += 0.2
    assert not await features.has(BOB, "watch_jobs")


async def test_those_who_ask_at_once_share_one_call(
    coordinator: ScriptedCoordinator, features: Features
) -> None:
    held = Held(announcing("watch_jobs"))
    coordinator.answer("GetClusterStatus", held)
    asking = [asyncio.create_task(features.has(who, "watch_jobs")) for who in [ANN, BOB] * 20]
    await coordinator.received("GetClusterStatus")
    # Who asked first goes away; the others get their answer all the same.
    asking[0].cancel()
    held.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [True] * 39
    assert len(coordinator.requests("GetClusterStatus")) == 1


async def test_a_failure_is_not_kept(coordinator: ScriptedCoordinator, features: Features) -> None:
    coordinator.answer(
        "GetClusterStatus",
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED),
        announcing("watch_jobs"),
    )
    with pytest.raises(ApiError) as failed:
        await features.has(ANN, "watch_jobs")
    assert failed.value.kind is errors.RESOURCE_EXHAUSTED
    assert await features.has(ANN, "watch_jobs")


async def test_a_failure_after_the_minute_does_not_bring_the_old_answer_back(
    coordinator: ScriptedCoordinator, features: Features, clock: Clock
) -> None:
    coordinator.answer(
        "GetClusterStatus", announcing("watch_jobs"), Failure(grpc.StatusCode.RESOURCE_EXHAUSTED)
    )
    assert await features.has(ANN, "watch_jobs")
    clock.now += 61
    with pytest.raises(ApiError):
        await features.has(ANN, "watch_jobs")


async def test_a_refusal_of_one_caller_is_not_anothers(
    coordinator: ScriptedCoordinator, features: Features
) -> None:
    held = Held(Failure(grpc.StatusCode.PERMISSION_DENIED, "not acme"))
    coordinator.answer("GetClusterStatus", held, announcing("watch_jobs"))
    refused = asyncio.create_task(features.has(ANN, "watch_jobs"))
    await coordinator.received("GetClusterStatus")
    sharing = asyncio.create_task(features.has(BOB, "watch_jobs"))
    await asyncio.sleep(0)
    held.gate.set()
    with pytest.raises(ApiError):
        await refused
    assert await sharing
    asked = coordinator.requests("GetClusterStatus")
    assert [each.metadata["x-tenant-id"] for each in asked] == ["acme", "globex"]


async def test_an_outage_reaches_all_who_share_the_call(
    coordinator: ScriptedCoordinator, features: Features
) -> None:
    held = Held(Failure(grpc.StatusCode.INTERNAL))
    coordinator.answer("GetClusterStatus", held)
    asking = [asyncio.create_task(features.has(who, "watch_jobs")) for who in [ANN, BOB] * 20]
    await coordinator.received("GetClusterStatus")
    held.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, ApiError) for answer in answers)
    assert len(coordinator.requests("GetClusterStatus")) == 1
