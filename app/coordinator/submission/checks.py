"""What a training submission must be: each check notes all that is wrong."""

from typing import Final

from app.coordinator.data.atlas import is_model_name
from app.coordinator.data.conversion.conversion import missing_packages
from app.coordinator.data.conversion.trees import FORMATS
from app.coordinator.data.drive import ATLAS_SCHEME, SCHEME, BadUrl, Drive
from app.coordinator.errors import FailedPrecondition, InvalidArgument, Problems, not_known
from app.coordinator.identity.access import Access
from app.coordinator.jobs.queue_rules import QUEUE_NAME
from app.coordinator.submission.environment import check_environment
from app.coordinator.trainers.models import EXPORTS, uses_trainers
from generated.mindcoordinator.v1.jobs_pb2 import (
    BaseModel,
    SubmitJobRequest,
)

_FORMATS: Final = ("", "jsonl", "json", "csv", "parquet")
MAX_NAME: Final = 256
#: Each is mounted by itself for the job, and the time for that grows with its square.
_MAX_SOURCES: Final = 256
#: Of a label's value, in characters.
MAX_VALUE: Final = 1024
MAX_LABELS: Final = 64
_MAX_RANKS: Final = 256


def check_texts(request: SubmitJobRequest, problems: Problems) -> None:
    """Note what is wrong with names, labels and the queue.

    By names and labels jobs are found, and no text in PostgreSQL has a NUL.
    """
    if not request.name.strip():
        problems.add("name", "must not be empty")
    if "\0" in request.name:
        problems.add("name", "must not contain a NUL character")
    if any("\0" in text for label in request.labels.items() for text in label):
        problems.add("labels", "must not contain NUL characters")
    if len(request.name) > MAX_NAME:
        problems.add("name", f"must have at most {MAX_NAME} characters")
    if len(request.labels) > MAX_LABELS:
        problems.add("labels", f"must have at most {MAX_LABELS} labels")
    for key, value in request.labels.items():
        if not key or len(key) > MAX_NAME:
            problems.add("labels", f"keys must have 1 to {MAX_NAME} characters")
            break
        if len(value) > MAX_VALUE:
            problems.add(f"labels.{key}", f"must have at most {MAX_VALUE} characters")
    if not QUEUE_NAME.fullmatch(request.scheduling_config.queue_name):
        problems.add(
            "scheduling_config.queue_name", "must be up to 64 letters, digits, '.', '_' and '-'"
        )


def check_training(
    request: SubmitJobRequest, access: Access, drive: Drive, problems: Problems
) -> None:
    """Note what is wrong with the training, and settle which version of the model is meant."""
    training = request.training_config
    if training.resume_from_checkpoint:
        with problems.collected():
            drive.require(
                access,
                "training_config.resume_from_checkpoint",
                training.resume_from_checkpoint,
            )
    if not 0 <= training.priority <= 10:
        problems.add("training_config.priority", "must be from 0 to 10")
    if not 0 <= training.max_retries <= 100:
        problems.add("training_config.max_retries", "must be from 0 to 100")
    with problems.collected():
        check_environment(training.environment)
    with problems.collected():
        _check_model(training.base_model, access, drive)


def _check_model(model: BaseModel, access: Access, drive: Drive) -> None:
    """Refuse a model that is not there, and settle which version of one is meant."""
    where = "training_config.base_model.model_id"
    if not model.model_id.startswith((SCHEME, ATLAS_SCHEME, "/")):
        return
    if model.model_id.startswith(ATLAS_SCHEME) and model.revision:
        if "@" in model.model_id.rpartition("/")[2]:
            raise InvalidArgument(where, "set the version either here or as the revision, not both")
        model.model_id += f"@{model.revision}"
    drive.require(access, where, model.model_id)
    model.model_id = drive.pinned(access, model.model_id)


def check_data(request: SubmitJobRequest, access: Access, drive: Drive, problems: Problems) -> None:
    """Note what is wrong with the sources, and which of them are not there."""
    if len(request.data_config.sources) > _MAX_SOURCES:
        problems.add(
            "data_config.sources",
            f"must have at most {_MAX_SOURCES} sources; put the files into a directory and name it",
        )
    for at, source in enumerate(request.data_config.sources[:_MAX_SOURCES]):
        where = f"data_config.sources.{at}"
        if source.format not in _FORMATS:
            problems.add(f"{where}.format", not_known(source.format, _FORMATS[1:]))
        if not 0 <= source.sampling <= 1:
            problems.add(f"{where}.sampling", "must be from 0 to 1")
        with problems.collected():
            drive.require(access, f"{where}.path", source.path)
    if not 0 <= request.data_config.validation_split <= 1:
        problems.add("data_config.validation_split", "must be from 0 to 1")


def check_output(
    request: SubmitJobRequest, access: Access, drive: Drive, problems: Problems
) -> None:
    """Note what is wrong with the output."""
    output = request.output_config
    if output.path:
        try:
            drive.destination(access, output.path).check_destination()
        except BadUrl as error:
            problems.add("output_config.path", str(error))
    if output.max_checkpoints < 0:
        problems.add("output_config.max_checkpoints", "must be 0 or more")
    with problems.collected():
        _check_export(request)
    if output.register_model and not is_model_name(output.model_name):
        problems.add(
            "output_config.model_name",
            "register_model requires a name of up to 128 letters, digits, '.', '_' and '-'",
        )


def _check_export(request: SubmitJobRequest) -> None:
    where = "output_config.export_format"
    export_format = request.output_config.export_format
    trained = uses_trainers(request.training_config)
    formats = tuple(dict.fromkeys((*EXPORTS, *FORMATS))) if trained else FORMATS
    if export_format and export_format not in formats:
        wrote = "the trainers write them" if trained else "the script wrote them"
        raise InvalidArgument(
            where,
            f"{not_known(export_format, formats)}; leave it empty to export files as {wrote}",
        )
    if trained and export_format in EXPORTS:
        return
    if missing := missing_packages(export_format):
        raise FailedPrecondition(
            f"{where}: {export_format} needs {' and '.join(missing)},"
            f" which this coordinator does not have; install: pip install {' '.join(missing)}"
        )


def check_world_size(request: SubmitJobRequest) -> None:
    """Raise InvalidArgument unless the ranks can be spread evenly over the nodes."""
    wanted = request.training_config.framework.distributed.world_size
    nodes = request.resource_config.node_count or 1
    where = "training_config.framework.distributed.world_size"
    if not 0 <= wanted <= _MAX_RANKS:
        raise InvalidArgument(where, f"must be from 1 to {_MAX_RANKS}, or 0 for one on each node")
    if wanted % nodes:
        raise InvalidArgument(
            where, f"{wanted} processes cannot be divided evenly among {nodes} nodes"
        )
