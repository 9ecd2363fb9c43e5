"""The MindCoordinator service: requests in, the coordinator's state out."""

from generated.mindcoordinator.v1 import coordinator_pb2_grpc

from .calls import Parts
from .cluster_calls import ClusterCalls
from .data_calls import DataCalls
from .evaluation_calls import EvaluationCalls
from .job_calls import JobCalls
from .monitoring_calls import MonitoringCalls

__all__ = ["Parts", "Service"]


class Service(
    JobCalls,
    MonitoringCalls,
    ClusterCalls,
    EvaluationCalls,
    DataCalls,
    coordinator_pb2_grpc.MindCoordinatorServicer,
):
    """One method per call of the contract."""
