"""What an evaluation's submission may be, and the job that it makes."""

import re
from collections.abc import Sequence
from typing import Final

from app.coordinator.data.drive import BadUrl, Drive
from app.coordinator.errors import (
    FailedPrecondition,
    InvalidArgument,
    Problems,
    all_problems,
    not_known,
)
from app.coordinator.evaluations.benchmark_data import check_dataset, check_task
from app.coordinator.evaluations.evaluator.benchmarks import BENCHMARKS, BadParameter
from app.coordinator.evaluations.model_kinds import needs_trainers
from app.coordinator.evaluations.process import MAX_REQUEST, FindCheckpoint, names_task
from app.coordinator.identity.access import Access, Grant
from app.coordinator.jobs.model import JobRecord, Kind, ResourceRequest
from app.coordinator.jobs.states import Status
from app.coordinator.submission.training import new_job_id
from app.coordinator.trainers.asking import NO_ENVIRONMENT
from app.coordinator.trainers.environment import TrainersEnvironment, has_package
from app.coordinator.trainers.models import adapter_bases, is_url
from app.shortening import shortened
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Benchmark,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

_QUEUE: Final = "default"


_MAX_BENCHMARKS: Final = 100
_TASK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_EXAMPLE_TASK: Final = "arc_easy"


def accept_evaluation(
    request: SubmitEvaluationRequest,
    *,
    tenant_id: str,
    user_id: str,
    trained: JobRecord | None,
    find_checkpoint: FindCheckpoint,
    trainers: TrainersEnvironment | None,
    drive: Drive,
    now: int,
) -> JobRecord:
    """The PENDING job that evaluates what `trained` made, or a model at a URI.

    `trainers` is the environment for models of transformers, if there is one. Raises
    RequestError.
    """
    if (size := request.ByteSize()) > MAX_REQUEST:
        raise InvalidArgument(
            "benchmarks", f"the evaluation has {size} bytes; the limit is {MAX_REQUEST}"
        )
    kept = SubmitEvaluationRequest()
    kept.CopyFrom(request)
    kept.idempotency_key = ""
    # No tokens come with an evaluation: it may use what the gateway's caller may, and no more.
    access = Access(tenant_id)
    urls: list[str] = []
    with all_problems() as problems:
        with problems.collected():
            kept.model_uri = _model(request, trained, find_checkpoint)
            drive.require(access, "model_uri", kept.model_uri, kind="directory")
            kept.model_uri = drive.pinned(access, kept.model_uri)
            urls = _check_model(kept, access, drive, trainers)
        _check_benchmarks(kept.benchmarks, access, drive, problems)
    labels = {"type": "evaluation"}
    if trained is not None:
        labels["job_id"] = trained.job_id
    name = trained.name if trained is not None else kept.model_uri
    submission = SubmitJobRequest(name=shortened(f"Evaluation of {name}", 256), labels=labels)
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
            urls=[
                kept.model_uri,
                *urls,
                *(each.dataset for each in kept.benchmarks if not names_task(each)),
            ],
        ),
        tenant_id=tenant_id,
        user_id=user_id,
        name=submission.name,
        submission=submission,
        evaluation=kept,
        kind=Kind.EVALUATION,
        resource_request=ResourceRequest(cpus=0),
        created_at=now,
        updated_at=now,
        message="Accepted.",
        queue_name=_QUEUE,
    )


def _check_benchmarks(
    benchmarks: Sequence[Benchmark], access: Access, drive: Drive, problems: Problems
) -> None:
    if not benchmarks:
        problems.add("benchmarks", "must not be empty")
    if len(benchmarks) > _MAX_BENCHMARKS:
        problems.add("benchmarks", f"must have at most {_MAX_BENCHMARKS} benchmarks")
    for at, benchmark in enumerate(benchmarks[:_MAX_BENCHMARKS]):
        where = f"benchmarks.{at}"
        known = BENCHMARKS.get(benchmark.name)
        if known is None:
            problems.add(f"{where}.name", not_known(benchmark.name, sorted(BENCHMARKS)))
        else:
            try:
                known.read(benchmark.parameters)
            except BadParameter as error:
                problems.add(f"{where}.parameters", str(error))
        if benchmark.num_samples < 0:
            problems.add(f"{where}.num_samples", "must be 0 or more")
        with problems.collected():
            if not _of_harness(benchmark):
                check_dataset(drive, access, f"{where}.dataset", benchmark.dataset)
            elif not names_task(benchmark):
                check_task(drive, access, f"{where}.dataset", benchmark.dataset)
            elif _TASK.fullmatch(benchmark.dataset) is None:
                problems.add(
                    f"{where}.dataset",
                    f"must be the name of a task of lm-evaluation-harness, such as {_EXAMPLE_TASK},"
                    " or the URL of a folder with a task's YAML file and its data",
                )


def _of_harness(benchmark: Benchmark) -> bool:
    known = BENCHMARKS.get(benchmark.name)
    return known is not None and known.of_harness


def _check_model(
    request: SubmitEvaluationRequest,
    access: Access,
    drive: Drive,
    trainers: TrainersEnvironment | None,
) -> list[str]:
    """Refuse a model that this coordinator has nothing to evaluate with.

    Returns the URLs of what an adapter is on. Raises RequestError.
    """
    where, url = "model_uri", request.model_uri
    of_harness = any(_of_harness(benchmark) for benchmark in request.benchmarks)
    try:
        if not needs_trainers(drive, access, url):
            if of_harness:
                raise FailedPrecondition(
                    f"{where}: lm-evaluation-harness runs on models of transformers alone: a folder"
                    " with a config.json as save_pretrained writes it"
                )
            return []
        if trainers is None:
            raise FailedPrecondition(
                f"{where}: it is a model of transformers without a scaimind_model.py, and"
                f" {NO_ENVIRONMENT}"
            )
        if of_harness and not has_package(trainers, "lm_eval"):
            raise FailedPrecondition(
                "benchmarks: the environment to train language models in has no"
                " lm-evaluation-harness. Its operator installs it by: scripts/venv train"
                " --with-lm-eval (or, into an environment of their own, pip install lm-eval)"
            )
        bases = []
        for base in adapter_bases(drive, access, url):
            if is_url(base):
                drive.require(access, where, base, kind="directory")
                bases.append(base)
    except (BadUrl, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FailedPrecondition(f"{where}: {reason}") from None
    return bases


def _model(
    request: SubmitEvaluationRequest, trained: JobRecord | None, find_checkpoint: FindCheckpoint
) -> str:
    """Where the model is that is to be evaluated. Raises RequestError."""
    if trained is None:
        if not request.model_uri:
            raise InvalidArgument("job_id", "either job_id or model_uri is required")
        if request.checkpoint_id:
            raise InvalidArgument("checkpoint_id", "requires job_id")
        return request.model_uri
    if trained.kind is Kind.EVALUATION:
        raise InvalidArgument("job_id", "must be a training job, not an evaluation")
    if request.checkpoint_id:
        url = find_checkpoint(trained, request.checkpoint_id)
        if request.model_uri not in ("", url, trained.output_path):
            raise InvalidArgument(
                "model_uri", "belongs to another job; give either model_uri or checkpoint_id"
            )
        return url
    if request.model_uri:
        return request.model_uri
    if trained.status is not Status.COMPLETED:
        raise FailedPrecondition(
            f"job_id: the job is {trained.status.name}, and only a COMPLETED job has a model; give"
            " the checkpoint_id of one of its checkpoints, or a model_uri"
        )
    return trained.output_path
