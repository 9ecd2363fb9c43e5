"""Two gateways on one machine behind nginx, as deploy/nginx has it."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from app.scaikey.api_keys import create_key
from tests.deploy.ingress import nginx
from tests.deploy.processes import PROJECT, Replica, replicas
from tests.hub.log_coordinator import one_job
from tests.ports import free_ports

CONFIGURATION = PROJECT / "deploy/nginx/scaimind.conf"
API = "/v1/modules/scaimind"
#: So many that chance cannot give all of them to one of two gateways.
JOBS = [f"job-{number}" for number in range(40)]
PATIENCE = 60.0

_MAIN = """
daemon off;
{user}
worker_processes 2;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include scaimind.conf;
}}
"""


def configured(folder: Path, front: int, gateways: list[int]) -> str:
    """The file as it is, but for the ports, and what includes it."""
    text = CONFIGURATION.read_text()
    for given, port in zip((8080, 8081, 8082), (front, *gateways), strict=True):
        assert text.count(f"127.0.0.1:{given};") + text.count(f"127.0.0.1:{given} ") == 1
        text = text.replace(f"127.0.0.1:{given}", f"127.0.0.1:{port}")
    (folder / "scaimind.conf").write_text(text)
    return _MAIN.format(user="user root;" if os.geteuid() == 0 else "")


async def upstreams(gateways: list[Replica]) -> list[float]:
    return [await each.metric("scaimind_upstream_streams") for each in gateways]


async def test_the_watchers_of_a_job_meet_on_one_gateway_and_move_when_it_goes(
    migrated_dsn: str, tmp_path: Path
) -> None:
    key = create_key(migrated_dsn, tenant_id="acme", user_id="ann", roles=["tenant_viewer"]).secret
    front, *ports = free_ports(3)
    (tmp_path / "nginx").mkdir()
    async with (
        one_job() as coordinator,
        replicas(ports, coordinator=coordinator.address, dsn=migrated_dsn) as gateways,
        nginx(tmp_path / "nginx", configured(tmp_path / "nginx", front, ports), front),
        aiohttp.ClientSession(
            f"http://127.0.0.1:{front}",
            headers={"Authorization": f"Bearer {key}"},
            connector=aiohttp.TCPConnector(limit=0),
        ) as http,
    ):
        for job in JOBS:
            await coordinator.log("a line", job=job)
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as opened:
            for path in ("logs?tail=0", "metrics/stream", "logs?tail=0"):
                await watched(http, opened, path)
            met = await upstreams(gateways)
            assert sum(met) == len(JOBS)
            assert min(met) > 0
            async with http.get("/health") as answer:
                assert answer.status == 200

        gone, left = gateways
        assert await gone.stop() == 0
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as opened:
            await watched(http, opened, "logs?tail=0")
            assert await upstreams([left]) == [len(JOBS)]


async def watched(http: aiohttp.ClientSession, opened: AsyncExitStack, path: str) -> None:
    """Open a stream of each job; its first event is there."""
    for job in JOBS:
        answer = await opened.enter_async_context(http.get(f"{API}/jobs/{job}/{path}"))
        assert answer.status == 200, await answer.text()
        assert b"event: bookmark" in await answer.content.readuntil(b"\n\n")
