"""Unary answers, against what was asked and for whom.

A resource has the id that was asked for. Where an answer only repeats something
else of its request (the tenant, a parent, labels), it may leave it out.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from google.protobuf.message import Message

from app.bridge.contract.breaches import Breach
from app.bridge.contract.fields import check_fields
from app.bridge.contract.log_marks import check_marks
from app.bridge.contract.logs import check_places
from app.errors import BrokenContract
from generated.mindcoordinator.v1.cluster_pb2 import ListNodesRequest, ListNodesResponse, Node
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest, ValidateDataResponse
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Evaluation,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    Job,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    ListJobsRequest,
    ListJobsResponse,
    RetryJobRequest,
    SubmitJobRequest,
    SubmitJobResponse,
)
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest, GetQueueStatusResponse
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest, GetJobMetricsResponse

#: Bytes of a record that is shown.
MAX_PREVIEW: Final = 4096


def check_answer(method: str, tenant_id: str, request: Message, answer: Message) -> None:
    """Check the answer of a unary method to a request for a tenant. Raises `BrokenContract`."""
    check_fields(answer)
    own = _OWN.get(method)
    if own is not None:
        own(tenant_id, request, answer)


def _same(name: str, asked: str, told: str) -> None:
    """Check the id of the resource that was asked for."""
    if told != asked:
        raise BrokenContract(Breach.RESOURCE, f"{name}: must be the one that was asked for")


def _repeated(name: str, asked: str, told: str) -> None:
    """Check what an answer may leave out."""
    if told not in ("", asked):
        raise BrokenContract(Breach.RESOURCE, f"{name}: must be the one that was asked for")


def _given(name: str, told: str) -> None:
    if not told:
        raise BrokenContract(Breach.IDENTIFIER, f"{name}: must not be empty")


def _of_tenant(name: str, tenant_id: str, told: str) -> None:
    if told not in ("", tenant_id):
        raise BrokenContract(Breach.TENANT, f"{name}: must be the tenant that asked")


def _page(ids: Sequence[str], *, size: int, token: str, asked_token: str) -> None:
    if size and len(ids) > size:
        raise BrokenContract(Breach.PAGE, "the page has more entries than page_size")
    _once(ids)
    if token and token == asked_token:
        raise BrokenContract(Breach.PAGE, "next_page_token: must be another than page_token")


def _once(ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        raise BrokenContract(Breach.PAGE, "an entry is there twice")


def _job(tenant_id: str, request: Any, job: Job) -> None:
    _same("job_id", request.job_id, job.job_id)
    _of_tenant("tenant_id", tenant_id, job.tenant_id)


def _submitted(_: str, request: SubmitJobRequest, answer: SubmitJobResponse) -> None:
    if not request.validate_only:
        _given("job_id", answer.job_id)
    elif answer.job_id or not answer.HasField("check"):
        raise BrokenContract(Breach.RESOURCE, "a submission that was only to be checked")


def _child(tenant_id: str, request: RetryJobRequest, job: Job) -> None:
    _given("job_id", job.job_id)
    _repeated("parent_job_id", request.job_id, job.parent_job_id)
    if job.job_id == request.job_id:
        raise BrokenContract(Breach.RESOURCE, "job_id: must be that of a child")
    _of_tenant("tenant_id", tenant_id, job.tenant_id)


def _jobs(tenant_id: str, request: ListJobsRequest, answer: ListJobsResponse) -> None:
    _page(
        [job.job_id for job in answer.jobs],
        size=request.page_size,
        token=answer.next_page_token,
        asked_token=request.page_token,
    )
    statuses, labels = set(request.statuses), dict(request.label_filter).items()
    users, name = set(request.user_ids), request.name_contains.casefold()
    for job in answer.jobs:
        _of_tenant("jobs.tenant_id", tenant_id, job.tenant_id)
        if statuses and job.status not in statuses:
            raise BrokenContract(Breach.RESOURCE, "jobs.status: must be one that was asked for")
        if job.labels and not labels <= dict(job.labels).items():
            raise BrokenContract(Breach.RESOURCE, "jobs.labels: must be those that were asked for")
        if users and job.user_id not in users:
            raise BrokenContract(Breach.RESOURCE, "jobs.user_id: must be one that was asked for")
        if request.parent_job_id and job.parent_job_id != request.parent_job_id:
            raise BrokenContract(
                Breach.RESOURCE, "jobs.parent_job_id: must be the one that was asked for"
            )
        if name not in job.name.casefold():
            raise BrokenContract(Breach.RESOURCE, "jobs.name: must contain what was asked for")


def _checkpoints(_: str, request: ListCheckpointsRequest, answer: ListCheckpointsResponse) -> None:
    _page(
        [each.checkpoint_id for each in answer.checkpoints],
        size=request.page_size,
        token=answer.next_page_token,
        asked_token=request.page_token,
    )


def _metrics(_: str, request: GetJobMetricsRequest, answer: GetJobMetricsResponse) -> None:
    _repeated("job_id", request.job_id, answer.job_id)
    keys, last = set(request.keys), ("", 0)
    for bucket in answer.between.buckets:
        if keys and bucket.key not in keys:
            raise BrokenContract(Breach.RESOURCE, "between.buckets.key: must be one of `keys`")
        if bucket.from_step > bucket.to_step or bucket.minimum > bucket.maximum:
            raise BrokenContract(Breach.ORDER, "between.buckets: must not end before they begin")
        if (bucket.key, bucket.from_step) < last:
            raise BrokenContract(Breach.ORDER, "between.buckets: must be by key and step")
        last = bucket.key, bucket.from_step


def _nodes(_: str, request: ListNodesRequest, answer: ListNodesResponse) -> None:
    _page(
        [node.node_id for node in answer.nodes],
        size=request.page_size,
        token=answer.next_page_token,
        asked_token=request.page_token,
    )


def _node(_: str, request: Any, node: Node) -> None:
    _same("node_id", request.node_id, node.node_id)


def _queue(tenant_id: str, request: GetQueueStatusRequest, answer: GetQueueStatusResponse) -> None:
    _page(
        [job.job_id for job in answer.queued_jobs],
        # An earlier coordinator has all of them on one page.
        size=0,
        token=answer.next_page_token,
        asked_token=request.page_token,
    )
    for job in answer.queued_jobs:
        _of_tenant("queued_jobs.tenant_id", tenant_id, job.tenant_id)
        if request.queue_name:
            _repeated("queued_jobs.queue_name", request.queue_name, job.queue_name)


def _submitted_evaluation(
    tenant_id: str, request: SubmitEvaluationRequest, answer: Evaluation
) -> None:
    _given("evaluation_id", answer.evaluation_id)
    _of_tenant("tenant_id", tenant_id, answer.tenant_id)
    if request.job_id:
        _repeated("job_id", request.job_id, answer.job_id)


def _evaluation(tenant_id: str, request: GetEvaluationRequest, answer: Evaluation) -> None:
    _same("evaluation_id", request.evaluation_id, answer.evaluation_id)
    _of_tenant("tenant_id", tenant_id, answer.tenant_id)


def _validations(_: str, request: ValidateDataRequest, answer: ValidateDataResponse) -> None:
    if len(answer.validations) != len(request.data_sources):
        raise BrokenContract(Breach.RESOURCE, "validations: must be one for each data source")
    for validation in answer.validations:
        records = validation.preview.records
        if len(records) > request.preview:
            raise BrokenContract(Breach.PAGE, "the preview has more records than were asked for")
        if any(len(record.encode()) > MAX_PREVIEW for record in records):
            raise BrokenContract(
                Breach.VALUE, f"preview.records: must have at most {MAX_PREVIEW} bytes each"
            )


_Own: TypeAlias = Callable[[str, Any, Any], None]

#: By method; the rest answers about nothing that was named.
_OWN: Final[dict[str, _Own]] = {
    "SubmitJob": _submitted,
    "GetJob": _job,
    "ListJobs": _jobs,
    "CancelJob": _job,
    "PauseJob": _job,
    "ResumeJob": _job,
    "RetryJob": _child,
    "UpdateJob": _job,
    "ListCheckpoints": _checkpoints,
    "GetJobMetrics": _metrics,
    "GetLogMarks": lambda _, request, answer: check_marks(request, answer),
    "ListJobLogs": lambda _, request, answer: check_places(request, answer, answer.entries),
    "ListNodes": _nodes,
    "GetNode": _node,
    "DrainNode": _node,
    "EnableNode": _node,
    "GetQueueStatus": _queue,
    "SubmitEvaluation": _submitted_evaluation,
    "GetEvaluation": _evaluation,
    "ValidateData": _validations,
}
