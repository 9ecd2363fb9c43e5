"""The command behind nginx, and behind a proxy that cuts, while everything is restarted.

It gets every line once, and leaves with the job's status.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from scaimind import AsyncClient, LogLine
from scaimind.core.events import LogEnded

from app.scaikey.api_keys import create_key
from tests.deploy.ingress import configuration, nginx
from tests.deploy.processes import PATIENCE, PROJECT, coordinator, replicas
from tests.ports import free_ports

API = "/v1/modules/scaimind"
TENANT = "acme"
LINES = 2000
SCRIPT = f"""
import time
for number in range(1, {LINES} + 1):
    print(f"line {{number}}", flush=True)
    time.sleep(0.01)
raise SystemExit(1)
"""
SUBMISSION = {
    "name": "followed",
    "training_config": {
        "training_type": "SFT",
        "base_model": {"model_id": "none"},
        "framework": {"type": "CUSTOM", "custom_script_path": f"scaidrive://{TENANT}/train.py"},
    },
    "data_config": {"sources": []},
    "resource_config": {"cpu_count": 1},
}


@asynccontextmanager
async def cutting_proxy(port: int, server: int, seconds: float) -> AsyncIterator[None]:
    """A proxy that resets each connection when it is so old, wherever it is."""
    writers: set[asyncio.StreamWriter] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", server)
        writers.update((writer, behind))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.gather(pipe(reader, behind), pipe(behind_reader, writer))
        finally:
            for each in (writer, behind):
                writers.discard(each)
                each.transport.abort()

    serving = await asyncio.start_server(serve, "127.0.0.1", port)
    async with serving:
        yield
        serving.close()
        for each in list(writers):
            each.transport.abort()


@asynccontextmanager
async def following(url: str, key: str, job: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, as a person runs it in a pipe."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("SCAIMIND_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scaimind", "jobs", "logs", "-f", job, "--tail", "1000000"),
        env=ours
        | {
            "SCAIMIND_URL": url,
            "SCAIMIND_API_KEY": key,
            "PYTHONPATH": str(PROJECT / "clients/python"),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # no public way


async def lines_of_events(url: str, key: str, job: str) -> tuple[list[str], str]:
    """What the stream over many jobs tells of a job's output, and its end."""
    lines: list[str] = []
    async with AsyncClient(url, key) as client:
        async for event in client.events(job_id=job, include=("jobs", "logs"), tail=1_000_000):
            if isinstance(event, LogLine) and event.source == "stdout":
                lines.append(event.message)
            elif isinstance(event, LogEnded):
                return lines, event.status
    raise AssertionError("unreachable: the stream has no end")


@pytest.mark.slow
async def test_each_line_comes_once_whatever_is_restarted_or_cut(
    migrated_dsn: str, tmp_path: Path
) -> None:
    drive = tmp_path / "coordinator" / "drive" / TENANT
    drive.mkdir(parents=True)
    (drive / "train.py").write_text(SCRIPT)
    key = create_key(migrated_dsn, tenant_id=TENANT, user_id="ann", roles=["tenant_admin"]).secret
    (tmp_path / "nginx").mkdir()
    front, cutting, back, *ports = free_ports(5)
    steady, cut = f"http://127.0.0.1:{front}", f"http://127.0.0.1:{cutting}"
    async with (
        coordinator(tmp_path / "coordinator", back) as jobs,
        replicas(ports, coordinator=f"127.0.0.1:{back}", dsn=migrated_dsn) as gateways,
        nginx(tmp_path / "nginx", configuration(front, ports), front),
        cutting_proxy(cutting, front, 3.0),
        aiohttp.ClientSession(steady, headers={"Authorization": f"Bearer {key}"}) as http,
    ):
        async with http.post(f"{API}/jobs", json=SUBMISSION) as answer:
            assert answer.status == 201, await answer.text()
            job = (await answer.json())["data"]["job_id"]
        async with (
            following(steady, key, job) as behind_nginx,
            following(cut, key, job) as behind_cuts,
            asyncio.TaskGroup() as group,
        ):
            events = group.create_task(lines_of_events(cut, key, job), name="events")
            outputs = [
                group.create_task(each.communicate(), name="command")
                for each in (behind_nginx, behind_cuts)
            ]
            # The pauses leave time in which lines flow; nothing that is checked depends on them.
            for gateway in gateways:
                await asyncio.sleep(2)
                assert await gateway.stop() == 0
                await gateway.start()
            await asyncio.sleep(2)
            await jobs.stop(signal.SIGKILL)
            await asyncio.sleep(1)
            await jobs.start()
            async with asyncio.timeout(2 * PATIENCE):
                await asyncio.wait([events, *outputs])
            statuses = behind_nginx.returncode, behind_cuts.returncode
    wanted = [f"line {number}" for number in range(1, LINES + 1)]
    for output in outputs:
        text, errors = output.result()
        assert errors == b""
        assert [line for line in text.decode().splitlines() if line.startswith("line ")] == wanted
    assert statuses == (1, 1)
    assert events.result() == (wanted, "FAILED")
