"""Who may open the stream over many jobs: tickets of a selection, revocation, tenants."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from app.auth.settings import AuthSettings
from app.scaikey.api_keys import NewKey, revoke_key
from tests.hub.states_coordinator import StatesCoordinator, tells_states
from tests.hub.test_events_functional import beginning, jobs_of, news
from tests.replicas import Answer, Replica, in_thread, new_key, replica, settings_for


@pytest.fixture
async def states() -> AsyncIterator[StatesCoordinator]:
    async with tells_states() as running:
        yield running


@pytest.fixture
async def gateway(migrated_dsn: str, states: StatesCoordinator) -> AsyncIterator[Replica]:
    await states.set_state("a")
    async with replica(settings_for(migrated_dsn, states.address)) as gateway:
        yield gateway


@pytest.fixture
async def key(migrated_dsn: str) -> NewKey:
    return await new_key(migrated_dsn)


async def ticket_for(gateway: Replica, key: NewKey, selection: str) -> Answer:
    return await gateway.ask(
        "POST",
        "/stream-tickets",
        token=key.secret,
        json={"kind": "events", "selection": selection},
    )


async def test_a_ticket_opens_its_selection_once(gateway: Replica, key: NewKey) -> None:
    made = await ticket_for(gateway, key, "status=TRAINING&include=logs,jobs")
    assert (made.status, made.data["job_id"], made.data["kind"]) == (201, None, "events")
    opened: dict[str, Any] = {"status": "TRAINING", "include": "jobs,logs", "tail": 0}
    async with gateway.watch("events", ticket=made.data["ticket"], **opened) as watching:
        events, place = await beginning(watching)
        assert jobs_of(events) == ["a"]
    async with gateway.watch("events", ticket=made.data["ticket"], **opened) as watching:
        assert (watching.status, watching.error["code"]) == (401, "AUTH_TICKET_INVALID")
    again = await ticket_for(gateway, key, "status=TRAINING&include=jobs,logs")
    async with gateway.watch(
        "events", ticket=again.data["ticket"], last_event_id=place, **opened
    ) as watching:
        events, _ = await beginning(watching)
        assert jobs_of(events) == []


@pytest.mark.parametrize(
    "opened", [{"status": "QUEUED"}, {}, {"status": "TRAINING", "level": "ERROR"}]
)
async def test_a_ticket_opens_no_other_selection(
    gateway: Replica, key: NewKey, opened: dict[str, Any]
) -> None:
    made = await ticket_for(gateway, key, "status=TRAINING")
    async with gateway.watch("events", ticket=made.data["ticket"], **opened) as watching:
        assert (watching.status, watching.error["code"]) == (401, "AUTH_TICKET_INVALID")
    async with gateway.watch("events", ticket=made.data["ticket"], status="TRAINING") as watching:
        # It was used up by that.
        assert watching.status == 401


async def test_a_ticket_of_another_kind_opens_nothing_here(gateway: Replica, key: NewKey) -> None:
    made = await gateway.ask(
        "POST", "/stream-tickets", token=key.secret, json={"kind": "logs", "job_id": "a"}
    )
    async with gateway.watch("events", ticket=made.data["ticket"]) as watching:
        assert watching.status == 401
    made = await ticket_for(gateway, key, "")
    async with gateway.watch("logs", job="a", ticket=made.data["ticket"]) as watching:
        assert watching.status == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "events", "job_id": "a"}, "job_id"),
        ({"kind": "logs", "selection": "status=TRAINING", "job_id": "a"}, "selection"),
        ({"kind": "events", "selection": "status=RUNS"}, "selection.status.0"),
        ({"kind": "events", "selection": quote("a=b")}, "selection.a=b"),
    ],
)
async def test_a_ticket_for_nothing_is_not_made(
    gateway: Replica, key: NewKey, body: dict[str, Any], field: str
) -> None:
    answer = await gateway.ask("POST", "/stream-tickets", token=key.secret, json=body)
    assert (answer.status, answer.code) == (422, "VALIDATION_ERROR")
    assert field in answer.body.decode()


async def test_a_revoked_key_ends_its_streams(
    migrated_dsn: str, states: StatesCoordinator, key: NewKey
) -> None:
    auth = AuthSettings(key_ttl=0.2, recheck_interval=0.2)
    other = await new_key(migrated_dsn, user="bob")
    async with (
        replica(settings_for(migrated_dsn, states.address, auth=auth)) as gateway,
        gateway.watch("events", token=key.secret) as watching,
        gateway.watch("events", token=other.secret) as stays,
    ):
        await beginning(watching)
        await beginning(stays)
        await in_thread(revoke_key, migrated_dsn, key.key.key_id)
        async with asyncio.timeout(60):
            assert (await news(watching)).data["code"] == "AUTH_EXPIRED"
            await watching.rest()
        await states.set_state("b")
        assert jobs_of([await news(stays)]) == ["b"]


async def test_each_tenant_has_a_stream_of_states_of_its_own(
    migrated_dsn: str, states: StatesCoordinator, gateway: Replica, key: NewKey
) -> None:
    rival = await new_key(migrated_dsn, tenant="rival", user="eve")
    async with (
        gateway.watch("events", token=key.secret) as ours,
        gateway.watch("events", token=rival.secret) as theirs,
    ):
        await beginning(ours)
        await beginning(theirs)
        assert states.open_states == 2
        tenants = [metadata["x-tenant-id"] for metadata in states.states_metadata]
        assert sorted(tenants) == ["acme", "rival"]
