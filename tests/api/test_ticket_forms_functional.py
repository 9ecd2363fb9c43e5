"""A ticket names the form of a log, or a search: it opens nothing else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.scaikey.api_keys import NewKey, revoke_key
from generated.mindcoordinator.v1 import logs_pb2
from tests.api.endpoints import PREFIX
from tests.hub.downloads import Download, download
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.replicas import Replica, in_thread, new_key, replica, settings_for


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        await running.log("one", "two")
        await running.end()
        running.found = [
            logs_pb2.SearchJobLogsResponse(
                epoch="e1", scanned_to=1, end=logs_pb2.SEARCH_END_EXHAUSTED
            )
        ]
        yield running


@pytest.fixture
async def gateway(migrated_dsn: str, coordinator: LogCoordinator) -> AsyncIterator[Replica]:
    async with replica(settings_for(migrated_dsn, coordinator.address)) as gateway:
        yield gateway


@pytest.fixture
async def key(migrated_dsn: str) -> NewKey:
    return await new_key(migrated_dsn)


async def ticket(gateway: Replica, key: NewKey, kind: str = "logs", **body: Any) -> str:
    answer = await gateway.ask(
        "POST",
        "/stream-tickets",
        token=key.secret,
        json={"job_id": JOB, "kind": kind, **body},
    )
    assert answer.status == 201
    assert answer.data["format"] == body.get("format", "sse")
    secret: str = answer.data["ticket"]
    return secret


async def opened(
    gateway: Replica, secret: str, path: str, headers: dict[str, str] | None = None
) -> Download:
    assert gateway.server.port is not None
    separator = "&" if "?" in path else "?"
    return await download(
        ("127.0.0.1", gateway.server.port),
        f"{PREFIX}/jobs/{JOB}/{path}{separator}ticket={secret}",
        headers=headers,
    )


@pytest.mark.parametrize("form", ["text", "ndjson"])
async def test_a_link_downloads_the_log_in_the_form_of_its_ticket(
    gateway: Replica, key: NewKey, form: str
) -> None:
    link = f"logs?format={form}&follow=false&from=1"
    got = await opened(gateway, await ticket(gateway, key, format=form), link)
    assert (got.status, got.complete, len(got.lines)) == (200, True, 2 + (form == "ndjson"))
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert got.headers["vary"].startswith("Accept, Accept-Encoding")
    # By the header it is the same form.
    accept = {"text": "text/plain", "ndjson": "application/x-ndjson"}[form]
    secret = await ticket(gateway, key, format=form)
    assert (await opened(gateway, secret, "logs", {"Accept": accept})).status == 200


@pytest.mark.parametrize(
    ("made", "path"),
    [
        ({"format": "text"}, "logs"),
        ({"format": "text"}, "logs?format=ndjson"),
        ({"format": "text"}, "logs?format=nothing"),
        ({}, "logs?format=text"),
        ({}, "logs/search?contains=a"),
        ({"kind": "search"}, "logs"),
        ({"kind": "search"}, "metrics/stream"),
        ({"kind": "metrics"}, "logs/search?contains=a"),
    ],
)
async def test_a_ticket_opens_nothing_else(
    gateway: Replica, key: NewKey, made: dict[str, Any], path: str
) -> None:
    got = await opened(gateway, await ticket(gateway, key, **made), path)
    assert (got.status, b"AUTH_TICKET_INVALID" in got.body) == (401, True)


async def test_a_ticket_opens_one_search(gateway: Replica, key: NewKey) -> None:
    secret = await ticket(gateway, key, "search")
    got = await opened(gateway, secret, "logs/search?contains=a")
    assert got.status == 200
    assert b"event: done" in got.body
    assert (await opened(gateway, secret, "logs/search?contains=a")).status == 401


async def test_a_ticket_is_worth_what_its_key_is(
    migrated_dsn: str, gateway: Replica, key: NewKey
) -> None:
    secret = await ticket(gateway, key, format="text")
    await in_thread(revoke_key, migrated_dsn, key.key.key_id)
    assert (await opened(gateway, secret, "logs?format=text")).status == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "logs", "format": "xml"}, "format"),
        ({"kind": "metrics", "format": "text"}, "format"),
        ({"kind": "search", "format": "ndjson"}, "format"),
    ],
)
async def test_only_logs_have_forms(
    gateway: Replica, key: NewKey, body: dict[str, str], field: str
) -> None:
    answer = await gateway.ask(
        "POST", "/stream-tickets", token=key.secret, json={"job_id": JOB, **body}
    )
    assert answer.status == 422
    assert field.encode() in answer.body
