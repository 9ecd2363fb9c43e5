"""Request messages from bodies that a schema has loaded.

Exact or not at all: what a message cannot hold as it is (an unknown field or
enum name, a number out of range, a fraction for an integer, a time without a
zone) raises, and never becomes something near it.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from app.bridge.converters import enum_prefix
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest
from generated.mindcoordinator.v1.evaluations_pb2 import SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import (
    ListJobsRequest,
    RetryJobRequest,
    SubmitJobRequest,
    UpdateJobRequest,
)

M = TypeVar("M", bound=Message)

Body = Mapping[str, Any]


def build_submit_job(
    body: Body, *, idempotency_key: str = "", validate_only: bool = False
) -> SubmitJobRequest:
    """Build from the body of `POST /jobs`."""
    about = {"idempotency_key": idempotency_key, "validate_only": validate_only}
    return build(SubmitJobRequest, {**body, **about})


def build_list_jobs(
    *,
    statuses: Iterable[str] = (),
    page_size: int = 20,
    page_token: str = "",
    order_by: str = "",
    label_filter: Mapping[str, str] | None = None,
    name_contains: str = "",
    user_ids: Iterable[str] = (),
    created_after: datetime | None = None,
    kind: str = "",
    parent_job_id: str = "",
) -> ListJobsRequest:
    """Build from the query of `GET /jobs`; `statuses` and `kind` are bare names."""
    return build(
        ListJobsRequest,
        {
            "statuses": list(statuses),
            "page_size": page_size,
            "page_token": page_token,
            "order_by": order_by,
            "label_filter": label_filter,
            "name_contains": name_contains,
            "user_ids": list(user_ids),
            "created_after": created_after,
            "kind": kind.upper() or None,
            "parent_job_id": parent_job_id,
        },
    )


def build_retry_job(
    job_id: str,
    *,
    checkpoint_id: str = "",
    modify_resources: bool = False,
    new_resource_config: Body | None = None,
    idempotency_key: str = "",
) -> RetryJobRequest:
    """Build from the body of `POST /jobs/{job_id}/retry`."""
    return build(
        RetryJobRequest,
        {
            "job_id": job_id,
            "checkpoint_id": checkpoint_id,
            "modify_resources": modify_resources,
            "new_resource_config": new_resource_config,
            "idempotency_key": idempotency_key,
        },
    )


def build_update_job(job_id: str, changes: Body, *, revision: int = 0) -> UpdateJobRequest:
    """Build from the merge patch of `PATCH /jobs/{job_id}` (RFC 7396).

    `name` is a text. `labels` is None, which removes all, or a mapping, in which
    None removes the one label.
    """
    request = UpdateJobRequest(job_id=job_id, revision=revision)
    if "name" in changes:
        request.name = changes["name"]
        request.update_mask.paths.append("name")
    if "labels" in changes and changes["labels"] is None:
        request.update_mask.paths.append("labels")
    for key, value in (changes.get("labels") or {}).items():
        request.update_mask.paths.append(f"labels.{key}")
        if value is not None:
            request.labels[key] = value
    return request


def build_submit_evaluation(body: Body, *, idempotency_key: str = "") -> SubmitEvaluationRequest:
    """Build from the body of `POST /evaluations`."""
    return build(SubmitEvaluationRequest, {**body, "idempotency_key": idempotency_key})


def build_validate_data(body: Body) -> ValidateDataRequest:
    """Build from the body of `POST /data/validate`."""
    return build(ValidateDataRequest, body)


def build(message_type: type[M], body: Body) -> M:
    """Build a message whose fields are the keys of `body`; None leaves a field unset.

    Enums are bare names, times aware datetimes, nested messages mappings.
    Raises `ValueError` or `TypeError` where the message cannot hold a value,
    and `KeyError` for a key that is no field of it.
    """
    message = message_type()
    _fill(message, body)
    return message


def _fill(message: Message, body: Body) -> None:
    fields = cast(Descriptor, message.DESCRIPTOR).fields_by_name
    for name, value in body.items():
        field = fields[name]
        if value is None:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, name), field.message_type.fields_by_name["value"], value)
        elif field.is_repeated:
            _fill_list(getattr(message, name), field, value)
        elif field.message_type is not None:
            nested = getattr(message, name)
            nested.SetInParent()
            _fill_message(nested, value)
        else:
            setattr(message, name, _scalar(field, value))


def _fill_message(message: Message, value: Any) -> None:
    if isinstance(message, Timestamp):
        _fill_time(message, value)
    else:
        _fill(message, value)


def _fill_list(items: Any, field: FieldDescriptor, values: Iterable[Any]) -> None:
    if field.message_type is None:
        items.extend([_scalar(field, value) for value in values])
        return
    for value in values:
        _fill_message(items.add(), value)


def _fill_map(entries: Any, field: FieldDescriptor, values: Mapping[Any, Any]) -> None:
    for key, value in values.items():
        if field.message_type is None:
            entries[key] = _scalar(field, value)
        else:
            _fill_message(entries[key], value)


def _fill_time(timestamp: Timestamp, value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError("a time must have a zone")
    timestamp.FromDatetime(value.astimezone(UTC))


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is None:
        return value
    numbers = _numbers(field.enum_type)
    if value not in numbers:
        raise ValueError(f"{field.full_name} has no value {value!r}")
    return numbers[value]


@cache
def _numbers(enum: EnumDescriptor) -> dict[str, int]:
    prefix = enum_prefix(enum)
    return {value.name.removeprefix(prefix): value.number for value in enum.values}
