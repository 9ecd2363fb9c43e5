"""Coordinators that are started often and quickly, each a process of its own to be killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.coordinator.harness import SECRET

#: Imports once what a coordinator needs, and forks one for every line that it is given. Nothing
#: of gRPC runs in it, so that forking is safe.
_PROGRAM = """
import asyncio, json, os, sys
import app.coordinator.server
from app.coordinator import CoordinatorConfig, serve

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

def tell(*words):
    print(*words, file=out, flush=True)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        config = CoordinatorConfig.from_env(json.loads(line))
        asyncio.run(serve(config, ready=lambda port: tell("port", port)))
        os._exit(0)
    tell("pid", child)
    os.waitpid(child, 0)
    tell("gone")
"""


@dataclass
class Life:
    """One coordinator's life."""

    pid: int
    _lines: asyncio.StreamReader

    async def port(self) -> int:
        """Where it listens, once it does."""
        async with asyncio.timeout(60):
            word, number = (await self._lines.readline()).split()
        assert word == b"port"
        return int(number)

    async def end(self, number: signal.Signals) -> None:
        """End it, and wait until it is gone."""
        os.kill(self.pid, number)
        async with asyncio.timeout(60):
            while (line := await self._lines.readline()) != b"gone\n":
                assert line, "the nursery is gone"


class Nursery:
    """Where coordinators come from."""

    def __init__(self, process: asyncio.subprocess.Process, environ: dict[str, str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self._environ = environ

    async def life(self) -> Life:
        """Start a coordinator; the one before it must have ended."""
        self._input.write(json.dumps(self._environ).encode() + b"\n")
        async with asyncio.timeout(60):
            word, number = (await self._output.readline()).split()
        assert word == b"pid"
        return Life(int(number), self._output)


@asynccontextmanager
async def nursery(path: Path, *, cpus: int = 4) -> AsyncIterator[Nursery]:
    """A nursery of coordinators that use the same data directory, one after the other."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )
    try:
        yield Nursery(
            process,
            {
                "SCAIMIND_COORDINATOR_DATA_DIR": str(path),
                "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
                "SCAIMIND_COORDINATOR_ADDRESS": "127.0.0.1:0",
                "SCAIMIND_COORDINATOR_STOP_GRACE": "5",
                "SCAIMIND_COORDINATOR_CPUS": str(cpus),
            },
        )
    finally:
        # The coordinator with it, if a test failed in the middle; runners have their own groups.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        # Closed here and now: a warning at collection time would come too late.
        process._transport.close()  # type: ignore[attr-defined]  # no public way
