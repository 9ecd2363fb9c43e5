"""The call WatchJobs."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from typing_extensions import override

from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, peer_of
from app.coordinator.service.watch_jobs.looks import ClusterLooks
from app.coordinator.service.watch_jobs.stream import watch_jobs
from generated.mindcoordinator.v1 import watch_jobs_pb2


class WatchJobsCalls(Calls):
    """The call WatchJobs."""

    @override
    async def WatchJobs(
        self, request: watch_jobs_pb2.WatchJobsRequest, context: Context
    ) -> AsyncIterator[watch_jobs_pb2.WatchJobsResponse]:
        peer = peer_of(context)
        looks = None
        if request.nodes or request.queue:
            looks = ClusterLooks(
                self._view, peer.tenant_id, nodes=request.nodes, queue=request.queue
            )
        messages = watch_jobs(
            peer.tenant_id,
            request.after if request.HasField("after") else None,
            store=self._store,
            reader=self._parts.change_reader,
            job_events=self._parts.job_events,
            looks=looks,
        )
        async with aclosing(messages):
            async for message in messages:
                yield message
