"""Puts the coordinator together, and runs it from start to stop."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Final, Self

import grpc.aio
import structlog
from grpc_health.v1 import (  # type: ignore[import-untyped]  # no stubs
    health,
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # no stubs

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.data.cache import DataCache
from app.coordinator.data.drive import Drive
from app.coordinator.data.validation_pool import ValidationPool
from app.coordinator.engines.engine import Engine
from app.coordinator.engines.local.opening import open_local_engine
from app.coordinator.execution.controller import Controller
from app.coordinator.execution.inputs import Inputs
from app.coordinator.execution.opening import open_workspace
from app.coordinator.execution.run_spec import RunSpecs
from app.coordinator.identity.tokens import Admission, TokenChecker
from app.coordinator.isolation.levels import AUTO, Level
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.jobs.changes.reader import ChangeReader
from app.coordinator.jobs.events import JobEvents
from app.coordinator.jobs.lister import JobLister
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.states import HOLDING
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.jobs.store import Store
from app.coordinator.jobs.times import Stopwatch, this_stopwatch
from app.coordinator.leadership.leadership import Leadership, SoleLeadership
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership import sole_owner
from app.coordinator.packages.opening import open_installer, package_rules
from app.coordinator.resources.memory_reserve import MemoryReserve, available_memory
from app.coordinator.retention.keeping import Keeping
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.service.interceptor import ApiSecretInterceptor
from app.coordinator.service.listening import SERVICE, listen
from app.coordinator.service.logs.search import LogSearches
from app.coordinator.service.prometheus import registry_of, serve_metrics
from app.coordinator.service.service import Parts, Service
from app.coordinator.service.tracing import TraceInterceptor
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig
from app.coordinator.storage.disk_reserve import DiskReserve
from app.coordinator.storage.free_space import FreeSpace
from app.coordinator.submission.tenancy import Tenancy
from app.coordinator.trainers.asking import Trainers
from app.files.descriptors import raise_limit
from app.scaikey.http import open_session
from app.scaikey.jwks import KeySetCache
from app.telemetry.tracing import NoTracer, Tracer, open_tracer
from app.undumpable import make_undumpable
from generated.mindcoordinator.v1 import coordinator_pb2_grpc

#: File descriptors that it may need at once: connections, runners, copies, helper processes.
_DESCRIPTORS: Final = 16_384
#: Seconds that calls may still take once no run is left.
_STOP_PATIENCE: Final = 1.0
_REMEMBERED_RUNS: Final = 500
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
    ) -> None:
        self._config = config
        self._tracer = tracer or NoTracer()
        self._clock = clock or now_micros
        self._stopwatch = Stopwatch("", clock) if clock else this_stopwatch()
        self._resources = ExitStack()
        self._stopped = False
        self._services = AsyncExitStack()
        self.port = 0
        #: Where Prometheus reads; 0 where it does not.
        self.metrics_port = 0
        self.job_events = JobEvents(limit=config.max_watches)

    async def __aenter__(self) -> Self:
        """Start. Raises BadConfig."""
        try:
            await self._start()
        except BaseException:
            self._resources.close()
            await self._services.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.close()

    async def _start(self) -> None:
        config = self._config
        self._resources.enter_context(sole_owner(config))
        store = self._open_store()
        readable = system_paths([config.data_dir, config.drive_root, config.atlas_root])
        term_file = TermFile.of(config.data_dir)
        leadership = SoleLeadership(self._newest_term(term_file))
        engine = await open_local_engine(config, readable=readable)
        self._resources.callback(engine.close)
        await self._end_unreadable(store, engine, leadership)
        scheduler = self._make_scheduler(store, engine)
        drive = Drive(config.drive_root, atlas=config.atlas_root, allowed=config.allowed_paths)
        cache = DataCache(config.data_dir / "cache", limit_bytes=config.cache_bytes)
        running = {job.job_id for job in store.unfinished() if job.status in HOLDING}
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
            run_specs=RunSpecs(
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
            clock=self._clock,
        )
        engine.listen(self.controller.notify)
        gpus = GpuMeter(range(len(scheduler.cluster.nodes[config.node_id].spec.gpus)))
        self._resources.callback(gpus.close)
        gpus.start()
        self.keeping = keeping = Keeping(
            config,
            controller=self.controller,
            store=store,
            drive=drive,
            secrets=secrets,
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
            lister=self._lister,
            drive=drive,
            cache=cache,
            admission=await self._make_admission(),
            validation_pool=ValidationPool(
                drive,
                workers=config.validation_workers,
                memory_bytes=config.validation_memory,
                readable=readable,
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
            free_space=FreeSpace((config.data_dir, config.drive_root), floor=config.min_free_bytes),
            clock=self._clock,
        )
        self._server = self._make_server(parts)
        if config.metrics_address:
            registry = registry_of(
                scheduler,
                gpus,
                node_id=config.node_id,
                clock=self._clock,
                disk_bytes=keeping.retention.disk_bytes,
            )
            self.metrics_port = await self._services.enter_async_context(
                serve_metrics(config.metrics_address, registry)
            )
        self.controller.start()
        trainers.start()
        await self._services.enter_async_context(keeping)
        self._watch_memory(scheduler)
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info(
            "coordinator_started",
            port=self.port,
            tls=config.listen_tls_cert_file is not None,
            mutual_tls=config.listen_tls_client_ca_file is not None,
        )

    def _watch_memory(self, scheduler: Scheduler) -> None:
        reserve = MemoryReserve(
            self._config.memory_reserve,
            jobs=lambda: scheduler.jobs.values(),
            end=self.controller.end_for_memory,
            available=available_memory,
        )
        self._memory = asyncio.create_task(reserve.run(), name="memory reserve")
        self._resources.callback(self._memory.cancel)

    def _open_store(self) -> Store:
        try:
            path = self._config.data_dir / "coordinator.db"
            store = SqliteStore(path, committed=self.job_events.committed)
        except (UnusableStore, sqlite3.Error) as error:
            raise BadConfig(f"SCAIMIND_COORDINATOR_DATA_DIR: {error}") from None
        self._resources.callback(store.close)
        # Closed before the store, whose last words are durable once nobody else has it open.
        self._change_reader = ChangeReader(store)
        self._resources.callback(self._change_reader.close)
        self._lister = JobLister(store)
        self._resources.callback(self._lister.close)
        return store

    def _newest_term(self, file: TermFile) -> int:
        try:
            return file.read()
        except (OSError, ValueError) as error:
            raise BadConfig(f"SCAIMIND_COORDINATOR_DATA_DIR: {file.path}: {error}") from None

    async def _end_unreadable(self, store: Store, engine: Engine, leadership: Leadership) -> None:
        """End the jobs whose rows cannot be read, and what lives of them."""
        reason = "Its record in the coordinator's store could not be read."
        for job_id in store.fail_unreadable(reason, self._clock()):
            try:
                await engine.kill(job_id, term=leadership.term)
            except OSError as error:  # the others must go on
                log.error("run_not_killed", job_id=job_id, exc_info=error)

    def _make_scheduler(self, store: Store, engine: Engine) -> Scheduler:
        cluster = Cluster(tuple(engine.nodes()))
        for node_id, reason in store.drained_nodes().items():
            if node_id in cluster.nodes:
                cluster.set_drain(node_id, reason)
        run_times = RunTimes()
        for queue_name, seconds in store.newest_run_times(_REMEMBERED_RUNS):
            run_times.add_seconds(queue_name, seconds)
        return Scheduler(
            cluster=cluster,
            clock=self._clock,
            run_times=run_times,
            stopwatch=self._stopwatch,
            newest_creation=store.newest_creation(),
        )

    async def _make_admission(self) -> Admission:
        config = self._config
        if not config.jwks_url:
            log.warning("tokens_not_demanded", reason="jwks_url is not set")
            return Admission(None)
        session = await self._services.enter_async_context(open_session(timeout=_JWKS_TIMEOUT))
        keys = KeySetCache(
            settings=config.jwks,
            session=session,
            clock=time.monotonic,
        )
        self._services.push_async_callback(keys.close)
        return Admission(
            TokenChecker(
                keys=keys,
                issuer=config.token_issuer,
                leeway=config.token_leeway,
                clock=lambda: self._clock() / 1e6,
            )
        )

    def _make_server(self, parts: Parts) -> grpc.aio.Server:
        config = self._config
        by_secret = ApiSecretInterceptor(api_secret=config.api_secret)
        server = grpc.aio.server(
            interceptors=[TraceInterceptor(self._tracer), by_secret],
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                # A gateway pings every few seconds, streams or none.
                ("grpc.keepalive_permit_without_calls", 1),
                (
                    "grpc.http2.min_ping_interval_without_data_ms",
                    int(config.min_ping_interval * 1000),
                ),
                ("grpc.http2.max_ping_strikes", 0),
                # A gateway that comes back opens all its streams at once; beyond these, gRPC
                # rejects calls at random that nobody has looked at yet.
                ("grpc.server.max_pending_requests", 2 * config.max_watches),
                ("grpc.server.max_pending_requests_hard_limit", 4 * config.max_watches),
                # Two coordinators on one port would share the calls between them.
                ("grpc.so_reuseport", 0),
            ],
        )
        coordinator_pb2_grpc.add_MindCoordinatorServicer_to_server(Service(parts), server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
        )
        self.port = listen(server, config)
        return server

    async def close(self) -> None:
        """Stop; a second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            await self._health.enter_graceful_shutdown()
            await self.controller.close()
            self._memory.cancel()
            await asyncio.wait([self._memory])
            await self._server.stop(_STOP_PATIENCE)
            await self._services.aclose()
        finally:
            self._resources.close()
        log.info("coordinator_stopped")


async def serve(config: CoordinatorConfig, *, ready: Callable[[int], None] | None = None) -> None:
    """Run the coordinator as `app.coordinator.serve` says."""
    # Its environment and memory hold the API secret.
    make_undumpable()
    limit = raise_limit(_DESCRIPTORS)
    if limit is not None and limit < _DESCRIPTORS:
        log.warning(
            "descriptor_limit_too_low",
            limit=limit,
            needed=_DESCRIPTORS,
            advice="Raise the hard limit (ulimit -Hn); below it, jobs and calls may have to wait.",
        )
    loop = asyncio.get_running_loop()
    tracer = open_tracer(service_name="scaimind-coordinator")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Coordinator(config, tracer=tracer) as coordinator:
            if ready is not None:
                ready(coordinator.port)
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await asyncio.to_thread(tracer.close)
