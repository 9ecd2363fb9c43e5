"""MindCoordinator's unary calls, and searches of logs, typed, one method each.

Each takes the caller for whom it is made, returns JSON-ready data, and raises
`ApiError` only. All are bounded by a deadline.
"""

from app.bridge.calls.base import RecordJob
from app.bridge.calls.cluster import ClusterCalls
from app.bridge.calls.data import DataCalls
from app.bridge.calls.evaluations import EvaluationCalls
from app.bridge.calls.jobs import JobCalls
from app.bridge.calls.monitoring import MonitoringCalls
from app.bridge.streams.search import SearchCalls

__all__ = ["CoordinatorClient", "RecordJob"]


class CoordinatorClient(
    JobCalls, MonitoringCalls, SearchCalls, ClusterCalls, EvaluationCalls, DataCalls
):
    """The coordinator. `Calls` says what is needed to make one."""
