"""A job as a row of the database, and back."""

from typing import Any, Final, TypeVar

import orjson
from google.protobuf.message import DecodeError, Message

from app.coordinator.identity.access import Grant
from app.coordinator.jobs.model import (
    Allocation,
    Checkpoint,
    JobRecord,
    Kind,
    Program,
    Progress,
    Promise,
    ResourceRequest,
    StopReason,
)
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.times import Moment
from generated.mindcoordinator.v1.evaluations_pb2 import SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

_M = TypeVar("_M", bound=Message)


#: The columns of a job's row, in the order of `values_of`.
COLUMNS: Final = (
    "job_id",
    "tenant_id",
    "user_id",
    "name",
    "kind",
    "status",
    "priority",
    "queue_name",
    "revision",
    "created_at",
    "updated_at",
    "queued_at",
    "started_at",
    "run_started_at",
    "ended_at",
    "submission",
    "evaluation",
    "state",
)
#: Those that change while a job goes on.
CHANGING: Final = (
    "status",
    "revision",
    "updated_at",
    "queued_at",
    "started_at",
    "run_started_at",
    "ended_at",
    "state",
)


def values_by_column(job: JobRecord) -> dict[str, Any]:
    """The values of a job's row by column, for `record_of`."""
    return dict(zip(COLUMNS, values_of(job), strict=True))


def values_of(job: JobRecord) -> tuple[Any, ...]:
    """The values of a job's row, in the order of COLUMNS."""
    return (
        job.job_id,
        job.tenant_id,
        job.user_id,
        job.name,
        job.kind,
        job.status,
        job.priority,
        job.queue_name,
        job.revision,
        job.created_at,
        job.updated_at,
        job.queued_at,
        job.started_at,
        job.run_started_at,
        job.ended_at,
        job.submission.SerializeToString(),
        job.evaluation.SerializeToString() if job.evaluation else None,
        orjson.dumps(_state(job)).decode(),
    )


def _state(job: JobRecord) -> dict[str, Any]:
    return {
        "message": job.message,
        "error_message": job.error_message,
        "demand": job.resource_request,
        "grant": job.grant,
        "program": job.program,
        "parent_job_id": job.parent_job_id,
        "run_count": job.run_count,
        "retry_count": job.retry_count,
        "intent": job.stop_reason,
        "intent_reason": job.stop_message,
        "placement": job.placement,
        "node_ids": job.node_ids,
        "resume_from": job.resume_from,
        "output_path": job.output_path,
        "artefacts_of": job.artefacts_of,
        "exit_code": job.exit_code,
        "progress": job.progress,
        "not_before": job.not_before,
        "run_began": job.run_began,
        "ran": job.ran,
        # Earlier coordinators read rows without one.
        **({"promise": job.promise} if job.promise is not None else {}),
    }


def failed_record_of(row: Any, reason: str, now: int) -> JobRecord:
    """What is left of a job whose row cannot be read: FAILED, with `reason`."""
    return JobRecord(
        job_id=row["job_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        name=row["name"],
        submission=_parsed(SubmitJobRequest, row["submission"]) or SubmitJobRequest(),
        resource_request=ResourceRequest(),
        created_at=row["created_at"],
        updated_at=now,
        kind=Kind.EVALUATION if row["kind"] == Kind.EVALUATION else Kind.TRAINING,
        evaluation=_parsed(SubmitEvaluationRequest, row["evaluation"]),
        status=Status.FAILED,
        message="Failed.",
        error_message=reason,
        priority=row["priority"],
        queue_name=row["queue_name"],
        revision=row["revision"] + 1,
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        run_started_at=row["run_started_at"],
        ended_at=now,
    )


def _parsed(kind: type[_M], data: bytes | None) -> _M | None:
    if data is None:
        return None
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _allocations(stored: Any) -> tuple[Allocation, ...]:
    return tuple(
        Allocation(
            allocation["node_id"],
            tuple(allocation["gpus"]),
            allocation["cpus"],
            allocation["memory"],
            tuple(allocation.get("cores", ())),
        )
        for allocation in stored
    )


def _promise(stored: Any) -> Promise | None:
    """A promise; earlier coordinators stored none."""
    if stored is None:
        return None
    return Promise(_allocations(stored["shares"]), stored["newest_job"], stored["bound"])


def record_of(
    row: Any, checkpoints: tuple[Checkpoint, ...] = (), checkpoint_count: int = 0
) -> JobRecord:
    """The job of a row, and of rows of the table of checkpoints."""
    state = orjson.loads(row["state"])
    resource_request = state.pop("demand")
    began = state.pop("run_began", None)
    return JobRecord(
        job_id=row["job_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        name=row["name"],
        kind=Kind(row["kind"]),
        status=Status(row["status"]),
        priority=row["priority"],
        queue_name=row["queue_name"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        run_started_at=row["run_started_at"],
        ended_at=row["ended_at"],
        submission=SubmitJobRequest.FromString(row["submission"]),
        evaluation=SubmitEvaluationRequest.FromString(row["evaluation"])
        if row["evaluation"] is not None
        else None,
        resource_request=ResourceRequest(
            **{
                **resource_request,
                "node_ids": tuple(resource_request["node_ids"]),
                "selector": tuple((key, value) for key, value in resource_request["selector"]),
            }
        ),
        grant=Grant.stored(state.pop("grant", None)),
        program=Program.stored(state.pop("program", None)),
        # Their names in the store are those of its first version.
        stop_reason=StopReason(state.pop("intent")),
        stop_message=state.pop("intent_reason"),
        placement=_allocations(state.pop("placement")),
        promise=_promise(state.pop("promise", None)),
        node_ids=tuple(state.pop("node_ids")),
        progress=Progress.stored(state.pop("progress")),
        run_began=Moment(**began) if began else None,
        checkpoints=checkpoints,
        checkpoint_count=checkpoint_count,
        **state,
    )
