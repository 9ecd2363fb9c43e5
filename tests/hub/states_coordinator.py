"""A coordinator that also tells the states of all jobs, and forgets when told to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2, queue_pb2, watch_jobs_pb2
from tests.hub.log_coordinator import Context, LogCoordinator

_ENDED = {
    jobs_pb2.JOB_STATUS_COMPLETED,
    jobs_pb2.JOB_STATUS_FAILED,
    jobs_pb2.JOB_STATUS_CANCELLED,
    jobs_pb2.JOB_STATUS_PREEMPTED,
}


class StatesCoordinator(LogCoordinator):
    """Has a record of changes for one tenant."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = "s1"
        self.version = 0
        #: By job: the newest change.
        self.states: dict[str, watch_jobs_pb2.JobChange] = {}
        #: Versions below it are no longer in the record of deletions.
        self.forgotten = 0
        self.open_states = 0
        self.states_requests: list[watch_jobs_pb2.WatchJobsRequest] = []
        self.states_metadata: list[dict[str, str]] = []
        self.nodes: dict[str, cluster_pb2.Node] = {}
        self.queue: queue_pb2.GetQueueStatusResponse | None = None
        self.cluster_changes = 0

    async def set_state(
        self,
        job_id: str,
        status: jobs_pb2.JobStatus.ValueType = jobs_pb2.JOB_STATUS_TRAINING,
        **values: Any,
    ) -> None:
        """Create a job, or change it."""
        self.jobs[job_id]
        before = self.states.get(job_id)
        state = watch_jobs_pb2.JobState(job_id=job_id, name=job_id)
        if before is not None and before.HasField("job"):
            state.CopyFrom(before.job)
        else:
            state.created_at.seconds = 1_000_000_000 + len(self.states)
        for name, value in values.items():
            if name == "labels":
                state.labels.update(value)
            elif name == "ended_at":
                state.ended_at.CopyFrom(Timestamp(seconds=int(value)))
            else:
                setattr(state, name, value)
        state.status = status
        if status in _ENDED and not state.HasField("ended_at"):
            state.ended_at.GetCurrentTime()
        state.revision += 1
        await self._changed(job_id, watch_jobs_pb2.JobChange(job=state))

    async def delete(self, job_id: str) -> None:
        """Delete a job."""
        await self._changed(job_id, watch_jobs_pb2.JobChange(deleted_job_id=job_id))

    async def lose_record(self, epoch: str) -> None:
        """Begin another record with the jobs that are there."""
        self.epoch = epoch
        self.states = {job: each for job, each in self.states.items() if each.HasField("job")}

    async def set_node(self, node_id: str, **values: Any) -> None:
        """Change a node."""
        self.nodes[node_id] = cluster_pb2.Node(node_id=node_id, **values)
        self.cluster_changes += 1
        await self._notify()

    async def set_queue(self, total: int) -> None:
        """Change the queue."""
        self.queue = queue_pb2.GetQueueStatusResponse(total_queued=total)
        self.cluster_changes += 1
        await self._notify()

    async def until_states(self, count: int) -> None:
        """Wait until so many WatchJobs calls are open."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.open_states == count)

    async def _changed(self, job_id: str, change: watch_jobs_pb2.JobChange) -> None:
        self.version += 1
        change.version = self.version
        self.states.pop(job_id, None)
        self.states[job_id] = change
        await self._notify()

    async def ListJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        return jobs_pb2.ListJobsResponse()

    async def WatchJobs(
        self, request: watch_jobs_pb2.WatchJobsRequest, context: Context
    ) -> AsyncIterator[watch_jobs_pb2.WatchJobsResponse]:
        self.states_requests.append(request)
        metadata = context.invocation_metadata() or ()
        self.states_metadata.append({key: str(value) for key, value in metadata})
        if "WatchJobs" in self.refusals:
            code, detail = self.refusals["WatchJobs"]
            await context.abort(code, detail)
        self.open_states += 1
        self._soon()
        try:
            async for message in self._states(request):
                yield message
        finally:
            self.open_states -= 1
            self._soon()

    async def _states(
        self, request: watch_jobs_pb2.WatchJobsRequest
    ) -> AsyncIterator[watch_jobs_pb2.WatchJobsResponse]:
        after = request.after
        resumes = (
            request.HasField("after")
            and after.epoch == self.epoch
            and self.forgotten <= after.version <= self.version
        )
        place, began, cluster = (after.version if resumes else 0), self.version, 0
        message = watch_jobs_pb2.WatchJobsResponse(
            start=watch_jobs_pb2.WatchJobsStart(epoch=self.epoch, reset=not resumes)
        )
        synced = False
        while True:
            for change in self.states.values():
                old = not resumes and change.version <= began
                if change.version > place and (change.HasField("job") or not old):
                    message.changes.append(change)
            place = self.version
            if not synced:
                synced, message.synced = True, place
            if cluster != self.cluster_changes:
                cluster = self.cluster_changes
                if request.nodes:
                    message.nodes.extend(self.nodes.values())
                if request.queue and self.queue is not None:
                    message.queue.CopyFrom(self.queue)
            if message.ByteSize():
                yield message
            message = watch_jobs_pb2.WatchJobsResponse()
            async with self.changed:
                await self.changed.wait_for(partial(self._has_news, place, cluster))

    def _has_news(self, version: int, cluster: int) -> bool:
        return self.version > version or self.cluster_changes != cluster


@asynccontextmanager
async def tells_states() -> AsyncIterator[StatesCoordinator]:
    """A coordinator that runs, without jobs."""
    # What it does not serve is UNIMPLEMENTED, as generated.
    async with StatesCoordinator() as running:  # type: ignore[abstract]
        yield running
