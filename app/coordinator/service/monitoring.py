"""The calls that tell how a job is doing: its metrics and its log."""

import asyncio
from collections.abc import AsyncIterator

from typing_extensions import override

from app.coordinator.jobs.states import TERMINAL
from app.coordinator.metrics.downsampling import job_metrics
from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, peer_of
from app.coordinator.service.watch import list_logs, watch
from generated.mindcoordinator.v1 import watch_pb2
from generated.mindcoordinator.v1.watch_pb2 import LogLevel


class MonitoringCalls(Calls):
    """The calls that watch jobs."""

    @override
    async def GetJobMetrics(
        self, request: watch_pb2.GetJobMetricsRequest, context: Context
    ) -> watch_pb2.GetJobMetricsResponse:
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        with self._while_there(peer, job.job_id):
            return await asyncio.to_thread(
                job_metrics,
                self._parts.workspace.directory(job.job_id),
                request,
                ended=job.status in TERMINAL,
            )

    @override
    async def ListJobLogs(
        self, request: watch_pb2.ListJobLogsRequest, context: Context
    ) -> watch_pb2.ListJobLogsResponse:
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        with self._while_there(peer, job.job_id):
            page = await asyncio.to_thread(
                list_logs,
                self._parts.workspace.directory(job.job_id),
                request,
                ended=job.status in TERMINAL,
            )
        if request.min_level == LogLevel.LOG_LEVEL_UNSPECIFIED and page.entries:
            offsets = [entry.offset for entry in page.entries]
            after = request.after.offset if request.HasField("after") else offsets[0] - 1
            self._parts.damage.check(
                job.job_id, "log", after=after, numbers=offsets, through=page.next_after_offset
            )
        return page

    @override
    async def WatchJob(
        self, request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[watch_pb2.WatchJobResponse]:
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        batches = watch(
            self._parts.workspace.directory(job.job_id),
            request,
            job_events=self._parts.job_events,
            current=lambda: self._job(peer, job.job_id),
            job_id=job.job_id,
            damage=self._parts.damage,
        )
        async for batch in batches:
            yield batch
