"""Fields of a newer coordinator that this contract does not have: counted, logged, dropped."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar, cast

import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

M = TypeVar("M", bound=Message)
_Held: TypeAlias = Callable[[Any], Iterable[Message]]

#: Fields that are told apart: their numbers are a label of a metric.
MOST_FIELDS: Final = 100
#: Stands for the numbers of all others.
OTHERS: Final = "other"
#: Fields that are looked at in one message; it may have as many as fit into it.
_MOST_IN_ONE: Final = 1000
_PACKAGE: Final = "mindcoordinator.v1."

log = structlog.get_logger()


class UnknownFields:
    """Drops them from every message that it reads.

    Each is counted once for each message that has it, by the name of the
    message's type and its number, and logged once.
    """

    def __init__(self, *, count: Callable[[str, str, int], None]) -> None:
        """`count` is told of a message's type, a field's number, and how many more there were."""
        self._count = count
        self._seen: set[tuple[str, str]] = set()
        self._types = _Types()

    def reader_of(self, parse: Callable[[bytes], M]) -> Callable[[bytes], M]:
        """Return what reads a message as `parse` does, without its unknown fields.

        A message that has none costs its length, and not a look at each of its
        fields: written again it is as long as it arrived.
        """

        def read(data: bytes) -> M:
            message = parse(data)
            message.DiscardUnknownFields()
            size = message.ByteSize()
            if size != len(data):
                self._look(parse(data), size)
            return message

        return read

    def _look(self, message: Message, size: int) -> None:
        if message.ByteSize() == size:
            # It was encoded in another way, such as with values that need not be written.
            return
        found: Counter[tuple[str, int]] = Counter()
        self._look_at(message, found)
        for (name, number), count in found.items():
            self._count(name, self._told(name, str(number)), count)

    def _look_at(self, message: Message, found: Counter[tuple[str, int]]) -> None:
        name, held_in = self._types[cast(Descriptor, message.DESCRIPTOR)]
        fields = UnknownFieldSet(message)
        if there := len(fields):
            for number in {fields[at].field_number for at in range(min(there, _MOST_IN_ONE))}:
                found[name, number] += 1
        for held in held_in:
            for each in held(message):
                self._look_at(each, found)

    def _told(self, name: str, number: str) -> str:
        """The number as it is told; logs a field that was not seen before."""
        if (name, number) not in self._seen and len(self._seen) >= MOST_FIELDS:
            number = OTHERS
        if (name, number) not in self._seen:
            self._seen.add((name, number))
            log.warning(
                "scaimind_coordinator_unknown_field",
                message=name,
                number=number,
                advice="The coordinator is newer than this gateway, which drops what it does not"
                " know. Update the gateway.",
            )
        return number


class _Types(dict[Descriptor, tuple[str, tuple[_Held, ...]]]):
    """The name of a type, and what returns the messages that it holds in each field with any.

    Made at first use. Google's own types are left out: they do not grow.
    """

    def __missing__(self, descriptor: Descriptor) -> tuple[str, tuple[_Held, ...]]:
        held = tuple(_held(field) for field in descriptor.fields if _has_messages(field))
        self[descriptor] = made = (descriptor.full_name.removeprefix(_PACKAGE), held)
        return made


def _has_messages(field: FieldDescriptor) -> bool:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        kind = kind.fields_by_name["value"].message_type
    return kind is not None and kind.full_name.startswith(_PACKAGE)


def _held(field: FieldDescriptor) -> _Held:
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda message: list(getattr(message, name).values())
    if field.is_repeated:
        return lambda message: cast(Iterable[Message], getattr(message, name))
    return lambda message: (getattr(message, name),) if message.HasField(name) else ()
