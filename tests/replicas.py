"""Replicas of the gateway, whole and over real sockets, in front of one coordinator."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.api.app_keys import HUB, METRICS
from app.auth.settings import AuthSettings
from app.bridge.settings import UpstreamSettings
from app.gateway.application import create_app
from app.gateway.routes import PREFIX
from app.gateway.settings import Settings
from app.hub.hub import Hub
from app.hub.settings import HubSettings
from app.scaikey.api_keys import NewKey, create_key
from tests.databases import patient
from tests.hub.client import Watching
from tests.hub.log_coordinator import JOB
from tests.secrecy import secret, written

T = TypeVar("T")

API_SECRET = secret("the-secret-between-gateway-and-coordinator")

_STREAMS = {"logs": "logs", "metrics": "metrics/stream"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return orjson.loads(self.body)["data"]

    @property
    def code(self) -> str:
        """The error's code."""
        code: str = orjson.loads(self.body)["error"]["code"]
        return code


@dataclass(frozen=True, slots=True)
class Replica:
    """One running gateway."""

    server: TestServer
    http: aiohttp.ClientSession
    app: web.Application

    @property
    def hub(self) -> Hub:
        return self.app[HUB]

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Make a request below the API's root."""
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.http.request(
            method,
            self.server.make_url(PREFIX + path),
            headers={**sent, **(headers or {})},
            **options,
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        if answer.status >= 400:
            written(f"answer {answer.status} to {method} {path}", answer.body)
        return answer

    def watch(
        self,
        kind: str = "logs",
        *,
        token: str | None = None,
        job: str = JOB,
        headers: dict[str, str] | None = None,
        receive_buffer: int | None = None,
        **query: Any,
    ) -> Watching:
        """A stream, to be entered."""
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        arguments = "&".join(f"{name}={value}" for name, value in query.items())
        path = "/events" if kind == "events" else f"/jobs/{job}/{_STREAMS[kind]}"
        assert self.server.port is not None
        return Watching(
            ("127.0.0.1", self.server.port),
            f"{PREFIX}{path}?{arguments}",
            headers={**sent, **(headers or {})},
            receive_buffer=receive_buffer,
            many=kind == "events",
        )


def settings_for(
    dsn: str, coordinator: str, *, api_secret: str = API_SECRET, **sections: Any
) -> Settings:
    """Settings of a gateway; sections in place of the usual ones by name."""
    usual: dict[str, Any] = {
        "upstream": UpstreamSettings(
            address=coordinator,
            api_secret=api_secret,
            unary_timeout=60,
            read_attempts=1,
            reconnect_min=0.1,
            reconnect_max=0.1,
        ),
        "database": patient(dsn),
        "hub": HubSettings(linger=0, keepalive_interval=60, bookmark_interval=60),
        # As late as can be, so that nothing is felt by asking anew.
        "auth": AuthSettings(key_ttl=3600, recheck_interval=3600),
    }
    return Settings(**{**usual, **sections})


@asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    """Run a gateway."""
    app = create_app(settings)
    server = TestServer(app)
    await server.start_server()
    try:
        async with aiohttp.ClientSession() as http:
            yield Replica(server, http, app)
    finally:
        await server.close()
        written("metrics", app[METRICS].render("")[0])


async def in_thread(call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Make a call that blocks; bounded, so that a test never hangs."""
    async with asyncio.timeout(60):
        return await asyncio.to_thread(call, *arguments, **named)


async def new_key(dsn: str, *, tenant: str = "acme", user: str = "ann", **grants: Any) -> NewKey:
    """Make a key; of a tenant_admin unless it is told what it may do."""
    given = grants or {"roles": ["tenant_admin"]}
    return await in_thread(create_key, dsn, tenant_id=tenant, user_id=user, **given)
