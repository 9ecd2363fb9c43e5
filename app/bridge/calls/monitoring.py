"""Calls about what jobs tell."""

from collections.abc import Sequence

from app.bridge.calls.log_filters import filter_message
from app.bridge.calls.log_pages import LogPageCalls
from app.bridge.converters import JsonObject
from app.caller import Caller
from app.hub.upstream import LogPage
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.logs_pb2 import GetLogMarksRequest
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    ListJobLogsRequest,
    LogLevel,
    LogPosition,
)


class MonitoringCalls(LogPageCalls):
    """Reads metrics and logs."""

    async def get_job_metrics(
        self,
        caller: Caller,
        job_id: str,
        *,
        max_points: int = 0,
        keys: Sequence[str] = (),
        from_step: int | None = None,
        to_step: int | None = None,
        with_buckets: bool = False,
        deadline: float | None = None,
    ) -> JsonObject:
        """Fetch a job's metric snapshots; 0 points means the coordinator's default.

        A coordinator without the feature `metrics_buckets` returns the points alone, all of
        them and with all their numbers.
        """
        return await self._call(
            "GetJobMetrics",
            self._stub.GetJobMetrics,
            caller,
            GetJobMetricsRequest(
                job_id=job_id,
                max_points=max_points,
                keys=keys,
                from_step=from_step,
                to_step=to_step,
                with_buckets=with_buckets,
            ),
            deadline=deadline,
        )

    async def get_log_epoch(self, caller: Caller, job_id: str) -> str:
        """Fetch the epoch of a job's log."""
        page = await self._call(
            "ListJobLogs", self._stub.ListJobLogs, caller, ListJobLogsRequest(job_id=job_id)
        )
        epoch: str = page["epoch"]
        return epoch

    async def list_job_logs(
        self,
        caller: Caller,
        job_id: str,
        *,
        log_filter: LogFilter,
        limit: int,
        after: tuple[str, int] | None = None,
        before: int = 0,
    ) -> LogPage:
        """Fetch a page of a job's log: behind a place (epoch and offset), or before an offset.

        An older coordinator knows of a filter's level alone, and reads no page backward:
        `next_before` is 0 then.
        """
        return await self._page(
            caller,
            ListJobLogsRequest(
                job_id=job_id,
                after=None if after is None else LogPosition(epoch=after[0], offset=after[1]),
                before_offset=before,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=limit,
            ),
            log_filter,
        )

    async def get_log_marks(self, caller: Caller, job_id: str, *, buckets: int = 0) -> JsonObject:
        """Fetch where a job's log has which levels; 0 buckets means the coordinator's default."""
        return await self._call(
            "GetLogMarks",
            self._stub.GetLogMarks,
            caller,
            GetLogMarksRequest(job_id=job_id, buckets=buckets),
        )
