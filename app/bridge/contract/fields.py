"""Bounds of the single fields of a message, by functions compiled once per message type.

What is not named here has the bounds of its type: numbers are finite and not
negative, enum values 0 to 255, times those of the years 1 to 9999, texts at most
`MAX_TEXT` characters. Like `app.bridge.converters`, a compiled function is what one
would write by hand: it runs for every line of every log.
"""

import re
from collections.abc import Callable
from math import inf
from typing import Any, Final, NoReturn, TypeAlias, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from app.bridge.contract.breaches import Breach
from app.bridge.contract.remembered import remembered
from app.errors import BrokenContract

#: Characters of an id. The paths of the API take as many.
MAX_ID: Final = 256
#: Characters of a page token; queries take as many.
MAX_PAGE_TOKEN: Final = 4096
#: Characters of any other text.
MAX_TEXT: Final = 1024 * 1024
#: The largest offset or sequence: of 18 digits, as an SSE id has at most.
MAX_OFFSET: Final = 10**18 - 1
_MAX_ENUM: Final = 255

_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799

_PACKAGE: Final = "mindcoordinator.v1."
_TIMESTAMP: Final = "google.protobuf.Timestamp"

#: Names of fields that hold ids, in whatever message.
_IDS: Final = frozenset(
    {
        "job_id",
        "tenant_id",
        "user_id",
        "node_id",
        "evaluation_id",
        "checkpoint_id",
        "parent_job_id",
        "node_ids",
        "running_job_ids",
        "deleted_job_id",
    }
)
#: Ids without which an entry of a list stands for nothing.
_NEEDED: Final = frozenset(
    {
        "Checkpoint.checkpoint_id",
        "Job.job_id",
        "JobState.job_id",
        "Node.node_id",
        "QueuedJob.job_id",
    }
)

#: What training measures may be negative, NaN or infinite; the last two are null in JSON.
_MEASURED: Final = (
    "MetricsSnapshot.epoch",
    "MetricsSnapshot.loss",
    "MetricsSnapshot.learning_rate",
    "MetricsSnapshot.grad_norm",
    "MetricsSnapshot.samples_per_second",
    "MetricsSnapshot.tokens_per_second",
    "MetricsSnapshot.gpu_utilization",
    "MetricsSnapshot.eval_metrics",
    "MetricsSnapshot.extra",
    "MetricsBucket.minimum",
    "MetricsBucket.maximum",
    "JobProgress.epoch",
    "JobProgress.loss",
    "BenchmarkResult.scores",
)
#: Whole numbers that may be negative.
_SIGNED: Final = (
    "Job.exit_code",
    "DataConfig.seed",
    "JobProgress.step",
    "Checkpoint.step",
    "MetricsSnapshot.step",
    "MetricsBucket.from_step",
    "MetricsBucket.to_step",
)
_SHARES: Final = (
    "ClusterStatus.cluster_utilization",
    "Gpu.utilization",
    "DataSource.sampling",
    "DataConfig.validation_split",
)
_PLACES: Final = (
    "WatchStart.after_offset",
    "WatchStart.first_offset",
    "WatchStart.last_offset",
    "WatchEnd.last_offset",
    "JobChange.version",
    "WatchJobsResponse.synced",
    "ListJobLogsResponse.next_after_offset",
    "ListJobLogsResponse.first_offset",
    "ListJobLogsResponse.last_offset",
    "LogMarks.first_offset",
    "LogMarks.last_offset",
    "SearchJobLogsResponse.scanned_to",
    # The newest sequence, in other words.
    "GetJobMetricsResponse.total_points",
)

#: Bounds of numbers; None has none.
_RANGES: Final[dict[str, tuple[float, float] | None]] = {
    **dict.fromkeys((*_MEASURED, *_SIGNED)),
    **dict.fromkeys(_SHARES, (0, 1)),
    **dict.fromkeys(_PLACES, (0, MAX_OFFSET)),
    "LogEntry.offset": (1, MAX_OFFSET),
    "LogRange.first": (1, MAX_OFFSET),
    "LogRange.last": (1, MAX_OFFSET),
    "MetricsSnapshot.sequence": (1, MAX_OFFSET),
}

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_Check: TypeAlias = Callable[[Any], None]


def check_fields(message: Message) -> None:
    """Check every field of a message and of those that it holds. Raises `BrokenContract`."""
    _CHECKS[type(message)](message)
    _check_texts(message)


def check_of(message_type: type[Message]) -> _Check:
    """Return the function that checks messages of this type, for bulk use.

    It leaves out the length of texts, which `check_fields` of the whole covers.
    """
    return _CHECKS[message_type]


def check_id(value: str, name: str, *, needed: bool = False) -> None:
    """Check that an id can be sent back: its length, no control character. Raises as above."""
    if value.isprintable() and len(value) <= MAX_ID and (value or not needed):
        return  # as nearly all: no control character is printable
    if len(value) > MAX_ID or _CONTROL.search(value) or not value:
        raise BrokenContract(
            Breach.IDENTIFIER,
            f"{name}: must be {1 if needed else 0} to {MAX_ID} characters, none of them a control "
            "character",
        )


def check_page_token(value: str) -> None:
    """Check that a page token can be sent back. Raises as above."""
    if len(value) > MAX_PAGE_TOKEN or _CONTROL.search(value):
        raise BrokenContract(
            Breach.IDENTIFIER,
            f"next_page_token: must be at most {MAX_PAGE_TOKEN} characters, none of them a "
            "control character",
        )


def _wrong(name: str, least: float, most: float) -> NoReturn:
    if most == inf:
        raise BrokenContract(Breach.VALUE, f"{name}: must be a finite number from {least} on")
    breach = Breach.LEVEL if name == "LogEntry.level" else Breach.VALUE
    raise BrokenContract(breach, f"{name}: must be a number from {least} to {most}")


def _wrong_time(name: str) -> NoReturn:
    raise BrokenContract(Breach.VALUE, f"{name}: must be a time of the years 1 to 9999")


def _check_texts(message: Message) -> None:
    if message.ByteSize() <= MAX_TEXT:
        return  # as a whole
    for field, value in message.ListFields():
        for each in _held(field, value):
            if isinstance(each, Message):
                _check_texts(each)
            elif isinstance(each, str) and len(each) > MAX_TEXT:
                raise BrokenContract(
                    Breach.VALUE, f"{_name(field)}: must be at most {MAX_TEXT} characters"
                )


def _held(field: FieldDescriptor, value: Any) -> list[Any]:
    if _is_map(field):
        return [*value.keys(), *value.values()]
    return list(value) if field.is_repeated else [value]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _name(field: FieldDescriptor) -> str:
    """Name a field by its message and itself, such as `Job.created_at`."""
    return field.full_name.removeprefix(_PACKAGE)


class _Checks(dict[type[Message], _Check]):
    """Compiled at first use."""

    def __missing__(self, message_type: type[Message]) -> _Check:
        check = _Compiler().check(cast(Descriptor, message_type.DESCRIPTOR))
        self[message_type] = check
        return check


_CHECKS = _Checks()


class _Compiler:
    """Writes the functions of one type and of those that it holds, into one namespace."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._namespace: dict[str, Any] = {
            "check_id": check_id,
            "check_page_token": check_page_token,
            "inf": inf,
            "wrong": _wrong,
            "wrong_time": _wrong_time,
        }

    def check(self, descriptor: Descriptor) -> _Check:
        """Compile the function of `descriptor`."""
        function: _Check = self._namespace[self._function(descriptor)]
        return function

    def _function(self, descriptor: Descriptor) -> str:
        if (known := self._names.get(descriptor.full_name)) is not None:
            return known
        name = f"check_{len(self._names)}_{descriptor.name}"
        self._names[descriptor.full_name] = name
        lines = [f"def {name}(m):", "  pass"]
        for field in descriptor.fields:
            lines += [f"  {line}" for line in self._field(field)]
        source = "\n".join(lines)
        exec(compile(source, f"<check of {descriptor.full_name}>", "exec"), self._namespace)
        self._namespace[name] = remembered(self._namespace[name], descriptor)
        return name

    def _field(self, field: FieldDescriptor) -> list[str]:
        """The lines that check a field of message `m`."""
        value = f"m.{field.name}"
        if _is_map(field):
            assert field.message_type is not None
            checked = self._value(field.message_type.fields_by_name["value"], "v", _name(field))
            return [f"for v in {value}.values():", f"  {checked}"] if checked else []
        if field.is_repeated:
            checked = self._value(field, "v", _name(field))
            return [f"for v in {value}:", f"  {checked}"] if checked else []
        checked = self._value(field, "v", _name(field))
        if not checked:
            return []
        if field.has_presence:
            return [f"if m.HasField({field.name!r}):", f"  v = {value}", f"  {checked}"]
        return [f"v = {value}", checked]

    def _value(self, field: FieldDescriptor, value: str, name: str) -> str:
        """The statement that checks one value; empty if anything goes."""
        if field.message_type is not None:
            if field.message_type.full_name == _TIMESTAMP:
                return (
                    f"if not ({_FIRST_SECOND} <= {value}.seconds <= {_LAST_SECOND} "
                    f"and 0 <= {value}.nanos <= 999999999): wrong_time({name!r})"
                )
            return f"{self._function(field.message_type)}({value})"
        if field.enum_type is not None:
            return self._range(value, name, 0, _MAX_ENUM)
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.name == "next_page_token":
                return f"check_page_token({value})"
            if field.name in _IDS:
                return f"check_id({value}, {name!r}, needed={name in _NEEDED})"
            return ""
        if field.type in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_BYTES):
            return ""
        bounds = _RANGES.get(name, (0, inf))
        return "" if bounds is None else self._range(value, name, *bounds)

    @staticmethod
    def _range(value: str, name: str, least: float, most: float) -> str:
        # An infinity is below no bound, and NaN is within none.
        below = "<" if most == inf else "<="
        return f"if not {least} <= {value} {below} {most}: wrong({name!r}, {least}, {most})"
