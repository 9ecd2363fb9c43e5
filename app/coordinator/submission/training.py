"""What a submission may be, and the job that it makes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from app.coordinator.cluster.nodes import Cluster
from app.coordinator.data.atlas import is_model_name
from app.coordinator.data.conversion.conversion import missing_packages
from app.coordinator.data.conversion.trees import FORMATS
from app.coordinator.data.drive import ATLAS_SCHEME, SCHEME, BadUrl, Drive
from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.identity.access import Access, Grant
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.jobs.secrets import take_out, unknown
from app.coordinator.submission.environment import check_environment
from app.coordinator.submission.resources import (
    bound_run_time,
    check_possible,
    check_times,
    resource_request_of,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    BaseModel,
    FrameworkType,
    ResourceConfig,
    SubmitJobRequest,
)

_QUEUE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORMATS: Final = ("", "jsonl", "json", "csv", "parquet")
_MAX_NAME: Final = 256
#: Each is mounted by itself for the job, and the time for that grows with its square.
_MAX_SOURCES: Final = 256
#: Of a label's value, in characters.
_MAX_VALUE: Final = 1024
_MAX_LABELS: Final = 64
#: Bytes of a whole submission: a page of jobs, and each change of a job, tells it all.
_MAX_SUBMISSION: Final = 256 * 1024


def new_job_id(prefix: str = "job") -> str:
    """An id that cannot be guessed."""
    return f"{prefix}-{token_hex(10)}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new job, PENDING, and what it was given that must not be stored with it."""

    job: JobRecord
    #: Of the variables that are masked in its submission, by name.
    secrets: Mapping[str, str]


def accept(
    request: SubmitJobRequest,
    *,
    access: Access,
    user_id: str,
    drive: Drive,
    cluster: Cluster,
    now: int,
) -> Accepted:
    """The job of a submission. Raises RequestError."""
    if request.ByteSize() > _MAX_SUBMISSION:
        raise InvalidArgument(
            "submission",
            f"it has {request.ByteSize()} bytes, and a submission may have {_MAX_SUBMISSION};"
            " put large texts into a file on the drive",
        )
    kept = SubmitJobRequest()
    kept.CopyFrom(request)
    kept.idempotency_key = ""
    _fill_in(kept)
    _check_texts(kept)
    _check_training(kept, access, drive)
    _check_data(kept, access, drive)
    _check_output(kept, access, drive)
    check_world_size(kept)
    check_times(kept.scheduling_config, now=now)
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
            tenant_id=access.tenant_id, user_id=user_id, job_id=job_id, urls=_named(kept)
        ),
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
    return Accepted(job, taken_out)


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
            f"training_config.environment: what the job was given as {', '.join(lost)} is not"
            " kept any more; submit it as a new job"
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
        evaluation=parent.evaluation,
        message=f"Accepted: it exports the artefacts of {parent.artefacts_of}, without a run.",
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


def _check_texts(request: SubmitJobRequest) -> None:
    if not request.name.strip():
        raise InvalidArgument("name", "it is empty")
    if len(request.name) > _MAX_NAME:
        raise InvalidArgument("name", f"it has more than {_MAX_NAME} characters")
    if len(request.labels) > _MAX_LABELS:
        raise InvalidArgument("labels", f"there are more than {_MAX_LABELS}")
    for key, value in request.labels.items():
        if not key or len(key) > _MAX_NAME or len(value) > _MAX_VALUE:
            raise InvalidArgument("labels", "a key is empty or too long, or a value too long")
    if not _QUEUE.fullmatch(request.scheduling_config.queue_name):
        raise InvalidArgument(
            "scheduling_config.queue_name", "up to 64 letters, digits, '.', '_' and '-'"
        )


def _check_training(request: SubmitJobRequest, access: Access, drive: Drive) -> None:
    training = request.training_config
    framework = training.framework
    if framework.type == FrameworkType.FRAMEWORK_TYPE_UNSPECIFIED:
        raise InvalidArgument("training_config.framework.type", "it is not given")
    if framework.type != FrameworkType.FRAMEWORK_TYPE_CUSTOM:
        name = FrameworkType.Name(framework.type).removeprefix("FRAMEWORK_TYPE_")
        raise FailedPrecondition(
            f"this coordinator has no {name}: it runs framework type CUSTOM; put the training"
            " into a script and give its scaidrive:// path as custom_script_path"
        )
    if not framework.custom_script_path:
        raise InvalidArgument(
            "training_config.framework.custom_script_path", "framework type CUSTOM needs it"
        )
    drive.require(
        access,
        "training_config.framework.custom_script_path",
        framework.custom_script_path,
        kind="file",
    )
    if training.resume_from_checkpoint:
        drive.require(
            access,
            "training_config.resume_from_checkpoint",
            training.resume_from_checkpoint,
        )
    if not 0 <= training.priority <= 10:
        raise InvalidArgument("training_config.priority", "it is not from 0 to 10")
    if not 0 <= training.max_retries <= 100:
        raise InvalidArgument("training_config.max_retries", "it is not from 0 to 100")
    check_environment(training.environment)
    _check_model(training.base_model, access, drive)


def _check_model(model: BaseModel, access: Access, drive: Drive) -> None:
    """Refuse a model that is not there, and settle which version of one is meant."""
    where = "training_config.base_model.model_id"
    if not model.model_id.startswith((SCHEME, ATLAS_SCHEME, "/")):
        return
    if model.model_id.startswith(ATLAS_SCHEME) and model.revision:
        if "@" in model.model_id.rpartition("/")[2]:
            raise InvalidArgument(where, "give the version either in it or as the revision")
        model.model_id += f"@{model.revision}"
    drive.require(access, where, model.model_id)
    model.model_id = drive.pinned(access, model.model_id)


def _check_data(request: SubmitJobRequest, access: Access, drive: Drive) -> None:
    if len(request.data_config.sources) > _MAX_SOURCES:
        raise InvalidArgument(
            "data_config.sources",
            f"there are more than {_MAX_SOURCES}; put the files into a folder, and name that",
        )
    for at, source in enumerate(request.data_config.sources):
        where = f"data_config.sources.{at}"
        if source.format not in _FORMATS:
            raise InvalidArgument(f"{where}.format", f"it is not one of {', '.join(_FORMATS[1:])}")
        if not 0 <= source.sampling <= 1:
            raise InvalidArgument(f"{where}.sampling", "it is not from 0 to 1")
        drive.require(access, f"{where}.path", source.path)
    if not 0 <= request.data_config.validation_split <= 1:
        raise InvalidArgument("data_config.validation_split", "it is not from 0 to 1")


def _check_output(request: SubmitJobRequest, access: Access, drive: Drive) -> None:
    output = request.output_config
    if output.path:
        try:
            drive.destination(access, output.path).check_destination()
        except BadUrl as error:
            raise InvalidArgument("output_config.path", str(error)) from None
    if output.max_checkpoints < 0:
        raise InvalidArgument("output_config.max_checkpoints", "it is below 0")
    if output.export_format and output.export_format not in FORMATS:
        raise InvalidArgument(
            "output_config.export_format",
            f"{output.export_format[:64]!r} is not known; there are: {', '.join(FORMATS)};"
            " empty exports as the script wrote it",
        )
    if missing := missing_packages(output.export_format):
        raise FailedPrecondition(
            f"output_config.export_format: {output.export_format} needs {' and '.join(missing)},"
            f" which this coordinator does not have; install: pip install {' '.join(missing)}"
        )
    if output.register_model and not is_model_name(output.model_name):
        raise InvalidArgument(
            "output_config.model_name",
            "register_model needs one: up to 128 letters, digits, '.', '_' and '-'",
        )


def _named(request: SubmitJobRequest) -> list[str]:
    """What a submission names; a model's name at a hub is no file, and does no harm there."""
    training = request.training_config
    return [
        training.framework.custom_script_path,
        training.resume_from_checkpoint,
        training.base_model.model_id,
        *(source.path for source in request.data_config.sources),
        request.output_config.path,
    ]


_MAX_RANKS: Final = 256


def check_world_size(request: SubmitJobRequest) -> None:
    """Raise InvalidArgument unless the ranks can be spread evenly over the nodes."""
    wanted = request.training_config.framework.distributed.world_size
    nodes = request.resource_config.node_count or 1
    where = "training_config.framework.distributed.world_size"
    if not 0 <= wanted <= _MAX_RANKS:
        raise InvalidArgument(where, f"it is not from 1 to {_MAX_RANKS}, or 0 for one a node")
    if wanted % nodes:
        raise InvalidArgument(
            where, f"{wanted} processes cannot be divided evenly among {nodes} nodes"
        )
