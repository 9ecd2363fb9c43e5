"""What a submission without a script must be: its training type, hyperparameters and models."""

from collections.abc import Iterator
from typing import Final

from app.coordinator.data.drive import ATLAS_SCHEME, BadUrl, Drive
from app.coordinator.errors import FailedPrecondition, InvalidArgument, Problems, RequestError
from app.coordinator.identity.access import Access
from app.coordinator.trainers.asking import TrainerRules
from app.coordinator.trainers.models import adapter_bases, is_url, model_type, named_urls
from app.coordinator.trainers.schema import MAX_NAMES, Schema
from app.shortening import quoted
from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    SubmitJobRequest,
    TrainingType,
)

_FRAMEWORK: Final = "training_config.framework"
_TYPE: Final = "training_config.training_type"
_HYPERPARAMETERS: Final = "training_config.hyperparameters"
#: What only a script of its own has (framework.config).
_OF_SCRIPTS: Final = ("working_dir", "arguments", "requirements", "allow_source_builds")
#: Characters of a name that a field's path has.
_MAX_NAME: Final = 128
NOT_CHECKED: Final = (
    "training_config.hyperparameters: could not be checked, since the trainers are still starting;"
    " an unknown name or a wrong value fails the job when it runs."
)


def check_trainer(
    request: SubmitJobRequest,
    rules: TrainerRules,
    access: Access,
    drive: Drive,
    problems: Problems,
) -> list[str]:
    """Note what is wrong with a submission of a framework type other than CUSTOM.

    Returns the URLs of what it names besides its base model and its data.
    """
    training = request.training_config
    with problems.collected():
        _check_framework(request, rules)
    if training.framework.custom_script_path:
        problems.add(
            f"{_FRAMEWORK}.custom_script_path", "is for framework type CUSTOM alone; remove it"
        )
    for name in _OF_SCRIPTS:
        if name in training.framework.config:
            problems.add(
                f"{_FRAMEWORK}.config.{name}", "is for framework type CUSTOM alone; remove it"
            )
    if not training.base_model.model_id:
        problems.add("training_config.base_model.model_id", "is required")
    if training.base_model.revision and _has_no_revisions(training.base_model.model_id):
        problems.add(
            "training_config.base_model.revision",
            "is of a hub's model or of one in ScaiAtlas; a folder of the drive has none: remove it",
        )
    if not request.data_config.sources:
        problems.add("data_config.sources", "name at least one source of records to learn from")
    with problems.collected():
        _check_type(request, rules.schema, problems)
    urls = list(_urls(request, access, drive, problems))
    if rules.schema is not None:
        _check_needs(request, rules.schema, problems)
        with problems.collected():
            _check_model(request, rules.schema, access, drive)
    return urls


def _check_needs(request: SubmitJobRequest, schema: Schema, problems: Problems) -> None:
    """Note what a framework does not do of a submission, and what it needs."""
    framework = request.training_config.framework
    name = FrameworkType.Name(framework.type).removeprefix("FRAMEWORK_TYPE_")
    if (known := schema.frameworks.get(name)) is None:
        return
    kind = TrainingType.Name(request.training_config.training_type)
    if kind.removeprefix("TRAINING_TYPE_") not in known.training_types:
        types = ", ".join(known.training_types)
        problems.add(_TYPE, f"{name} does {types} alone; choose another framework.type")
    if known.needs_gpus and not request.resource_config.gpu_count:
        problems.add(
            "resource_config.gpu_count",
            f"{name} needs NVIDIA GPUs, one for each process; DEEPSPEED and FSDP run without",
        )
    wrong = [
        (section, setting, problem)
        for section, given in (
            (f"{_FRAMEWORK}.config", framework.config),
            (f"{_FRAMEWORK}.distributed.config", framework.distributed.config),
        )
        for setting, problem in known.config.problems(given, noun="setting")
        if setting not in _OF_SCRIPTS
    ]
    for section, setting, problem in wrong:
        problems.add(f"{section}.{setting}" if _is_plain(setting) else section, problem)
    if wrong:
        return
    ranks = framework.distributed.world_size or request.resource_config.node_count or 1
    divided = known.divided_by({**framework.distributed.config, **framework.config})
    if divided < 1 or ranks % divided:
        sizes = " times ".join(known.model_parallel)
        problems.add(
            f"{_FRAMEWORK}.config", f"{sizes} is {divided}, which does not divide {ranks} processes"
        )


def _check_model(request: SubmitJobRequest, schema: Schema, access: Access, drive: Drive) -> None:
    """Raise FailedPrecondition for a model that the framework cannot train."""
    model_id = request.training_config.base_model.model_id
    framework = request.training_config.framework
    name = FrameworkType.Name(framework.type).removeprefix("FRAMEWORK_TYPE_")
    known = schema.frameworks.get(name)
    if known is None or not is_url(model_id):
        return
    try:
        kind = model_type(drive, access, model_id)
    except BadUrl:
        # What is wrong with it is noted where its files are granted.
        return
    if kind and kind not in known.model_types:
        raise FailedPrecondition(
            f"training_config.base_model.model_id: {name} cannot train a model of the type"
            f" {quoted(kind)}, only {', '.join(known.model_types)}; use DEEPSPEED or FSDP"
        )


def _has_no_revisions(model_id: str) -> bool:
    return is_url(model_id) and not model_id.startswith(ATLAS_SCHEME)


def _is_plain(name: str) -> bool:
    """Whether a name from outside can be part of a field's path."""
    return len(name) <= _MAX_NAME and name.isprintable()


def _check_framework(request: SubmitJobRequest, rules: TrainerRules) -> None:
    if rules.refused:
        name = FrameworkType.Name(request.training_config.framework.type)
        raise FailedPrecondition(
            f"{_FRAMEWORK}.type: {name.removeprefix('FRAMEWORK_TYPE_')} is not available:"
            f" {rules.refused}"
        )


def _check_type(request: SubmitJobRequest, schema: Schema | None, problems: Problems) -> None:
    training = request.training_config
    if training.training_type == TrainingType.TRAINING_TYPE_UNSPECIFIED:
        raise InvalidArgument(_TYPE, "is required")
    if len(training.hyperparameters) > MAX_NAMES:
        raise InvalidArgument(_HYPERPARAMETERS, f"must have at most {MAX_NAMES} names")
    if schema is None:
        return
    name = TrainingType.Name(training.training_type).removeprefix("TRAINING_TYPE_")
    if name not in schema.training_types:
        known = ", ".join(sorted(schema.training_types))
        raise FailedPrecondition(f"{_TYPE}: the trainers do not know {name}; they know {known}")
    for parameter, problem in schema.problems(name, training.hyperparameters):
        where = f"{_HYPERPARAMETERS}.{parameter}" if _is_plain(parameter) else _HYPERPARAMETERS
        problems.add(where, problem)


def _urls(
    request: SubmitJobRequest, access: Access, drive: Drive, problems: Problems
) -> Iterator[str]:
    for where, url in named_urls(request):
        with problems.collected():
            drive.require(access, where, url)
            yield url
    model_id = request.training_config.base_model.model_id
    if not is_url(model_id):
        return
    where = "training_config.base_model.model_id"
    base = ""
    with problems.collected():
        try:
            for base in adapter_bases(drive, access, model_id):
                if is_url(base):
                    drive.require(access, where, base, kind="directory")
                    yield base
        except BadUrl as error:
            raise FailedPrecondition(f"{where}: {error}") from None
        except RequestError as error:
            raise FailedPrecondition(
                f"{where}: it is an adapter of {quoted(base)}: {error}"
            ) from None
