"""The scheduler put together from the settings and the store."""

from collections.abc import Callable, Iterable
from typing import Final

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.queue_rules import SchedulingRules
from app.coordinator.jobs.store import Store
from app.coordinator.jobs.times import Stopwatch
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.settings.coordinator import CoordinatorConfig

_REMEMBERED_RUNS: Final = 500


def open_scheduler(
    config: CoordinatorConfig,
    *,
    store: Store,
    nodes: Iterable[NodeReport],
    clock: Callable[[], int],
    stopwatch: Stopwatch,
) -> Scheduler:
    """Return the scheduler, which knows no job yet."""
    cluster = Cluster((), topology=config.topology_label, growing=config.ray_autoscaling)
    cluster.set_nodes(nodes)
    for node_id, reason in store.drained_nodes().items():
        cluster.restore_drain(node_id, reason)
    run_times = RunTimes()
    for queue_name, seconds in store.newest_run_times(_REMEMBERED_RUNS):
        run_times.add_seconds(queue_name, seconds)
    return Scheduler(
        cluster=cluster,
        clock=clock,
        run_times=run_times,
        stopwatch=stopwatch,
        newest_creation=store.newest_creation(),
        rules=SchedulingRules(dict(config.queues), dict(config.tenants)),
    )
