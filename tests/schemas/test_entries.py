"""Objects of long lists: loaded without marshmallow's machinery, with what it would say."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError
from marshmallow.fields import Nested

from app.schemas.configs import DataSourceSchema
from app.schemas.fields import Many
from app.schemas.loading import Body, Entry

ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text("a \0é\ud800", max_size=3),
    st.integers(1, 5000).map(lambda length: "x" * length),
    st.lists(st.text("a \0é\ud800", max_size=2) | st.integers(), max_size=3),
    st.lists(st.integers(1, 1100).map(lambda length: "x" * length), max_size=2),
    st.dictionaries(st.text("a\0", max_size=2), st.text("a\0") | st.none(), max_size=2),
)
#: What a list refuses in words of its own is none of it.
OBJECTLESS = ANY.filter(lambda value: value is not None)
ENTRY = DataSourceSchema()
#: Of the same fields, and loaded by marshmallow.
ANY_BODY = Body.from_dict(DataSourceSchema._declared_fields)()
SOURCES = Body.from_dict({"sources": Many("", Nested(DataSourceSchema), most=1000)})()
NAMES = st.sampled_from([*ENTRY.fields, "unknown", "other"])


def outcome(schema: Schema, value: object) -> tuple[str, Any]:
    """Return what is loaded, or the problems."""
    try:
        return "loaded", schema.load(value)  # type: ignore[arg-type] # it refuses what is no mapping
    except ValidationError as error:
        return "refused", error.messages


@given(value=st.dictionaries(NAMES, ANY, max_size=5) | ANY)
@example(value={"path": "p", "columns": ["c"] * 1025})
@example(value={"path": "p", "columns": ["c" * 1025]})
@example(value={"path": "p", "columns": ["c", " "]})
@example(value={"path": "p" * 4097})
@example(value={"path": None})
def test_an_entry_is_loaded_as_any_body(value: object) -> None:
    assert outcome(ENTRY, value) == outcome(ANY_BODY, value)


@given(values=st.lists(st.dictionaries(NAMES, ANY, max_size=3) | OBJECTLESS, max_size=5))
@example(values=[{"path": "p"}, {"path": "p", "type": None}])
@example(values=[{"path": "p"}, {"type": "t"}])
@example(values=[{"path": "p"}, {"path": "p", "columns": "c"}])
def test_a_list_of_entries_is_loaded_as_each_of_them(values: list[object]) -> None:
    plain: list[object] = [{"path": "p", "columns": ["c"]}] * 40
    whole = [*plain, *values, *plain]
    each = [outcome(ANY_BODY, value) for value in whole]
    wrong = {place: what for place, (kind, what) in enumerate(each) if kind == "refused"}
    expected = ("refused", wrong) if wrong else ("loaded", [what for _, what in each])
    kind, found = outcome(SOURCES, {"sources": whole})
    assert (kind, found["sources"]) == expected


def test_of_many_unknown_names_some_are_named() -> None:
    kind, problems = outcome(ENTRY, {f"unknown{n}": n for n in range(300)})
    assert kind == "refused"
    assert problems.pop("path") == ["Missing data for required field."]
    assert len(problems) == 101


@pytest.mark.parametrize("schema", Entry.__subclasses__())
def test_an_entry_has_no_hooks_of_its_own(schema: type[Schema]) -> None:
    assert {name for hooks in schema._hooks.values() for name, *_ in hooks} == {"_without_nulls"}
