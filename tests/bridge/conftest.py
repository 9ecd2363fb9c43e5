from collections.abc import AsyncIterator

import grpc
import pytest

from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.caller import Caller
from app.settings import CoordinatorSettings
from tests.scripted_coordinator import ScriptedCoordinator

API_SECRET = "of-the-deployment"


@pytest.fixture
def caller() -> Caller:
    return Caller(tenant_id="acme", user_id="ann", request_id="req_1")


@pytest.fixture
async def coordinator() -> AsyncIterator[ScriptedCoordinator]:
    async with ScriptedCoordinator() as coordinator:
        yield coordinator


@pytest.fixture
def settings(coordinator: ScriptedCoordinator) -> CoordinatorSettings:
    return CoordinatorSettings(address=coordinator.address, api_secret=API_SECRET)


@pytest.fixture
async def channel(settings: CoordinatorSettings) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(settings)
    yield channel
    await channel.close()


@pytest.fixture
def observed() -> list[tuple[str, str, float]]:
    return []


@pytest.fixture
def client(
    channel: grpc.aio.Channel,
    settings: CoordinatorSettings,
    observed: list[tuple[str, str, float]],
) -> CoordinatorClient:
    def observe(method: str, code: str, seconds: float) -> None:
        observed.append((method, code, seconds))

    return CoordinatorClient(channel=channel, settings=settings, observe=observe)
