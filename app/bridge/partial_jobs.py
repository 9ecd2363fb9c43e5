"""Jobs put together from answers that do not have all of a job. Their revision is 0."""

from google.protobuf.timestamp_pb2 import Timestamp

from app.bridge.converters import JsonObject, to_json
from app.caller import Caller
from generated.mindcoordinator.v1.jobs_pb2 import Job, SubmitJobRequest


def submitted_job(caller: Caller, request: SubmitJobRequest, answer: JsonObject) -> JsonObject:
    """Make the job that has just been submitted."""
    now = Timestamp()
    now.GetCurrentTime()
    asked = to_json(request)
    for name in ("idempotency_key", "validate_only"):
        del asked[name]
    return {
        **to_json(Job(tenant_id=caller.tenant_id, user_id=caller.user_id or "", created_at=now)),
        **asked,
        **{name: answer[name] for name in ("job_id", "status", "message")},
    }


def evaluating_job(caller: Caller, evaluation: JsonObject) -> JsonObject:
    """Make the job that runs an evaluation."""
    told = ("status", "message", "error_message", "created_at", "started_at", "ended_at")
    return {
        **to_json(Job(tenant_id=caller.tenant_id, labels={"type": "evaluation"})),
        **{name: evaluation[name] for name in told if name in evaluation},
        "job_id": evaluation["evaluation_id"],
    }
