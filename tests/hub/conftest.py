"""A gateway of nothing but its streams, in front of a coordinator in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from app.api.app_keys import CALLER, COORDINATOR, FEATURES, HUB, REQUEST_ID
from app.api.middlewares import answer_errors
from app.api.routes import events, logs, streams
from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.contract.breaches import BreachReports
from app.bridge.features import Features
from app.bridge.settings import UpstreamSettings
from app.bridge.streams.watch_job import WatchClient
from app.bridge.streams.watch_jobs import WatchJobsClient
from app.caller import Caller
from app.hub.close_reasons import CloseReason
from app.hub.hub import Hub
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from tests.hub.client import Watching
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job

#: Fast enough for a test, slow enough to be seen.
QUICK = HubSettings(
    linger=0.2,
    keepalive_interval=0.3,
    bookmark_interval=0.3,
    reconnect_min=0.05,
    reconnect_max=0.2,
    retry_ms=100,
)

#: Of streams.
KINDS = ("logs", "metrics", "events", "search")


@dataclass
class Seen(HubObserver):
    """Keeps what the hub tells."""

    upstreams: int = 0
    most_upstreams: int = 0
    watchers: dict[str, int] = field(
        default_factory=lambda: {"logs": 0, "metrics": 0, "events": 0, "search": 0}
    )
    reasons: list[CloseReason] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    anomalies: list[str] = field(default_factory=list)
    history: int = 0
    most_history: int = 0
    #: Set when a watcher has joined.
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set when a watcher has left.
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def upstream_opened(self) -> None:
        self.upstreams += 1
        self.most_upstreams = max(self.most_upstreams, self.upstreams)

    def upstream_closed(self) -> None:
        self.upstreams -= 1

    def upstream_anomaly(self, kind: str) -> None:
        self.anomalies.append(kind)

    def watcher_joined(self, kind: str) -> None:
        self.watchers[kind] += 1
        self.joined.set()

    def watcher_left(self, kind: str, reason: CloseReason) -> None:
        self.watchers[kind] -= 1
        self.reasons.append(reason)
        self.left.set()

    def watcher_refused(self, limit: str) -> None:
        self.refused.append(limit)

    def history_size(self, size: int) -> None:
        self.history = size
        self.most_history = max(self.most_history, size)


@dataclass
class Gateway:
    """The streams of one gateway, and what its hub tells of itself."""

    server: TestServer
    hub: Hub
    seen: Seen
    #: What the token of the next request is like.
    caller: Caller
    #: What the coordinator broke of its contract, by kind.
    breaches: list[str]

    def watch(
        self,
        kind: str = "logs",
        *,
        job: str = JOB,
        headers: dict[str, str] | None = None,
        receive_buffer: int | None = None,
        http: str = "1.1",
        **query: Any,
    ) -> Watching:
        path = {
            "logs": f"/jobs/{job}/logs",
            "metrics": f"/jobs/{job}/metrics/stream",
            "search": f"/jobs/{job}/logs/search",
            "events": "/events",
        }[kind]
        arguments = "&".join(f"{name}={value}" for name, value in query.items())
        assert self.server.port is not None
        return Watching(
            ("127.0.0.1", self.server.port),
            f"{path}?{arguments}",
            headers=headers,
            receive_buffer=receive_buffer,
            http=http,
            many=kind == "events",
        )

    def search(self, **arguments: Any) -> Watching:
        return self.watch("search", **arguments)

    def log_in(self, **changes: Any) -> None:
        """Change the token of the requests that follow."""
        self.caller = replace(self.caller, **changes)

    def expiring(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(time.time() + seconds, UTC)


GatewayMaker = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@asynccontextmanager
async def gateway_to(
    address: str, *, api_secret: str = "secret", **changes: Any
) -> AsyncIterator[Gateway]:
    """A gateway in front of the coordinator at `address`, with hub settings as given."""
    settings = UpstreamSettings(
        address=address, api_secret=api_secret, unary_timeout=30.0, reconnect_max=0.3
    )
    async with open_channel(settings) as channel:
        breaches: list[str] = []
        report = BreachReports(count=breaches.append)
        client = CoordinatorClient(channel=channel, settings=settings, report=report)
        upstream = WatchClient(
            channel=channel,
            client=client,
            settings=settings,
            observe=lambda *_: None,
            report=report,
        )
        states = WatchJobsClient(
            channel=channel,
            client=client,
            settings=settings,
            observe=lambda *_: None,
            report=report,
        )
        seen = Seen()
        hub = Hub(
            upstream=upstream,
            states=states,
            searcher=client,
            settings=replace(QUICK, **changes),
            observer=seen,
        )

        @web.middleware
        async def log_in(request: web.Request, handler: Handler) -> web.StreamResponse:
            request[REQUEST_ID] = "req_test"
            request[CALLER] = caller = made.caller
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(
                request_id=caller.request_id, tenant_id=caller.tenant_id, user_id=caller.user_id
            )
            return await handler(request)

        app = web.Application(middlewares=[log_in, answer_errors])
        app[HUB] = hub
        app[COORDINATOR] = client
        app[FEATURES] = features = Features(client)
        app.router.add_routes(streams.routes)
        app.router.add_routes(logs.routes)
        app.router.add_routes(events.routes)

        async def end_streams(_: web.Application) -> None:
            await hub.close()
            await features.close()

        app.on_shutdown.append(end_streams)
        server = TestServer(app)
        await server.start_server(shutdown_timeout=5)
        made = Gateway(server, hub, seen, Caller(tenant_id="acme", user_id="ann"), breaches)
        try:
            yield made
        finally:
            await server.close()
    assert seen.upstreams == 0
    assert seen.watchers == dict.fromkeys(KINDS, 0)
    assert seen.history == 0


@pytest.fixture
async def make_gateway(coordinator: LogCoordinator) -> AsyncIterator[GatewayMaker]:
    """Starts gateways in front of a coordinator, with hub settings as given."""
    async with AsyncExitStack() as running:

        async def make(*, address: str = "", **changes: Any) -> Gateway:
            return await running.enter_async_context(
                gateway_to(address or coordinator.address, **changes)
            )

        yield make


@pytest.fixture
async def gateway(make_gateway: GatewayMaker) -> Gateway:
    return await make_gateway()
