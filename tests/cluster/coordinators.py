"""Coordinators of a Ray cluster, each a process of its own, and clients of them."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from tests.cluster.rig import RayCluster
from tests.coordinator.harness import SECRET, Client, Killable, client_of

_PROGRAM = """
import asyncio, os, sys
from app.coordinator import CoordinatorConfig, serve
from app.telemetry.logs import configure
from app.telemetry.settings import TelemetrySettings
configure(TelemetrySettings(), out=sys.stderr.buffer)
config = CoordinatorConfig.from_env(os.environ)
asyncio.run(serve(config, ready=lambda port: print(port, flush=True)))
"""


def _opened(path: Path) -> BinaryIO:
    path.mkdir(exist_ok=True)
    return open(path.with_suffix(".log"), "ab")


@asynccontextmanager
async def coordinator(
    ray: RayCluster,
    path: Path,
    *,
    port: int = 0,
    isolation: str = "landlock",
    engine: str = "ray",
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Killable]:
    """A coordinator of the cluster in a process of its own. Its log is `coordinator.log`.

    The nodes are one machine: a user id is one run's there, so runs have none of their own.
    `settings` are variables without their prefix.
    """
    with _opened(path) as log:
        process = await asyncio.create_subprocess_exec(
            *(str(ray.python), "-c", _PROGRAM),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={
                **{key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ},
                "PYTHONPATH": ray.python_path,
                "SCAIMIND_COORDINATOR_DATA_DIR": str(path),
                "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
                "SCAIMIND_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "SCAIMIND_COORDINATOR_STOP_GRACE": "10",
                "SCAIMIND_COORDINATOR_ISOLATION": isolation,
                "SCAIMIND_COORDINATOR_ENGINE": engine,
                "SCAIMIND_COORDINATOR_CPUS": "12",
                "SCAIMIND_COORDINATOR_RAY_ADDRESS": ray.address,
                "SCAIMIND_COORDINATOR_RAY_TOKEN_FILE": str(ray.token),
                "SCAIMIND_COORDINATOR_RAY_NODE_DIR": str(path.with_suffix(".nodes")),
                "SCAIMIND_COORDINATOR_RAY_SHARED_DISK": "yes",
                "SCAIMIND_COORDINATOR_RAY_LOST_NODE_SECONDS": "120",
                **{f"SCAIMIND_COORDINATOR_{name}": value for name, value in settings.items()},
            },
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(180):
            while not (line := await process.stdout.readline()).strip().isdigit():
                assert line, path.with_suffix(".log").read_text()[-3000:]
        # It says there what it does; kept for whoever wonders why a test fails.
        drained = asyncio.create_task(_kept(process.stdout, path.with_suffix(".log")))
        try:
            yield Killable(process, int(line))
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(120):
                await process.wait()
            await drained
    finally:
        process._transport.close()  # type: ignore[attr-defined]  # no public way


async def _kept(output: asyncio.StreamReader, path: Path) -> None:
    while line := await output.readline():
        await asyncio.to_thread(_append, path, line)


def _append(path: Path, line: bytes) -> None:
    with open(path, "ab") as log:
        log.write(line)


@asynccontextmanager
async def client(running: Killable, path: Path) -> AsyncIterator[Client]:
    """A client of it."""
    async with client_of(running.port, path / "drive") as found:
        yield found
