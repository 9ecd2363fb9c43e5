"""What the hub reports, to Prometheus and to the job cache."""

from typing import Any

from typing_extensions import override

from app.cache.writer import JobWriter
from app.hub.close_reasons import CloseReason
from app.hub.observer import HubObserver
from app.hub.upstream import JobKey, StatusChange
from app.tasks.shared_reads import SharedReads
from app.telemetry.metrics import Metrics


class HubMetrics(HubObserver):
    """Keeps the hub's part of `Metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._history_bytes = 0
        # It changes with every message: it is looked at when it is asked for.
        metrics.history_bytes.set_function(lambda: self._history_bytes)

    @override
    def upstream_opened(self) -> None:
        self._metrics.upstream_streams.inc()

    @override
    def upstream_closed(self) -> None:
        self._metrics.upstream_streams.dec()

    @override
    def upstream_anomaly(self, kind: str) -> None:
        self._metrics.upstream_anomalies.labels(kind=kind).inc()

    @override
    def watcher_joined(self, kind: str) -> None:
        self._metrics.watchers.labels(kind=kind).inc()

    @override
    def watcher_left(self, kind: str, reason: CloseReason) -> None:
        self._metrics.watchers.labels(kind=kind).dec()
        self._metrics.watcher_closed.labels(kind=kind, reason=reason.value).inc()

    @override
    def watcher_refused(self, limit: str) -> None:
        self._metrics.watcher_refused.labels(limit=limit).inc()

    @override
    def delivered(self, kind: str, size: int) -> None:
        self._metrics.delivered_bytes.labels(kind=kind).inc(size)

    @override
    def flushed(self, seconds: float, interval: float) -> None:
        self._metrics.flush_seconds.observe(seconds)
        self._metrics.flush_interval.set(interval)

    @override
    def history_size(self, size: int) -> None:
        self._history_bytes = size


class HubReports(HubMetrics):
    """Passes on, beside the metrics, what the feeds see of their jobs."""

    def __init__(self, metrics: Metrics, *, jobs: JobWriter, reads: SharedReads[Any]) -> None:
        """What a stream has told its clients is not contradicted by a read that they make then."""
        super().__init__(metrics)
        self._jobs = jobs
        self._reads = reads

    @override
    def jobs_changed(self, tenant_id: str) -> None:
        self._reads.forget(tenant_id)

    @override
    def status_changed(self, key: JobKey, change: StatusChange) -> None:
        self._reads.forget(key.tenant_id)
        # Without its time, a status cannot be placed among others.
        if change.at:
            self._jobs.record_status(
                key.tenant_id,
                key.job_id,
                status=change.status,
                message=change.message,
                at=change.at,
            )

    @override
    def job_deleted(self, key: JobKey) -> None:
        self._reads.forget(key.tenant_id)
        self._jobs.forget_job(key.tenant_id, key.job_id)
