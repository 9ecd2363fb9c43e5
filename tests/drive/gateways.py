"""A gateway in a process of its own, on a port that it keeps, to be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import aiohttp

from tests.ports import free_ports
from tests.secrecy import written

PATIENCE = 60.0


class GatewayProcess:
    """`python -m app serve` with a drive; a context that ends it."""

    def __init__(self, dsn: str, root: Path, log: Path, **settings: str) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._environ: Mapping[str, str] = {
            **os.environ,
            "SCAIMIND_PORT": str(self.port),
            "SCAIMIND_DATABASE_DSN": dsn,
            "SCAIMIND_DATABASE_CONNECT_TIMEOUT": "60",
            "SCAIMIND_DATABASE_STATEMENT_TIMEOUT": "60",
            "SCAIMIND_UPSTREAM_ADDRESS": "127.0.0.1:1",
            "SCAIMIND_UPSTREAM_API_SECRET": "none",
            "SCAIMIND_LIMITS_RATE": "0",
            "SCAIMIND_DRIVE_DIR": str(root),
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)
        written("gateway", self._log.read_bytes())

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app", "serve"), env=self._environ, stdout=log, stderr=log
            )
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as http:
            while True:
                assert self._process.returncode is None, self._log.read_text()
                try:
                    async with http.get(f"{self.url}/health") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def end(self, number: signal.Signals) -> None:
        """End it by a signal, and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            await self._process.wait()

    async def kill_and_start(self) -> None:
        """Kill it, and start it again on the same port."""
        await self.end(signal.SIGKILL)
        await self.start()
