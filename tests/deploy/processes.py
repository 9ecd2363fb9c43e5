"""The programs of a deployment as processes: `python -m app serve` and `coordinator`."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from app.local.child import dying_with_parent

PROJECT = Path(__file__).parents[2]
SECRET = "the-secret-of-the-tests"
#: Seconds after which a test that waits gives up: a net, not an expectation.
PATIENCE = 60


class Program:
    """One program: started, asked to stop, started again; what it logs is kept."""

    def __init__(self, command: str, environ: Mapping[str, str], *, ready: str) -> None:
        self._command = command
        self._ready_event = ready
        self._environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("SCAIMIND_")},
            "PYTHONPATH": str(PROJECT),
            "GRPC_VERBOSITY": "NONE",
            **environ,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        #: Every line that it logged, over all its runs.
        self.logged: list[dict[str, Any]] = []
        self.other_output: list[str] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def events(self, name: str) -> list[dict[str, Any]]:
        """The logged lines of this event."""
        return [line for line in self.logged if line["event"] == name]

    def complaints(self) -> list[object]:
        """Errors that it logged, and lines that are no log lines."""
        severe = [line for line in self.logged if line["level"] in ("error", "critical")]
        return [*severe, *self.other_output]

    async def start(self) -> None:
        """Start it and wait until it says that it serves."""
        self._process = await asyncio.create_subprocess_exec(
            *dying_with_parent(
                (sys.executable, "-m", "app", self._command), signal_number=signal.SIGTERM
            ),
            cwd=PROJECT,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1024 * 1024,
        )
        ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(ready), name=f"reads-{self._command}")
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
        # It is set at the end of its output, too.
        assert not self._reader.done(), (self.logged[-3:], self.other_output)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait until it has left; its exit status."""
        assert self._process is not None
        assert self._reader is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            # In its own time: it is needed once more if this is given up.
            await asyncio.shield(self._reader)
            return await self._process.wait()

    async def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is None or self._reader is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader
        # Closed here and now: a warning at collection time would come too late.
        self._process._transport.close()  # type: ignore[attr-defined]  # no public way

    async def _read(self, ready: asyncio.Event) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode().rstrip("\n")
            try:
                event = json.loads(line)
            except ValueError:
                self.other_output.append(line)
                continue
            self.logged.append(event)
            if event["event"] == self._ready_event:
                ready.set()
        ready.set()


class Replica(Program):
    """A gateway on a port of its own."""

    def __init__(self, *, port: int, coordinator: str, dsn: str, **settings: str) -> None:
        super().__init__(
            "serve",
            {
                "SCAIMIND_PORT": str(port),
                "SCAIMIND_UPSTREAM_ADDRESS": coordinator,
                "SCAIMIND_UPSTREAM_API_SECRET": SECRET,
                "SCAIMIND_DATABASE_DSN": dsn,
                **settings,
            },
            ready="gateway_ready_to_serve",
        )
        self.port = port

    async def metric(self, name: str) -> float:
        """The sum over all labels of a metric."""
        samples = Counter[str]()
        url = f"http://127.0.0.1:{self.port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            for line in (await answer.text()).splitlines():
                if not line.startswith("#"):
                    series, _, value = line.rpartition(" ")
                    samples[series.partition("{")[0]] += float(value)  # type: ignore[assignment]  # sums of floats
        return samples[name]


@asynccontextmanager
async def replicas(
    ports: Sequence[int], *, coordinator: str, dsn: str, **settings: str
) -> AsyncIterator[list[Replica]]:
    """Gateways on these ports, in front of one coordinator and one database."""
    made = [Replica(port=port, coordinator=coordinator, dsn=dsn, **settings) for port in ports]
    try:
        await asyncio.gather(*(each.start() for each in made))
        yield made
    finally:
        for each in made:
            await each.end()


@asynccontextmanager
async def coordinator(folder: Path, port: int) -> AsyncIterator[Program]:
    """The one-machine coordinator with room for any number of small jobs."""
    program = Program(
        "coordinator",
        {
            "SCAIMIND_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
            "SCAIMIND_COORDINATOR_DATA_DIR": str(folder),
            "SCAIMIND_COORDINATOR_DRIVE_DIR": str(folder / "drive"),
            "SCAIMIND_COORDINATOR_CPUS": "64",
            "SCAIMIND_COORDINATOR_STOP_GRACE": "1",
        },
        ready="coordinator_started",
    )
    try:
        await program.start()
        try:
            yield program
        finally:
            # Asked to leave, it takes its jobs with it; killed, it would leave them running.
            await program.stop()
    finally:
        await program.end()
