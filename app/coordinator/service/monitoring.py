"""The calls that tell how a job is doing: its metrics and its log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from typing_extensions import override

from app.coordinator.data.turns import Full
from app.coordinator.errors import Overloaded
from app.coordinator.identity.peer import Peer
from app.coordinator.jobs.states import TERMINAL
from app.coordinator.metrics.downsampling import job_metrics
from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, peer_of
from app.coordinator.service.logs.marks import get_log_marks
from app.coordinator.service.logs.pages import list_logs
from app.coordinator.service.logs.watch import watch
from generated.mindcoordinator.v1 import logs_pb2, watch_pb2


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
        async with self._turn(peer, request):
            with self._while_there(peer, job.job_id):
                page = await asyncio.to_thread(
                    list_logs,
                    self._parts.workspace.directory(job.job_id),
                    request,
                    ended=job.status in TERMINAL,
                )
        self._note_damage(job.job_id, request, page)
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

    @override
    async def GetLogMarks(
        self, request: logs_pb2.GetLogMarksRequest, context: Context
    ) -> logs_pb2.LogMarks:
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        with self._while_there(peer, job.job_id):
            return await asyncio.to_thread(
                get_log_marks,
                self._parts.workspace.directory(job.job_id),
                request,
                known_lost=self._parts.damage.lost(job.job_id, "log"),
            )

    @override
    async def SearchJobLogs(
        self, request: logs_pb2.SearchJobLogsRequest, context: Context
    ) -> AsyncIterator[logs_pb2.SearchJobLogsResponse]:
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        directory = self._parts.workspace.directory(job.job_id)
        found = self._parts.log_searches.search(peer.tenant_id, directory, request)
        with self._while_there(peer, job.job_id):
            async with aclosing(found):
                async for message in found:
                    yield message

    @asynccontextmanager
    async def _turn(self, peer: Peer, request: watch_pb2.ListJobLogsRequest) -> AsyncIterator[None]:
        """Wait for a turn if a page is to be filtered. Raises Overloaded."""
        if not request.filter.ByteSize():
            yield
            return
        try:
            async with self._parts.filtered_pages.turn(peer.tenant_id):
                yield
        except Full:
            raise Overloaded(
                "too many pages of logs are being filtered; try again in a moment"
            ) from None

    def _note_damage(
        self,
        job_id: str,
        request: watch_pb2.ListJobLogsRequest,
        page: watch_pb2.ListJobLogsResponse,
    ) -> None:
        damage = self._parts.damage
        if page.missing:
            for lost in page.missing:
                damage.note(job_id, "log", first=lost.first, last=lost.last)
        elif page.entries and request.min_level == 0 and not request.HasField("filter"):
            offsets = [entry.offset for entry in page.entries]
            after = request.after.offset if request.HasField("after") else offsets[0] - 1
            damage.check(
                job_id, "log", after=after, numbers=offsets, through=page.next_after_offset
            )
