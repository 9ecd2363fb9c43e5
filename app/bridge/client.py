"""MindCoordinator's unary calls, typed, one method each.

Each takes the caller for whom it is made, returns JSON-ready data, and raises
`ApiError` only. All are bounded by a deadline.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from app.bridge.contract.answers import check_answer
from app.bridge.contract.breaches import Breach, ReportBreach, log_breach
from app.bridge.converters import JsonObject, to_json
from app.bridge.metadata import call_metadata
from app.bridge.observed_call import Observe, nobody, observed
from app.bridge.partial_jobs import evaluating_job, submitted_job
from app.bridge.requests import (
    Body,
    build_list_jobs,
    build_retry_job,
    build_submit_evaluation,
    build_submit_job,
    build_validate_data,
)
from app.bridge.sent import Asked
from app.bridge.settings import UpstreamSettings
from app.caller import Caller, DownstreamTokens
from app.errors import BrokenContract
from app.telemetry.tracing import NoTracer, Tracer
from generated.mindcoordinator.v1.cluster_pb2 import (
    DrainNodeRequest,
    EnableNodeRequest,
    GetClusterStatusRequest,
    GetNodeRequest,
    ListNodesRequest,
)
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.data_pb2 import GetDataCacheRequest
from generated.mindcoordinator.v1.evaluations_pb2 import GetEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    Job,
    ListCheckpointsRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


#: Told of a job: the caller's tenant, and the job as far as it is known (revision 0: in part).
RecordJob: TypeAlias = Callable[[str, JsonObject], None]


def _unseen(tenant_id: str, job: JsonObject) -> None:
    """Look away."""


class CoordinatorClient:
    """The coordinator, over a channel that somebody else owns and closes.

    A body is what its schema loads. `job_id` and its like are taken as they
    are: the coordinator knows which exist. Answers are checked by the contract:
    `report` receives what breaks it, `record_job` every job that an answer
    holds, or that it is about.
    """

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        settings: UpstreamSettings,
        observe: Observe = nobody,
        report: ReportBreach = log_breach,
        record_job: RecordJob = _unseen,
        tracer: Tracer | None = None,
    ) -> None:
        self._stub = MindCoordinatorStub(channel)
        self._settings = settings
        self._observe = observe
        self._report = report
        self._record_job = record_job
        self._tracer = tracer or NoTracer()

    # Jobs

    async def submit_job(
        self,
        caller: Caller,
        body: Body,
        *,
        tokens: DownstreamTokens | None = None,
        idempotency_key: str = "",
    ) -> JsonObject:
        """Queue a training job."""
        request = build_submit_job(body, idempotency_key=idempotency_key)
        answer = await self._call(
            "SubmitJob",
            self._stub.SubmitJob,
            caller,
            request,
            tokens=tokens,
            deadline=self._settings.submit_timeout,
        )
        self._record_job(caller.tenant_id, submitted_job(caller, request, answer))
        return answer

    async def get_job(self, caller: Caller, job_id: str) -> JsonObject:
        """Fetch a job's full state."""
        return await self._job("GetJob", self._stub.GetJob, caller, GetJobRequest(job_id=job_id))

    async def list_jobs(
        self,
        caller: Caller,
        *,
        statuses: Iterable[str] = (),
        page_size: int = 20,
        page_token: str = "",
        order_by: str = "",
        label_filter: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """Fetch a page of the tenant's jobs."""
        answer = await self._call(
            "ListJobs",
            self._stub.ListJobs,
            caller,
            build_list_jobs(
                statuses=statuses,
                page_size=page_size,
                page_token=page_token,
                order_by=order_by,
                label_filter=label_filter,
            ),
        )
        for job in answer["jobs"]:
            self._record_job(caller.tenant_id, job)
        return answer

    async def cancel_job(self, caller: Caller, job_id: str, *, reason: str = "") -> JsonObject:
        """End a job that has not ended."""
        return await self._job(
            "CancelJob",
            self._stub.CancelJob,
            caller,
            CancelJobRequest(job_id=job_id, reason=reason),
        )

    async def pause_job(
        self, caller: Caller, job_id: str, *, save_checkpoint: bool = True
    ) -> JsonObject:
        """Stop a running job so that it can be resumed."""
        return await self._job(
            "PauseJob",
            self._stub.PauseJob,
            caller,
            PauseJobRequest(job_id=job_id, save_checkpoint=save_checkpoint),
        )

    async def resume_job(
        self, caller: Caller, job_id: str, *, checkpoint_id: str = ""
    ) -> JsonObject:
        """Put a paused job back to work, from the newest checkpoint unless one is named."""
        return await self._job(
            "ResumeJob",
            self._stub.ResumeJob,
            caller,
            ResumeJobRequest(job_id=job_id, checkpoint_id=checkpoint_id),
        )

    async def retry_job(
        self,
        caller: Caller,
        job_id: str,
        *,
        checkpoint_id: str = "",
        modify_resources: bool = False,
        new_resource_config: Body | None = None,
    ) -> JsonObject:
        """Make a child job of a failed or preempted one, and return the child."""
        return await self._job(
            "RetryJob",
            self._stub.RetryJob,
            caller,
            build_retry_job(
                job_id,
                checkpoint_id=checkpoint_id,
                modify_resources=modify_resources,
                new_resource_config=new_resource_config,
            ),
        )

    async def list_checkpoints(
        self, caller: Caller, job_id: str, *, page_size: int = 20, page_token: str = ""
    ) -> JsonObject:
        """Fetch a page of a job's checkpoints, the newest first."""
        return await self._call(
            "ListCheckpoints",
            self._stub.ListCheckpoints,
            caller,
            ListCheckpointsRequest(job_id=job_id, page_size=page_size, page_token=page_token),
        )

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

    # Cluster

    async def get_cluster_status(self, caller: Caller) -> JsonObject:
        """Fetch cluster-wide totals."""
        return await self._call(
            "GetClusterStatus", self._stub.GetClusterStatus, caller, GetClusterStatusRequest()
        )

    async def list_nodes(
        self,
        caller: Caller,
        *,
        status_filter: str = "",
        page_size: int = 20,
        page_token: str = "",
    ) -> JsonObject:
        """Fetch a page of the cluster's nodes."""
        return await self._call(
            "ListNodes",
            self._stub.ListNodes,
            caller,
            ListNodesRequest(
                status_filter=status_filter, page_size=page_size, page_token=page_token
            ),
        )

    async def get_node(self, caller: Caller, node_id: str) -> JsonObject:
        """Fetch a node's full status."""
        return await self._call(
            "GetNode", self._stub.GetNode, caller, GetNodeRequest(node_id=node_id)
        )

    async def drain_node(
        self, caller: Caller, node_id: str, *, force: bool = False, reason: str = ""
    ) -> JsonObject:
        """Stop scheduling new jobs onto a node; `force` aborts those that run there."""
        return await self._call(
            "DrainNode",
            self._stub.DrainNode,
            caller,
            DrainNodeRequest(node_id=node_id, force=force, reason=reason),
        )

    async def enable_node(self, caller: Caller, node_id: str) -> JsonObject:
        """Take a drained or disabled node back into service."""
        return await self._call(
            "EnableNode", self._stub.EnableNode, caller, EnableNodeRequest(node_id=node_id)
        )

    # Queue

    async def get_queue_status(self, caller: Caller, *, queue_name: str = "") -> JsonObject:
        """Fetch the tenant's waiting jobs, of all queues unless one is named."""
        return await self._call(
            "GetQueueStatus",
            self._stub.GetQueueStatus,
            caller,
            GetQueueStatusRequest(queue_name=queue_name),
        )

    # Evaluations

    async def submit_evaluation(
        self, caller: Caller, body: Body, *, idempotency_key: str = ""
    ) -> JsonObject:
        """Queue an evaluation."""
        answer = await self._call(
            "SubmitEvaluation",
            self._stub.SubmitEvaluation,
            caller,
            build_submit_evaluation(body, idempotency_key=idempotency_key),
            deadline=self._settings.submit_timeout,
        )
        self._record_job(caller.tenant_id, evaluating_job(caller, answer))
        return answer

    async def get_evaluation(self, caller: Caller, evaluation_id: str) -> JsonObject:
        """Fetch an evaluation, with its results once it is complete."""
        answer = await self._call(
            "GetEvaluation",
            self._stub.GetEvaluation,
            caller,
            GetEvaluationRequest(evaluation_id=evaluation_id),
        )
        self._record_job(caller.tenant_id, evaluating_job(caller, answer))
        return answer

    # Data

    async def validate_data(
        self, caller: Caller, body: Body, *, tokens: DownstreamTokens | None = None
    ) -> JsonObject:
        """Reach and parse data sources without queueing anything."""
        return await self._call(
            "ValidateData",
            self._stub.ValidateData,
            caller,
            build_validate_data(body),
            tokens=tokens,
            deadline=self._settings.submit_timeout,
        )

    async def get_data_cache(
        self, caller: Caller, *, node_id: str = "", tokens: DownstreamTokens | None = None
    ) -> JsonObject:
        """Fetch what the data-set cache holds, on all nodes unless one is named."""
        return await self._call(
            "GetDataCache",
            self._stub.GetDataCache,
            caller,
            GetDataCacheRequest(node_id=node_id),
            tokens=tokens,
        )

    async def _job(
        self,
        method: str,
        rpc: "grpc.aio.UnaryUnaryMultiCallable[Q, Job]",
        caller: Caller,
        request: Q,
    ) -> JsonObject:
        job = await self._call(method, rpc, caller, request)
        self._record_job(caller.tenant_id, job)
        return job

    async def _call(
        self,
        method: str,
        rpc: "grpc.aio.UnaryUnaryMultiCallable[Q, R]",
        caller: Caller,
        request: Q,
        *,
        tokens: DownstreamTokens | None = None,
        deadline: float | None = None,
    ) -> JsonObject:
        metadata = call_metadata(caller, api_secret=self._settings.api_secret, tokens=tokens)
        timeout = deadline or self._settings.unary_timeout
        secrets = [self._settings.api_secret, caller.subject_token]
        if tokens is not None:
            secrets += [tokens.scaidrive, tokens.scaiatlas]
        with observed(
            method,
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=Asked(request, secrets),
        ) as traced:
            response: R | None = await rpc(request, metadata=metadata + traced, timeout=timeout)
            if response is None:
                raise BrokenContract(Breach.UNREADABLE, "the answer is not the right message")
            check_answer(method, caller.tenant_id, request, response)
        return to_json(response)
