import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.settings import UpstreamSettings
from app.caller import Caller
from tests.scripted_coordinator import ScriptedCoordinator

API_SECRET = "of-the-deployment"

#: Seconds after which a test that waits for something fails, rather than hangs.
PATIENCE = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and isinstance(item, pytest.Function):
            item.obj = bounded(item.obj)


def bounded(test: Callable[..., Any]) -> Callable[..., Any]:
    """Let a coroutine function time out. A fixture could not: it runs in a task of its own."""
    if not inspect.iscoroutinefunction(test):
        return test

    @functools.wraps(test)
    async def with_patience(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            await test(*args, **kwargs)

    return with_patience


@pytest.fixture
def caller() -> Caller:
    return Caller(tenant_id="acme", user_id="ann", request_id="req_1")


@pytest.fixture
async def coordinator() -> AsyncIterator[ScriptedCoordinator]:
    async with ScriptedCoordinator() as coordinator:
        yield coordinator


@pytest.fixture
def settings(coordinator: ScriptedCoordinator) -> UpstreamSettings:
    return UpstreamSettings(address=coordinator.address, api_secret=API_SECRET)


@pytest.fixture
async def channel(settings: UpstreamSettings) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(settings)
    yield channel
    await channel.close()


@pytest.fixture
def observed() -> list[tuple[str, str, float | None]]:
    return []


@pytest.fixture
async def client(
    channel: grpc.aio.Channel,
    settings: UpstreamSettings,
    observed: list[tuple[str, str, float | None]],
) -> CoordinatorClient:
    def observe(method: str, code: str, seconds: float | None) -> None:
        observed.append((method, code, seconds))

    return CoordinatorClient(channel=channel, settings=settings, observe=observe)
