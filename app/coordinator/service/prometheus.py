"""Jobs, queue, nodes and GPUs for Prometheus, on an HTTP address of their own.

Counts of all tenants, and no name that a caller gave: whoever reads them learns of
no job, and the number of series depends on nodes and GPUs alone.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.cluster.nodes import NodeState
from app.coordinator.jobs.states import TERMINAL, WAITING, Status
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.settings.coordinator import BadConfig

#: Seconds that a connection may stay without a request.
_IDLE: Final = 60.0


def registry_of(
    scheduler: Scheduler,
    gpus: GpuMeter,
    *,
    node_id: str,
    clock: Callable[[], int],
    disk_bytes: Callable[[], Mapping[str, int]] = dict,
    engine_restarts: Callable[[], int] = int,
    agent_faults: Callable[[], Mapping[str, int]] = dict,
) -> CollectorRegistry:
    """Make the metrics of a coordinator on the node `node_id`; `clock` is in microseconds."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="scaimind", registry=registry)
    registry.register(_ClusterCollector(scheduler, gpus, node_id, clock))
    registry.register(_DiskCollector(disk_bytes))
    registry.register(_EngineCollector(engine_restarts, agent_faults))
    return registry


@asynccontextmanager
async def serve_metrics(address: str, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve `/metrics` on `host:port`; the value is the port. Raises BadConfig.

    The metrics are collected on the event loop, where the state is that they are of.
    """

    async def answer(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(
            body=encode(registry),
            headers={hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"},
        )

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=_IDLE, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise BadConfig(
                f"SCAIMIND_COORDINATOR_METRICS_ADDRESS: cannot listen on {address}: "
                f"{error.strerror}"
            ) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class _ClusterCollector(Collector):
    def __init__(
        self, scheduler: Scheduler, gpus: GpuMeter, node_id: str, clock: Callable[[], int]
    ) -> None:
        self._scheduler = scheduler
        self._gpus = gpus
        self._node_id = node_id
        self._clock = clock

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._jobs()
        yield from _nodes(list(self._scheduler.cluster.nodes.values()))
        yield from self._gpu_use()

    def _jobs(self) -> Iterator[GaugeMetricFamily]:
        jobs = list(self._scheduler.jobs.values())
        family = GaugeMetricFamily(
            "scaimind_jobs", "Jobs that have not ended, by status.", labels=("status",)
        )
        counts = dict.fromkeys(sorted(set(Status) - TERMINAL), 0)
        for job in jobs:
            counts[job.status] += 1
        for status, count in counts.items():
            family.add_metric((status.name,), count)
        yield family
        now = self._clock()
        waiting = [job for job in jobs if job.status in WAITING and job.not_before <= now]
        yield GaugeMetricFamily(
            "scaimind_queue_jobs", "Jobs that wait for resources.", value=len(waiting)
        )
        since = min((job.queued_at or job.created_at for job in waiting), default=now)
        yield GaugeMetricFamily(
            "scaimind_queue_oldest_seconds",
            "Time for which the longest-waiting job has waited; 0 if none waits.",
            value=max(now - since, 0) / 1e6,
        )

    def _gpu_use(self) -> Iterator[GaugeMetricFamily]:
        busy = GaugeMetricFamily(
            "scaimind_gpu_utilization_ratio",
            "Share of time that a GPU was busy; absent if it cannot be measured.",
            labels=("node", "gpu"),
        )
        memory = GaugeMetricFamily(
            "scaimind_gpu_memory_used_bytes",
            "Memory of a GPU in use; absent if it cannot be measured.",
            labels=("node", "gpu"),
        )
        for index, use in self._gpus.latest().items():
            labels = (self._node_id, str(index))
            if use.utilization is not None:
                busy.add_metric(labels, use.utilization)
            if use.memory_bytes is not None:
                memory.add_metric(labels, use.memory_bytes)
        yield busy
        yield memory


class _DiskCollector(Collector):
    def __init__(self, disk_bytes: Callable[[], Mapping[str, int]]) -> None:
        self._disk_bytes = disk_bytes

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "scaimind_coordinator_disk_bytes",
            "Bytes on the disk by kind, as of the last look (retention_interval): jobs and their"
            " checkpoints, the cache, packages, registered models, the store.",
            labels=("kind",),
        )
        for kind, size in self._disk_bytes().items():
            family.add_metric((kind,), size)
        yield family


class _EngineCollector(Collector):
    def __init__(
        self, restarts: Callable[[], int], faults: Callable[[], Mapping[str, int]]
    ) -> None:
        self._restarts = restarts
        self._faults = faults

    @override
    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "scaimind_engine_driver_restarts",
            "How often the driver of the cluster's engine has ended and was started again.",
            value=self._restarts(),
        )
        family = CounterMetricFamily(
            "scaimind_agent_faults",
            "How often an agent on a node spoke another protocol than the coordinator, and how"
            " often it sent a message that no agent sends.",
            labels=("kind",),
        )
        for kind, count in self._faults().items():
            family.add_metric((kind,), count)
        yield family


def _nodes(nodes: list[NodeState]) -> Iterator[GaugeMetricFamily]:
    """Yield what the nodes have, and what jobs hold of it."""
    values: tuple[tuple[str, str, Callable[[NodeState], float]], ...] = (
        ("gpus", "GPUs of a node.", lambda node: len(node.spec.gpus)),
        ("gpus_allocated", "GPUs of a node that jobs hold.", lambda node: len(node.taken_gpus)),
        ("cpus", "Cores of a node.", lambda node: node.spec.cpus),
        ("cpus_allocated", "Cores of a node that jobs hold.", lambda node: node.taken_cpus),
        ("memory_bytes", "Memory of a node.", lambda node: node.spec.memory),
        (
            "memory_allocated_bytes",
            "Memory of a node that jobs hold.",
            lambda node: node.taken_memory,
        ),
        ("jobs", "Jobs on a node.", lambda node: len(node.job_ids)),
        (
            "draining",
            "Whether a node takes no new jobs.",
            lambda node: int(node.drain is not None),
        ),
    )
    for name, text, value_of in values:
        family = GaugeMetricFamily(f"scaimind_node_{name}", text, labels=("node",))
        for node in nodes:
            family.add_metric((node.spec.node_id,), value_of(node))
        yield family
