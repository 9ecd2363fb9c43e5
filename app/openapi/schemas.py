"""The schemas of bodies, queries, headers and answers, as components of the document."""

import inspect
from typing import Any, TypeAlias

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from app.bridge.json_schema import schemas_of
from app.schemas.fields import MessageField, StringMap
from app.schemas.loading import Body
from app.schemas.logs.filters import Moment

JsonSchema: TypeAlias = dict[str, Any]

_COMPONENTS = "#/components/schemas/"


class Schemas:
    """Collects each schema once, and refers to it."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Schema]] = {}
        plugin = MarshmallowPlugin(schema_name_resolver=self._name)
        self._spec = APISpec("", "", "3.1.0", plugins=[plugin])
        assert plugin.converter is not None
        self._converter = plugin.converter
        self._converter.add_attribute_function(_refine)  # type: ignore[no-untyped-call] # apispec's

        def refer(_converter: Any, field: "fields.Field[Any]", *, ret: JsonSchema) -> JsonSchema:
            """Refer to the message that a field is."""
            return self.of_message(field.message_name) if isinstance(field, MessageField) else {}

        # A function, since apispec binds it to the converter.
        self._converter.add_attribute_function(refer)  # type: ignore[no-untyped-call] # apispec's
        self._messages: dict[str, JsonSchema] = {}

    def of(self, schema: Schema) -> JsonSchema:
        """Refer to a marshmallow schema."""
        reference: JsonSchema = self._converter.resolve_nested_schema(schema)  # type: ignore[no-untyped-call] # apispec's
        return reference

    def of_message(self, name: str) -> JsonSchema:
        """Refer to what a message of the contract looks like in JSON."""
        self._messages |= schemas_of(name, reference=_COMPONENTS)
        return {"$ref": _COMPONENTS + name}

    def parameters(self, schema: Schema, *, location: str) -> list[JsonSchema]:
        """Describe each field of a schema as a parameter in `query` or `header`."""
        found: list[JsonSchema] = self._converter.schema2parameters(schema, location=location)
        return found

    def components(self) -> dict[str, JsonSchema]:
        """Return all that was referred to. Raises `LookupError` if two have the same name."""
        made: dict[str, JsonSchema] = self._spec.to_dict()["components"]["schemas"]
        for name, schema in made.items():
            if name in self._messages:
                raise LookupError(f"{name} is both a schema and a message of the contract")
            kind = self._classes[name]
            schema["description"] = inspect.getdoc(kind)
            if issubclass(kind, Body) and kind.EXAMPLE is not None:
                schema["examples"] = [kind.EXAMPLE]
        return dict(sorted((made | self._messages).items()))

    def _name(self, schema: Any) -> str:
        kind: type[Schema] = schema if isinstance(schema, type) else type(schema)
        self._classes[kind.__name__] = kind
        return kind.__name__


def _refine(_converter: Any, field: "fields.Field[Any]", *, ret: JsonSchema) -> JsonSchema:
    """Say what apispec does not know of these fields."""
    if isinstance(field, StringMap):
        for ours, theirs in (("minProperties", "minLength"), ("maxProperties", "maxLength")):
            if theirs in ret:
                ret[ours] = ret.pop(theirs)
        assert field.key_field is not None
        ret["propertyNames"] = _converter.field2property(field.key_field)
    if isinstance(field, Moment):
        # Not a time alone.
        ret.pop("format", None)
    if "pattern" in ret:
        # Python's end of a text, in the words of ECMA 262.
        ret["pattern"] = ret["pattern"].replace(r"\Z", "$")
    return {}
