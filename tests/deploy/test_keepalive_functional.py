"""nginx keeps connections to the gateway: refusals, bodies and idle times cost no request."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.scaikey.api_keys import create_key
from tests.deploy.ingress import nginx, render
from tests.deploy.processes import Replica, replicas
from tests.hub.log_coordinator import JOB, LogCoordinator, one_job
from tests.ports import free_ports

API = "/v1/modules/scaimind"
KEPT = ["proxy_http_version 1.1;", 'proxy_set_header Connection "";', "client_max_body_size 0;"]
KiB = 1024


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


@pytest.fixture
def key(migrated_dsn: str) -> str:
    return create_key(migrated_dsn, tenant_id="acme", user_id="ann", roles=["tenant_viewer"]).secret


@pytest.fixture
async def gateway(coordinator: LogCoordinator, migrated_dsn: str) -> AsyncIterator[Replica]:
    async with replicas(free_ports(1), coordinator=coordinator.address, dsn=migrated_dsn) as made:
        yield made[0]


def exchanges(key: str) -> list[tuple[str, str, dict[str, Any], int]]:
    """Requests, and the status that each has to get."""
    token = {"Authorization": f"Bearer {key}"}
    refused = [
        ("POST", f"{API}/jobs", {"data": b"x" * size}, 401) for size in (1, 2 * KiB, 60 * KiB)
    ]
    return [
        ("GET", f"{API}/jobs/{JOB}", {"headers": token}, 200),
        ("GET", f"{API}/jobs", {}, 401),
        *refused,
        ("GET", "/health", {}, 200),
        ("POST", f"{API}/jobs", {"data": b"x" * 900 * KiB}, 401),
        ("POST", f"{API}/jobs", {"headers": token, "data": b"{}"}, 403),
        (
            "POST",
            f"{API}/stream-tickets",
            {"headers": token, "data": io.BytesIO(bytes(2048 * KiB))},
            413,
        ),
        ("POST", f"{API}/stream-tickets", {"headers": token, "json": {}}, 422),
        (
            "POST",
            f"{API}/stream-tickets",
            {"headers": token, "json": {"job_id": JOB, "kind": "logs"}},
            201,
        ),
        ("DELETE", f"{API}/jobs", {"data": b"x" * 300}, 405),
    ]


@pytest.mark.parametrize("buffering", ["on", "off"])
async def test_no_request_is_lost_on_connections_that_are_kept(
    gateway: Replica, key: str, tmp_path: Path, buffering: str
) -> None:
    (port,) = free_ports(1)
    location = [*KEPT, f"proxy_request_buffering {buffering};"]
    conf = render(port, [gateway.port], balance="keepalive 4;", location=location)
    wrong: list[Any] = []
    # One connection for each request: it is those behind nginx that are kept.
    connector = aiohttp.TCPConnector(force_close=True)
    async with nginx(tmp_path, conf, port), aiohttp.ClientSession(connector=connector) as http:

        async def ask(first: int) -> None:
            for number in range(first, first + 50):
                asked = exchanges(key)
                method, path, options, status = asked[number % len(asked)]
                url = f"http://127.0.0.1:{port}{path}"
                async with http.request(method, url, **options) as answer:
                    if answer.status != status:
                        wrong.append((method, path, answer.status, await answer.text()))

        async with asyncio.TaskGroup() as group:
            for first in range(6):
                group.create_task(ask(first))
    assert wrong == []
    assert gateway.complaints() == []
