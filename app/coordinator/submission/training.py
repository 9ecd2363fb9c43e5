"""What a submission may be, and the job that it makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.data.drive import Drive
from app.coordinator.errors import FailedPrecondition, InvalidArgument, all_problems
from app.coordinator.identity.access import Access, Grant
from app.coordinator.jobs.model import JobRecord, Program, ResourceRequest
from app.coordinator.jobs.secrets import take_out, unknown
from app.coordinator.submission.checks import (
    check_data,
    check_output,
    check_texts,
    check_training,
    check_world_size,
)
from app.coordinator.submission.program import PackageRules, program_of
from app.coordinator.submission.resources import (
    bound_run_time,
    check_possible,
    check_times,
    resource_request_of,
)
from app.coordinator.submission.trainers import NOT_CHECKED, check_trainer
from app.coordinator.trainers.asking import TrainerRules
from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    ResourceConfig,
    SubmitJobRequest,
)

#: Bytes of a whole submission: a page of jobs, and each change of a job, tells it all.
MAX_SUBMISSION: Final = 256 * 1024


def new_job_id(prefix: str = "job") -> str:
    """An id that cannot be guessed."""
    return f"{prefix}-{token_hex(10)}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new job, PENDING, and what it was given that must not be stored with it."""

    job: JobRecord
    #: Of the variables that are masked in its submission, by name.
    secrets: Mapping[str, str]
    #: What whoever submitted it is told, though it was accepted.
    warnings: tuple[str, ...] = ()


def accept(
    request: SubmitJobRequest,
    *,
    access: Access,
    user_id: str,
    drive: Drive,
    packages: PackageRules,
    trainers: TrainerRules | None,
    cluster: Cluster,
    now: int,
) -> Accepted:
    """The job of a submission; `trainers` are given unless its framework type is CUSTOM.

    Raises RequestError.
    """
    if request.ByteSize() > MAX_SUBMISSION:
        raise InvalidArgument(
            "submission",
            f"the submission has {request.ByteSize()} bytes; the limit is {MAX_SUBMISSION}."
            " Put large texts into a file on the drive",
        )
    kept = SubmitJobRequest()
    kept.CopyFrom(request)
    # What is about the request, and not about the job.
    kept.ClearField("idempotency_key")
    kept.ClearField("validate_only")
    _fill_in(kept)
    with all_problems() as problems:
        check_texts(kept, problems)
        program, named = Program(), list[str]()
        with problems.collected():
            if kept.training_config.framework.type == FrameworkType.FRAMEWORK_TYPE_UNSPECIFIED:
                raise InvalidArgument("training_config.framework.type", "is required")
            if trainers is None:
                program = program_of(kept.training_config.framework, access, drive, packages)
            else:
                named = check_trainer(kept, trainers, access, drive, problems)
        check_training(kept, access, drive, problems)
        check_data(kept, access, drive, problems)
        check_output(kept, access, drive, problems)
        with problems.collected():
            check_world_size(kept)
        with problems.collected():
            check_times(kept.scheduling_config, now=now)
        with problems.collected():
            resource_request = resource_request_of(kept.resource_config, kept.scheduling_config)
            check_possible(resource_request, cluster)
    taken_out = take_out(kept.training_config.environment)
    scheduling = kept.scheduling_config
    job_id = new_job_id()
    job = JobRecord(
        job_id=job_id,
        tenant_id=access.tenant_id,
        user_id=user_id,
        name=kept.name,
        submission=kept,
        grant=Grant.give(
            tenant_id=access.tenant_id,
            user_id=user_id,
            job_id=job_id,
            urls=[*_named(kept, program), *named],
        ),
        program=program,
        resource_request=resource_request,
        created_at=now,
        updated_at=now,
        message="Accepted.",
        priority=kept.training_config.priority,
        queue_name=scheduling.queue_name,
        not_before=scheduling.not_before.ToMicroseconds()
        if scheduling.HasField("not_before")
        else 0,
        resume_from=kept.training_config.resume_from_checkpoint,
    )
    unchecked = trainers is not None and trainers.schema is None
    return Accepted(job, taken_out, (NOT_CHECKED,) if unchecked else ())


def accept_retry(
    parent: JobRecord,
    *,
    resources: ResourceConfig | None,
    resume_from: str,
    user_id: str,
    cluster: Cluster,
    secrets: Mapping[str, str],
    now: int,
) -> Accepted:
    """The child of a job that is retried, perhaps with other resources. Raises RequestError.

    `secrets` is what was kept of the parent's masked variables; the child has the same. It
    begins at `resume_from`, and so do its own retries.
    """
    kept = SubmitJobRequest()
    kept.CopyFrom(parent.submission)
    kept.training_config.resume_from_checkpoint = resume_from
    if lost := unknown(kept.training_config.environment, secrets):
        raise FailedPrecondition(
            f"training_config.environment: the values of {', '.join(lost)} are no longer stored;"
            " submit a new job"
        )
    if resources is not None:
        kept.resource_config.CopyFrom(resources)
    kept.scheduling_config.ClearField("not_before")
    bound_run_time(kept.scheduling_config)
    _fill_in(kept)
    check_world_size(kept)
    resource_request = resource_request_of(kept.resource_config, kept.scheduling_config)
    check_possible(resource_request, cluster)
    job_id = new_job_id()
    child = JobRecord(
        job_id=job_id,
        tenant_id=parent.tenant_id,
        user_id=user_id,
        name=parent.name,
        submission=kept,
        grant=Grant.give(
            tenant_id=parent.tenant_id,
            user_id=user_id,
            job_id=job_id,
            urls=[*(parent.grant.urls if parent.grant else ()), resume_from],
        ),
        resource_request=resource_request,
        created_at=now,
        updated_at=now,
        kind=parent.kind,
        program=parent.program,
        evaluation=parent.evaluation,
        message="Accepted.",
        priority=parent.priority,
        queue_name=parent.queue_name,
        parent_job_id=parent.job_id,
        resume_from=resume_from,
    )
    return Accepted(child, secrets)


def accept_export(
    parent: JobRecord, *, user_id: str, secrets: Mapping[str, str], now: int
) -> Accepted:
    """The child of a job whose export has failed: it exports the same again, without a run.

    It needs no core and no GPU, whatever the run needed. `secrets` is what was
    kept of the parent's masked variables, for a retry that runs again.
    """
    job_id = new_job_id()
    child = JobRecord(
        job_id=job_id,
        tenant_id=parent.tenant_id,
        user_id=user_id,
        name=parent.name,
        submission=parent.submission,
        grant=Grant.give(
            tenant_id=parent.tenant_id,
            user_id=user_id,
            job_id=job_id,
            urls=parent.grant.urls if parent.grant else (),
        ),
        resource_request=ResourceRequest(cpus=0),
        created_at=now,
        updated_at=now,
        kind=parent.kind,
        program=parent.program,
        evaluation=parent.evaluation,
        message=f"Accepted. It exports the artefacts of {parent.artefacts_of} without another run.",
        priority=parent.priority,
        queue_name=parent.queue_name,
        parent_job_id=parent.job_id,
        artefacts_of=parent.artefacts_of,
        progress=parent.progress,
    )
    return Accepted(child, secrets)


def _fill_in(request: SubmitJobRequest) -> None:
    resources = request.resource_config
    resources.node_count = resources.node_count or 1
    request.scheduling_config.queue_name = request.scheduling_config.queue_name or "default"
    data = request.data_config
    data.gradient_accumulation_steps = data.gradient_accumulation_steps or 1


def _named(request: SubmitJobRequest, program: Program) -> list[str]:
    """What a submission names; a model's name at a hub is no file, and does no harm there."""
    training = request.training_config
    return [
        program.working_dir,
        "" if program.script else training.framework.custom_script_path,
        training.resume_from_checkpoint,
        training.base_model.model_id,
        *(source.path for source in request.data_config.sources),
        request.output_config.path,
    ]
