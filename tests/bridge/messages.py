"""Any message of a type, for hypothesis."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
#: The years 1 to 9999, in seconds.
SECONDS = st.integers(-62135596800, 253402300799)
NANOS = st.one_of(
    st.just(0),
    st.integers(0, 999).map(lambda n: n * 1_000_000),
    st.integers(0, 999_999).map(lambda n: n * 1_000),
    st.integers(0, 999_999_999),
)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def messages(draw: st.DrawFn, message_type: type[Message], depth: int = 2) -> Message:
    """Draw a message of which any field may be set to anything."""
    message = message_type()
    _fill(draw, message, depth)
    return message


def _fill(draw: st.DrawFn, message: Any, depth: int) -> None:
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds = draw(SECONDS)
        message.nanos = draw(NANOS)
        return
    fields = list(message.DESCRIPTOR.fields)
    chosen = draw(st.lists(st.sampled_from(fields), max_size=12)) if fields else []
    for field in chosen:
        nested = field.message_type is not None
        if nested and not field.message_type.GetOptions().map_entry and depth == 0:
            continue
        value = getattr(message, field.name)
        if nested and field.message_type.GetOptions().map_entry:
            _fill_map(draw, value, field.message_type.fields_by_name, depth)
        elif field.is_repeated and nested:
            for _ in range(draw(st.integers(1, 2))):
                _fill(draw, value.add(), depth - 1)
        elif field.is_repeated:
            value.extend(draw(st.lists(_scalars(field), min_size=1, max_size=3)))
        elif nested:
            value.SetInParent()
            _fill(draw, value, depth - 1)
        else:
            setattr(message, field.name, draw(_scalars(field)))


def _fill_map(draw: st.DrawFn, entries: Any, fields: Any, depth: int) -> None:
    for key in draw(st.lists(_scalars(fields["key"]), min_size=1, max_size=3)):
        if fields["value"].message_type is None:
            entries[key] = draw(_scalars(fields["value"]))
        elif depth:
            _fill(draw, entries[key], depth - 1)


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        # Numbers that the enum does not have, too.
        return st.integers(0, 20)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _TEXT
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats()
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return st.floats(width=32)
    return st.integers(*_RANGES[field.cpp_type])
