"""A message type with a field of every kind that the contract may come to have."""

from typing import TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import Message

Field: TypeAlias = descriptor_pb2.FieldDescriptorProto
Kind: TypeAlias = "descriptor_pb2.FieldDescriptorProto.Type.ValueType"

SCALARS: dict[str, "Kind"] = {
    "double": Field.TYPE_DOUBLE,
    "float": Field.TYPE_FLOAT,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
    "sint32": Field.TYPE_SINT32,
    "sint64": Field.TYPE_SINT64,
    "fixed32": Field.TYPE_FIXED32,
    "fixed64": Field.TYPE_FIXED64,
    "sfixed32": Field.TYPE_SFIXED32,
    "sfixed64": Field.TYPE_SFIXED64,
    "bool": Field.TYPE_BOOL,
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
}
MAP_KEYS = [name for name in SCALARS if name not in ("double", "float", "bytes")]

_PACKAGE = "every.kind"
_COLOUR = f".{_PACKAGE}.PaintColour"
_EVERY = f".{_PACKAGE}.Every"
_TIMESTAMP = ".google.protobuf.Timestamp"


def every_kind() -> type[Message]:
    """Make the type, in a descriptor pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="every_kind.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )
    colour = file.enum_type.add(name="PaintColour")
    for number, name in enumerate(["PAINT_COLOUR_UNSPECIFIED", "PAINT_COLOUR_RED", "ODD_ONE"]):
        colour.value.add(name=name, number=number)
    _Every(file.message_type.add(name="Every")).build()

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Every"))


class _Every:
    def __init__(self, every: descriptor_pb2.DescriptorProto) -> None:
        self._every = every

    def build(self) -> None:
        kinds: dict[str, tuple[Kind, str | None]] = {
            **{name: (kind, None) for name, kind in SCALARS.items()},
            "colour": (Field.TYPE_ENUM, _COLOUR),
            "every": (Field.TYPE_MESSAGE, _EVERY),
            "time": (Field.TYPE_MESSAGE, _TIMESTAMP),
        }
        self._every.oneof_decl.add(name="choice")
        for name, (kind, type_name) in kinds.items():
            self._add(f"a_{name}", kind, type_name)
            self._add(f"many_{name}", kind, type_name, repeated=True)
            self._add(f"one_{name}", kind, type_name).oneof_index = 0
            self._add_map(f"by_string_{name}", "string", kind, type_name)
        for key in MAP_KEYS:
            self._add_map(f"by_{key}", key, Field.TYPE_INT64, None)
        # A word of Python's own.
        self._add("from", Field.TYPE_STRING, None)
        # After "choice": the oneofs that stand for `optional` must come last.
        for name in (*SCALARS, "colour"):
            field = self._add(f"maybe_{name}", *kinds[name])
            field.proto3_optional = True
            field.oneof_index = len(self._every.oneof_decl)
            self._every.oneof_decl.add(name=f"_maybe_{name}")

    def _add(
        self, name: str, kind: Kind, type_name: str | None, *, repeated: bool = False
    ) -> Field:
        return self._every.field.add(
            name=name,
            number=len(self._every.field) + 1,
            type=kind,
            type_name=type_name,
            label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL,
        )

    def _add_map(self, name: str, key: str, kind: Kind, type_name: str | None) -> None:
        camel = "".join(part.capitalize() for part in name.split("_"))
        entry = self._every.nested_type.add(name=f"{camel}Entry")
        entry.options.map_entry = True
        label = Field.LABEL_OPTIONAL
        entry.field.add(name="key", number=1, type=SCALARS[key], label=label)
        entry.field.add(name="value", number=2, type=kind, type_name=type_name, label=label)
        self._add(name, Field.TYPE_MESSAGE, f"{_EVERY}.{camel}Entry", repeated=True)
