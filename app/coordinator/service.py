"""The MindCoordinator service: requests in, the coordinator's state out."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from generated.mindcoordinator.v1 import (
    cluster_pb2,
    coordinator_pb2_grpc,
    data_pb2,
    evaluations_pb2,
    jobs_pb2,
    queue_pb2,
    watch_pb2,
)

from .board import Board
from .controller import Controller
from .doors import Context, Peer, peer_of
from .drive import Drive
from .evaluations import accept_evaluation, evaluation_message
from .messages import job_message, node_message, status_message, time_message
from .metrics_series import downsample
from .pages import NodePages, page_size
from .records import Demand, JobRecord
from .refusals import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    Overloaded,
)
from .scheduler import Step, checkpoint_url
from .states import HOLDING, RETRYABLE, TERMINAL, WAITING, Status
from .store import Order, Store, UsedKey, digest_of
from .submission import accept, accept_retry
from .validation import examine
from .watch import list_logs, watch
from .workspace import Workspace

_DEFAULT_POINTS: Final = 1000
_MAX_POINTS: Final = 10_000
_KEY_LIFE: Final = 24 * 3600 * 1_000_000
_MAX_KEY: Final = 256
_MAX_SOURCES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the service works with."""

    controller: Controller
    store: Store
    workspace: Workspace
    board: Board
    drive: Drive
    #: Microseconds since 1970.
    clock: Callable[[], int]


class Service(coordinator_pb2_grpc.MindCoordinatorServicer):
    """One method per call. Who calls, and what becomes of what is raised, is `doors`' matter."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._controller = parts.controller
        self._scheduler = parts.controller.scheduler
        self._store = parts.store

    # Jobs

    async def SubmitJob(
        self, request: jobs_pb2.SubmitJobRequest, context: Context
    ) -> jobs_pb2.SubmitJobResponse:
        """See the contract."""
        peer = peer_of(context)
        known = self._known_key(peer, request.idempotency_key, request)
        job = known or self._submit(
            accept(
                request,
                tenant_id=peer.tenant_id,
                user_id=peer.user_id,
                drive=self._parts.drive,
                cluster=self._scheduler.cluster,
                now=self._parts.clock(),
            ),
            request,
            key=request.idempotency_key,
        )
        wait = self._scheduler.waits().get(job.job_id, 0) if job.status in WAITING else 0
        return jobs_pb2.SubmitJobResponse(
            job_id=job.job_id,
            status=status_message(job.status),
            message=job.message,
            estimated_wait_seconds=wait,
        )

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:
        """See the contract."""
        return job_message(self._job(peer_of(context), request.job_id))

    async def ListJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        """See the contract."""
        peer = peer_of(context)
        statuses = []
        for number in request.statuses:
            try:
                statuses.append(Status(number))
            except ValueError:
                raise InvalidArgument("statuses", f"{number} is not a job status") from None
        page = self._store.list_jobs(
            peer.tenant_id,
            statuses=sorted(set(statuses)),
            labels=request.label_filter,
            order=Order.parse(request.order_by),
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return jobs_pb2.ListJobsResponse(
            jobs=[job_message(job) for job in page.jobs],
            next_page_token=page.next_page_token,
            total_count=page.total_count,
        )

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.Job:
        """See the contract."""
        peer = peer_of(context)
        job = self._unended(peer, request.job_id, "cancelled")
        self._apply(self._scheduler.cancel(job.job_id, request.reason[:1000]))
        return job_message(self._job(peer, job.job_id))

    async def PauseJob(self, request: jobs_pb2.PauseJobRequest, context: Context) -> jobs_pb2.Job:
        """See the contract."""
        peer = peer_of(context)
        job = self._unended(peer, request.job_id, "paused")
        self._apply(self._scheduler.pause(job.job_id, save_checkpoint=request.save_checkpoint))
        return job_message(self._job(peer, job.job_id))

    async def ResumeJob(self, request: jobs_pb2.ResumeJobRequest, context: Context) -> jobs_pb2.Job:
        """See the contract."""
        peer = peer_of(context)
        job = self._unended(peer, request.job_id, "resumed")
        checkpoint_id = request.checkpoint_id
        if not checkpoint_id and job.checkpoints:
            checkpoint_id = job.checkpoints[-1].checkpoint_id
        resume_from = _checkpoint(job, checkpoint_id) if checkpoint_id else job.resume_from
        self._apply(
            self._scheduler.resume(job.job_id, checkpoint_id=checkpoint_id, resume_from=resume_from)
        )
        return job_message(self._job(peer, job.job_id))

    async def RetryJob(self, request: jobs_pb2.RetryJobRequest, context: Context) -> jobs_pb2.Job:
        """See the contract."""
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        if job.status not in RETRYABLE:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a FAILED or PREEMPTED job can be retried"
            )
        if request.modify_resources and not request.HasField("new_resource_config"):
            raise InvalidArgument("new_resource_config", "modify_resources needs it")
        child = accept_retry(
            job,
            resources=request.new_resource_config if request.modify_resources else None,
            resume_from=_checkpoint(job, request.checkpoint_id) if request.checkpoint_id else "",
            user_id=peer.user_id,
            cluster=self._scheduler.cluster,
            now=self._parts.clock(),
        )
        return job_message(self._submit(child, request))

    # Monitoring

    async def GetJobMetrics(
        self, request: watch_pb2.GetJobMetricsRequest, context: Context
    ) -> watch_pb2.GetJobMetricsResponse:
        """See the contract."""
        job = self._job(peer_of(context), request.job_id)
        wanted = request.max_points
        if not 0 <= wanted <= _MAX_POINTS:
            raise InvalidArgument("max_points", f"it is not from 0 to {_MAX_POINTS}")
        directory = self._parts.workspace.directory(job.job_id).metrics
        points, total = await asyncio.to_thread(downsample, directory, wanted or _DEFAULT_POINTS)
        return watch_pb2.GetJobMetricsResponse(job_id=job.job_id, points=points, total_points=total)

    async def ListJobLogs(
        self, request: watch_pb2.ListJobLogsRequest, context: Context
    ) -> watch_pb2.ListJobLogsResponse:
        """See the contract."""
        job = self._job(peer_of(context), request.job_id)
        return list_logs(
            self._parts.workspace.directory(job.job_id),
            request,
            ended=job.status in TERMINAL,
        )

    async def WatchJob(
        self, request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[watch_pb2.WatchJobResponse]:
        """See the contract."""
        peer = peer_of(context)
        job = self._job(peer, request.job_id)
        batches = watch(
            self._parts.workspace.directory(job.job_id),
            request,
            board=self._parts.board,
            current=lambda: self._job(peer, job.job_id),
            job_id=job.job_id,
        )
        async for batch in batches:
            yield batch

    # Cluster

    async def GetClusterStatus(
        self, request: cluster_pb2.GetClusterStatusRequest, context: Context
    ) -> cluster_pb2.ClusterStatus:
        """See the contract."""
        peer = peer_of(context)
        nodes = list(self._scheduler.cluster.nodes.values())
        online = [node for node in nodes if node.drain is None]
        total = sum(len(node.spec.gpus) for node in nodes)
        taken = sum(len(node.taken_gpus) for node in nodes)
        jobs = [job for job in self._scheduler.jobs.values() if job.tenant_id == peer.tenant_id]
        if total:
            used = taken / total
        else:
            cpus = sum(node.spec.cpus for node in nodes)
            used = sum(node.taken_cpus for node in nodes) / cpus
        return cluster_pb2.ClusterStatus(
            total_nodes=len(nodes),
            online_nodes=len(online),
            draining_nodes=len(nodes) - len(online),
            total_gpus=total,
            allocated_gpus=taken,
            available_gpus=sum(len(node.spec.gpus) - len(node.taken_gpus) for node in online),
            active_jobs=sum(1 for job in jobs if job.status in HOLDING),
            queued_jobs=sum(1 for job in jobs if job.status in WAITING),
            cluster_utilization=used,
        )

    async def ListNodes(
        self, request: cluster_pb2.ListNodesRequest, context: Context
    ) -> cluster_pb2.ListNodesResponse:
        """See the contract."""
        peer = peer_of(context)
        page = NodePages(self._scheduler.cluster).page(
            status_filter=request.status_filter,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return cluster_pb2.ListNodesResponse(
            nodes=[self._node_message(peer, node_id) for node_id in page.node_ids],
            next_page_token=page.next_page_token,
            total_count=page.total_count,
        )

    async def GetNode(
        self, request: cluster_pb2.GetNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        """See the contract."""
        return self._node_message(peer_of(context), request.node_id)

    async def DrainNode(
        self, request: cluster_pb2.DrainNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        """See the contract."""
        peer = peer_of(context)
        self._apply(
            self._scheduler.drain(
                request.node_id, force=request.force, reason=request.reason[:1000]
            )
        )
        return self._node_message(peer, request.node_id)

    async def EnableNode(
        self, request: cluster_pb2.EnableNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        """See the contract."""
        peer = peer_of(context)
        self._apply(self._scheduler.enable(request.node_id))
        return self._node_message(peer, request.node_id)

    # Queue

    async def GetQueueStatus(
        self, request: queue_pb2.GetQueueStatusRequest, context: Context
    ) -> queue_pb2.GetQueueStatusResponse:
        """See the contract."""
        peer = peer_of(context)
        now = self._parts.clock()
        newcomer = _newcomer(peer, request.queue_name or "default", now)
        waits = self._scheduler.waits(newcomer)
        places: dict[str, int] = {}
        own = []
        for job in self._scheduler.queue():
            place = places[job.queue_name] = places.get(job.queue_name, 0) + 1
            if job.tenant_id != peer.tenant_id or request.queue_name not in ("", job.queue_name):
                continue
            resources = job.submission.resource_config
            own.append(
                queue_pb2.QueuedJob(
                    job_id=job.job_id,
                    tenant_id=job.tenant_id,
                    name=job.name,
                    priority=job.priority,
                    gpu_count=resources.gpu_count,
                    gpu_type=resources.gpu_type,
                    queued_at=time_message(job.queued_at or job.created_at),
                    position=place,
                    estimated_wait_seconds=waits[job.job_id],
                    queue_name=job.queue_name,
                )
            )
        own.sort(key=lambda queued: queued.position)
        return queue_pb2.GetQueueStatusResponse(
            queued_jobs=own,
            total_queued=len(own),
            estimated_wait_seconds=waits[newcomer.job_id],
        )

    # Evaluations and data

    async def SubmitEvaluation(
        self, request: evaluations_pb2.SubmitEvaluationRequest, context: Context
    ) -> evaluations_pb2.Evaluation:
        """See the contract."""
        peer = peer_of(context)
        known = self._known_key(peer, request.idempotency_key, request)
        job = known or self._submit(
            accept_evaluation(
                request,
                trained=self._job(peer, request.job_id),
                user_id=peer.user_id,
                drive=self._parts.drive,
                now=self._parts.clock(),
            ),
            request,
            key=request.idempotency_key,
        )
        return self._evaluation_message(job)

    async def GetEvaluation(
        self, request: evaluations_pb2.GetEvaluationRequest, context: Context
    ) -> evaluations_pb2.Evaluation:
        """See the contract."""
        peer = peer_of(context)
        job = self._parts.store.job(peer.tenant_id, request.evaluation_id)
        if job is None or job.evaluation is None:
            raise NotFound("there is no such evaluation")
        return self._evaluation_message(job)

    async def ValidateData(
        self, request: data_pb2.ValidateDataRequest, context: Context
    ) -> data_pb2.ValidateDataResponse:
        """See the contract."""
        peer = peer_of(context)
        if not 0 < len(request.data_sources) <= _MAX_SOURCES:
            raise InvalidArgument("data_sources", f"there must be 1 to {_MAX_SOURCES}")
        findings = [
            await asyncio.to_thread(
                examine,
                self._parts.drive,
                tenant_id=peer.tenant_id,
                url=source.path,
                format_name=source.format,
                columns=tuple(source.columns),
            )
            for source in request.data_sources
        ]
        return data_pb2.ValidateDataResponse(
            valid=not any(finding.error_message for finding in findings),
            validations=[
                data_pb2.DataValidation(
                    path=source.path,
                    accessible=finding.accessible,
                    size_bytes=finding.size_bytes,
                    record_count=finding.record_count,
                    format=finding.format,
                    error_message=finding.error_message,
                )
                for source, finding in zip(request.data_sources, findings, strict=True)
            ],
        )

    async def GetDataCache(
        self, request: data_pb2.GetDataCacheRequest, context: Context
    ) -> data_pb2.DataCache:
        """See the contract."""
        peer_of(context)
        raise NotImplementedHere(
            "this coordinator reads data sets where they are, and keeps no cache of them"
        )

    # What calls are made of

    def _job(self, peer: Peer, job_id: str) -> JobRecord:
        job = self._scheduler.jobs.get(job_id) or self._store.job(peer.tenant_id, job_id)
        if job is None or job.tenant_id != peer.tenant_id:
            raise NotFound("there is no such job")
        return job

    def _unended(self, peer: Peer, job_id: str, done: str) -> JobRecord:
        job = self._job(peer, job_id)
        if job.status in TERMINAL:
            raise FailedPrecondition(f"the job is {job.status.name} and cannot be {done}")
        return job

    def _known_key(self, peer: Peer, key: str, request: Message) -> JobRecord | None:
        """The job that was made with an idempotency key. Raises AlreadyExists for another
        request."""
        if not key:
            return None
        if len(key) > _MAX_KEY:
            raise InvalidArgument("idempotency_key", f"it has more than {_MAX_KEY} characters")
        used = self._store.find_key(peer.tenant_id, key, since=self._parts.clock() - _KEY_LIFE)
        if used is None:
            return None
        if used.request_digest != digest_of(request):
            raise AlreadyExists(
                "idempotency_key: it was used for another request within the last 24 hours"
            )
        return self._job(peer, used.job_id)

    def _submit(self, job: JobRecord, request: Message, *, key: str = "") -> JobRecord:
        def also() -> None:
            self._store.save_labels(job)
            if key:
                now = self._parts.clock()
                used = UsedKey(digest_of(request), job.job_id)
                self._store.save_key(job.tenant_id, key, used, now=now, since=now - _KEY_LIFE)

        try:
            self._parts.workspace.create(job.job_id)
        except OSError as error:
            raise Overloaded(f"the job's directory cannot be made: {error.strerror}") from None
        self._apply(self._scheduler.submit(job), also=also)
        return self._scheduler.jobs[job.job_id]

    def _apply(self, step: Step, *, also: Callable[[], None] | None = None) -> None:
        try:
            self._controller.apply(step, also=also)
        except sqlite3.OperationalError as error:
            raise Overloaded(f"the coordinator cannot store it: {error}") from None

    def _evaluation_message(self, job: JobRecord) -> evaluations_pb2.Evaluation:
        return evaluation_message(job, self._parts.workspace.directory(job.job_id).output)

    def _node_message(self, peer: Peer, node_id: str) -> cluster_pb2.Node:
        node = self._scheduler.cluster.nodes.get(node_id)
        if node is None:
            raise NotFound("there is no such node")
        own = sorted(
            job_id
            for job_id in node.job_ids
            if self._scheduler.jobs[job_id].tenant_id == peer.tenant_id
        )
        return node_message(node, own_jobs=own, now=self._parts.clock())


def _checkpoint(job: JobRecord, checkpoint_id: str) -> str:
    """The URL of a job's checkpoint. Raises FailedPrecondition if it has no such one."""
    for checkpoint in job.checkpoints:
        if checkpoint.checkpoint_id == checkpoint_id:
            return checkpoint_url(job, checkpoint)
    there = ", ".join(checkpoint.checkpoint_id for checkpoint in job.checkpoints[-5:])
    raise FailedPrecondition(
        f"the job has no checkpoint {checkpoint_id[:128]!r}; "
        + (f"its newest are {there}" if there else "it has none")
    )


def _newcomer(peer: Peer, queue_name: str, now: int) -> JobRecord:
    """A job as it would be with default resources, to ask how long it would wait."""
    return JobRecord(
        job_id="",
        tenant_id=peer.tenant_id,
        user_id="",
        name="",
        submission=jobs_pb2.SubmitJobRequest(),
        demand=Demand(),
        created_at=now,
        updated_at=now,
        queue_name=queue_name,
    )
