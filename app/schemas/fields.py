"""The kinds of values that bodies and query strings are made of, strict and bounded."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

from marshmallow import ValidationError, fields, validate
from typing_extensions import override

INT32_MAX = 2**31 - 1
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
_BEYOND_INTEGERS = 2.0**63

#: marshmallow's type for them, which admits structures as well.
Messages: TypeAlias = "dict[str, str | list[Any] | dict[Any, Any]]"

#: Problems of a request that are told. More are of no use to anyone, and are not looked for.
MAX_PROBLEMS = 100

#: Entries of a list that are looked at together.
_BLOCK = 32

#: Longer than any time that can be read.
_LONGEST_TIME = 64
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def messages(**texts: str) -> Messages:
    """Name what a field or a schema says of each kind of problem."""
    return dict(texts)


def storable(value: str) -> None:
    """Refuse text that PostgreSQL (NUL) or UTF-8 (half of a surrogate pair) cannot hold."""
    if "\0" in value:
        raise ValidationError("Must not contain a NUL character.")
    if _LONE_SURROGATE.search(value):
        raise ValidationError("Must be valid Unicode: it contains a lone surrogate.")


def not_blank(value: str) -> None:
    """Refuse text of nothing but white space."""
    if value.isspace():
        raise ValidationError("Must not be blank.")


class Text(fields.String):
    """Text of at most `most` characters; unless `blank`, with something in it.

    Text that is too long or too short is not looked at any further.
    """

    default_error_messages = messages(invalid="Must be a string.")

    def __init__(self, text: str, *, most: int = 1024, blank: bool = True, **kwargs: Any) -> None:
        limits: list[Any] = [validate.Length(min=None if blank else 1, max=most), storable]
        if not blank:
            limits.append(not_blank)
        also = kwargs.pop("also", ())
        super().__init__(validate=[*limits, *also], metadata={"description": text}, **kwargs)
        self._length = limits[0]
        self._blank = blank
        self._has_more_rules = bool(also)
        self.most = most

    def is_plain(self, value: Any) -> bool:
        """Return whether a value is loaded as it is, as a few fast calls can say of most."""
        return (
            type(value) is str
            and len(value) <= self.most
            # What of it is `storable`: of ASCII alone it takes two fast calls.
            and value.isascii()
            and "\0" not in value
            and (self._blank or (value != "" and not value.isspace()))
            and not self._has_more_rules
        )

    def are_plain(self, values: Sequence[Any]) -> bool:
        """Return whether all of many values are `is_plain`, in less time for each."""
        try:
            whole = "".join(values)
        except TypeError:
            return False
        return (
            whole.isascii()
            and "\0" not in whole
            and (len(whole) <= self.most or max(map(len, values)) <= self.most)
            and (self._blank or (all(values) and not any(map(str.isspace, values))))
            and not self._has_more_rules
        )

    @override
    def deserialize(self, value: Any, *rest: Any, **kwargs: Any) -> Any:
        """Load a value as marshmallow does, and text that is plainly good many times as fast."""
        if self.is_plain(value):
            return value
        if isinstance(value, str) and (not value or len(value) > self.most):
            self._length(value)
        return super().deserialize(value, *rest, **kwargs)


class Choice(fields.String):
    """One of a set of names."""

    default_error_messages = messages(invalid="Must be a string.")

    def __init__(self, text: str, choices: Iterable[str], **kwargs: Any) -> None:
        self.choices = tuple(choices)
        named = ", ".join(choice or '""' for choice in self.choices)
        super().__init__(
            validate=validate.OneOf(self.choices, error=f"Must be one of: {named}."),
            metadata={"description": text},
            **kwargs,
        )


class Whole(fields.Integer):
    """A whole number as JSON writes it: no quotes, no fraction, no boolean."""

    default_error_messages = messages(
        invalid="Must be a whole number, without quotes or a fraction."
    )

    def __init__(self, text: str, *, least: int = 0, most: int = INT32_MAX, **kwargs: Any) -> None:
        self._bounds = _within(least, most)
        super().__init__(
            strict=True, validate=self._bounds, metadata={"description": text}, **kwargs
        )

    def _validated(self, value: Any) -> int:
        # An integer beyond 64 bits is a float here, which may round to one that is within.
        if isinstance(value, float) and _BEYOND_INTEGERS <= abs(value) < math.inf:
            raise ValidationError(str(self._bounds.error))
        return super()._validated(value)


class Real(fields.Float):
    """A finite number as JSON writes it: no quotes, no boolean."""

    default_error_messages = messages(
        invalid="Must be a number, without quotes.",
        special="Must be a finite number.",
    )

    def __init__(self, text: str, *, least: float, most: float, **kwargs: Any) -> None:
        super().__init__(validate=_within(least, most), metadata={"description": text}, **kwargs)

    def _validated(self, value: Any) -> float:
        if not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Flag(fields.Boolean):
    """`true` or `false` as JSON writes it."""

    default_error_messages = messages(invalid="Must be true or false, without quotes.")

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(metadata={"description": text}, **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        if value is True or value is False:
            return value
        raise self.make_error("invalid", input=value)


class Time(fields.AwareDateTime):
    """A time with its zone (RFC 3339), from 1970 to 9998, exact to the microsecond."""

    default_error_messages = messages(
        invalid="Must be a time such as 2030-01-31T18:00:00Z.",
        invalid_awareness="Must have a time zone, as in 2030-01-31T18:00:00Z.",
    )

    _FORM = re.compile(
        r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6}0*)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
    )
    _FIRST = datetime(1970, 1, 1, tzinfo=UTC)
    _LAST = datetime(9999, 1, 1, tzinfo=UTC)

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(
            format="iso",
            validate=validate.Range(
                min=self._FIRST,
                max=self._LAST,
                max_inclusive=False,
                error="Must be a time from 1970 to 9998.",
            ),
            metadata={"description": text},
            **kwargs,
        )

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> datetime:
        if (
            not isinstance(value, str)
            or len(value) > _LONGEST_TIME
            or not self._FORM.fullmatch(value)
        ):
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        return super()._deserialize(value.upper(), attr, data, **kwargs)


class StringMap(fields.Dict):
    """An object whose values are strings; a problem is reported under its key.

    One with too many entries is not looked at any further.
    """

    default_error_messages = messages(invalid="Must be an object with strings as values.")

    def __init__(
        self,
        text: str,
        *,
        most: int = 256,
        longest_key: int = 256,
        longest_value: int = 8192,
        also: Sequence[Any] = (),
        nulls: bool = False,
        **kwargs: Any,
    ) -> None:
        """`nulls`: values may be null."""
        super().__init__(
            keys=Text("", most=longest_key, blank=False, also=also),
            values=Text(
                "",
                most=longest_value,
                allow_none=nulls,
                error_messages={"invalid": 'Must be a string: write a number as "0.001".'},
            ),
            validate=validate.Length(max=most, error=f"Must have at most {most} entries."),
            metadata={"description": text},
            **kwargs,
        )
        self.most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > self.most:
            raise ValidationError(f"Must have at most {self.most} entries.")
        try:
            return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call] # marshmallow's
        except ValidationError as error:
            if not isinstance(error.messages, dict):
                raise
            problems = {
                key: [text for texts in entry.values() for text in texts]
                for key, entry in error.messages.items()
            }
            raise ValidationError(problems, valid_data=error.valid_data) from error


class Many(fields.List[Any]):
    """A list of objects of one schema, or of one kind of value.

    One that is too long is not looked at any further, nor is what follows more
    than `MAX_PROBLEMS` entries with problems.
    """

    default_error_messages = messages(invalid="Must be a list.")

    def __init__(
        self, text: str, item: fields.Field[Any], *, least: int = 0, most: int, **kwargs: Any
    ) -> None:
        bounds = f"{least} to {most}" if least else f"at most {most}"
        error = f"Must have {bounds} entries."
        self.most = most
        self._length = validate.Length(min=least, max=most, error=error)
        super().__init__(item, validate=self._length, metadata={"description": text}, **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        self._length(value)
        loaded: list[Any] = []
        problems: dict[int, Any] = {}
        for start in range(0, len(value), _BLOCK):
            block = value[start : start + _BLOCK]
            if self._are_plain(block):
                loaded += block
            else:
                self._load_each(block, start, loaded, problems)
            if len(problems) > MAX_PROBLEMS:
                break
        if problems:
            raise ValidationError(problems, valid_data=loaded)
        return loaded

    def _load_each(
        self, items: list[Any], start: int, loaded: list[Any], problems: dict[int, Any]
    ) -> None:
        """Load items, of which the first is at `start`, until there are too many problems."""
        inner = self.inner
        # What marshmallow adds around each object is several times the work for a small one.
        load = inner.schema.load if isinstance(inner, fields.Nested) else inner.deserialize
        for place, item in enumerate(items, start):
            try:
                loaded.append(inner.deserialize(item) if item is None else load(item))
            except ValidationError as error:
                problems[place] = error.messages
                if error.valid_data is not None:
                    loaded.append(error.valid_data)
                if len(problems) > MAX_PROBLEMS:
                    return

    @cached_property
    def _are_plain(self) -> Callable[[list[Any]], bool]:
        """Whether all of many items are loaded as they are, where that can be said fast."""
        if isinstance(inner := self.inner, fields.Nested):
            return getattr(inner.schema, "are_plain", lambda _: False)
        # Not a kind derived from it, which may have rules of its own.
        return inner.are_plain if type(inner) is Text else lambda _: False


class TextList(Many):
    """A list of strings."""

    default_error_messages = messages(invalid="Must be a list of strings.")

    def __init__(self, text: str, *, most: int = 1024, longest: int = 1024, **kwargs: Any) -> None:
        self._item = Text("", most=longest, blank=False)
        super().__init__(text, self._item, most=most, **kwargs)

    def is_plain(self, value: Any) -> bool:
        """Return whether a list is loaded as it is, as fast as `Text` can say of its strings."""
        return type(value) is list and len(value) <= self.most and self._item.are_plain(value)

    def are_plain(self, values: Sequence[Any]) -> bool:
        """Return whether all of many lists are `is_plain`, in less time for each."""
        if any(type(value) is not list or len(value) > self.most for value in values):
            return False
        return self._item.are_plain(list(chain.from_iterable(values)))


class QueryWhole(fields.Integer):
    """A whole number in a query string: ASCII digits and nothing else."""

    default_error_messages = messages(invalid="Must be a whole number.")

    _FORM = re.compile(r"-?[0-9]{1,19}")

    def __init__(self, text: str, *, least: int = 0, most: int = INT32_MAX, **kwargs: Any) -> None:
        super().__init__(validate=_within(least, most), metadata={"description": text}, **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> int:
        if not isinstance(value, str) or not self._FORM.fullmatch(value):
            raise self.make_error("invalid", input=value)
        return int(value)


class QueryFlag(fields.Boolean):
    """`true` or `false` (or `1` or `0`) in a query string."""

    default_error_messages = messages(invalid="Must be true or false.")

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(metadata={"description": text}, **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        match value.lower() if isinstance(value, str) else None:
            case "true" | "1":
                return True
            case "false" | "0":
                return False
        raise self.make_error("invalid", input=value)


class MessageField(fields.Raw):
    """An object of an answer that is a message of the contract, by its name."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message_name = name


def _within(least: float, most: float) -> validate.Range:
    if (least, most) == (INT64_MIN, INT64_MAX):
        return validate.Range(min=least, max=most, error="Must fit into 64 bits.")
    if most in (INT32_MAX, INT64_MAX):
        error = f"Must be {least} or more, and fit into {32 if most == INT32_MAX else 64} bits."
    else:
        error = f"Must be from {least} to {most}."
    return validate.Range(min=least, max=most, error=error)
