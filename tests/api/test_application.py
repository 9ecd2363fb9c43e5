"""The process: starts, says where it listens, serves, stops, and logs no secret."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from grpc import StatusCode

from app.gateway.application import create_app
from app.gateway.settings import Settings
from tests.api.conftest import API_SECRET, Keys
from tests.api.endpoints import PREFIX
from tests.scripted_coordinator import Failure, ScriptedCoordinator
from tests.secrecy import written

SERVE = """
import os
from app.gateway.run import run
from app.gateway.settings import Settings
run(Settings.from_env(os.environ))
"""
#: Seconds; only so that a process that hangs ends.
SAFETY_NET = 120


class Process:
    """A gateway in a process of its own, and the lines that it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def event(self, name: str) -> dict[str, Any]:
        """Reads the log up to this event."""
        async with asyncio.timeout(SAFETY_NET):
            while line := await self.read():
                if (event := json.loads(line))["event"] == name:
                    found: dict[str, Any] = event
                    return found
        raise AssertionError(f"{name} was not logged: {self.lines}")

    async def read(self) -> str:
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        self.lines.append(line)
        written("gateway", line)
        return line

    async def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        async with asyncio.timeout(SAFETY_NET):
            while await self.read():
                pass
            return await self.process.wait()


@asynccontextmanager
async def serving(settings: Mapping[str, str], *, script: str = SERVE) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "GRPC_VERBOSITY": "NONE", **settings},
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def environ(keys: Keys, coordinator: ScriptedCoordinator) -> Mapping[str, str]:
    return {
        "SCAIMIND_PORT": "0",
        "SCAIMIND_UPSTREAM_ADDRESS": coordinator.address,
        "SCAIMIND_UPSTREAM_API_SECRET": API_SECRET,
        "SCAIMIND_DATABASE_DSN": keys.dsn,
        "SCAIMIND_LOG_LEVEL": "debug",
    }


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
async def test_it_serves_until_it_is_told_to_stop_and_logs_no_secret(
    environ: Mapping[str, str],
    keys: Keys,
    coordinator: ScriptedCoordinator,
    how: signal.Signals,
) -> None:
    # A token in the place of a job's id is none: nothing is kept under it, nor forgotten.
    coordinator.answer("GetJob", Failure(StatusCode.INVALID_ARGUMENT, "job_id is not an id"))
    async with serving(environ) as gateway, aiohttp.ClientSession() as http:
        url = (await gateway.event("gateway_starting"))["url"]
        await gateway.event("gateway_ready_to_serve")
        for token in (*keys.all.values(), "sgk_" + "invented" * 6, "eyJhbGciOi.eyJzdWIiOiJ.c2ln"):
            headers = {"Authorization": f"Bearer {token}", "X-Request-ID": token[:40]}
            for path in ("/jobs", f"/jobs/{token}", f"/jobs?ticket={token}", f"/{token}"):
                async with http.get(f"{url}{PREFIX}{path}", headers=headers) as response:
                    await response.read()
        status = await gateway.stop(how)
        assert status == 0
    logged = "".join(gateway.lines)
    assert json.loads(gateway.lines[-2])["event"] == "gateway_stopped"
    assert all(isinstance(json.loads(line), dict) for line in gateway.lines if line)
    assert logged.count('"event":"request"') == 4 * (len(keys.all) + 2)
    for secret in (*keys.all.values(), API_SECRET, "inventedinvented", "eyJzdWIiOiJ", keys.dsn):
        assert secret not in logged


async def test_former_names_of_settings_are_logged_with_the_new_ones(
    environ: Mapping[str, str],
) -> None:
    former = {
        name.replace("SCAIMIND_UPSTREAM_", "SCAIMIND_COORDINATOR_"): value
        for name, value in environ.items()
    }
    async with serving(former) as gateway:
        for name in ("ADDRESS", "API_SECRET"):
            line = await gateway.event("setting_renamed")
            assert line["variable"] == f"SCAIMIND_COORDINATOR_{name}"
            assert line["use"] == f"SCAIMIND_UPSTREAM_{name}"
        await gateway.event("gateway_ready_to_serve")
        assert await gateway.stop(signal.SIGTERM) == 0


async def test_a_variable_that_no_program_reads_is_logged(environ: Mapping[str, str]) -> None:
    command = "from app.cli.main import main; main(['serve'])"
    async with serving({**environ, "SCAIMIND_HUB_LINGRE": "3"}, script=command) as gateway:
        line = await gateway.event("setting_unknown")
        assert line["level"] == "warning"
        assert line["variable"] == "SCAIMIND_HUB_LINGRE"
        assert line["did_you_mean"] == "SCAIMIND_HUB_LINGER"
        await gateway.event("gateway_ready_to_serve")
        assert await gateway.stop(signal.SIGTERM) == 0


async def test_a_port_in_use_is_told_before_anything_starts(environ: Mapping[str, str]) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        async with serving({**environ, "SCAIMIND_PORT": str(port)}) as gateway:
            async with asyncio.timeout(SAFETY_NET):
                while await gateway.read():
                    pass
                assert await gateway.process.wait() != 0
    assert "Address already in use" in gateway.lines[-2]
    assert "gateway_starting" not in "".join(gateway.lines)


@pytest.mark.usefixtures("pages_are_made_each_time")
def test_two_applications_share_nothing(settings: Settings) -> None:
    one, other = create_app(settings), create_app(settings)
    assert one.router is not other.router
    assert {id(value) for value in one.values()} & {id(value) for value in other.values()} == {
        id(settings),
        id(settings.server),
        id(None),
    }
