"""The hub's events, for metrics."""

from app.hub.close_reasons import CloseReason
from app.hub.upstream import JobKey, StatusChange


class HubObserver:
    """Receives the hub's events; this base class ignores them."""

    def upstream_opened(self) -> None:
        """Note that an upstream stream was opened."""

    def upstream_closed(self) -> None:
        """Note that an upstream stream ended."""

    def upstream_anomaly(self, kind: str) -> None:
        """Note that the upstream violated its contract."""

    def status_changed(self, key: JobKey, change: StatusChange) -> None:
        """Note a status change of a watched job."""

    def jobs_changed(self, tenant_id: str) -> None:
        """Note that clients are told that jobs of a tenant have changed."""

    def job_deleted(self, key: JobKey) -> None:
        """Note that a job of a watched tenant was deleted."""

    def watcher_joined(self, kind: str) -> None:
        """Note a new watcher of `logs` or `metrics`."""

    def watcher_left(self, kind: str, reason: CloseReason) -> None:
        """Note that a watcher left, and why."""

    def watcher_refused(self, limit: str) -> None:
        """Note that a watcher was refused because a limit was reached."""

    def delivered(self, kind: str, size: int) -> None:
        """Note `size` bytes of events written to watchers."""

    def flushed(self, seconds: float, interval: float) -> None:
        """Note a flush, its duration, and the current interval."""

    def history_size(self, size: int) -> None:
        """Note how many bytes of history are kept."""
