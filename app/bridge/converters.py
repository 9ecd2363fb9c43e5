"""From a message to JSON-ready Python, by functions compiled once per message type.

The result is that of protobuf's own JSON mapping with the proto's field names
and all fields without presence printed, but for these: 64-bit integers are
numbers, enum values lose their type's prefix (`TRAINING`), what JSON cannot
express (NaN, infinities, a time outside the years 1 to 9999) is null, and so is
a time that is not set; credentials among a job's variables and in an
`error_message` are masked.

A compiled function is the source that one would write by hand for the type:
one expression per field, nothing asked of the descriptors at run time.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from ctypes import c_float
from datetime import datetime, timedelta
from functools import lru_cache
from keyword import iskeyword
from math import isfinite
from typing import Any, TypeAlias, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from app.bridge.contract.remembered import remembered
from app.credentials import masked, shown_value
from app.shortening import shortened
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, MetricsSnapshot

JsonObject: TypeAlias = dict[str, Any]
Converter: TypeAlias = Callable[[Any], JsonObject]

#: Naive, so that its ISO form carries no offset.
_EPOCH = datetime(1970, 1, 1)
_TIMESTAMP = "google.protobuf.Timestamp"
#: Maps of a job's variables: a coordinator that shows credentials does not have us show them.
_VARIABLES = "mindcoordinator.v1.TrainingConfig.environment"
#: Why a job, an evaluation or a check failed: the script's own words, too, and so its credentials.
_REASON = "error_message"
#: Characters of one, and those that are looked at behind it for the end of a credential.
_MAX_REASON = 64 * 1024
_BEYOND = 4 * 1024


def to_json(message: Message) -> JsonObject:
    """Convert any message of the contract. The result shares nothing with it, but perhaps
    with that of an equal message: nobody changes it."""
    return _CONVERTERS[type(message)](message)


def log_entry(entry: LogEntry) -> JsonObject:
    """Convert a log entry."""
    return _CONVERTERS[LogEntry](entry)


def metrics_snapshot(snapshot: MetricsSnapshot) -> JsonObject:
    """Convert a metrics snapshot."""
    return _CONVERTERS[MetricsSnapshot](snapshot)


def converter_of(message_type: type[Message]) -> Converter:
    """Return the function that converts messages of this type, for bulk conversion.

    Raises `TypeError` for a type that holds one of protobuf's well-known
    types other than Timestamp: its JSON form is not that of a message.
    """
    return _CONVERTERS[message_type]


class _Converters(dict[type[Message], Converter]):
    """Compiled at first use."""

    def __missing__(self, message_type: type[Message]) -> Converter:
        converter = _Compiler().convert(cast(Descriptor, message_type.DESCRIPTOR))
        self[message_type] = converter
        return converter


_CONVERTERS = _Converters()


class _EnumNames(dict[int, "str | int"]):
    """Bare names by number; a number that the contract does not know stands for itself."""

    def __init__(self, enum: EnumDescriptor) -> None:
        prefix = enum_prefix(enum)
        super().__init__(
            (number, value.name.removeprefix(prefix))
            for number, value in enum.values_by_number.items()
        )

    def __missing__(self, number: int) -> int:
        return number


def enum_prefix(enum: EnumDescriptor) -> str:
    """Return the prefix of an enum's value names: `JOB_STATUS_` for `JobStatus`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"


def is_time(field: FieldDescriptor) -> bool:
    """Whether a field is a single time, which is always there: null where it is not set."""
    return (
        field.message_type is not None
        and field.message_type.full_name == _TIMESTAMP
        and not field.is_repeated
        and field.containing_oneof is None
    )


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str | None:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return None


def time_text(seconds: int, nanos: int) -> str | None:
    """Write a time as protobuf's JSON mapping has it: RFC 3339 in UTC, 0, 3, 6 or 9 digits.

    None if the contract has no such time.
    """
    text = _second(seconds)
    if text is None or not 0 <= nanos <= 999_999_999:
        return None
    if not nanos:
        return text + "Z"
    if not nanos % 1_000_000:
        return f"{text}.{nanos // 1_000_000:03d}Z"
    if not nanos % 1_000:
        return f"{text}.{nanos // 1_000:06d}Z"
    return f"{text}.{nanos:09d}Z"


def _shortest(value: float) -> float | None:
    """Return the shortest decimal that reads as the same 32-bit float."""
    if not isfinite(value):
        return None
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if c_float(short).value == value:
            return short
    return float(f"{value:.9g}")


def _reason(text: str) -> str:
    """A reason as it may be shown: without credentials, and bounded."""
    return shortened(masked(text[: _MAX_REASON + _BEYOND]), _MAX_REASON)


class _Compiler:
    """Writes the functions of one type and of those that it holds, into one namespace.

    They call each other by name, so a type may hold itself.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._namespace: dict[str, Any] = {
            "b64encode": b64encode,
            "isfinite": isfinite,
            "reason": _reason,
            "shortest": _shortest,
            "shown_value": shown_value,
            "time": time_text,
        }

    def convert(self, descriptor: Descriptor) -> Converter:
        """Compile the function of `descriptor`."""
        function: Converter = self._namespace[self._function(descriptor)]
        return function

    def _function(self, descriptor: Descriptor) -> str:
        if (known := self._names.get(descriptor.full_name)) is not None:
            return known
        if descriptor.file.package == "google.protobuf":
            raise TypeError(f"{descriptor.full_name} has a JSON form of its own")
        name = f"convert_{len(self._names)}_{descriptor.name}"
        self._names[descriptor.full_name] = name
        lines = [f"def {name}(m):", "  o = {}"]
        for field in descriptor.fields:
            target = f"o[{field.name!r}] = "
            if is_time(field):
                value = f"{self._field(field)} if m.HasField({field.name!r}) else None"
                lines.append(f"  {target}{value}")
                continue
            if field.has_presence:
                lines.append(f"  if m.HasField({field.name!r}):")
                target = "  " + target
            lines.append(f"  {target}{self._field(field)}")
        lines.append("  return o")
        source = "\n".join(lines)
        exec(compile(source, f"<converter of {descriptor.full_name}>", "exec"), self._namespace)
        self._namespace[name] = remembered(self._namespace[name], descriptor)
        return name

    def _field(self, field: FieldDescriptor) -> str:
        """The expression for the value of a field of message `m`."""
        value = f"getattr(m, {field.name!r})" if iskeyword(field.name) else f"m.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            keys, values = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            key = self._key(keys)
            item = self._value(values, "v[k]")
            if field.full_name == _VARIABLES:
                item = f"shown_value({key}, {item})"
            return f"{{{key}: {item} for k in v}} if (v := {value}) else {{}}"
        if field.is_repeated:
            item = self._value(field, "x")
            items = "v[:]" if item == "x" else f"[{item} for x in v]"
            return f"{items} if (v := {value}) else []"
        if field.name == _REASON and field.type == FieldDescriptor.TYPE_STRING:
            return f"reason({value}) if {value} else ''"
        return self._value(field, value)

    def _key(self, field: FieldDescriptor) -> str:
        if field.type == FieldDescriptor.TYPE_STRING:
            return "k"
        if field.type == FieldDescriptor.TYPE_BOOL:
            return "'true' if k else 'false'"
        return "str(k)"

    def _value(self, field: FieldDescriptor, value: str) -> str:
        """The expression for one value, `value` being the expression that reads it."""
        if field.message_type is not None:
            if field.message_type.full_name == _TIMESTAMP:
                return f"time((t := {value}).seconds, t.nanos)"
            return f"{self._function(field.message_type)}({value})"
        if field.enum_type is not None:
            return f"{self._enum(field.enum_type)}[{value}]"
        if field.type == FieldDescriptor.TYPE_BYTES:
            return f"b64encode({value}).decode()"
        if field.type == FieldDescriptor.TYPE_FLOAT:
            return f"shortest({value})"
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return f"(d if isfinite(d := {value}) else None)"
        return value

    def _enum(self, enum: EnumDescriptor) -> str:
        name = "enum_" + enum.full_name.replace(".", "_")
        self._namespace.setdefault(name, _EnumNames(enum))
        return name
