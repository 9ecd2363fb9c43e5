"""Refuses requests with an enum number that the contract has no name for.

Protocol Buffers keep such numbers as they are (proto3 enums are open), and what
names them later would fail.
"""

from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from app.coordinator.errors import Problems, all_problems


def check_enum_numbers(request: Message) -> None:
    """Raise InvalidArgument, which names the fields, unless every enum has a known number.

    Looks into submessages at every depth and into lists of them.
    """
    with all_problems() as problems:
        _check(request, "", problems)


def _check(message: Message, above: str, problems: Problems) -> None:
    for field in _enums_within(message.DESCRIPTOR):
        for name, value in _values(message, field):
            where = f"{above}{name}"
            if isinstance(value, Message):
                _check(value, f"{where}.", problems)
            elif field.enum_type is not None and value not in field.enum_type.values_by_number:
                problems.add(where, f"{value} is not a {field.enum_type.name}")


def _values(message: Message, field: FieldDescriptor) -> Iterator[tuple[str, Message | int]]:
    """What is set in a field, by the name and, in a list, the place."""
    if field.is_repeated:
        for at, value in enumerate(getattr(message, field.name)):
            yield f"{field.name}.{at}", value
    elif field.message_type is None or message.HasField(field.name):
        yield field.name, getattr(message, field.name)


@cache
def _enums_within(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that are enums, or messages in which some are; maps have none in the contract."""
    return tuple(field for field in descriptor.fields if _has_enums(field, frozenset()))


def _has_enums(field: FieldDescriptor, above: frozenset[str]) -> bool:
    if field.enum_type is not None:
        return True
    inner = field.message_type
    if inner is None or inner.full_name in above or inner.GetOptions().map_entry:
        return False
    return any(_has_enums(each, above | {inner.full_name}) for each in inner.fields)
