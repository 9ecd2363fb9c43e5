"""Issuer, gateway and coordinator over real sockets, where one of them has a wrong clock."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.auth.settings import AuthSettings
from app.bridge.settings import UpstreamSettings
from app.coordinator.server import Coordinator
from app.gateway.application import create_app
from app.gateway.settings import Settings
from app.issuer.keys import SigningKeys
from app.issuer.server import create_issuer
from app.issuer.settings import IssuerSettings
from app.scaikey.api_keys import create_key
from tests.coordinator.harness import SECRET, config_for
from tests.databases import patient
from tests.secrecy import secret

Ask = Callable[[float], Awaitable[tuple[int, dict[str, Any]]]]

CLIENT_SECRET = secret("the-secret-of-the-gateway-at-the-issuer")


@pytest.fixture
async def issuer_url(tmp_path: Path, migrated_dsn: str) -> AsyncIterator[str]:
    keys = SigningKeys.load(
        tmp_path / "issuer", now=time.time(), max_age=3600, longest_lifetime=3600
    )
    app = create_issuer(
        IssuerSettings(client_secret=CLIENT_SECRET, token_lifetime=300),
        database=patient(migrated_dsn),
        keys=keys,
    )
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


@pytest.fixture
def ask(tmp_path: Path, migrated_dsn: str, issuer_url: str) -> Ask:
    """Ask for the data cache of a coordinator whose clock is so many seconds ahead."""
    key = create_key(migrated_dsn, tenant_id="local", user_id="ann", roles=["tenant_admin"])

    async def ask(ahead: float) -> tuple[int, dict[str, Any]]:
        config = config_for(
            tmp_path / "coordinator",
            jwks_url=f"{issuer_url}/.well-known/jwks.json",
            token_issuer=IssuerSettings(client_secret=CLIENT_SECRET).name,
        )

        def clock() -> int:
            return time.time_ns() // 1000 + int(ahead * 1e6)

        async with Coordinator(config, clock=clock) as coordinator:
            app: web.Application = create_app(
                Settings(
                    upstream=UpstreamSettings(
                        address=f"127.0.0.1:{coordinator.port}", api_secret=SECRET
                    ),
                    database=patient(migrated_dsn),
                    auth=AuthSettings(
                        token_url=f"{issuer_url}/oauth2/token",
                        client_id="scaimind-gateway",
                        client_secret=CLIENT_SECRET,
                    ),
                )
            )
            headers = {"Authorization": f"Bearer {key.secret}"}
            async with (
                TestClient(TestServer(app)) as client,
                client.get("/v1/modules/scaimind/data/cache", headers=headers) as answer,
            ):
                return answer.status, await answer.json()

    return ask


async def test_clocks_that_agree(ask: Ask) -> None:
    status, answer = await ask(0)
    assert (status, set(answer)) == (200, {"data"})


@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_clocks_that_differ_are_not_the_callers_fault(ask: Ask, ahead: float) -> None:
    status, answer = await ask(ahead)
    assert (status, answer["error"]["code"]) == (503, "CLOCK_SKEW")
    assert answer["error"]["retry_after"] == 30
