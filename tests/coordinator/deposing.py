"""A leader that stands still in the middle of something while another one takes over."""

import asyncio
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import orjson
import psutil

from app.coordinator.program import STEPPED_DOWN
from tests.coordinator.harness import PATIENCE, Client, Killable, client_of, coordinator_process
from tests.coordinator.test_lease import expire
from tests.coordinator.test_takeover_functional import member, traces, until_leading

#: Runs a coordinator that stops itself at the first call of STOP_AT while the file STOP_IF is
#: there. When it is continued, its clock says that its lease has run out: nothing else tells it,
#: so that it finds out by its own checks alone.
_PROGRAM = """
import asyncio, importlib, os, signal, sys, threading
from app.coordinator import CoordinatorConfig, serve
from app.coordinator.ownership.lease import Lease, seconds_since_boot
from app.telemetry.logs import configure
from app.telemetry.settings import TelemetrySettings

configure(TelemetrySettings(), out=open(os.environ["STOP_LOG"], "ab", buffering=0))
module, _, path = os.environ["STOP_AT"].partition(":")
*way, name = path.split(".")
owner = importlib.import_module(module)
for each in way:
    owner = getattr(owner, each)
real, passed = getattr(owner, name), 0.0

def stopping(*args, **kwargs):
    global passed
    try:
        os.unlink(os.environ["STOP_IF"])
    except FileNotFoundError:
        pass
    else:
        # To this thread: it does not go on before all stand still.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        passed = 3600.0
    return real(*args, **kwargs)

setattr(owner, name, stopping)
Lease.__init__.__kwdefaults__["clock"] = lambda: seconds_since_boot() + passed
config = CoordinatorConfig.from_env(os.environ)
asyncio.run(serve(config, ready=lambda port: print(port, flush=True)))
"""


@dataclass
class Deposed:
    """Two coordinators, of which the first one leads until it stands still."""

    first: Client
    second: Client
    process: Killable
    path: Path
    dsn: str

    def arm(self) -> None:
        """Have the first one stop where it was told to, from now on."""
        self._sign.touch()

    async def until_it_stands_still(self) -> None:
        """Wait until the first one has stopped, and the second one leads."""
        process = psutil.Process(self.process.process.pid)
        deadline = time.monotonic() + PATIENCE
        while process.status() != psutil.STATUS_STOPPED:
            assert self.process.process.returncode is None, "it ended"
            assert time.monotonic() < deadline, "it does not come there"
            await asyncio.sleep(0.05)
        assert not self._sign.exists()
        await asyncio.to_thread(expire, self.dsn, "scaimind_coordinator")
        await until_leading(self.second)

    async def assert_it_changes_nothing(self, *, tells: bool = False) -> None:
        """Continue the first one, and see it end without a trace; `tells` is whether it may tell
        of what it had stored."""
        before = await self._settled()
        said = self._log.stat().st_size
        self.process.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            assert await self.process.process.wait() == STEPPED_DOWN
        assert await asyncio.to_thread(self._traces) == before
        events = [orjson.loads(line) for line in self._log.read_bytes()[said:].splitlines()]
        told = {each["event"] for each in events}
        assert "leadership_lost" in told
        assert tells or not told & {"audit", "job_changed"}, events

    async def _settled(self) -> Mapping[str, str]:
        """What is there once the second one has done what it had to."""
        before: Mapping[str, str] = {}
        deadline = time.monotonic() + PATIENCE
        while (now := await asyncio.to_thread(self._traces)) != before:
            assert time.monotonic() < deadline
            before = now
            await asyncio.sleep(1.0)
        return before

    @property
    def _sign(self) -> Path:
        return self.path.with_suffix(".stop")

    @property
    def _log(self) -> Path:
        return self.path.with_suffix(".log")

    def _traces(self) -> Mapping[str, str]:
        found = traces(self.path, self.dsn)
        for folder in ("secrets", "cache", "environments", "atlas"):
            for file in sorted((self.path / folder).rglob("*")):
                content = file.read_bytes() if file.is_file() else b""
                found[str(file.relative_to(self.path))] = hashlib.sha256(content).hexdigest()
        return found


@asynccontextmanager
async def deposed_at(
    place: str,
    path: Path,
    dsn: str,
    *,
    settings: Mapping[str, str] = MappingProxyType({}),
    armed: bool = False,
) -> AsyncIterator[Deposed]:
    """Two coordinators; the first one is to stop at `place`, `<module>:<name>`, at its start if it
    is `armed` by then. `settings` are those of the first one alone.

    No lease runs out by itself: machines of tests stand still.
    """
    sign = path.with_suffix(".stop")
    await asyncio.to_thread(path.mkdir)
    if armed:
        await asyncio.to_thread(sign.touch)
    told = {
        "STOP_AT": place,
        "STOP_IF": str(sign),
        "STOP_LOG": str(path.with_suffix(".log")),
    }
    usual = {"DATABASE_DSN": dsn, "LEASE_SECONDS": "600"}
    async with (
        coordinator_process(
            path,
            within=("env", *(f"{name}={value}" for name, value in told.items())),
            settings={**usual, **settings},
            program=_PROGRAM,
        ) as process,
        client_of(process.port, path / "drive") as first,
    ):
        if not armed:
            await until_leading(first)
        try:
            async with member(path, dsn) as second:
                yield Deposed(first, second, process, path, dsn)
        finally:
            # A process that stands still cannot be asked to end.
            if process.process.returncode is None:
                process.process.send_signal(signal.SIGCONT)
