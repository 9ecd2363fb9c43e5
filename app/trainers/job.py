"""The job that a run carries out: SCAIMIND_JOB_CONFIG and the run's variables, checked.

The fields are the submission's, under their names, with what is unset as the contract has it:
empty, 0, false. `local_path` is where the coordinator laid what a URL names.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import TrainingRefused, did_you_mean, shown
from .values import Section

#: Bytes of the configuration: a submission has at most 256 KiB, and JSON adds to that.
_MAX_CONFIG: Final = 4 * 1024 * 1024
_MAX_RANKS: Final = 100_000
#: What `output_config.export_format` may be. The coordinator packs or converts the last two.
EXPORT_FORMATS: Final = ("", "safetensors", "merged", "adapter", "tar.gz", "npz")
_FORMATS: Final = ("", "jsonl", "json", "csv", "parquet")
_PADDINGS: Final = ("", "none", "max_length", "longest")
#: Where files come from: the coordinator fetched them, whatever the source is called.
_SOURCE_TYPES: Final = ("", "file", "dataset", "local", "scaidrive", "scaiatlas")
_MODEL_SOURCES: Final = ("", "local", "scaidrive", "scaiatlas", "hub", "huggingface")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model that training begins with."""

    model_id: str
    #: A folder; None for a name that a hub or the local cache knows.
    local_path: Path | None
    #: Where `local_path` holds a LoRA adapter: of what that is on, and what that is on in turn.
    adapter_base_paths: tuple[Path, ...]
    revision: str
    tokenizer_id: str
    tokenizer_path: Path | None
    dtype: str
    trust_remote_code: bool
    model_kwargs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """Files of records."""

    path: str
    local_path: Path
    split: str
    format: str
    columns: tuple[str, ...]
    filters: Mapping[str, str]
    #: Share of the records, 0 < sampling <= 1.
    sampling: float


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What becomes of a record before the model sees it."""

    tokenizer_kwargs: Mapping[str, str]
    add_bos: bool
    add_eos: bool
    padding: str
    truncation: bool
    chat_template: str
    field_mapping: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """The records and how they are fed."""

    sources: tuple[Source, ...]
    preprocess: Preprocess
    #: Tokens; 0 is the model's own limit.
    max_seq_length: int
    #: Records of each device and forward pass; 0 is the trainer's default.
    batch_size: int
    gradient_accumulation_steps: int
    num_workers: int
    pin_memory: bool
    validation_split: float
    seed: int


@dataclass(frozen=True, slots=True)
class Framework:
    """How the training is spread."""

    type: str
    config: Mapping[str, str]
    #: What was asked; 0 for one process on each node.
    world_size: int
    backend: str
    strategy: str
    distributed_config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Output:
    """What is kept of the training."""

    #: Optimizer steps; 0 is the trainer's default.
    checkpoint_interval_steps: int
    #: 0 keeps all.
    max_checkpoints: int
    export_format: str
    model_name: str


@dataclass(frozen=True, slots=True)
class Job:
    """A whole job as one of its processes sees it."""

    job_id: str
    name: str
    training_type: str
    base_model: BaseModel
    framework: Framework
    hyperparameters: Mapping[str, str]
    #: Where what hyperparameters name by a URL was fetched to, by hyperparameter.
    hyperparameter_paths: Mapping[str, Path]
    data: Data
    output: Output
    output_dir: Path
    checkpoint_dir: Path
    #: None where training begins afresh.
    resume_from: Path | None
    metrics_file: Path | None
    #: Of this process among `world_size`.
    rank: int
    world_size: int
    local_world_size: int
    #: Of this process among those of its node.
    local_rank: int = 0
    #: All processes see the same files; else each node has directories of its own.
    shares_disk: bool = True

    @property
    def is_main(self) -> bool:
        """Whether this process writes metrics, checkpoints and the model."""
        return self.rank == 0

    @property
    def is_main_of_disk(self) -> bool:
        """Whether this process does what has to be done once for all that see its files."""
        return self.is_main if self.shares_disk else self.local_rank == 0


def read_job(environ: Mapping[str, str]) -> Job:
    """Return the job that the variables of a run name. Raises TrainingRefused."""
    config = Section(_read(_path(environ, "SCAIMIND_JOB_CONFIG")), "")
    training = config.section("training_config")
    world_size = _number(environ, "WORLD_SIZE", 1)
    return Job(
        job_id=environ.get("SCAIMIND_JOB_ID", ""),
        name=config.text("name"),
        training_type=training.text("training_type"),
        base_model=_base_model(training.section("base_model"), config.section("data_config")),
        framework=_framework(training.section("framework")),
        hyperparameters=training.mapping("hyperparameters"),
        hyperparameter_paths={
            name: Path(path)
            for name, path in training.mapping("hyperparameter_local_paths").items()
        },
        data=_data(config.section("data_config")),
        output=_output(config.section("output_config")),
        output_dir=_path(environ, "SCAIMIND_OUTPUT_DIR"),
        checkpoint_dir=_path(environ, "SCAIMIND_CHECKPOINT_DIR"),
        resume_from=_optional(environ.get("SCAIMIND_RESUME_FROM", "")),
        metrics_file=_optional(environ.get("SCAIMIND_METRICS_FILE", "")),
        rank=_number(environ, "RANK", 0),
        world_size=world_size,
        local_world_size=_number(environ, "LOCAL_WORLD_SIZE", world_size),
        local_rank=_number(environ, "LOCAL_RANK", 0),
        shares_disk=environ.get("SCAIMIND_SHARED_DISK") != "0",
    )


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG + 1)
        if len(text) > _MAX_CONFIG:
            raise TrainingRefused(f"the job's configuration has more than {_MAX_CONFIG} bytes")
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingRefused(f"the job's configuration {path} cannot be read: {error}") from None


def _path(environ: Mapping[str, str], name: str) -> Path:
    if not (value := environ.get(name, "")):
        raise TrainingRefused(f"the variable {name} is not set; the coordinator sets it for a run")
    return Path(value)


def _optional(value: str) -> Path | None:
    return Path(value) if value else None


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    if not value.isascii() or not value.isdigit() or len(value) > 6 or int(value) > _MAX_RANKS:
        raise TrainingRefused(f"the variable {name} is {shown(value)}, which is no count of ranks")
    return int(value)


def _base_model(base: Section, data: Section) -> BaseModel:
    preprocess = data.section("preprocess")
    base.text("source", one_of=_MODEL_SOURCES)
    tokenizers = {base.text("tokenizer_id"), preprocess.text("tokenizer_id")} - {""}
    if len(tokenizers) > 1:
        raise TrainingRefused(
            "base_model.tokenizer_id and preprocess.tokenizer_id name two tokenizers; keep one"
        )
    tokenizer_path = base.text("tokenizer_local_path") or preprocess.text("tokenizer_local_path")
    model_id = base.text("model_id")
    if not model_id:
        raise TrainingRefused("training_config.base_model.model_id: must name a model")
    return BaseModel(
        model_id=model_id,
        local_path=_optional(base.text("local_path")),
        adapter_base_paths=tuple(map(Path, base.texts("adapter_base_local_paths"))),
        revision=base.text("revision"),
        tokenizer_id=tokenizers.pop() if tokenizers else "",
        tokenizer_path=_optional(tokenizer_path),
        dtype=base.text("dtype"),
        trust_remote_code=base.flag("trust_remote_code"),
        model_kwargs=base.mapping("model_kwargs"),
    )


def _framework(framework: Section) -> Framework:
    distributed = framework.section("distributed")
    return Framework(
        type=framework.text("type"),
        config=framework.mapping("config"),
        world_size=distributed.count("world_size", most=_MAX_RANKS),
        backend=distributed.text("backend"),
        strategy=distributed.text("strategy"),
        distributed_config=distributed.mapping("config"),
    )


def _data(data: Section) -> Data:
    preprocess = data.section("preprocess")
    sources = tuple(_source(each) for each in data.sections("sources"))
    if not sources:
        raise TrainingRefused("data_config.sources: name at least one source of records")
    return Data(
        sources=sources,
        preprocess=Preprocess(
            tokenizer_kwargs=preprocess.mapping("tokenizer_kwargs"),
            add_bos=preprocess.flag("add_bos"),
            add_eos=preprocess.flag("add_eos"),
            padding=preprocess.text("padding", one_of=_PADDINGS),
            truncation=preprocess.flag("truncation"),
            chat_template=preprocess.text("chat_template"),
            field_mapping=preprocess.mapping("field_mapping"),
        ),
        max_seq_length=data.count("max_seq_length"),
        batch_size=data.count("batch_size"),
        gradient_accumulation_steps=data.count("gradient_accumulation_steps") or 1,
        num_workers=data.count("num_workers", most=1024),
        pin_memory=data.flag("pin_memory"),
        validation_split=data.share("validation_split"),
        seed=data.integer("seed"),
    )


def _source(source: Section) -> Source:
    path, local_path = source.text("path"), source.text("local_path")
    kind = source.text("type").lower()
    if kind not in _SOURCE_TYPES:
        raise TrainingRefused(
            f"data_config.sources: the type {shown(kind)} of {shown(path)} is not known"
            f"{did_you_mean(kind, _SOURCE_TYPES)}; leave it empty for files of the drive"
        )
    return Source(
        path=path,
        local_path=Path(local_path or path),
        split=source.text("split"),
        format=source.text("format", one_of=_FORMATS),
        columns=source.texts("columns"),
        filters=source.mapping("filters"),
        sampling=source.share("sampling") or 1.0,
    )


def _output(output: Section) -> Output:
    return Output(
        checkpoint_interval_steps=output.count("checkpoint_interval_steps"),
        max_checkpoints=output.count("max_checkpoints"),
        export_format=output.text("export_format", one_of=EXPORT_FORMATS),
        model_name=output.text("model_name"),
    )
