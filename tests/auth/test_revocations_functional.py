"""A revoked key stops on every replica, open streams included, whatever breaks meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.auth.settings import AuthSettings
from app.database.connection import connected
from app.hub.settings import HubSettings
from app.scaikey.api_keys import revoke_key
from tests.hub.client import Watching
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.replicas import Replica, in_thread, new_key, replica, settings_for

KINDS = ("logs", "metrics")


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@pytest.fixture
async def replicas(migrated_dsn: str, coordinator: LogCoordinator) -> AsyncIterator[list[Replica]]:
    """Two gateways on one database, which hear of a revocation in one way: by being told."""
    settings = settings_for(migrated_dsn, coordinator.address)
    async with replica(settings) as one, replica(settings) as other:
        for each in (one, other):
            await listening(migrated_dsn, each)
        yield [one, other]


async def listening(dsn: str, gateway: Replica) -> None:
    """Wait until a gateway listens: a stream of a key that is revoked again and again ends."""
    key = await new_key(dsn, user="probe")
    async with gateway.watch(token=key.secret, tail=0) as probe:
        ending = asyncio.create_task(probe.next_named("error"))
        while not ending.done():
            await in_thread(revoke_key, dsn, key.key.key_id)
            await asyncio.wait((ending,), timeout=0.05)
        assert ending.result().data["code"] == "AUTH_EXPIRED"


def change(dsn: str, statement: str, *parameters: Any) -> None:
    """Change the table by hand: nobody is told."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)


REVOKE_IN_SILENCE = "UPDATE mod_scaimind_api_keys SET revoked_at = now() WHERE key_id = %s"
END_LISTENERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'scaimind-gateway-revocations' AND datname = current_database()
"""


async def ended(watching: Watching) -> None:
    """The stream tells that its credential has ended, and ends."""
    error = await watching.next_named("error")
    assert error.data == {"error": "stream ended", "code": "AUTH_EXPIRED", "retryable": False}
    assert await watching.rest() == []


async def test_every_replica_refuses_the_key_and_ends_its_streams(
    migrated_dsn: str, replicas: list[Replica], coordinator: LogCoordinator
) -> None:
    revoked, valid = [await new_key(migrated_dsn) for _ in range(2)]
    async with AsyncExitStack() as stack:
        both = [
            [
                await stack.enter_async_context(each.watch(kind, token=key.secret))
                for each in replicas
                for kind in KINDS
            ]
            for key in (revoked, valid)
        ]
        for watching in (*both[0], *both[1]):
            assert (await watching.next()).name == "bookmark"

        await in_thread(revoke_key, migrated_dsn, revoked.key.key_id)

        for watching in both[0]:
            await ended(watching)
        for each in replicas:
            assert (await each.ask("GET", f"/jobs/{JOB}", token=revoked.secret)).status == 401
            assert (await each.ask("GET", f"/jobs/{JOB}", token=valid.secret)).status == 200
        await coordinator.log("still here")
        for logs in both[1][::2]:
            assert await logs.logs(1) == ["still here"]


async def test_a_watcher_that_is_behind_and_one_that_stalls_are_ended_too(
    migrated_dsn: str, coordinator: LogCoordinator
) -> None:
    hub = HubSettings(linger=0, history_tail=0, write_timeout=3600)
    settings = settings_for(migrated_dsn, coordinator.address, hub=hub)
    key = await new_key(migrated_dsn)
    async with replica(settings) as gateway:
        await listening(migrated_dsn, gateway)
        await coordinator.log(*("x" * 1000 for _ in range(20_000)))
        async with (
            gateway.watch(token=key.secret, tail=0) as live,
            gateway.watch(token=key.secret, tail=20_000, receive_buffer=4096) as stalled,
        ):
            await live.next()
            await stalled.next()
            assert len(gateway.hub.streams) == 2
            # One that waits for a page of the log.
            coordinator.answering.clear()
            async with gateway.watch(token=key.secret, last_event_id="e1:1") as behind:
                await behind.next()
                await in_thread(revoke_key, migrated_dsn, key.key.key_id)
                await ended(live)
                await ended(behind)
                # It takes nothing, so it cannot be told; what is on its way is all that it gets.
                events = await stalled.salvage()
                assert len(events) < 20_000
                assert gateway.hub.credentials() == set()
            coordinator.answering.set()


async def test_a_stream_that_is_being_opened_is_not_overlooked(
    migrated_dsn: str, coordinator: LogCoordinator
) -> None:
    hub = HubSettings(linger=0, history_tail=0)
    settings = settings_for(migrated_dsn, coordinator.address, hub=hub)
    key = await new_key(migrated_dsn)
    await coordinator.log("one", "two")
    async with replica(settings) as gateway:
        await listening(migrated_dsn, gateway)
        async with gateway.watch(token=key.secret, tail=0) as witness:
            await witness.next()
            coordinator.answering.clear()
            late = gateway.watch(token=key.secret, tail=2)
            opening = asyncio.create_task(late.__aenter__())
            async with asyncio.timeout(60), coordinator.changed:
                await coordinator.changed.wait_for(lambda: coordinator.reads)
            await in_thread(revoke_key, migrated_dsn, key.key.key_id)
            await ended(witness)
            coordinator.answering.set()
            async with asyncio.timeout(60):
                await opening
            try:
                assert "AUTH_EXPIRED" in [
                    event.data["code"] for event in await late.rest() if event.name == "error"
                ]
                assert gateway.hub.credentials() == set()
            finally:
                await late.close()


async def test_what_was_said_while_nobody_listened_is_asked_for(
    migrated_dsn: str, replicas: list[Replica]
) -> None:
    first, second = [await new_key(migrated_dsn) for _ in range(2)]
    async with AsyncExitStack() as stack:
        streams = {
            key: [
                await stack.enter_async_context(each.watch(kind, token=key.secret))
                for each in replicas
                for kind in KINDS
            ]
            for key in (first, second)
        }
        await in_thread(change, migrated_dsn, REVOKE_IN_SILENCE, first.key.key_id)
        await in_thread(change, migrated_dsn, END_LISTENERS)
        for watching in streams[first]:
            await ended(watching)
        # And they listen again.
        await in_thread(revoke_key, migrated_dsn, second.key.key_id)
        for watching in streams[second]:
            await ended(watching)


async def test_without_notifications_the_keys_in_use_are_looked_up(
    migrated_dsn: str, coordinator: LogCoordinator
) -> None:
    auth = AuthSettings(key_ttl=0.1, recheck_interval=0.1)
    settings = settings_for(migrated_dsn, coordinator.address, auth=auth)
    revoked, expired, deleted, valid = [await new_key(migrated_dsn) for _ in range(4)]
    async with replica(settings) as gateway, AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(gateway.watch(token=key.secret))
            for key in (revoked, expired, deleted, valid)
        ]
        await in_thread(change, migrated_dsn, REVOKE_IN_SILENCE, revoked.key.key_id)
        await ended(streams[0])
        await in_thread(
            change,
            migrated_dsn,
            "UPDATE mod_scaimind_api_keys SET expires_at = now() WHERE key_id = %s",
            expired.key.key_id,
        )
        await ended(streams[1])
        await in_thread(
            change,
            migrated_dsn,
            "DELETE FROM mod_scaimind_api_keys WHERE key_id = %s",
            deleted.key.key_id,
        )
        await ended(streams[2])
        for key in (revoked, expired, deleted):
            assert (await gateway.ask("GET", f"/jobs/{JOB}", token=key.secret)).status == 401
        await coordinator.log("still here")
        assert await streams[3].logs(1) == ["still here"]


async def test_streams_end_when_their_key_does(
    migrated_dsn: str, coordinator: LogCoordinator
) -> None:
    key = await new_key(
        migrated_dsn,
        roles=["tenant_viewer"],
        expires_at=datetime.now(UTC) + timedelta(seconds=8),
    )
    async with (
        replica(settings_for(migrated_dsn, coordinator.address)) as gateway,
        gateway.watch(token=key.secret) as logs,
        gateway.watch("metrics", token=key.secret) as metrics,
    ):
        assert (logs.status, metrics.status) == (200, 200)
        await ended(logs)
        await ended(metrics)
        assert (await gateway.ask("GET", f"/jobs/{JOB}", token=key.secret)).status == 401
