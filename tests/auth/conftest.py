"""An identity provider, and a session to ask it with."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from app.auth.settings import AuthSettings
from app.scaikey.http import open_session
from tests.auth.scripted_issuer import ISSUER, ScriptedIssuer
from tests.secrecy import secret


class Clock:
    """A clock that a test turns."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with ScriptedIssuer().running() as issuer:
        yield issuer


@pytest.fixture
def auth(issuer: ScriptedIssuer) -> AuthSettings:
    return AuthSettings(
        issuer=ISSUER,
        jwks_url=issuer.jwks_url,
        token_url=issuer.token_url,
        client_id="the gateway",
        client_secret=secret("s:ecret +"),
        http_timeout=10.0,
    )


@pytest.fixture
async def session(auth: AuthSettings) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(timeout=auth.http_timeout) as session:
        yield session
