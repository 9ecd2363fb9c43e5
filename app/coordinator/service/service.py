"""The MindCoordinator service: requests in, the coordinator's state out."""

from app.coordinator.service.base import Parts
from app.coordinator.service.cluster import ClusterCalls
from app.coordinator.service.data import DataCalls
from app.coordinator.service.deletions import DeletionCalls
from app.coordinator.service.evaluations import EvaluationCalls
from app.coordinator.service.jobs import JobCalls
from app.coordinator.service.monitoring import MonitoringCalls
from app.coordinator.service.updates import UpdateCalls
from app.coordinator.service.watch_jobs.calls import WatchJobsCalls

__all__ = ["Parts", "Service"]


class Service(
    JobCalls,
    DeletionCalls,
    UpdateCalls,
    MonitoringCalls,
    ClusterCalls,
    EvaluationCalls,
    DataCalls,
    WatchJobsCalls,
):
    """One method per call of the contract."""
