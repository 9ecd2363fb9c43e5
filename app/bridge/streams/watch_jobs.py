"""The hub's upstream of states: a tenant's jobs, nodes and queue, from the coordinator."""

from collections.abc import AsyncGenerator

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from typing_extensions import override

from app.bridge.calls.base import Calls
from app.bridge.client import CoordinatorClient
from app.bridge.contract.breaches import ReportBreach, log_breach
from app.bridge.contract.states import StatesCheck
from app.bridge.converters import converter_of
from app.bridge.observed_call import Observe
from app.bridge.settings import UpstreamSettings
from app.bridge.streams.json_lines import one_line
from app.caller import Caller
from app.hub.selection.states import (
    ENDED,
    JobChange,
    JobState,
    NodeState,
    StatesBatch,
    StatesStart,
    StatesUpstream,
)
from app.hub.upstream import Position
from app.telemetry.tracing import Tracer
from generated.mindcoordinator.v1 import watch_jobs_pb2
from generated.mindcoordinator.v1.cluster_pb2 import Node
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, Job
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusResponse
from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobsVersion,
    WatchJobsRequest,
    WatchJobsResponse,
)

_state = converter_of(watch_jobs_pb2.JobState)
_node = converter_of(Node)
_queue = converter_of(GetQueueStatusResponse)


class WatchJobsClient(Calls, StatesUpstream):
    """`StatesUpstream` over a channel that somebody else owns and closes.

    The stream is the tenant's, not a user's: who may list jobs is asked before,
    with `authorize_list`.
    """

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        client: CoordinatorClient,
        settings: UpstreamSettings,
        observe: Observe,
        tracer: Tracer | None = None,
        report: ReportBreach = log_breach,
    ) -> None:
        super().__init__(
            channel=channel, settings=settings, observe=observe, report=report, tracer=tracer
        )
        self._client = client

    @override
    async def authorize_list(self, caller: Caller) -> None:
        await self._client.list_jobs(caller, statuses=[], page_size=1, page_token="", order_by="")

    @override
    def watch_jobs(
        self, tenant_id: str, *, after: Position | None, nodes: bool, queue: bool, request_id: str
    ) -> AsyncGenerator[StatesBatch, None]:
        request = WatchJobsRequest(
            after=None if after is None else JobsVersion(epoch=after.epoch, version=after.offset),
            nodes=nodes,
            queue=queue,
        )
        tenant = Caller(tenant_id=tenant_id, user_id=None, request_id=request_id)
        check = StatesCheck(request, tenant_id)
        return self._stream(
            "WatchJobs",
            self._stub.WatchJobs,
            tenant,
            request,
            read=lambda message: _batch(message, check),
        )

    @override
    async def read_state(self, caller: Caller, job_id: str) -> JobState:
        job = await self._ask("GetJob", self._stub.GetJob, caller, GetJobRequest(job_id=job_id))
        return _job_state(_small(job))


def _batch(message: WatchJobsResponse, check: StatesCheck) -> StatesBatch:
    check.check(message)
    return StatesBatch(
        start=StatesStart(message.start.epoch, message.start.reset)
        if message.HasField("start")
        else None,
        changes=[_change(each) for each in message.changes],
        synced=message.synced if message.HasField("synced") else None,
        nodes=[NodeState(each.node_id, one_line(_node(each))) for each in message.nodes],
        queue=one_line(_queue(message.queue)) if message.HasField("queue") else None,
    )


def _change(change: watch_jobs_pb2.JobChange) -> JobChange:
    if change.HasField("job"):
        return JobChange(change.version, change.job.job_id, _job_state(change.job))
    return JobChange(change.version, change.deleted_job_id, None)


def _job_state(state: watch_jobs_pb2.JobState) -> JobState:
    told = _state(state)
    status = str(told["status"])
    ended_at = None
    if state.HasField("ended_at"):
        ended_at = _seconds(state.ended_at)
    elif status in ENDED:
        ended_at = _seconds(state.updated_at)
    return JobState(
        job_id=state.job_id,
        user_id=state.user_id,
        status=status,
        labels=dict(state.labels),
        created_at=_seconds(state.created_at),
        ended_at=ended_at if status in ENDED else None,
        data=one_line(told),
    )


def _small(job: Job) -> watch_jobs_pb2.JobState:
    """Make of a job what WatchJobs would tell of it."""
    state = watch_jobs_pb2.JobState(
        job_id=job.job_id,
        user_id=job.user_id,
        name=job.name,
        status=job.status,
        message=job.message,
        labels=job.labels,
        revision=job.revision,
    )
    for name in ("progress", "created_at", "updated_at", "ended_at"):
        if job.HasField(name):
            getattr(state, name).CopyFrom(getattr(job, name))
    return state


def _seconds(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9
