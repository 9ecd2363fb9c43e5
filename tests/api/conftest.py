"""A whole gateway over real sockets: HTTP in front, gRPC and PostgreSQL behind."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from blockbuster import blockbuster_ctx

from app.api.app_keys import METRICS
from app.bridge.settings import UpstreamSettings
from app.drive.settings import DriveSettings
from app.gateway.application import create_app
from app.gateway.http_server import Runner
from app.gateway.settings import Settings
from app.hub.settings import HubSettings
from app.scaikey.api_keys import create_key
from app.scaikey.permissions import ROLES, Permission
from tests.api.endpoints import Endpoint
from tests.databases import patient
from tests.scripted_coordinator import ScriptedCoordinator
from tests.secrecy import secret, written

API_SECRET = secret("the-deployment-secret")

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application | TestServer], Awaitable[Client]]


class GatewayServer(TestServer):
    """Serves an application as the gateway does, not as aiohttp would by itself."""

    async def _make_runner(self, **_: Any) -> web.BaseRunner:
        return Runner.of(self.app)


@dataclass(frozen=True, slots=True)
class Keys:
    """One API key of tenant `acme` for each role and for each single permission."""

    dsn: str
    by_role: Mapping[str, str]
    by_permission: Mapping[str, str]

    @property
    def admin(self) -> str:
        """A key that may do everything."""
        return self.by_role["tenant_admin"]

    @property
    def all(self) -> Mapping[str, str]:
        """Every key, by what it was given."""
        return {**self.by_role, **self.by_permission}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which has to be JSON."""
        assert self.headers["Content-Type"] == "application/json"
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What is in the error envelope, whose shape is checked."""
        body = self.json
        assert body.keys() == {"status", "error", "meta"}
        assert body["status"] == "error"
        assert body["meta"] == {"request_id": self.headers["X-Request-ID"]}
        error: dict[str, Any] = body["error"]
        assert {"code", "message"} <= error.keys() <= {"code", "message", "details", "retry_after"}
        return error


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway with what stands around it."""

    client: Client
    app: web.Application
    coordinator: ScriptedCoordinator
    keys: Keys

    async def ask(
        self,
        method: str,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Make a request, as the admin unless another key is given, and read its answer."""
        sent = {"Authorization": f"Bearer {self.keys.admin if key is None else key}"}
        async with self.client.request(
            method, url, headers={**sent, **(headers or {})}, **options
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        if answer.status >= 400 or url == "/metrics":
            written(f"answer {answer.status} to {method} {url}", answer.body)
        return answer

    async def exchange(self, endpoint: Endpoint, *, key: str | None = None) -> Answer:
        """Make the endpoint's own request."""
        return await self.ask(
            endpoint.method, endpoint.url, key=key, params=endpoint.query, json=endpoint.body
        )


@pytest.fixture(autouse=True)
def no_call_blocks_the_loop() -> Iterator[None]:
    """Fails a test in which the gateway blocks the event loop."""
    with blockbuster_ctx("app") as blockbuster:
        # /proc, which is not a disk.
        for read in ("io.BufferedReader.read", "os.listdir"):
            blockbuster.functions[read].can_block_in("process_collector.py", "collect")
        yield


@pytest.fixture(scope="session")
def keys(new_database: Callable[[str], str], migrated_template: str) -> Keys:
    dsn = new_database(migrated_template)

    def secret(**grants: Any) -> str:
        return create_key(dsn, tenant_id="acme", user_id="ann", **grants).secret

    return Keys(
        dsn,
        {role: secret(roles=[role]) for role in ROLES},
        {permission.value: secret(permissions=[permission]) for permission in Permission},
    )


@pytest.fixture
async def coordinator() -> AsyncIterator[ScriptedCoordinator]:
    async with ScriptedCoordinator() as coordinator:
        yield coordinator


@pytest.fixture
def settings(keys: Keys, coordinator: ScriptedCoordinator, tmp_path: Path) -> Settings:
    return Settings(
        upstream=UpstreamSettings(
            address=coordinator.address,
            api_secret=API_SECRET,
            unary_timeout=60,
            # Answers follow each other faster than in life; what is shared has tests of its own.
            shared_reads=0,
            read_attempts=1,
            reconnect_min=0.1,
            reconnect_max=0.1,
        ),
        database=patient(keys.dsn),
        hub=HubSettings(linger=0),
        drive=DriveSettings(dir=tmp_path),
    )


@pytest.fixture
async def start(
    aiohttp_client: MakeClient, coordinator: ScriptedCoordinator, keys: Keys
) -> AsyncIterator[Callable[[Settings], Awaitable[Gateway]]]:
    """Starts a gateway with these settings."""

    apps: list[web.Application] = []

    async def start(settings: Settings) -> Gateway:
        app = create_app(settings)
        apps.append(app)
        return Gateway(await aiohttp_client(GatewayServer(app)), app, coordinator, keys)

    yield start
    for app in apps:
        written("metrics", app[METRICS].render("")[0])


@pytest.fixture
async def gateway(start: Callable[[Settings], Awaitable[Gateway]], settings: Settings) -> Gateway:
    return await start(settings)
