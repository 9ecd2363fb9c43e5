"""JSON Schema (2020-12) of what `converters` makes of a message, from the same descriptors.

An enum may also be a number: a value of a newer contract is passed on, not lost.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from app.bridge.converters import enum_prefix, is_time
from generated.mindcoordinator.v1 import coordinator_pb2

JsonSchema: TypeAlias = dict[str, Any]

_FILE = coordinator_pb2.DESCRIPTOR
_METHODS = _FILE.services_by_name["MindCoordinator"].methods_by_name
_TIMESTAMP = "google.protobuf.Timestamp"

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_SINT32: "int32",
    FieldDescriptor.TYPE_SFIXED32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_SINT64: "int64",
    FieldDescriptor.TYPE_SFIXED64: "int64",
}


def answer_of(method: str) -> str:
    """Name the message that a method of the contract answers with. Raises `LookupError`."""
    return _METHODS[method].output_type.name


def schemas_of(name: str, *, reference: str) -> dict[str, JsonSchema]:
    """Return the schemas of a message of the contract and of everything in it, by name.

    They refer to each other by `reference` and the name. Raises `LookupError`.
    """
    descriptor = next(
        file.message_types_by_name[name]
        for file in (_FILE, *_FILE.dependencies)
        if name in file.message_types_by_name
    )
    return {
        held.name: _enum(held) if isinstance(held, EnumDescriptor) else _message(held, reference)
        for held in _reached(descriptor, set())
    }


def _reached(
    held: Descriptor | EnumDescriptor, seen: set[str]
) -> Iterator[Descriptor | EnumDescriptor]:
    if held.full_name in seen or held.full_name == _TIMESTAMP:
        return
    seen.add(held.full_name)
    if isinstance(held, EnumDescriptor):
        yield held
        return
    is_map = held.GetOptions().map_entry
    if not is_map:
        yield held
    for field in held.fields:
        inner = field.message_type or field.enum_type
        if inner is not None:
            yield from _reached(inner, seen)


def _enum(enum: EnumDescriptor) -> JsonSchema:
    prefix = enum_prefix(enum)
    names = [value.name.removeprefix(prefix) for value in enum.values]
    unknown = {"type": "integer", "description": "A value of a newer contract."}
    return {"anyOf": [{"type": "string", "enum": names}, unknown]}


def _message(message: Descriptor, reference: str) -> JsonSchema:
    schema: JsonSchema = {
        "type": "object",
        "properties": {field.name: _field(field, reference) for field in message.fields},
    }
    if always := [
        field.name for field in message.fields if is_time(field) or not field.has_presence
    ]:
        schema["required"] = always
    return schema


def _field(field: FieldDescriptor, reference: str) -> JsonSchema:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _value(value, reference)}
    if field.is_repeated:
        return {"type": "array", "items": _value(field, reference)}
    return _value(field, reference)


def _value(field: FieldDescriptor, reference: str) -> JsonSchema:
    held = field.message_type or field.enum_type
    if held is not None:
        if held.full_name == _TIMESTAMP:
            return {"type": ["string", "null"], "format": "date-time"}
        return {"$ref": f"{reference}{held.name}"}
    if (width := _INTEGERS.get(field.type)) is not None:
        return {"type": "integer", "format": width}
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return {"type": "string"}
        case FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        case FieldDescriptor.TYPE_DOUBLE:
            return {"type": ["number", "null"], "format": "double"}
        case FieldDescriptor.TYPE_FLOAT:
            return {"type": ["number", "null"], "format": "float"}
    return {"type": "integer", "minimum": 0}
