"""A browser signs in by a code, for a token of its own that ends with the one behind it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from app.database.connection import connected
from app.scaikey.api_keys import NewKey, revoke_key
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.replicas import Answer, Replica, in_thread, new_key, replica, settings_for


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


async def code_of(gateway: Replica, token: str) -> str:
    answer = await gateway.ask("POST", "/console-codes", token=token)
    assert answer.status == 201
    code: str = answer.data["code"]
    return code


async def exchange(gateway: Replica, code: str) -> Answer:
    return await gateway.ask("POST", "/console-sessions", token=None, json={"code": code})


async def session(gateway: Replica, token: str) -> str:
    answer = await exchange(gateway, await code_of(gateway, token))
    assert answer.status == 201
    made: str = answer.data["token"]
    return made


async def status_of(gateway: Replica, token: str) -> tuple[int, str]:
    answer = await gateway.ask("GET", f"/jobs/{JOB}", token=token)
    return answer.status, "" if answer.status == 200 else answer.code


async def test_a_code_is_exchanged_once_on_any_replica(
    migrated_dsn: str, gateway: Replica, coordinator: LogCoordinator, key: NewKey
) -> None:
    code = await code_of(gateway, key.secret)
    async with replica(settings_for(migrated_dsn, coordinator.address)) as other:
        answers = await asyncio.gather(*(exchange(each, code) for each in (gateway, other)))
        assert sorted(answer.status for answer in answers) == [201, 401]
        [refused] = [answer for answer in answers if answer.status == 401]
        assert refused.code == "AUTH_CODE_INVALID"
        [made] = [answer for answer in answers if answer.status == 201]
        for each in (gateway, other):
            assert await status_of(each, made.data["token"]) == (200, "")
    ends = datetime.fromisoformat(made.data["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11) < ends <= timedelta(hours=12)


async def test_a_code_is_no_token_and_a_session_is_no_code(gateway: Replica, key: NewKey) -> None:
    code = await code_of(gateway, key.secret)
    assert await status_of(gateway, code) == (401, "AUTH_TOKEN_INVALID")
    token = await session(gateway, key.secret)
    assert (await exchange(gateway, token)).code == "AUTH_CODE_INVALID"


async def test_a_session_has_the_rights_of_its_key_and_no_more(
    migrated_dsn: str, gateway: Replica
) -> None:
    viewer = await new_key(migrated_dsn, roles=(), permissions=("scaimind:view",))
    token = await session(gateway, viewer.secret)
    assert await status_of(gateway, token) == (200, "")
    answer = await gateway.ask("POST", f"/jobs/{JOB}/cancel", token=token, json={})
    assert answer.code == "AUTHZ_PERMISSION_DENIED"


async def test_a_revoked_key_ends_its_sessions_codes_and_streams(
    migrated_dsn: str, gateway: Replica, key: NewKey
) -> None:
    token, code = await session(gateway, key.secret), await code_of(gateway, key.secret)
    async with gateway.watch("logs", token=token) as watching:
        assert watching.status == 200
        ending = asyncio.create_task(watching.next_named("error"))
        while not ending.done():
            # Again and again: the replica may not be listening yet.
            await in_thread(revoke_key, migrated_dsn, key.key.key_id)
            await asyncio.wait((ending,), timeout=0.05)
        assert ending.result().data["code"] == "AUTH_EXPIRED"
    assert await status_of(gateway, token) == (401, "AUTH_TOKEN_INVALID")
    assert (await exchange(gateway, code)).code == "AUTH_CODE_INVALID"


async def test_a_session_ends_with_its_key(migrated_dsn: str, gateway: Replica) -> None:
    ends = datetime.now(UTC) + timedelta(hours=2)
    key = await new_key(migrated_dsn, roles=["tenant_admin"], expires_at=ends)
    answer = await exchange(gateway, await code_of(gateway, key.secret))
    assert abs(datetime.fromisoformat(answer.data["expires_at"]) - ends) < timedelta(seconds=1)


async def test_a_session_makes_no_further_ones(gateway: Replica, key: NewKey) -> None:
    answer = await gateway.ask("POST", "/console-codes", token=await session(gateway, key.secret))
    assert (answer.status, answer.code) == (403, "AUTHZ_PERMISSION_DENIED")


@pytest.mark.parametrize("kind", ["code", "session"])
async def test_what_has_expired_is_refused_and_swept(
    migrated_dsn: str, gateway: Replica, key: NewKey, kind: str
) -> None:
    made = {"code": code_of, "session": session}[kind]
    secret = await made(gateway, key.secret)
    await in_thread(_change, migrated_dsn, "expires_at = now() - interval '1 second'")
    if kind == "code":
        assert (await exchange(gateway, secret)).code == "AUTH_CODE_INVALID"
    else:
        assert await status_of(gateway, secret) == (401, "AUTH_TOKEN_INVALID")
    await code_of(gateway, key.secret)
    assert await in_thread(_count, migrated_dsn) == 1


async def test_signing_out_ends_the_session_and_nothing_else(gateway: Replica, key: NewKey) -> None:
    one, two = [await session(gateway, key.secret) for _ in range(2)]
    assert (await gateway.ask("DELETE", "/console-sessions/current", token=one)).status == 200
    assert await status_of(gateway, one) == (401, "AUTH_TOKEN_INVALID")
    assert await status_of(gateway, two) == (200, "")
    answer = await gateway.ask("DELETE", "/console-sessions/current", token=key.secret)
    assert answer.code == "NOT_FOUND"


async def ticket_of(gateway: Replica, token: str) -> str:
    body = {"job_id": JOB, "kind": "logs"}
    answer = await gateway.ask("POST", "/stream-tickets", token=token, json=body)
    assert answer.status == 201
    made: str = answer.data["ticket"]
    return made


async def test_signing_out_ends_all_that_the_session_has_open_on_every_replica(
    migrated_dsn: str, gateway: Replica, coordinator: LogCoordinator, key: NewKey
) -> None:
    one, two = [await session(gateway, key.secret) for _ in range(2)]
    async with (
        replica(settings_for(migrated_dsn, coordinator.address)) as other,
        other.watch("logs", token=one) as log,
        other.watch("events", token=one, job_id=JOB) as events,
        gateway.watch("logs", ticket=await ticket_of(other, one)) as by_ticket,
        other.watch("logs", token=two) as of_another_session,
        other.watch("logs", token=key.secret) as of_the_key,
    ):
        unused = await ticket_of(gateway, one)
        assert (await gateway.ask("DELETE", "/console-sessions/current", token=one)).status == 200
        for watching in (log, events, by_ticket):
            assert watching.status == 200
            while (event := await watching.next()).name != "error":
                assert event.name in ("bookmark", "job", "synced")
            assert event.data["code"] == "AUTH_EXPIRED"
        async with other.watch("logs", ticket=unused) as refused:
            assert refused.status == 401
        # Nothing else has ended.
        await coordinator.log("more")
        for watching in (of_another_session, of_the_key):
            assert watching.status == 200
            assert (await watching.next_named("log")).data["message"] == "more"


async def test_the_database_has_neither_the_secrets_nor_the_key(
    migrated_dsn: str, gateway: Replica, key: NewKey
) -> None:
    code, token = await code_of(gateway, key.secret), await session(gateway, key.secret)
    stored = await in_thread(_dump, migrated_dsn)
    assert len(stored) == 2
    for secret in (code, token, key.secret):
        assert all(secret not in row for row in stored)


async def test_making_using_and_ending_are_audited(gateway: Replica, key: NewKey) -> None:
    with structlog.testing.capture_logs() as logs:
        token = await session(gateway, key.secret)
        await gateway.ask("DELETE", "/console-sessions/current", token=token)
        await exchange(gateway, "sgo_unknown")
    trail = [event for event in logs if event["event"] == "audit"]
    assert [(event["action"], event["outcome"]) for event in trail] == [
        ("console_code.create", "ok"),
        ("console_session.create", "ok"),
        ("console_session.end", "ok"),
        ("console_session.create", "AUTH_CODE_INVALID"),
    ]
    assert {event["credential_id"] for event in trail[:3]} == {key.key.key_id}


def _change(dsn: str, what: str) -> None:
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(f"UPDATE mod_scaimind_console_sessions SET {what}")


def _count(dsn: str) -> int:
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM mod_scaimind_console_sessions")
        row = cursor.fetchone()
    assert row is not None
    count: int = row[0]
    return count


def _dump(dsn: str) -> list[str]:
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(s)::text FROM mod_scaimind_console_sessions AS s")
        return [row[0] for row in cursor.fetchall()]
