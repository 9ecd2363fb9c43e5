"""`up`: PostgreSQL, the coordinator and the gateway, started, watched and stopped as one."""

import asyncio
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import app
from app.coordinator import CoordinatorConfig
from app.local import example
from app.local.data_dir import CannotStart, ChildrenLock, DataDir, kept_secret
from app.local.postgres import Postgres, socket_folder
from app.local.service import Service
from app.settings import DatabaseSettings, ServerSettings, Settings

#: Seconds within which everything has to be ready, and within which what an
#: earlier run left behind has to be gone.
START_LIMIT = 120.0
#: Seconds that the gateway gets to send its watchers away.
GATEWAY_GRACE = 20.0
#: Seconds that the coordinator gets beside those that it gives its running
#: jobs for saving a checkpoint.
COORDINATOR_GRACE = 30.0
#: Seconds between two looks at the size of the log files.
TRIM_INTERVAL = 10.0
#: The coordinator listens on one of these. They are below the range from
#: which Linux takes the ports of outgoing connections: a gateway that tries to
#: reach a coordinator that is down can never take its port.
COORDINATOR_PORTS = range(20000, 30000)


@dataclass(frozen=True, slots=True)
class Config:
    """What `up` is told."""

    data_dir: Path
    server: ServerSettings
    #: Whether PostgreSQL and the coordinator are to be started, not only to be used.
    own_database: bool
    own_coordinator: bool
    #: Seconds that running jobs may take to save a checkpoint.
    job_grace: float
    #: What the children are given, too.
    environ: Mapping[str, str]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Config":
        """Read it. Raises `SettingsError` and `BadConfig`, also for what only the children read."""
        own_database = not environ.keys() & {"SCAIMIND_DATABASE_DSN", "SCAIMIND_DATABASE_DSN_FILE"}
        own_coordinator = "SCAIMIND_COORDINATOR_ADDRESS" not in environ
        known_later = {
            **({"SCAIMIND_DATABASE_DSN": "known later"} if own_database else {}),
            **({"SCAIMIND_COORDINATOR_API_SECRET": "known later"} if own_coordinator else {}),
        }
        job_grace = 0.0
        if own_coordinator:
            job_grace = CoordinatorConfig.from_env({**environ, **known_later}).stop_grace
        return cls(
            data_dir=Path(environ.get("SCAIMIND_DATA_DIR") or "var"),
            server=Settings.from_env({**environ, **known_later}).server,
            own_database=own_database,
            own_coordinator=own_coordinator,
            job_grace=job_grace,
            environ=environ,
        )


async def up(config: Config, *, tell: Callable[[str], None]) -> None:
    """Run everything until SIGINT, SIGTERM or SIGHUP.

    `tell` is given lines for the terminal, and must not raise. Raises
    `CannotStart`. Nothing that was started is left when this returns or
    raises.
    """
    run = asyncio.ensure_future(_Run(config, tell).run())
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            tell("Still stopping: running jobs save a checkpoint first")
        else:
            stopping = True
            run.cancel()
            tell("Stopping")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        await run
    except asyncio.CancelledError:
        if not stopping:
            raise
        tell("Stopped")


class _Run:
    """One life of the stack."""

    def __init__(self, config: Config, tell: Callable[[str], None]) -> None:
        self.config = config
        self.tell = tell
        self.data_dir = DataDir(config.data_dir)
        self.environ = dict(config.environ)
        self.services: list[Service] = []

    async def run(self) -> None:
        """Start everything, then keep it running until cancelled."""
        host, port = self.config.server.host, self.config.server.port
        port = _free_port(host, port)
        self.data_dir.prepare()
        # Left in reverse order: the gateway stops first, the locks go last.
        async with AsyncExitStack() as stack:
            stack.enter_context(self.data_dir.taken())
            lock = stack.enter_context(self.data_dir.children_lock())
            await self._wait_for_children(lock)
            holding = lock.descriptor
            self.environ["SCAIMIND_PORT"] = str(port)

            postgres = None
            if self.config.own_database:
                postgres = await self._start_postgres(stack, holding)
            if example.install(self.data_dir.drive):
                self.tell(f"Laid an example into {self.data_dir.drive / example.TENANT}")
            if self.config.own_coordinator:
                self._point_at_coordinator()
                grace = self.config.job_grace + COORDINATOR_GRACE
                await self._start(stack, "coordinator", grace, holding)
            if postgres is not None:
                await postgres.until_ready()
            await self._prepare_database()
            await self._start(stack, "gateway", GATEWAY_GRACE, holding, command="serve")
            await self._until_ready(host, port)
            self.tell(
                f"Ready: {_url(host, port)} (API key: {self.data_dir.api_key}, "
                f"logs: {self.data_dir.logs})"
            )
            await self._keep()

    async def _wait_for_children(self, lock: ChildrenLock) -> None:
        """Wait for what a supervisor that was killed has left behind: it is stopping."""
        if lock.taken():
            return
        self.tell("Waiting for an earlier run to finish stopping")
        try:
            async with asyncio.timeout(START_LIMIT):
                while not lock.taken():  # noqa: ASYNC110  # other processes hold it
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise CannotStart(
                f"Programs of an earlier run still use {self.data_dir.root}; "
                f"find them with: fuser -v '{self.data_dir.root}/lock.children'"
            ) from error

    def _point_at_coordinator(self) -> None:
        """Settle where the coordinator is, and the secret that it shares with the gateway."""
        environ = self.environ
        port = _coordinator_port()
        environ["SCAIMIND_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
        environ["SCAIMIND_COORDINATOR_DATA_DIR"] = str(self.data_dir.coordinator)
        environ["SCAIMIND_COORDINATOR_DRIVE_DIR"] = str(self.data_dir.drive)
        environ.pop("SCAIMIND_COORDINATOR_API_SECRET_FILE", None)
        environ["SCAIMIND_COORDINATOR_API_SECRET"] = kept_secret(self.data_dir.coordinator_secret)

    async def _start_postgres(self, stack: AsyncExitStack, holding: int) -> Postgres:
        postgres = Postgres(
            self.data_dir,
            tell=self.tell,
            holding=holding,
            socket_folder=stack.enter_context(socket_folder(self.data_dir)),
        )
        stack.push_async_callback(postgres.service.stop)
        await postgres.start()
        self.services.append(postgres.service)
        self.environ["SCAIMIND_DATABASE_DSN"] = postgres.dsn
        return postgres

    async def _prepare_database(self) -> None:
        # Imported here, while PostgreSQL and the coordinator are starting: it takes a while, too.
        from app.local.database import prepare

        dsn = DatabaseSettings.from_env(self.environ).dsn
        await asyncio.to_thread(prepare, dsn, self.data_dir, self.tell)

    async def _start(
        self,
        stack: AsyncExitStack,
        name: str,
        grace: float,
        holding: int,
        *,
        command: str | None = None,
    ) -> None:
        service = Service(
            name=f"The {name}",
            command=(sys.executable, "-m", "app", command or name),
            environ=self.environ,
            folder=Path(app.__file__).parent.parent,
            log=self.data_dir.logs / f"{name}.log",
            tell=self.tell,
            grace=grace,
            holding=holding,
        )
        self.tell(f"Starting the {name}")
        stack.push_async_callback(service.stop)
        await service.start()
        self.services.append(service)

    async def _until_ready(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(START_LIMIT):
                while not await _is_ready(host, port):
                    for service in self.services:
                        service.check()
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise CannotStart(
                f"Not ready after {START_LIMIT:g} s: {_url(host, port)}/health/ready told why; "
                f"logs: {self.data_dir.logs}"
            ) from error

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            for service in self.services:
                group.create_task(service.keep(), name=f"keep {service.name}")
            while True:
                await asyncio.sleep(TRIM_INTERVAL)
                for service in self.services:
                    service.trim_log()


def _free_port(host: str, port: int) -> int:
    """Tell the port to listen on. Raises `CannotStart` if it is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the gateway will: a connection that has only just closed is no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
            return int(probe.getsockname()[1])
    except OSError as error:
        raise CannotStart(
            f"Port {port} of {host} cannot be listened on: {error.strerror}. "
            "Set SCAIMIND_PORT to another port, or stop what uses it."
        ) from error


def _coordinator_port() -> int:
    for port in random.sample(COORDINATOR_PORTS, 100):
        with suppress(CannotStart):
            return _free_port("127.0.0.1", port)
    raise CannotStart("No port from 20000 to 29999 is free for the coordinator.")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _url(host: str, port: int) -> str:
    host = _reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _is_ready(host: str, port: int) -> bool:
    """Ask GET /health/ready, in HTTP/1.0: the answer ends with the connection."""
    try:
        reader, writer = await asyncio.open_connection(_reachable(host), port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health/ready HTTP/1.0\r\n\r\n")
        status = await reader.readline()
        return status.split()[1:2] == [b"200"]
    except ConnectionError:
        return False
    finally:
        writer.close()
