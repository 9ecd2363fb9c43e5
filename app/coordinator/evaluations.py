"""Evaluations: jobs labelled `type=evaluation` whose process is `evaluate_model`."""

import json
from pathlib import Path
from typing import Any, Final

from generated.mindcoordinator.v1.evaluations_pb2 import (
    BenchmarkResult,
    Evaluation,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

from . import evaluate_model
from .drive import BadUrl, Drive
from .messages import status_message, time_message
from .records import Demand, JobRecord, Kind
from .refusals import FailedPrecondition, InvalidArgument
from .scheduler import checkpoint_url
from .states import Status
from .submission import new_job_id

#: The script that is an evaluation's process.
SCRIPT: Final = Path(evaluate_model.__file__)
_QUEUE: Final = "default"
_MAX_BENCHMARKS: Final = 100


def accept_evaluation(
    request: SubmitEvaluationRequest,
    *,
    trained: JobRecord,
    user_id: str,
    drive: Drive,
    now: int,
) -> JobRecord:
    """The PENDING job that evaluates what `trained` made. Raises Refused."""
    kept = SubmitEvaluationRequest()
    kept.CopyFrom(request)
    kept.idempotency_key = ""
    kept.model_uri = _model(request, trained)
    if not kept.benchmarks:
        raise InvalidArgument("benchmarks", "there is none")
    if len(kept.benchmarks) > _MAX_BENCHMARKS:
        raise InvalidArgument("benchmarks", f"there are more than {_MAX_BENCHMARKS}")
    _check("model_uri", kept.model_uri, trained.tenant_id, drive, directory=True)
    for at, benchmark in enumerate(kept.benchmarks):
        if benchmark.name not in evaluate_model.BENCHMARKS:
            known = ", ".join(sorted(evaluate_model.BENCHMARKS))
            raise InvalidArgument(
                f"benchmarks.{at}.name",
                f"{benchmark.name[:64]!r} is not known; there are: {known}",
            )
        if benchmark.num_samples < 0:
            raise InvalidArgument(f"benchmarks.{at}.num_samples", "it is below 0")
        _check(f"benchmarks.{at}.dataset", benchmark.dataset, trained.tenant_id, drive)
    submission = SubmitJobRequest(
        name=f"Evaluation of {trained.name}"[:256],
        labels={"type": "evaluation", "job_id": trained.job_id},
    )
    submission.scheduling_config.queue_name = _QUEUE
    submission.resource_config.node_count = 1
    submission.training_config.priority = 5
    return JobRecord(
        job_id=new_job_id("eval"),
        tenant_id=trained.tenant_id,
        user_id=user_id,
        name=submission.name,
        submission=submission,
        evaluation=kept,
        kind=Kind.EVALUATION,
        demand=Demand(),
        created_at=now,
        updated_at=now,
        message="Accepted.",
        queue_name=_QUEUE,
    )


def _model(request: SubmitEvaluationRequest, trained: JobRecord) -> str:
    """Where the model is that is to be evaluated. Raises Refused."""
    if request.checkpoint_id:
        if request.model_uri:
            raise InvalidArgument("checkpoint_id", "give either it or model_uri")
        for checkpoint in trained.checkpoints:
            if checkpoint.checkpoint_id == request.checkpoint_id:
                return checkpoint_url(trained, checkpoint)
        raise FailedPrecondition(f"the job has no checkpoint {request.checkpoint_id[:128]!r}")
    if request.model_uri:
        return request.model_uri
    if not trained.output_path:
        raise FailedPrecondition(
            f"the job is {trained.status.name} and has no artefacts yet; wait until it is"
            " COMPLETED, or give a model_uri or a checkpoint_id"
        )
    return trained.output_path


def _check(where: str, url: str, tenant_id: str, drive: Drive, *, directory: bool = False) -> None:
    try:
        drive.check(tenant_id, url)
    except BadUrl as error:
        raise InvalidArgument(where, str(error)) from None
    try:
        path = drive.find(tenant_id, url)
    except BadUrl as error:
        raise FailedPrecondition(f"{where}: {error}") from None
    if path.is_dir() != directory:
        raise FailedPrecondition(f"{where}: {url} is not a {'directory' if directory else 'file'}")


def process_config(job: JobRecord, drive: Drive) -> dict[str, Any]:
    """What `evaluate_model` is told. Raises BadUrl."""
    assert job.evaluation is not None
    return {
        "model_path": str(drive.find(job.tenant_id, job.evaluation.model_uri)),
        "benchmarks": [
            {
                "name": benchmark.name,
                "dataset": benchmark.dataset,
                "local_path": str(drive.find(job.tenant_id, benchmark.dataset)),
                "num_samples": benchmark.num_samples,
                "parameters": dict(benchmark.parameters),
            }
            for benchmark in job.evaluation.benchmarks
        ],
    }


def evaluation_message(job: JobRecord, output: Path) -> Evaluation:
    """An evaluation in full; its results are read from the job's `output`. Blocks shortly."""
    asked = job.evaluation
    assert asked is not None
    message = Evaluation(
        evaluation_id=job.job_id,
        tenant_id=job.tenant_id,
        job_id=asked.job_id,
        model_uri=asked.model_uri,
        checkpoint_id=asked.checkpoint_id,
        status=status_message(job.status),
        message=job.message,
        error_message=job.error_message,
        benchmarks=asked.benchmarks,
        created_at=time_message(job.created_at),
    )
    if job.started_at:
        message.started_at.CopyFrom(time_message(job.started_at))
    if job.ended_at:
        message.ended_at.CopyFrom(time_message(job.ended_at))
    if job.status is Status.COMPLETED:
        results = json.loads((output / "results.json").read_bytes())
        for benchmark, result in zip(asked.benchmarks, results, strict=True):
            message.results.append(
                BenchmarkResult(name=benchmark.name, dataset=benchmark.dataset, **result)
            )
    return message
