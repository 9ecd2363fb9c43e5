"""The five configs of a submission. Each field is the proto's of the same name."""

from collections.abc import Mapping
from typing import Any

import orjson
from marshmallow import ValidationError, fields, validate, validates, validates_schema
from typing_extensions import override

from app.credentials import MASK
from app.schemas.fields import (
    INT64_MAX,
    INT64_MIN,
    Choice,
    Flag,
    Many,
    Real,
    StringMap,
    Text,
    TextList,
    Time,
    Whole,
)
from app.schemas.loading import Body, Entry
from app.script_arguments import parse_arguments

TRAINING_TYPES = ("SFT", "LORA", "QLORA", "DPO", "RLHF", "CONTINUED_PRETRAIN", "FULL_FINETUNE")
FRAMEWORK_TYPES = ("HF_TRAINER", "DEEPSPEED", "FSDP", "MEGATRON", "CUSTOM")

PATH_LENGTH = 4096
_VARIABLE = validate.Regexp(
    r"[A-Za-z_][A-Za-z0-9_]*\Z", error="Must be a name of letters, digits and underscores."
)


def label_map(text: str) -> StringMap:
    """Make a field of labels: few and short, since they are compared with each other."""
    return StringMap(text, most=64, longest_key=128, longest_value=1024)


class BaseModelSchema(Body):
    """The model that training starts from."""

    model_id = Text(
        "scaiatlas://<tenant>/<name>, a hub name, or a path.",
        most=PATH_LENGTH,
        blank=False,
        required=True,
    )
    revision = Text("Revision of the model.")
    source = Text("Where model_id is looked up; empty derives it from the form of model_id.")
    tokenizer_id = Text("Empty means the model's tokenizer.", most=PATH_LENGTH)
    dtype = Text("For example bfloat16; empty means the framework's default.", most=64)
    trust_remote_code = Flag("Whether code shipped with the model may run.")
    model_kwargs = StringMap("Additional arguments for loading the model.")


class DistributedConfigSchema(Body):
    """Distribution over training processes."""

    world_size = Whole("Total number of processes; 0 derives it from the resources.")
    backend = Text("Communication backend.", most=64, load_default="nccl")
    strategy = Text("For example ddp.", most=256)
    config = StringMap("Additional settings of the strategy.")


class FrameworkConfig(StringMap):
    """Settings of a framework. Of CUSTOM, a list of arguments and a flag become the texts that the
    contract has for them."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if (
            isinstance(value, Mapping)
            and len(value) <= self.most
            and isinstance(data, Mapping)
            and data.get("type") == "CUSTOM"
        ):
            texts = {
                name: orjson.dumps(value[name]).decode()
                for name, kind in (("arguments", list), ("allow_source_builds", bool))
                if isinstance(value.get(name), kind)
            }
            value = {**value, **texts}
        return super()._deserialize(value, attr, data, **kwargs)


class FrameworkSchema(Body):
    """The training framework."""

    type = Choice("The framework.", FRAMEWORK_TYPES, required=True)
    config = FrameworkConfig(
        "Settings of the framework. Of CUSTOM: working_dir, a scaidrive:// folder or .tar.gz that"
        " each run has a copy of; arguments of the script, a list of strings, as such or as JSON"
        " text, or words as a shell splits them; requirements, a file in working_dir that names"
        " packages; allow_source_builds, true or false."
    )
    distributed = fields.Nested(DistributedConfigSchema, allow_none=True)
    custom_script_path = Text(
        "Required when type is CUSTOM: scaidrive://<tenant>/<path>, or a path in"
        " config.working_dir.",
        most=PATH_LENGTH,
    )

    @validates_schema(skip_on_field_errors=False)
    def _has_its_script(self, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("type") == "CUSTOM" and not data.get("custom_script_path", "").strip():
            raise ValidationError("Required when type is CUSTOM.", "custom_script_path")

    @validates_schema(skip_on_field_errors=False)
    def _has_whole_arguments(self, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("type") != "CUSTOM":
            return
        try:
            parse_arguments(data.get("config", {}).get("arguments", ""))
        except ValueError as error:
            text = str(error)
            raise ValidationError(
                {"config": {"arguments": [f"{text[0].upper()}{text[1:]}."]}}
            ) from None


class TrainingConfigSchema(Body):
    """Training configuration."""

    training_type = Choice("The kind of training.", TRAINING_TYPES, required=True)
    base_model = fields.Nested(BaseModelSchema, required=True)
    framework = fields.Nested(FrameworkSchema, required=True)
    hyperparameters = StringMap("Hyperparameters by name, as the training script reads them.")
    environment = StringMap(
        "Added to the training process's environment. Credentials, recognized by name"
        " (HF_TOKEN, WANDB_API_KEY), are shown as ***.",
        longest_value=32768,
        also=[_VARIABLE],
    )
    resume_from_checkpoint = Text(
        "Checkpoint id or path to start from; empty starts from the beginning.", most=PATH_LENGTH
    )
    max_retries = Whole("Maximum number of automatic retries after a transient failure.")
    priority = Whole("From 0 (last) to 10 (first).", most=10, load_default=5)

    @validates("environment")
    def _has_its_credentials(self, value: Mapping[str, str], **_: Any) -> None:
        masked = {
            name: [f"{MASK} is a placeholder for a hidden credential. Send its value."]
            for name, text in value.items()
            if text == MASK
        }
        if masked:
            raise ValidationError(masked)


class DataSourceSchema(Entry):
    """A source of records."""

    path = Text(
        "scaidrive://<tenant>/<path>, or a path that the coordinator allows.",
        most=PATH_LENGTH,
        blank=False,
        required=True,
    )
    type = Text("Kind of source.", most=64)
    split = Text("For example train.", most=256)
    format = Text("jsonl, json, csv or parquet; empty derives it from the name.", most=64)
    columns = TextList("Empty means all.")
    filters = StringMap("Required values of a record's fields.")
    sampling = Real("Share of the records to use; 0 means all.", least=0, most=1)


class PreprocessConfigSchema(Body):
    """Preprocessing of records."""

    tokenizer_id = Text("Empty means the base model's tokenizer.", most=PATH_LENGTH)
    tokenizer_kwargs = StringMap("Additional arguments of the tokenizer.")
    add_bos = Flag("Begin each record with the BOS token.")
    add_eos = Flag("End each record with the EOS token.")
    padding = Choice("Empty means the framework's default.", ("", "none", "max_length", "longest"))
    truncation = Flag("Truncate records that are too long.")
    chat_template = Text("Template that renders a conversation as text.", most=65536)
    field_mapping = StringMap("Field names in the data, mapped to the names that training expects.")


class DataConfigSchema(Body):
    """Training data."""

    sources = Many("The data sets.", fields.Nested(DataSourceSchema), most=1000, required=True)
    preprocess = fields.Nested(PreprocessConfigSchema, allow_none=True)
    max_seq_length = Whole("Maximum number of tokens; 0 means the model's limit.")
    batch_size = Whole("Records per device and step; 0 means the framework's default.")
    gradient_accumulation_steps = Whole("Steps per update.", least=1, load_default=1)
    num_workers = Whole("Processes that load data.")
    pin_memory = Flag("Load into page-locked memory.")
    validation_split = Real("Share of the records kept for validation.", least=0, most=1)
    seed = Whole("Seed of the random numbers.", least=INT64_MIN, most=INT64_MAX)


class ResourceConfigSchema(Body):
    """Resources of a job, in total over all its nodes."""

    gpu_count = Whole("Total number of GPUs; 0 trains on the CPU.", load_default=0)
    gpu_type = Text("For example A100-80GB; empty means any.", most=128)
    gpu_memory_bytes = Whole("Minimum memory of each GPU; 0 means any.", most=INT64_MAX)
    node_count = Whole(
        "Nodes over which the resources are divided evenly.", least=1, load_default=1
    )
    cpu_count = Whole("Cores; 0 asks for none of its own: the job uses what is idle.")
    memory_bytes = Whole(
        "Main memory; 0 asks for none: such a job goes first when memory is short.", most=INT64_MAX
    )


class OutputConfigSchema(Body):
    """Output of a job."""

    path = Text(
        "Destination of the artefacts, scaidrive://<tenant>/<path>; empty keeps them with the job.",
        most=PATH_LENGTH,
    )
    checkpoint_interval_steps = Whole("Steps between checkpoints; 0 lets the script decide.")
    max_checkpoints = Whole("Number of newest checkpoints to keep; 0 keeps all.")
    export_format = Text("For example safetensors; empty exports as written.", most=64)
    register_model = Flag("Registers the result in ScaiAtlas under model_name.")
    model_name = Text("Name in ScaiAtlas.", most=256)

    @validates_schema(skip_on_field_errors=False)
    def _has_its_name(self, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("register_model") and not data.get("model_name", "").strip():
            raise ValidationError("Required when register_model is true.", "model_name")


class SchedulingConfigSchema(Body):
    """Scheduling of a job."""

    queue_name = Text("Empty means the default queue.", most=256)
    preemptible = Flag("Whether a job of higher priority may take this one's resources.")
    max_runtime_seconds = Whole("Maximum run time; 0 means no limit.", most=INT64_MAX)
    not_before = Time("Earliest start of the run.", allow_none=True)
    node_selector = label_map("Labels that a node must have.")
    node_ids = TextList("Nodes to choose from; empty means any.", longest=256)
