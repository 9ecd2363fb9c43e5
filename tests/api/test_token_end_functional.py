"""One rule for a token's end: a token in its leeway counts for requests, streams and tickets."""

import time
from collections.abc import AsyncIterator

import pytest

from app.auth.settings import AuthSettings
from app.hub.settings import HubSettings
from tests.auth.scripted_issuer import ISSUER, ScriptedIssuer, claims, signed
from tests.hub.client import Watching
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.replicas import Replica, replica, settings_for

KINDS = ("logs", "metrics")
LEEWAY = 300


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@pytest.fixture
async def gateway(migrated_dsn: str, coordinator: LogCoordinator) -> AsyncIterator[Replica]:
    async with ScriptedIssuer().running() as issuer:
        auth = AuthSettings(issuer=ISSUER, jwks_url=issuer.jwks_url, leeway=LEEWAY)
        hub = HubSettings(linger=0, keepalive_interval=0.05)
        settings = settings_for(migrated_dsn, coordinator.address, auth=auth, hub=hub)
        async with replica(settings) as gateway:
            yield gateway


def expired(seconds: float) -> str:
    now = time.time()
    return signed(claims(now - 3600, exp=int(now - seconds)))


async def stays_open(watching: Watching) -> None:
    """Each look of the hub at its streams writes a keepalive, or ends those that are expired."""
    assert watching.status == 200
    for _ in range(4):
        assert await watching.read(65536)
    assert "error" not in [event.name for event in watching.events]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_of_a_token_in_its_leeway_stays_open(
    gateway: Replica, coordinator: LogCoordinator, kind: str
) -> None:
    async with gateway.watch(kind, token=expired(60)) as watching:
        await stays_open(watching)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_ticket_of_a_token_in_its_leeway_opens_a_stream(
    gateway: Replica, coordinator: LogCoordinator, kind: str
) -> None:
    answer = await gateway.ask(
        "POST", "/stream-tickets", token=expired(60), json={"job_id": JOB, "kind": kind}
    )
    assert answer.status == 201
    async with gateway.watch(kind, ticket=answer.data["ticket"]) as watching:
        await stays_open(watching)


async def test_beyond_it_nothing_is_opened(gateway: Replica) -> None:
    for method, path in (("GET", "/jobs"), ("GET", f"/jobs/{JOB}/logs")):
        answer = await gateway.ask(method, path, token=expired(LEEWAY + 60))
        assert (answer.status, answer.code) == (401, "AUTH_TOKEN_INVALID")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_ends_where_the_leeway_does(
    gateway: Replica, coordinator: LogCoordinator, kind: str
) -> None:
    async with gateway.watch(kind, token=expired(LEEWAY - 3)) as watching:
        assert watching.status == 200
        assert (await watching.next_named("error")).data["code"] == "AUTH_EXPIRED"
        assert watching.status == 200
