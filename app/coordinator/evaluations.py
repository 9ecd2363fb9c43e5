"""Evaluations: jobs labelled `type=evaluation` whose process is `evaluate_model`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    Evaluation,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

from . import evaluate_model, evaluator
from .access import Access, Grant
from .benchmark_data import check_dataset
from .drive import Drive
from .evaluation_results import BadResults, read_results
from .evaluator.benchmarks import BENCHMARKS, BadParameter
from .evaluator.running import RESULTS
from .messages import status_message, time_message
from .records import Demand, JobRecord, Kind
from .refusals import FailedPrecondition, InvalidArgument
from .states import Status
from .submission import new_job_id

#: The script that is an evaluation's process.
SCRIPT: Final = Path(evaluate_model.__file__)
#: The folder that has to be beside it.
EVALUATOR: Final = Path(evaluator.__file__).parent
_QUEUE: Final = "default"
_MAX_BENCHMARKS: Final = 100
#: Bytes of an evaluation as it is submitted: it is in memory as long as it waits.
_MAX_REQUEST: Final = 256 * 1024

#: The URL of a job's checkpoint, by its id. Raises FailedPrecondition.
FindCheckpoint = Callable[[JobRecord, str], str]


def accept_evaluation(
    request: SubmitEvaluationRequest,
    *,
    tenant_id: str,
    user_id: str,
    trained: JobRecord | None,
    find_checkpoint: FindCheckpoint,
    drive: Drive,
    now: int,
) -> JobRecord:
    """The PENDING job that evaluates what `trained` made, or the model at a URI. Raises Refused."""
    if (size := request.ByteSize()) > _MAX_REQUEST:
        raise InvalidArgument(
            "benchmarks", f"the evaluation has {size} bytes, and may have {_MAX_REQUEST}"
        )
    kept = SubmitEvaluationRequest()
    kept.CopyFrom(request)
    kept.idempotency_key = ""
    _check_benchmarks(kept.benchmarks)
    kept.model_uri = _model(request, trained, find_checkpoint)
    # No tokens come with an evaluation: it may use what the gateway's caller may, and no more.
    access = Access(tenant_id)
    drive.require(access, "model_uri", kept.model_uri, kind="directory")
    kept.model_uri = drive.pinned(access, kept.model_uri)
    for at, benchmark in enumerate(kept.benchmarks):
        check_dataset(drive, access, f"benchmarks.{at}.dataset", benchmark.dataset)
    labels = {"type": "evaluation"}
    if trained is not None:
        labels["job_id"] = trained.job_id
    name = trained.name if trained is not None else kept.model_uri
    submission = SubmitJobRequest(name=f"Evaluation of {name}"[:256], labels=labels)
    submission.scheduling_config.queue_name = _QUEUE
    submission.resource_config.node_count = 1
    submission.training_config.priority = 5
    job_id = new_job_id("eval")
    return JobRecord(
        job_id=job_id,
        grant=Grant.give(
            tenant_id=tenant_id,
            user_id=user_id,
            job_id=job_id,
            urls=[kept.model_uri, *(benchmark.dataset for benchmark in kept.benchmarks)],
        ),
        tenant_id=tenant_id,
        user_id=user_id,
        name=submission.name,
        submission=submission,
        evaluation=kept,
        kind=Kind.EVALUATION,
        demand=Demand(cpus=0),
        created_at=now,
        updated_at=now,
        message="Accepted.",
        queue_name=_QUEUE,
    )


def _check_benchmarks(benchmarks: Sequence[Benchmark]) -> None:
    if not benchmarks:
        raise InvalidArgument("benchmarks", "there is none")
    if len(benchmarks) > _MAX_BENCHMARKS:
        raise InvalidArgument("benchmarks", f"there are more than {_MAX_BENCHMARKS}")
    for at, benchmark in enumerate(benchmarks):
        where = f"benchmarks.{at}"
        known = BENCHMARKS.get(benchmark.name)
        if known is None:
            raise InvalidArgument(
                f"{where}.name",
                f"{benchmark.name[:64]!r} is not known; there are: {', '.join(sorted(BENCHMARKS))}",
            )
        if benchmark.num_samples < 0:
            raise InvalidArgument(f"{where}.num_samples", "it is below 0")
        try:
            known.read(benchmark.parameters)
        except BadParameter as error:
            raise InvalidArgument(f"{where}.parameters", str(error)) from None


def _model(
    request: SubmitEvaluationRequest, trained: JobRecord | None, find_checkpoint: FindCheckpoint
) -> str:
    """Where the model is that is to be evaluated. Raises Refused."""
    if trained is None:
        if not request.model_uri:
            raise InvalidArgument("job_id", "give it, or model_uri")
        if request.checkpoint_id:
            raise InvalidArgument("checkpoint_id", "it needs the job_id")
        return request.model_uri
    if trained.kind is Kind.EVALUATION:
        raise InvalidArgument("job_id", "it is an evaluation, not a training job")
    if request.checkpoint_id:
        url = find_checkpoint(trained, request.checkpoint_id)
        if request.model_uri not in ("", url, trained.output_path):
            raise InvalidArgument(
                "model_uri", "it is not this job's; give either it or checkpoint_id"
            )
        return url
    if request.model_uri:
        return request.model_uri
    if trained.status is not Status.COMPLETED:
        raise FailedPrecondition(
            f"the job is {trained.status.name}, and only a COMPLETED job has a model; give the"
            " checkpoint_id of one of its checkpoints, or a model_uri"
        )
    return trained.output_path


def process_config(job: JobRecord, fetch: Callable[[str], str]) -> dict[str, Any]:
    """What `evaluate_model` is told; `fetch` tells where what a URL names can be read."""
    assert job.evaluation is not None
    return {
        "model_path": fetch(job.evaluation.model_uri),
        "benchmarks": [
            {
                "name": benchmark.name,
                "dataset": benchmark.dataset,
                "local_path": fetch(benchmark.dataset),
                "num_samples": benchmark.num_samples,
                "parameters": dict(benchmark.parameters),
            }
            for benchmark in job.evaluation.benchmarks
        ],
    }


def evaluation_message(job: JobRecord, output: Path) -> Evaluation:
    """An evaluation in full; its results are read from the job's `output`. Blocks."""
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
        try:
            message.results.extend(read_results(output, RESULTS, asked.benchmarks))
        except BadResults as error:
            message.error_message = f"Its results cannot be read: {error}."
    return message
