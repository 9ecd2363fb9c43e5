"""Calls of the contract that this coordinator does not serve: each is UNIMPLEMENTED.

A call leaves this module when it is served.
"""

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc

from generated.mindcoordinator.v1.jobs_pb2 import (
    DeleteJobRequest,
    DeleteJobResponse,
    Job,
    UpdateJobRequest,
)
from generated.mindcoordinator.v1.logs_pb2 import (
    GetLogMarksRequest,
    LogMarks,
    SearchJobLogsRequest,
    SearchJobLogsResponse,
)
from generated.mindcoordinator.v1.watch_jobs_pb2 import WatchJobsRequest, WatchJobsResponse


class UnimplementedCalls:
    """Refuses each of these calls."""

    async def UpdateJob(
        self, request: UpdateJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Job:
        """Change a job's name or labels."""
        await _refuse(context, "UpdateJob")

    async def DeleteJob(
        self, request: DeleteJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> DeleteJobResponse:
        """Delete a job that has ended."""
        await _refuse(context, "DeleteJob")

    async def GetLogMarks(
        self, request: GetLogMarksRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> LogMarks:
        """Return where a log has which levels."""
        await _refuse(context, "GetLogMarks")

    async def SearchJobLogs(
        self, request: SearchJobLogsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[SearchJobLogsResponse]:
        """Search a job's log."""
        yield await _refuse(context, "SearchJobLogs")

    async def WatchJobs(
        self, request: WatchJobsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[WatchJobsResponse]:
        """Watch the tenant's jobs."""
        yield await _refuse(context, "WatchJobs")


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], call: str) -> NoReturn:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED, f"This coordinator does not implement {call}."
    )
