"""Applying a schema: all that is wrong with a request, at once, each with its path."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing, pre_load
from multidict import MultiMapping
from typing_extensions import override

from app import errors
from app.errors import ApiError, FieldProblem
from app.schemas.fields import MAX_PROBLEMS, Text, TextList
from app.shortening import CUT, shortened
from app.suggestions import did_you_mean

#: What a caller is shown of a name of its own choosing.
_MAX_NAME = 64
#: Unknown names of an object that are looked at: one more than is told. marshmallow's time
#: grows with their square.
_MAX_UNKNOWN = MAX_PROBLEMS + 1
#: Unknown names that a suggestion is looked for.
_MAX_SUGGESTIONS = 10

_IMMUTABLE = (str, int, float, bool, type(None))
_BODY_MESSAGES = {"unknown": "Unknown field.", "type": "Must be a JSON object."}
_QUERY_MESSAGES = {"unknown": "Unknown query argument."}
_UNKNOWN = frozenset({_BODY_MESSAGES["unknown"], _QUERY_MESSAGES["unknown"]})


class _Strict(Schema):
    """Refuses names that it does not have; of very many it looks at the first alone."""

    @override
    def load(self, data: Any, **options: Any) -> Any:
        """Load an object, as marshmallow does."""
        if isinstance(data, Mapping) and len(data) > len(self.fields) + _MAX_UNKNOWN:
            known = {field.data_key or name for name, field in self.fields.items()}
            unknown = islice((name for name in data if name not in known), _MAX_UNKNOWN)
            data = {name: data[name] for name in (*known.intersection(data), *unknown)}
        try:
            return super().load(data, **options)
        except ValidationError as error:
            # A frame of marshmallow's holds the error, which would hold the frame, and with it
            # the whole body, until garbage is collected.
            error.messages = self._in_order(error.messages, data)
            raise error.with_traceback(None) from None

    def _in_order(self, messages: Any, data: Any) -> Any:
        """Return messages about fields in the schema's order, then those about unknown names in
        the order in which they were given: marshmallow has the latter in a set."""
        if not isinstance(messages, dict):
            return messages
        given = data if isinstance(data, Mapping) else ()
        order = {name: at for at, name in enumerate(dict.fromkeys((*self.fields, *given)))}
        return dict(sorted(messages.items(), key=lambda item: order.get(item[0], len(order))))


class Body(_Strict):
    """A JSON object. Fields that it does not have are refused; null says "not given".

    Null stands for an optional field that is left out, in nested objects, too. For
    a required field it is refused.
    """

    #: One that is valid, for the API's document.
    EXAMPLE: ClassVar[dict[str, Any] | None] = None

    error_messages = _BODY_MESSAGES

    @pre_load
    def _without_nulls(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, Mapping) or None not in data.values():
            return data
        optional = {name for name, field in self.fields.items() if not field.required}
        return {
            name: value for name, value in data.items() if value is not None or name not in optional
        }

    @override
    def on_bind_field(self, field_name: str, field_obj: "fields.Field[Any]") -> None:
        # No null arrives: it is how the API's document learns of them.
        field_obj.allow_none = not field_obj.required


class Entry(Body):
    """An object of which a list may have very many: loaded as any `Body`, many times as fast.

    It has no hooks, and no rules beside those of its fields: they would be passed over.
    """

    @override
    def load(self, data: Any, **options: Any) -> Any:
        """Load an object without what marshmallow does for each to find out about hooks."""
        if type(data) is not dict:
            return super().load(data, **options)
        known, rules = self.fields, self._column_rules
        loaded: dict[str, Any] = {}
        problems: dict[str, Any] = {}
        unknown: list[str] = []
        for name, value in data.items():
            if name in rules and rules[name].is_plain(value):
                loaded[name] = value
                continue
            field = known.get(name)
            if field is None:
                if len(unknown) < _MAX_UNKNOWN:
                    unknown.append(name)
            elif value is not None or field.required:
                try:
                    loaded[name] = field.deserialize(value, name, data)
                except ValidationError as error:
                    problems[name] = error.messages
        for name in self._required:
            if name not in data:
                problems[name] = [known[name].error_messages["required"]]
        for name in unknown:
            problems[name] = [self.error_messages["unknown"]]
        if problems:
            raise ValidationError(problems, valid_data=loaded)
        return loaded

    @override
    def on_bind_field(self, field_name: str, field_obj: "fields.Field[Any]") -> None:
        super().on_bind_field(field_name, field_obj)
        assert field_obj.load_default is missing, "it is not looked at"
        assert field_obj.data_key is None, "it is not looked at"

    def are_plain(self, entries: Sequence[Any]) -> bool:
        """Return whether all of many objects are loaded as they are.

        Their values are looked at as columns, which takes a third of the time of one object
        after the other. False may be wrong: it says that each has to be loaded to find out.
        """
        for entry in entries:
            if type(entry) is not dict:
                return False
        columns = dict.fromkeys(chain.from_iterable(entries))
        rules = self._column_rules
        if not (columns.keys() >= set(self._required) and columns.keys() <= rules.keys()):
            return False
        for name in columns:
            values = [entry[name] for entry in entries if name in entry]
            if name in self._required and len(values) < len(entries):
                return False
            if not rules[name].are_plain(values):
                return False
        return True

    @cached_property
    def _column_rules(self) -> dict[str, Text | TextList]:
        # Not those of a kind derived from them, which may have rules of its own.
        return {
            name: field
            for name, field in self.fields.items()
            if isinstance(field, Text | TextList) and type(field) in (Text, TextList)
        }

    @cached_property
    def _required(self) -> tuple[str, ...]:
        # In the order of the fields: so are the messages about them.
        return tuple(name for name, field in self.fields.items() if field.required)


class _Defaulted(Schema):
    """Loads nothing, of which most requests have most, without looking at each field again."""

    @cached_property
    def of_nothing(self) -> Mapping[str, Any] | None:
        """What nothing is loaded as; None where it is refused, or could be changed by its user."""
        try:
            loaded: dict[str, Any] = self.load({})
        except ValidationError:
            return None
        immutable = all(isinstance(value, _IMMUTABLE) for value in loaded.values())
        return loaded if immutable else None


class Query(_Strict, _Defaulted):
    """A query string. Arguments that it does not have are refused."""

    error_messages = _QUERY_MESSAGES


class Headers(_Defaulted):
    """Some of a request's headers, each under its name as the field's `data_key`."""

    class Meta:
        """Other headers are none of its business."""

        unknown = EXCLUDE


def load_body(schema: Schema, data: object) -> dict[str, Any]:
    """Load a decoded JSON body. Raises `ApiError` (`VALIDATION_ERROR`) with every problem."""
    return _load(schema, data, whole="body")


def load_query(schema: Schema, query: MultiMapping[str]) -> dict[str, Any]:
    """Load a query string. Raises `ApiError` (`VALIDATION_ERROR`) with every problem.

    Only what the schema calls a list may be given more than once.
    """
    data: dict[str, Any] = {}
    repeated: dict[str, list[str]] = {}
    for name in dict.fromkeys(query):
        values = query.getall(name)
        if isinstance(schema.fields.get(name), fields.List):
            data[name] = values
        else:
            data[name] = values[0]
            if len(values) > 1:
                repeated[name] = ["Must be given once."]
    return _load(schema, data, whole="query", already=repeated)


def load_headers(schema: Schema, headers: MultiMapping[str]) -> dict[str, Any]:
    """Load those of a request's headers that the schema has.

    Only a header that its field calls a `LIST` may be given more than once.
    Raises `ApiError` (`VALIDATION_ERROR`) with every problem.
    """
    data: dict[str, Any] = {}
    repeated: dict[str, list[str]] = {}
    for field in schema.fields.values():
        name = field.data_key
        assert name is not None, f"{field.name} names no header"
        values = headers.getall(name, [])
        if getattr(field, "LIST", False):
            values = [", ".join(values)] if values else []
        if values:
            data[name] = values[0]
        if len(values) > 1:
            repeated[name] = ["Must be given once."]
    return _load(schema, data, whole="headers", already=repeated)


def _load(
    schema: Schema, data: object, *, whole: str, already: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    if not data and isinstance(schema, _Defaulted) and schema.of_nothing is not None:
        return dict(schema.of_nothing)
    problems: list[FieldProblem] = list(_flat(already or {}))
    try:
        loaded: dict[str, Any] = schema.load(data)  # type: ignore[arg-type] # it refuses what is no mapping
    except ValidationError as error:
        problems += _flat(error.messages)
    if problems:
        shown = [
            problem if problem.field else FieldProblem(whole, problem.message)
            for problem in problems[:MAX_PROBLEMS]
        ]
        if len(problems) > MAX_PROBLEMS:
            # How many is not known: nobody looks for them any further.
            shown[-1] = FieldProblem(whole, f"{CUT} and more problems.")
        raise ApiError(errors.VALIDATION_ERROR, details=list(_with_suggestions(shown, schema)))
    return loaded


def _with_suggestions(problems: list[FieldProblem], schema: Schema) -> Iterator[FieldProblem]:
    """Say of unknown names what may have been meant; of the first ones, since it takes a while."""
    left = _MAX_SUGGESTIONS
    for problem in problems:
        if problem.message in _UNKNOWN and left:
            left -= 1
            above, _, name = problem.field.rpartition(".")
            if meant := did_you_mean(name, _names(schema, above)):
                meant = meant[0].upper() + meant[1:]
                yield FieldProblem(problem.field, f"{problem.message} {meant}")
                continue
        yield problem


def _names(schema: Schema, path: str) -> Iterable[str]:
    """The names of the fields that an object at a path of a body has."""
    inner: Schema | None = schema
    field: Any = None
    for part in path.split(".") if path else ():
        if isinstance(field, fields.List) and inner is None:
            field = field.inner
        elif inner is not None:
            field = inner.fields.get(part)
        inner = field.schema if isinstance(field, fields.Nested) else None
    return () if inner is None else inner.fields


def _flat(messages: Any, path: str = "") -> Iterator[FieldProblem]:
    """Walk marshmallow's nested messages; `_schema` stands for the object itself."""
    if isinstance(messages, str):
        yield FieldProblem(path, messages)
    elif isinstance(messages, dict):
        for key, nested in messages.items():
            name = shortened(str(key), _MAX_NAME)
            yield from _flat(
                nested, path if key == "_schema" else f"{path}.{name}" if path else name
            )
    else:
        for message in messages:
            yield from _flat(message, path)


#: Of endpoints that take none.
NO_BODY = Body()
NO_QUERY = Query()
