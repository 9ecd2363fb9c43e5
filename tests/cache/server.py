"""A PostgreSQL of one test's own, to be stopped and started, and a gateway on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.api.app_keys import METRICS
from app.auth.settings import AuthSettings
from app.bridge.settings import UpstreamSettings
from app.cache.settings import CacheSettings
from app.database.migrate import migrate
from app.database.settings import DatabaseSettings
from app.gateway.application import create_app
from app.gateway.routes import PREFIX
from app.gateway.settings import Settings
from app.hub.settings import HubSettings
from app.local.bootstrap import make_database
from app.local.data_dir import DataDir
from app.local.postgres import Postgres, socket_folder
from app.telemetry.metrics import Metrics
from tests.auth.scripted_issuer import ISSUER, ScriptedIssuer, claims, signed
from tests.scripted_coordinator import ScriptedCoordinator

PATIENCE = 60.0


@asynccontextmanager
async def own_server(folder: Path) -> AsyncIterator[Postgres]:
    """Starts it, with the newest schema."""
    data_dir = DataDir(folder)
    data_dir.prepare()
    with socket_folder(data_dir) as sockets, data_dir.children_lock() as lock:
        server = Postgres(
            data_dir, tell=lambda line: None, holding=lock.descriptor, socket_folder=sockets
        )
        async with asyncio.timeout(PATIENCE):
            await start(server)
        try:
            await asyncio.to_thread(migrate, server.dsn)
            yield server
        finally:
            await server.service.stop()


async def start(server: Postgres) -> None:
    await server.start()
    await server.during(asyncio.to_thread(make_database, server.dsn, server.data_dir))


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway whose callers come with JWTs, which are checked without the database."""

    app: web.Application
    client: TestClient[web.Request, web.Application]
    coordinator: ScriptedCoordinator

    @property
    def metrics(self) -> Metrics:
        return self.app[METRICS]

    def authorization(self, tenant: str = "acme") -> dict[str, str]:
        """Of a user who may do everything."""
        token = signed(claims(time.time(), tenant_id=tenant, roles=["tenant_admin"]))
        return {"Authorization": f"Bearer {token}"}

    async def ask(self, path: str, *, tenant: str = "acme", **headers: str) -> tuple[int, Any]:
        """Status and body of a GET."""
        sent = self.authorization(tenant)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(PREFIX + path, headers=sent) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and body of a POST."""
        async with self.client.post(
            PREFIX + path, headers=self.authorization(), json=body
        ) as response:
            return response.status, await response.json()

    async def until(self, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Waits for what happens in the background and tells nobody."""
        async with asyncio.timeout(PATIENCE):
            while True:
                met = condition()
                if met if isinstance(met, bool) else await met:
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def gateway_on(
    dsn: str, *, statement_timeout: float = 30.0, **cache: Any
) -> AsyncIterator[Gateway]:
    async with ScriptedCoordinator() as coordinator, ScriptedIssuer().running() as issuer:
        settings = Settings(
            upstream=UpstreamSettings(
                address=coordinator.address,
                api_secret="the-deployment-secret",
                read_attempts=1,
                reconnect_min=0.1,
                reconnect_max=0.1,
            ),
            database=DatabaseSettings(
                dsn=dsn, connect_timeout=30, statement_timeout=statement_timeout
            ),
            cache=CacheSettings(**{"flush_interval": 0.01, **cache}),
            auth=AuthSettings(issuer=ISSUER, jwks_url=issuer.jwks_url),
            hub=HubSettings(linger=0),
        )
        app = create_app(settings)
        async with TestClient(TestServer(app)) as client:
            yield Gateway(app, client, coordinator)
