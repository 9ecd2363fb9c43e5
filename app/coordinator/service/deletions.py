"""The call that deletes a job."""

from typing_extensions import override

from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, peer_of
from generated.mindcoordinator.v1 import jobs_pb2


class DeletionCalls(Calls):
    """Deletes jobs."""

    @override
    async def DeleteJob(
        self, request: jobs_pb2.DeleteJobRequest, context: Context
    ) -> jobs_pb2.DeleteJobResponse:
        job = self._job(peer_of(context), request.job_id)
        with self._storing():
            freed = await self._parts.deletion.delete(job, reason="request")
        return jobs_pb2.DeleteJobResponse(freed_bytes=freed)
