"""Calls about what jobs tell."""

from app.bridge.calls.base import Calls
from app.bridge.converters import JsonObject
from app.caller import Caller
from generated.mindcoordinator.v1.logs_pb2 import GetLogMarksRequest
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest


class MonitoringCalls(Calls):
    """Reads metrics and logs."""

    async def get_job_metrics(
        self, caller: Caller, job_id: str, *, max_points: int = 0
    ) -> JsonObject:
        """Fetch a job's metric snapshots; 0 points means the coordinator's default."""
        return await self._call(
            "GetJobMetrics",
            self._stub.GetJobMetrics,
            caller,
            GetJobMetricsRequest(job_id=job_id, max_points=max_points),
        )

    async def get_log_marks(self, caller: Caller, job_id: str, *, buckets: int = 0) -> JsonObject:
        """Fetch where a job's log has which levels; 0 buckets means the coordinator's default."""
        return await self._call(
            "GetLogMarks",
            self._stub.GetLogMarks,
            caller,
            GetLogMarksRequest(job_id=job_id, buckets=buckets),
        )
