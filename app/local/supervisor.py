"""`up`: PostgreSQL, the issuer, the coordinator and the gateway, started and stopped as one."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import app
from app.api.settings import ServerSettings
from app.coordinator import CoordinatorConfig
from app.gateway.settings import Settings
from app.issuer.settings import IssuerSettings
from app.local import example
from app.local.child import Service
from app.local.data_dir import CannotStart, ChildrenLock, DataDir, kept_secret, write_secret
from app.local.example.models import ExampleModel, make_model, wanted_models
from app.local.ports import (
    COORDINATOR_PORTS,
    ISSUER_PORTS,
    free_port,
    internal_port,
    is_ready,
    url_of,
)
from app.local.postgres import Postgres, socket_folder
from app.local.starting import run_step
from app.local.variables import Program, given_to

#: Seconds within which everything has to be ready, and within which what an
#: earlier run left behind has to be gone.
START_LIMIT = 120.0
#: Seconds that the gateway gets to send its watchers away.
GATEWAY_GRACE = 20.0
#: Seconds that the coordinator gets beside those that it gives its running
#: jobs for saving a checkpoint.
COORDINATOR_GRACE = 30.0
#: Seconds that the issuer gets: its answers are short.
ISSUER_GRACE = 10.0
#: Seconds between two looks at the size of the log files.
TRIM_INTERVAL = 10.0
#: Whoever sets one of these has an identity provider.
_IDENTITY = frozenset(
    {
        "SCAIMIND_AUTH_ISSUER",
        "SCAIMIND_AUTH_JWKS_URL",
        "SCAIMIND_AUTH_TOKEN_URL",
        "SCAIMIND_COORDINATOR_JWKS_URL",
    }
)


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of `up`."""

    data_dir: Path
    server: ServerSettings
    #: Whether PostgreSQL, the coordinator and the issuer are to be started, not only to be used.
    own_database: bool
    own_coordinator: bool
    own_issuer: bool
    #: Seconds that running jobs may take to save a checkpoint.
    job_grace: float
    #: What the children are given, too.
    environ: Mapping[str, str]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Config":
        """Read it. Raises `SettingsError` and `BadConfig`, also for what only the children read."""
        own_database = not environ.keys() & {"SCAIMIND_DATABASE_DSN", "SCAIMIND_DATABASE_DSN_FILE"}
        # The former name still says where another coordinator is.
        own_coordinator = not environ.keys() & {
            "SCAIMIND_UPSTREAM_ADDRESS",
            "SCAIMIND_COORDINATOR_ADDRESS",
        }
        own_issuer = not environ.keys() & _IDENTITY
        known_later = {
            **({"SCAIMIND_DATABASE_DSN": "known later"} if own_database else {}),
            **(
                {
                    "SCAIMIND_COORDINATOR_API_SECRET": "known later",
                    "SCAIMIND_UPSTREAM_API_SECRET": "known later",
                }
                if own_coordinator
                else {}
            ),
        }
        job_grace = 0.0
        if own_coordinator:
            job_grace = CoordinatorConfig.from_env({**environ, **known_later}).stop_grace
        if own_issuer:
            IssuerSettings.from_env({**environ, "SCAIMIND_ISSUER_CLIENT_SECRET": "known later"})
        return cls(
            data_dir=Path(environ.get("SCAIMIND_DATA_DIR") or "var"),
            server=Settings.from_env({**environ, **known_later}).server,
            own_database=own_database,
            own_coordinator=own_coordinator,
            own_issuer=own_issuer,
            job_grace=job_grace,
            environ=environ,
        )


async def up(
    config: Config,
    *,
    tell: Callable[[str], None],
    show_key: bool = False,
    token_command: str = "python -m app token",
) -> None:
    """Run everything until SIGINT, SIGTERM or SIGHUP.

    `tell` is given lines for the terminal, and must not raise. The API key of a first start
    is among them only with `show_key`. `token_command` is what a person types for a token.
    Raises `CannotStart`. Nothing that was started is left when this returns or raises.
    """
    run = asyncio.ensure_future(
        _Run(config, tell, show_key=show_key, token_command=token_command).run()
    )
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
    except OSError as error:
        data_dir = DataDir(config.data_dir)
        if not data_dir.holds(error.filename):
            raise
        raise data_dir.not_usable(error) from error


class _Run:
    """One life of the stack."""

    def __init__(
        self, config: Config, tell: Callable[[str], None], *, show_key: bool, token_command: str
    ) -> None:
        self.config = config
        self.tell = tell
        self.show_key = show_key
        self.token_command = token_command
        self.data_dir = DataDir(config.data_dir)
        self.environ = dict(config.environ)
        self.services: list[Service] = []
        self.issuer_url = ""

    async def run(self) -> None:
        """Start everything, then keep it running until cancelled."""
        host, port = self.config.server.host, self.config.server.port
        port = free_port(host, port)
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
            if self.config.own_issuer:
                self._point_at_issuer()
            if example.install(self.data_dir.drive, with_model=bool(self._models())):
                self.tell(f"Copied an example to {self.data_dir.drive / example.TENANT}")
            if self.config.own_coordinator:
                self._point_at_coordinator()
                grace = self.config.job_grace + COORDINATOR_GRACE
                await self._start(stack, "coordinator", grace, holding)
            bootstrap = self._run_step(
                "bootstrap",
                holding,
                *(("--own",) if postgres is not None else ()),
                *(("--show-key",) if self.show_key else ()),
            )
            await (bootstrap if postgres is None else postgres.during(bootstrap))
            if self.config.own_issuer:
                # Not sooner: until now there was enough to do.
                await self._start(stack, "issuer", ISSUER_GRACE, holding)
            await self._start(stack, "gateway", GATEWAY_GRACE, holding, command="serve")
            await self._until_ready(f"{url_of(host, port)}/health/ready")
            if self.config.own_issuer:
                await self._until_ready(f"{self.issuer_url}/health")
                self.tell(f"Tokens: {self.issuer_url} (to print one: {self.token_command})")
            url = url_of(host, port)
            if not self.environ.get("SCAIMIND_NO_PROFILE"):
                await self._run_step("profile", holding, url)
            self.tell(
                f"Ready: {url} (API key: {self.data_dir.api_key}, logs: {self.data_dir.logs})"
            )
            await self._keep()

    async def _wait_for_children(self, lock: ChildrenLock) -> None:
        """Wait for what a supervisor that was killed has left behind: it is stopping."""
        if lock.taken():
            return
        self.tell("Waiting for an earlier run to stop")
        try:
            async with asyncio.timeout(START_LIMIT):
                while not lock.taken():  # noqa: ASYNC110  # other processes hold it
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise CannotStart(
                f"Processes of an earlier run still use {self.data_dir.root}; "
                f"list them with: fuser -v '{self.data_dir.root}/lock.children'"
            ) from error

    def _point_at_coordinator(self) -> None:
        """Settle where the coordinator is, and the secret that it shares with the gateway."""
        environ = self.environ
        port = internal_port("the coordinator", COORDINATOR_PORTS)
        address = f"127.0.0.1:{port}"
        environ["SCAIMIND_COORDINATOR_ADDRESS"] = environ["SCAIMIND_UPSTREAM_ADDRESS"] = address
        environ["SCAIMIND_COORDINATOR_DATA_DIR"] = str(self.data_dir.coordinator)
        # The gateway serves the very folder that the coordinator's URLs lead to.
        environ["SCAIMIND_COORDINATOR_DRIVE_DIR"] = str(self.data_dir.drive)
        environ["SCAIMIND_DRIVE_DIR"] = str(self.data_dir.drive)
        secret = kept_secret(self.data_dir.coordinator_secret)
        for program in ("COORDINATOR", "UPSTREAM"):
            environ.pop(f"SCAIMIND_{program}_API_SECRET_FILE", None)
            environ[f"SCAIMIND_{program}_API_SECRET"] = secret

    def _point_at_issuer(self) -> None:
        """Settle where the issuer is, who trusts it, and the secret of its one client."""
        environ, data_dir = self.environ, self.data_dir
        port = internal_port("the issuer", ISSUER_PORTS)
        self.issuer_url = f"http://127.0.0.1:{port}"
        jwks_url = f"{self.issuer_url}/.well-known/jwks.json"
        kept_secret(data_dir.issuer_secret)
        secret_file = str(data_dir.issuer_secret)
        environ.update(
            SCAIMIND_ISSUER_HOST="127.0.0.1",
            SCAIMIND_ISSUER_PORT=str(port),
            SCAIMIND_ISSUER_DATA_DIR=str(data_dir.issuer),
            SCAIMIND_ISSUER_CLIENT_SECRET_FILE=secret_file,
            SCAIMIND_AUTH_CLIENT_SECRET_FILE=secret_file,
            SCAIMIND_AUTH_JWKS_URL=jwks_url,
            SCAIMIND_AUTH_TOKEN_URL=f"{self.issuer_url}/oauth2/token",
            SCAIMIND_COORDINATOR_JWKS_URL=jwks_url,
        )
        settings = IssuerSettings.from_env(environ)
        environ.update(
            SCAIMIND_AUTH_ISSUER=settings.name,
            SCAIMIND_AUTH_CLIENT_ID=settings.client_id,
            SCAIMIND_COORDINATOR_TOKEN_ISSUER=settings.name,
        )
        # For people and for 'token', who may read it as they may read the secret.
        write_secret(data_dir.issuer_url, self.issuer_url)

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

    async def _run_step(self, name: str, holding: int, *arguments: str) -> None:
        await run_step(
            name,
            str(self.data_dir.root),
            *arguments,
            environ=self.environ,
            log=self.data_dir.logs / f"{name}.log",
            tell=self.tell,
            holding=holding,
        )

    async def _start(
        self,
        stack: AsyncExitStack,
        name: Program,
        grace: float,
        holding: int,
        *,
        command: str | None = None,
    ) -> None:
        service = Service(
            name=f"The {name}",
            command=(sys.executable, "-m", "app", command or name),
            environ=given_to(name, self.environ),
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

    def _models(self) -> tuple[ExampleModel, ...]:
        """Return the models that the example is to have; those of another coordinator's drive
        are not this program's."""
        return wanted_models(self.environ) if self.config.own_coordinator else ()

    async def _make_models(self) -> None:
        for model in self._models():
            try:
                await make_model(
                    model,
                    self.data_dir.drive / example.TENANT,
                    environ=self.environ,
                    log=self.data_dir.logs / "example.log",
                    tell=self.tell,
                )
            except OSError as error:
                # The stack is of use without it.
                self.tell(f"The example's model could not be made: {error}")

    async def _until_ready(self, url: str) -> None:
        try:
            async with asyncio.timeout(START_LIMIT):
                while not await is_ready(url):
                    for service in self.services:
                        service.check()
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise CannotStart(
                f"Not ready after {START_LIMIT:g} s: {url} reports the reason; "
                f"logs: {self.data_dir.logs}"
            ) from error

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            for service in self.services:
                group.create_task(service.keep(), name=f"keep {service.name}")
            group.create_task(self._make_models(), name="models of the example")
            while True:
                await asyncio.sleep(TRIM_INTERVAL)
                for service in self.services:
                    service.trim_log()
