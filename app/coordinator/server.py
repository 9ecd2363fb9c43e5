"""Puts the coordinator together."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Final, Self

import structlog

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.data.cache import DataCache
from app.coordinator.data.validation_pool import ValidationPool
from app.coordinator.engines.engine import Engine
from app.coordinator.engines.opening import open_engine
from app.coordinator.execution.controller import Controller
from app.coordinator.execution.inputs import Inputs
from app.coordinator.execution.opening import open_drive, open_run_specs, open_workspace
from app.coordinator.identity.tokens import Admission, TokenChecker
from app.coordinator.isolation.levels import AUTO, Level
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.jobs.changes.reader import ChangeReader
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.lister import JobLister
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.states import HOLDING
from app.coordinator.jobs.store import Store
from app.coordinator.jobs.times import Stopwatch, this_stopwatch
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.ownership.state import State, open_sole_state
from app.coordinator.packages.opening import open_installer, package_rules
from app.coordinator.resources.memory_reserve import MemoryReserve, available_memory
from app.coordinator.retention.keeping import Keeping
from app.coordinator.scheduling.opening import open_scheduler
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.service.logs.search import LogSearches
from app.coordinator.service.service import Parts, Service
from app.coordinator.service.serving.grpc_server import GrpcServer
from app.coordinator.service.serving.late_service import LateService
from app.coordinator.settings.coordinator import CoordinatorConfig
from app.coordinator.storage.disk_reserve import DiskReserve
from app.coordinator.storage.free_space import FreeSpace
from app.coordinator.submission.tenancy import Tenancy
from app.coordinator.trainers.asking import Trainers
from app.scaikey.http import open_session
from app.scaikey.jwks import KeySetCache
from app.telemetry.tracing import NoTracer, Tracer
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorServicer

#: Seconds that a fetch of the token issuer's keys may take.
_JWKS_TIMEOUT: Final = 5.0

log = structlog.get_logger("scaimind.coordinator")


def now_micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Coordinator:
    """A running coordinator: an async context manager.

    Leaving it asks all runs to save a checkpoint and leave; they go on when
    the next coordinator starts on the same data directory. A clock that is given
    also measures how long runs take. The tracer stays the
    caller's, who closes it; without one, nothing is recorded.
    """

    def __init__(
        self,
        config: CoordinatorConfig,
        *,
        clock: Callable[[], int] | None = None,
        tracer: Tracer | None = None,
        listening: Callable[[int], None] = lambda port: None,
        lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`listening` is called with the port once calls are answered. `lost` is called with the
        reason, by any thread, when this coordinator no longer leads: it must end the process,
        whose threads may be in the middle of something."""
        self._config = config
        self._tracer = tracer or NoTracer()
        self._clock = clock or now_micros
        self._stopwatch = Stopwatch("", clock) if clock else this_stopwatch()
        self._resources = ExitStack()
        self._stopped = False
        #: It has the state. Before, as while it waits for the lead, its start can be cancelled.
        self.leads = False
        self._memory: asyncio.Task[None] | None = None
        self._services = AsyncExitStack()
        self.port = 0
        #: Where Prometheus reads; 0 where it does not.
        self.metrics_port = 0
        self.job_events = JobEvents(limit=config.max_watches)
        self._lost = lost
        self._listening = listening
        #: Where the state is shared: answers calls before this coordinator leads.
        self._late: LateService | None = None

    async def __aenter__(self) -> Self:
        """Start. Raises BadConfig."""
        try:
            await self._start()
        except BaseException:
            # As at a stop: what is still busy has the store until it is done.
            try:
                await self._services.aclose()
            finally:
                self._resources.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.close()

    async def _start(self) -> None:
        config = self._config
        state = await self._open_state()
        leadership = state.leadership
        readable = system_paths([config.data_dir, config.drive_root, config.atlas_root])
        # What takes long and changes no job is there before it leads.
        engine = await open_engine(config, readable=readable, leadership=leadership)
        self._services.push_async_callback(engine.close)
        drive = await asyncio.to_thread(open_drive, config, leadership=leadership)
        self._resources.callback(drive.close)
        store = await state.store()
        self.leads = True
        self._change_reader, lister = ChangeReader(store), JobLister(store)
        for reader in (self._change_reader, lister):
            # Closed before the store, whose last words are durable once nobody else has it open.
            self._resources.callback(reader.close)
        await self._end_unreadable(store, engine, leadership)
        scheduler = open_scheduler(
            config,
            store=store,
            nodes=engine.nodes(),
            clock=self._clock,
            stopwatch=self._stopwatch,
        )
        cache = DataCache(config.data_dir / "cache", limit_bytes=config.cache_bytes)
        running = {job.job_id for job in store.unfinished() if job.status in HOLDING}
        # What nobody uses is removed from here on: by who leads, who knows what is used.
        leadership.check()
        inputs = Inputs(drive=drive, cache=cache, clock=self._clock)
        inputs.open(running=running)
        trainers = Trainers(
            config.trainers_python,
            readable=readable,
            private=(config.data_dir, config.drive_root, config.atlas_root),
            # In namespaces they see it without what is around it.
            other_users=engine.isolation.level is Level.USER,
        )
        self._services.push_async_callback(trainers.close)
        workspace = open_workspace(
            config,
            drive=drive,
            inputs=inputs,
            installer=open_installer(
                config, programs=engine.programs, running=running, clock=self._clock
            ),
            readable=readable,
            clock=self._clock,
        )
        secrets = JobSecrets(config.data_dir / "secrets")
        self.controller = Controller(
            scheduler=scheduler,
            store=store,
            workspace=workspace,
            job_events=self.job_events,
            run_specs=open_run_specs(
                workspace=workspace,
                secrets=secrets,
                drive=drive,
                trainers=trainers,
                leadership=leadership,
            ),
            engine=engine,
            leadership=leadership,
            reserve=DiskReserve(config.data_dir / "reserve"),
            secrets=secrets,
            stop_grace=config.stop_grace,
            clock=self._clock,
        )
        engine.listen(self.controller.engine_events)
        node = scheduler.cluster.nodes.get(config.node_id)
        gpus = GpuMeter(range(len(node.spec.gpus) if node is not None else 0))
        self._resources.callback(gpus.close)
        gpus.start()
        self.keeping = keeping = Keeping(
            config,
            controller=self.controller,
            store=store,
            drive=drive,
            secrets=secrets,
            leadership=leadership,
            clock=self._clock,
        )
        log_searches = LogSearches(searches=config.log_searches, readable=readable)
        self._services.push_async_callback(log_searches.close)
        parts = Parts(
            controller=self.controller,
            deletion=keeping.deletion,
            store=store,
            workspace=workspace,
            secrets=secrets,
            job_events=self.job_events,
            change_reader=self._change_reader,
            lister=lister,
            drive=drive,
            cache=cache,
            admission=await self._make_admission(),
            validation_pool=ValidationPool(
                drive,
                workers=config.validation_workers,
                memory_bytes=config.validation_memory,
                readable=readable,
                limit_bytes=config.cache_bytes,
            ),
            log_searches=log_searches,
            gpus=gpus,
            tenancy=Tenancy(
                engine.isolation,
                chosen=config.isolation != AUTO,
                tenant_id=store.newest_tenant(),
            ),
            packages=package_rules(config),
            trainers=trainers,
            free_space=FreeSpace(
                (config.data_dir,), drive=config.drive_root, floor=config.min_free_bytes
            ),
            clock=self._clock,
        )
        self._admit(Service(parts))
        if config.metrics_address:
            # An HTTP server, which nothing else here needs.
            from app.coordinator.service.prometheus import registry_of, serve_metrics

            registry = registry_of(
                scheduler,
                gpus,
                node_id=config.node_id,
                clock=self._clock,
                disk_bytes=keeping.retention.disk_bytes,
                engine_restarts=lambda: engine.restarts,
                agent_faults=lambda: engine.agent_faults,
            )
            self.metrics_port = await self._services.enter_async_context(
                serve_metrics(config.metrics_address, registry)
            )
        self.controller.start()
        trainers.start()
        await self._services.enter_async_context(keeping)
        if config.engine == "local":
            self._watch_memory(scheduler)
        await self._take_calls(store)
        log.info(
            "coordinator_started",
            port=self.port,
            tls=config.listen_tls_cert_file is not None,
            mutual_tls=config.listen_tls_client_ca_file is not None,
        )

    async def _open_state(self) -> State:
        """Have the state; of one that is shared, a part. Raises BadConfig."""
        config, committed = self._config, self.job_events.committed
        if not config.database_dsn:
            self.leads = True
            return open_sole_state(config, self._resources, committed=committed)
        from app.coordinator.ownership.candidacy import Candidacy
        from app.coordinator.ownership.shared_state import open_shared_state

        self._late = LateService()
        self._listen(self._late.servicer)
        host = config.address.rpartition(":")[0]
        candidacy = Candidacy(
            config,
            address=config.advertised_address or f"{host}:{self.port}",
            lost=self._lost,
        )
        self._late.leader = candidacy.where
        await self._server.start(serving=False)
        self._services.push_async_callback(self._server.stop)
        self._listening(self.port)
        return open_shared_state(config, self._resources, candidacy=candidacy, committed=committed)

    def _admit(self, service: Service) -> None:
        """Have calls reach the service."""
        if self._late is not None:
            self._late.begin(service)
        else:
            self._listen(service)

    async def _take_calls(self, store: Store) -> None:
        store.hurry()
        if self._late is not None:
            await self._server.serve()
        else:
            await self._server.start(serving=True)
            self._listening(self.port)

    def _listen(self, service: MindCoordinatorServicer) -> None:
        self._server = GrpcServer(self._config, service, tracer=self._tracer)
        self.port = self._server.port

    def _watch_memory(self, scheduler: Scheduler) -> None:
        reserve = MemoryReserve(
            self._config.memory_reserve,
            jobs=lambda: scheduler.jobs.values(),
            end=self.controller.end_for_memory,
            available=available_memory,
        )
        memory = asyncio.create_task(reserve.run(), name="memory reserve")
        self._memory = memory
        self._resources.callback(memory.cancel)

    async def _end_unreadable(self, store: Store, engine: Engine, leadership: Leadership) -> None:
        """End the jobs whose rows cannot be read, and what lives of them."""
        reason = "Its record in the coordinator's store could not be read."
        for job_id in store.fail_unreadable(reason, self._clock()):
            try:
                await engine.kill(job_id, term=leadership.term)
            except OSError as error:  # the others must go on
                log.error("run_not_killed", job_id=job_id, exc_info=error)

    async def _make_admission(self) -> Admission:
        config = self._config
        if not config.jwks_url:
            log.warning("tokens_not_demanded", reason="jwks_url is not set")
            return Admission(None)
        session = await self._services.enter_async_context(open_session(timeout=_JWKS_TIMEOUT))
        keys = KeySetCache(settings=config.jwks, session=session, clock=time.monotonic)
        self._services.push_async_callback(keys.close)
        return Admission(
            TokenChecker(
                keys=keys,
                issuer=config.token_issuer,
                leeway=config.token_leeway,
                clock=lambda: self._clock() / 1e6,
            )
        )

    async def close(self) -> None:
        """Stop; a second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            await self._server.retire()
            await self.controller.close()
            if self._memory is not None:
                self._memory.cancel()
                await asyncio.wait([self._memory])
            await self._server.stop()
            await self._services.aclose()
        finally:
            self._resources.close()
        log.info("coordinator_stopped")
