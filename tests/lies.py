"""Lies about single fields: where they are, what they say, and how they are told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.hub.log_coordinator import M

_WHOLE = [-(2**63), -(2**31), -1, 0, 1, 2, 7, 9, 13, 255, 256, 999_999_999, 10**9, 2**31 - 1]
#: The first and the last second of a time, an offset's most, and beyond.
_LARGE = [
    *(-62_135_596_801, -62_135_596_800, 253_402_300_799, 253_402_300_800),
    *(10**18 - 1, 10**18, 2**63 - 1),
]
_REAL = [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 0.5, 1e308]
_TEXTS = [
    *("", "e1", "e2", "E1", "e1:5", "x" * 32, "x" * 33, "x" * 257, "ü", "a\0b"),
    *("e1\nevent: end\ndata: {}\n\n", "\r", "\u2028\u2029\x85", "other", "job-2"),
]


@dataclass(frozen=True)
class Place:
    """A field that can be lied about: of which method, and the way to it."""

    method: str
    way: tuple[FieldDescriptor, ...]

    def __str__(self) -> str:
        return ".".join((self.method, *(each.name for each in self.way)))


def places(method: str, descriptor: Descriptor) -> Iterator[Place]:
    """Every field of a message and of those that it holds; maps as a whole."""

    def walk(held: Descriptor, way: tuple[FieldDescriptor, ...]) -> Iterator[Place]:
        for each in held.fields:
            nested = each.message_type
            if nested is None or nested.GetOptions().map_entry:
                yield Place(method, (*way, each))
            else:
                yield from walk(nested, (*way, each))

    return walk(descriptor, ())


def values(field: FieldDescriptor) -> list[Any]:
    """What is said of a field: at its bounds, beyond them, and what would be right elsewhere.

    Of a map it is a key and its value.
    """
    if field.message_type is not None:
        said = values(field.message_type.fields_by_name["value"])
        return [(key, said[number % len(said)]) for number, key in enumerate(_TEXTS)]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _TEXTS
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _REAL
        case FieldDescriptor.CPPTYPE_BOOL:
            return [False, True]
        case FieldDescriptor.CPPTYPE_INT64:
            return [*_WHOLE, *_LARGE]
    return [each for each in _WHOLE if -(2**31) <= each < 2**31]


@dataclass
class FieldLie:
    """Says something else of one field, in one message of a call; once, or of every call."""

    place: Place
    value: Any
    #: Which message of a call.
    number: int
    always: bool
    told: int = field(default=0, init=False)

    def __call__(self, method: str, number: int, message: M) -> M:
        if method != self.place.method or number != self.number or (self.told and not self.always):
            return message
        self.told += 1
        say(message, self.place, self.value)
        return message


def say(message: Message, place: Place, value: Any) -> None:
    """Say something else of one field; of a list that is on the way, of its last entry."""
    *way, last = place.way
    held: Any = message
    for each in way:
        inner = getattr(held, each.name)
        if each.is_repeated:
            inner = inner[-1] if inner else inner.add()
        held = inner
        held.SetInParent()
    if last.message_type is not None:
        key, said = value
        getattr(held, last.name)[key] = said
    elif last.is_repeated:
        getattr(held, last.name).append(value)
    else:
        setattr(held, last.name, value)
