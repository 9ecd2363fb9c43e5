"""Stream tickets: one stream, once, within a minute, for whom and for what they were made."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import structlog

from app.api.settings import CorsSettings
from app.database.connection import connected
from app.scaikey.api_keys import NewKey, revoke_key
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.replicas import Answer, Replica, in_thread, new_key, replica, settings_for

KINDS = ("logs", "metrics")


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@pytest.fixture
async def gateway(migrated_dsn: str, coordinator: LogCoordinator) -> AsyncIterator[Replica]:
    async with replica(settings_for(migrated_dsn, coordinator.address)) as gateway:
        yield gateway


@pytest.fixture
async def key(migrated_dsn: str) -> NewKey:
    return await new_key(migrated_dsn)


async def get(
    gateway: Replica, key: NewKey, *, job: str = JOB, kind: str = "logs", **body: Any
) -> Answer:
    return await gateway.ask(
        "POST", "/stream-tickets", token=key.secret, json={"job_id": job, "kind": kind, **body}
    )


async def ticket(gateway: Replica, key: NewKey, **what: Any) -> str:
    answer = await get(gateway, key, **what)
    assert answer.status == 201
    secret: str = answer.data["ticket"]
    return secret


async def used(gateway: Replica, secret: str, kind: str = "logs", **where: Any) -> tuple[int, str]:
    """What a stream that is asked for with a ticket answers: status, and code of an error."""
    async with gateway.watch(kind, ticket=secret, **where) as watching:
        return watching.status, "" if watching.status == 200 else watching.error["code"]


def query(dsn: str, statement: str, *parameters: Any) -> list[Any]:
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_ticket_opens_its_stream_once_on_any_replica(
    migrated_dsn: str, gateway: Replica, coordinator: LogCoordinator, key: NewKey, kind: str
) -> None:
    answer = await get(gateway, key, kind=kind)
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    data = answer.data
    assert (data["job_id"], data["kind"]) == (JOB, kind)
    left = datetime.fromisoformat(data["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=20) < left <= timedelta(seconds=61)
    async with replica(settings_for(migrated_dsn, coordinator.address)) as other:
        async with other.watch(kind, ticket=data["ticket"]) as watching:
            assert watching.status == 200
            assert (await watching.next()).name == "bookmark"
        assert await used(other, data["ticket"], kind) == (401, "AUTH_TICKET_INVALID")
    assert await used(gateway, data["ticket"], kind) == (401, "AUTH_TICKET_INVALID")


async def test_of_many_who_use_it_at_once_one_gets_in(
    migrated_dsn: str, gateway: Replica, coordinator: LogCoordinator, key: NewKey
) -> None:
    secret = await ticket(gateway, key)
    async with replica(settings_for(migrated_dsn, coordinator.address)) as other:
        answers = await asyncio.gather(*(used(each, secret) for each in (gateway, other) * 8))
    assert sorted(answers) == [(200, "")] + [(401, "AUTH_TICKET_INVALID")] * 15


async def test_a_ticket_is_for_its_job_and_its_kind_alone(
    gateway: Replica, coordinator: LogCoordinator, key: NewKey
) -> None:
    coordinator.jobs["job-2"]
    for misuse in ({"kind": "metrics"}, {"job": "job-2"}, {"job": "nothing"}):
        secret = await ticket(gateway, key)
        assert await used(gateway, secret, **misuse) == (401, "AUTH_TICKET_INVALID")
        # It is used up by that.
        assert await used(gateway, secret) == (401, "AUTH_TICKET_INVALID")


@pytest.mark.parametrize(
    "secret", ["", "x", "sgt_" + "x" * 43, "%00", "sgt_%27%20OR%201=1", "x" * 2000]
)
async def test_a_ticket_that_was_never_made(gateway: Replica, secret: str) -> None:
    async with gateway.watch(ticket=secret) as watching:
        assert (watching.status, watching.error["code"]) == (401, "AUTH_TICKET_INVALID")
        assert watching.headers["www-authenticate"].startswith('Bearer realm="scaimind"')
        assert secret.encode() not in watching.body or len(secret) < 2


async def test_two_tickets_are_not_sent(gateway: Replica, key: NewKey) -> None:
    one, two = await ticket(gateway, key), await ticket(gateway, key)
    answer = await gateway.ask("GET", f"/jobs/{JOB}/logs?ticket={one}&ticket={two}")
    assert (answer.status, answer.code) == (401, "AUTH_TICKET_INVALID")


async def test_either_a_ticket_or_a_token_is_sent(gateway: Replica, key: NewKey) -> None:
    secret = await ticket(gateway, key)
    async with gateway.watch(ticket=secret, token=key.secret) as watching:
        assert (watching.status, watching.error["code"]) == (400, "MALFORMED_REQUEST")
    # Not used up: who sent it can send it properly.
    assert await used(gateway, secret) == (200, "")


@pytest.mark.parametrize("path", [f"/jobs/{JOB}", f"/jobs/{JOB}/metrics", "/jobs", "/cluster"])
async def test_only_streams_take_tickets(gateway: Replica, key: NewKey, path: str) -> None:
    secret = await ticket(gateway, key)
    answer = await gateway.ask("GET", path, params={"ticket": secret})
    assert (answer.status, answer.code) == (401, "AUTH_TOKEN_MISSING")
    answer = await gateway.ask("GET", path, params={"ticket": secret}, token=key.secret)
    assert (answer.status, answer.code) == (422, "VALIDATION_ERROR")
    assert secret.encode() not in answer.body


async def test_after_a_minute_it_is_too_late(
    migrated_dsn: str, gateway: Replica, key: NewKey
) -> None:
    secret = await ticket(gateway, key)
    await in_thread(
        query,
        migrated_dsn,
        "UPDATE mod_scaimind_stream_tickets SET expires_at = expires_at - interval '60 s'",
    )
    assert await used(gateway, secret) == (401, "AUTH_TICKET_INVALID")


async def test_expired_tickets_do_not_pile_up(
    migrated_dsn: str, gateway: Replica, key: NewKey
) -> None:
    for _ in range(20):
        await ticket(gateway, key)
    await in_thread(
        query,
        migrated_dsn,
        "UPDATE mod_scaimind_stream_tickets SET expires_at = now() - interval '1 s'",
    )
    await ticket(gateway, key)
    [(left,)] = await in_thread(
        query, migrated_dsn, "SELECT count(*) FROM mod_scaimind_stream_tickets"
    )
    assert left == 1


async def test_only_the_hash_is_kept(migrated_dsn: str, gateway: Replica, key: NewKey) -> None:
    secret = await ticket(gateway, key)
    [row] = await in_thread(query, migrated_dsn, "SELECT * FROM mod_scaimind_stream_tickets")
    assert bytes(row[0]) == hashlib.sha256(secret.encode()).digest()
    assert secret not in str(row)
    assert key.secret not in str(row)


async def test_who_may_not_see_the_job_gets_no_ticket(
    migrated_dsn: str, gateway: Replica, coordinator: LogCoordinator
) -> None:
    coordinator.tenants[JOB] = "acme"
    rival = await new_key(migrated_dsn, tenant="rival")
    hidden, unknown = await get(gateway, rival), await get(gateway, rival, job="job-0")
    assert (hidden.status, hidden.code) == (404, "JOB_NOT_FOUND")
    assert (unknown.status, unknown.code) == (404, "JOB_NOT_FOUND")
    assert (await get(gateway, rival, job="../etc")).code == "JOB_NOT_FOUND"
    blind = await new_key(migrated_dsn, permissions=["scaimind:manage"])
    assert (await get(gateway, blind)).code == "AUTHZ_PERMISSION_DENIED"


async def test_the_job_is_asked_for_again_when_the_ticket_is_used(
    gateway: Replica, coordinator: LogCoordinator, key: NewKey
) -> None:
    secret = await ticket(gateway, key)
    coordinator.tenants[JOB] = "somebody-else"
    assert await used(gateway, secret) == (404, "JOB_NOT_FOUND")
    coordinator.tenants.clear()
    secret = await ticket(gateway, key)
    coordinator.refusals["GetJob"] = (grpc.StatusCode.PERMISSION_DENIED, "not any more")
    assert (await used(gateway, secret))[0] == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "everything"}, "kind"),
        ({"kind": None}, "kind"),
        ({"job_id": 5}, "job_id"),
        ({"job": "x"}, "job"),
    ],
)
async def test_what_a_ticket_is_asked_for_with(
    gateway: Replica, key: NewKey, body: dict[str, Any], field: str
) -> None:
    answer = await gateway.ask(
        "POST",
        "/stream-tickets",
        token=key.secret,
        json={"job_id": JOB, "kind": "logs", **body},
    )
    assert (answer.status, answer.code) == (422, "VALIDATION_ERROR")
    assert f'"field":"{field}"'.encode() in answer.body


async def test_a_ticket_does_not_outlive_its_credential(
    migrated_dsn: str, gateway: Replica, key: NewKey
) -> None:
    secret = await ticket(gateway, key)
    await in_thread(revoke_key, migrated_dsn, key.key.key_id)
    assert await used(gateway, secret) == (401, "AUTH_TICKET_INVALID")
    expiring = await new_key(migrated_dsn)
    secret = await ticket(gateway, expiring)
    await in_thread(
        query,
        migrated_dsn,
        "UPDATE mod_scaimind_stream_tickets SET credential_expires_at = now()",
    )
    assert await used(gateway, secret) == (401, "AUTH_TICKET_INVALID")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_by_ticket_ends_when_its_credential_is_revoked(
    migrated_dsn: str, gateway: Replica, key: NewKey, kind: str
) -> None:
    async with gateway.watch(kind, ticket=await ticket(gateway, key, kind=kind)) as watching:
        await watching.next()
        ending = asyncio.create_task(watching.next_named("error"))
        while not ending.done():
            # Again and again: the replica may not be listening yet.
            await in_thread(revoke_key, migrated_dsn, key.key.key_id)
            await asyncio.wait((ending,), timeout=0.05)
        assert ending.result().data["code"] == "AUTH_EXPIRED"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_by_ticket_ends_when_its_credential_does(
    migrated_dsn: str, gateway: Replica, kind: str
) -> None:
    # Long enough for a ticket and a stream on a machine with much to do.
    soon = datetime.now(UTC) + timedelta(seconds=8)
    key = await new_key(migrated_dsn, roles=["tenant_viewer"], expires_at=soon)
    async with gateway.watch(kind, ticket=await ticket(gateway, key, kind=kind)) as watching:
        assert watching.status == 200
        assert (await watching.next_named("error")).data["code"] == "AUTH_EXPIRED"


async def test_a_ticket_is_in_no_log(gateway: Replica, key: NewKey) -> None:
    with structlog.testing.capture_logs() as events:
        secret = await ticket(gateway, key)
        assert await used(gateway, secret) == (200, "")
        assert await used(gateway, secret) == (401, "AUTH_TICKET_INVALID")
    assert [event["reason"] for event in events if event["event"] == "ticket_refused"] == [
        "it does not exist or was already used"
    ]
    assert secret[4:] not in str(events)
    assert key.secret[4:] not in str(events)


async def test_a_page_of_a_listed_origin_reads_streams(
    migrated_dsn: str, coordinator: LogCoordinator, key: NewKey
) -> None:
    page = "https://app.example.com"
    cors = CorsSettings(origins=(page,))
    async with replica(settings_for(migrated_dsn, coordinator.address, cors=cors)) as gateway:
        for kind in KINDS:
            secret = await ticket(gateway, key, kind=kind)
            async with gateway.watch(kind, ticket=secret, headers={"Origin": page}) as watching:
                assert watching.status == 200
                assert watching.headers["access-control-allow-origin"] == page
                assert watching.headers["vary"] == "Origin"
                assert watching.headers["x-content-type-options"] == "nosniff"
                assert watching.headers["cache-control"].startswith("no-")
                assert watching.headers["content-type"].startswith("text/event-stream")


async def test_a_stream_is_not_opened_by_head(gateway: Replica, key: NewKey) -> None:
    secret = await ticket(gateway, key)
    answer = await gateway.ask("HEAD", f"/jobs/{JOB}/logs", params={"ticket": secret})
    assert answer.status == 405
    assert await used(gateway, secret) == (200, "")
