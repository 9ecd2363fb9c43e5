"""The configuration that a job's process reads, as JSON."""

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.data.drive import ATLAS_SCHEME, SCHEME
from app.coordinator.jobs.model import JobRecord


def training_config(job: JobRecord, fetch: Callable[[str], str]) -> dict[str, Any]:
    """The submitted configs; `local_path` is where what they name can be read."""
    config = to_dict(job.submission)
    for source in config["data_config"]["sources"]:
        source["local_path"] = fetch(source["path"])
    base = config["training_config"]["base_model"]
    # Any other name is a hub's, for the script to look up.
    if base["model_id"].startswith((SCHEME, ATLAS_SCHEME, "/")):
        base["local_path"] = fetch(base["model_id"])
    return config


def to_dict(message: Message) -> dict[str, Any]:
    """A message as a job's script reads it: the contract's names, enums bare, numbers as numbers.

    Unset messages are there with their defaults, absent times are null.
    """
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if isinstance(value, Timestamp):
        return value.ToJsonString() if message.HasField(field.name) else None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
        known = field.enum_type.values_by_number.get(value)
        # Earlier coordinators accepted any number.
        return known.name.removeprefix(prefix) if known is not None else str(value)
    return value
