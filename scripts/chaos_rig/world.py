"""PostgreSQL, a coordinator, a gateway, and the networks between them and their clients."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.database.migrate import migrate
from app.gateway.routes import PREFIX
from app.local.bootstrap import make_database
from app.local.data_dir import DataDir
from app.local.ports import COORDINATOR_PORTS, internal_port
from app.local.postgres import Postgres, socket_folder
from app.scaikey.api_keys import create_key
from scripts.chaos_rig.asking import Asker
from scripts.chaos_rig.forms import EventsWatcher, NdjsonWatcher, Searcher
from scripts.chaos_rig.link import Link
from scripts.chaos_rig.programs import PATIENCE, Program, accepts
from scripts.chaos_rig.watching import Watcher
from tests.coordinator.harness import SECRET, Client, client_of

TENANT = "chaos"
#: User ids of the jobs: none of the tests', which may run beside this.
JOB_UIDS = os.environ.get("SCAIMIND_CHAOS_JOB_UIDS", "62100-62199")
#: Lines that a job writes in a second.
RATE = 200

_SCRIPT = """
import time
began = time.monotonic()
for number in range(1, {lines} + 1):
    level = "ERROR" if number % 10 == 0 else "DEBUG" if number % 7 == 0 else "INFO"
    print(f"{{level}}: line {{number}}", flush=True)
    time.sleep(max(0.0, began + number / {rate} - time.monotonic()))
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """A job that writes numbered lines at `RATE`."""

    job_id: str
    lines: int


@dataclass
class World:
    """Everything that an experiment can break."""

    folder: Path
    postgres: Postgres
    coordinator: Program
    gateway: Program
    #: Between the gateway and the coordinator.
    upstream: Link
    #: Between the clients and the gateway.
    downstream: Link
    coordinator_port: int
    gateway_port: int
    key: str

    async def submit(self, seconds: float, **limits: int) -> Workload:
        """Start a job that writes for so many seconds."""
        lines = int(seconds * RATE)
        async with self.client() as client:
            script = _SCRIPT.format(lines=lines, rate=RATE)
            job_id = await client.submit(script, scheduling_config=limits)
            await client.until_line(job_id, "line 1")
        return Workload(job_id, lines)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Calls to the coordinator, past the gateway."""
        drive = self.folder / "coordinator" / "drive"
        async with client_of(self.coordinator_port, drive, TENANT) as client:
            yield client

    def watcher(self, workload: Workload, level: str = "DEBUG", *, pause: float = 0) -> Watcher:
        """Make a client of the job's log."""
        return Watcher(f"{self._url(workload)}/logs", self.key, level=level, pause=pause)

    def ndjson_watcher(self, workload: Workload) -> NdjsonWatcher:
        """Make a client of the job's log as NDJSON."""
        return NdjsonWatcher(f"{self._url(workload)}/logs", self.key)

    def searcher(self, workload: Workload) -> Searcher:
        """Make a client that searches the job's log."""
        return Searcher(f"{self._url(workload)}/logs/search", self.key, text="ERROR: line")

    def events_watcher(self, workloads: Sequence[Workload], *, replica: int) -> EventsWatcher:
        """Make a client of the jobs in one stream; `replica` is another gateway's port."""
        return EventsWatcher(
            [f"http://127.0.0.1:{port}{PREFIX}/events" for port in (self.downstream.port, replica)],
            self.key,
            jobs={each.job_id: Watcher("", self.key) for each in workloads},
        )

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[int]:
        """Run a second gateway; its port."""
        port = internal_port("the second gateway", range(25000, 30000))
        second = gateway_program(
            self.folder,
            port,
            dsn=self.postgres.dsn,
            coordinator=self.upstream.port,
            name="second gateway",
        )
        await second.start()
        try:
            yield port
        finally:
            await second.end(signal.SIGTERM)

    def asker(self, workload: Workload) -> Asker:
        """Make a client that asks for the job."""
        return Asker(self._url(workload), self.key)

    def _url(self, workload: Workload) -> str:
        return f"http://127.0.0.1:{self.downstream.port}{PREFIX}/jobs/{workload.job_id}"

    async def restart_postgres(self) -> None:
        """Stop PostgreSQL and start it again."""
        await self.postgres.service.stop()
        await self.start_postgres()

    async def start_postgres(self) -> None:
        """Start PostgreSQL and wait until it answers."""
        await self.postgres.start()
        async with asyncio.timeout(PATIENCE):
            making = asyncio.to_thread(make_database, self.postgres.dsn, self.postgres.data_dir)
            await self.postgres.during(making)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Start everything; at the end, stop it."""
    data_dir = DataDir(folder / "data")
    data_dir.prepare()
    with socket_folder(data_dir) as sockets, data_dir.children_lock() as lock:
        postgres = Postgres(
            data_dir, tell=lambda _: None, holding=lock.descriptor, socket_folder=sockets
        )
        coordinator_port = internal_port("the coordinator", COORDINATOR_PORTS)
        async with Link(coordinator_port) as upstream:
            gateway_port = internal_port("the gateway", range(25000, 30000))
            async with Link(gateway_port) as downstream:
                made = World(
                    folder=folder,
                    postgres=postgres,
                    coordinator=coordinator_program(folder, coordinator_port),
                    gateway=gateway_program(
                        folder, gateway_port, dsn=postgres.dsn, coordinator=upstream.port
                    ),
                    upstream=upstream,
                    downstream=downstream,
                    coordinator_port=coordinator_port,
                    gateway_port=gateway_port,
                    key="",
                )
                try:
                    await _start(made)
                    yield made
                finally:
                    await _stop(made)


def coordinator_program(folder: Path, port: int) -> Program:
    """Make a coordinator that is not started yet."""
    return Program(
        "the coordinator",
        "coordinator",
        environ={
            "SCAIMIND_COORDINATOR_DATA_DIR": str(folder / "coordinator"),
            "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
            "SCAIMIND_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "SCAIMIND_COORDINATOR_STOP_GRACE": "5",
            "SCAIMIND_COORDINATOR_JOB_UIDS": JOB_UIDS,
            "SCAIMIND_COORDINATOR_CPUS": "8",
        },
        log=folder / "coordinator.log",
        ready=lambda: accepts(port),
    )


def gateway_program(
    folder: Path, port: int, *, dsn: str, coordinator: int, name: str = "gateway", **more: str
) -> Program:
    """Make a gateway that is not started yet; `coordinator` is a port, `more` are settings."""
    return Program(
        f"the {name}",
        "serve",
        environ={
            "SCAIMIND_PORT": str(port),
            "SCAIMIND_DATABASE_DSN": dsn,
            "SCAIMIND_UPSTREAM_ADDRESS": f"127.0.0.1:{coordinator}",
            "SCAIMIND_UPSTREAM_API_SECRET": SECRET,
            "SCAIMIND_UPSTREAM_KEEPALIVE_TIME": "2",
            "SCAIMIND_UPSTREAM_KEEPALIVE_TIMEOUT": "2",
            "SCAIMIND_HUB_KEEPALIVE_INTERVAL": "2",
            "SCAIMIND_HUB_RECONNECT_MAX": "1",
            "SCAIMIND_HUB_RETRY_MS": "200",
            "SCAIMIND_HUB_DRAIN_SPREAD": "1",
            "SCAIMIND_HUB_WRITE_TIMEOUT": "3",
            "SCAIMIND_LIMITS_RATE": "0",
            **more,
        },
        log=folder / f"{name.replace(' ', '-')}.log",
        ready=lambda: accepts(port),
    )


async def _start(made: World) -> None:
    (made.folder / "coordinator" / "drive").mkdir(parents=True)
    await made.start_postgres()
    await asyncio.to_thread(migrate, made.postgres.dsn)
    new = await asyncio.to_thread(
        lambda: create_key(
            made.postgres.dsn,
            tenant_id=TENANT,
            user_id=f"user-{secrets.token_hex(2)}",
            permissions=("scaimind:view", "scaimind:manage"),
        )
    )
    made.key = new.secret
    await made.coordinator.start()
    await made.gateway.start()


async def _stop(made: World) -> None:
    for program in (made.gateway, made.coordinator):
        if program.running:
            program.send(signal.SIGCONT)
            await program.end(signal.SIGTERM)
    await made.postgres.service.stop()
