"""The schemas against the contract: nothing forgotten, nothing invented, nothing loose.

What a field must refuse is told by the type that it has in the proto, not by
the schema that is under test.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from marshmallow import Schema, fields

from app.bridge.converters import enum_prefix, to_json
from app.bridge.requests import build
from app.errors import ApiError
from app.schemas.jobs import JOB_STATUSES, SUBMIT_JOB_BODY
from app.schemas.loading import load_body
from app.schemas.logs.filters import LOG_LEVELS
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus
from generated.mindcoordinator.v1.watch_pb2 import LogLevel
from tests.schemas.bodies import CASES, SUBMISSION, Case

Path = tuple[str | int, ...]

#: Texts that must say something.
NOT_EMPTY = {"name", "model_id", "path"}
#: Whole numbers with a bound of their own; all others begin at 0.
AT_LEAST = {"seed": -(2**63), "node_count": 1, "gradient_accumulation_steps": 1}
AT_MOST = {"priority": 10, "preview": 5}


@dataclass(frozen=True)
class Place:
    case: Case
    path: Path
    proto: Any

    def __str__(self) -> str:
        return f"{self.case.name}:{dotted(self.path)}"

    def body_with(self, value: Any) -> dict[str, Any]:
        body = self.case.body()
        node: Any = body
        for step in self.path[:-1]:
            node = node[step]
        node[self.path[-1]] = value
        return body

    def body_without(self) -> dict[str, Any]:
        body = self.case.body()
        node: Any = body
        for step in self.path[:-1]:
            node = node[step]
        del node[self.path[-1]]
        return body


def dotted(path: Path) -> str:
    return ".".join(str(step) for step in path)


def is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_time(field: Any) -> bool:
    return (
        field.message_type is not None
        and field.message_type.full_name == "google.protobuf.Timestamp"
    )


def places(case: Case) -> Iterator[Place]:
    def walk(value: dict[str, Any], descriptor: Any, path: Path) -> Iterator[Place]:
        for name, nested in value.items():
            field = descriptor.fields_by_name[name]
            here = (*path, name)
            yield Place(case, here, field)
            if field.message_type is None or is_map(field) or is_time(field):
                continue
            if field.is_repeated:
                yield from walk(nested[0], field.message_type, (*here, 0))
            else:
                yield from walk(nested, field.message_type, here)

    yield from walk(case.full, case.message.DESCRIPTOR, ())


PLACES = [place for case in CASES for place in places(case)]


def problems(schema: Schema, body: object) -> list[str]:
    with pytest.raises(ApiError) as refused:
        load_body(schema, body)
    assert refused.value.kind.code == "VALIDATION_ERROR"
    assert all(problem.message for problem in refused.value.details)
    return [problem.field for problem in refused.value.details]


def wrong_types(field: Any) -> list[Any]:
    if is_map(field):
        return [[], "x", 3, True]
    if field.is_repeated:
        return [{}, "x", 3, True]
    if is_time(field):
        return [
            5,
            True,
            [],
            {},
            "",
            "soon",
            "2031-01-31",
            "2031-01-31T18:00:00",
            "2031-13-31T18:00:00Z",
            "2031-01-31T25:00:00Z",
            "20310131T180000Z",
            "2031-01-31T18:00:00.1234567Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59-05:00",
            " 2031-01-31T18:00:00Z",
            "2031-01-31T18:00:00Z\n",
        ]
    if field.message_type is not None:
        return [[], "x", 3, True]
    if field.enum_type is not None:
        lower = field.enum_type.values[1].name.removeprefix(enum_prefix(field.enum_type)).lower()
        return [1, True, [], {}, "", "UNSPECIFIED", lower, field.enum_type.values[1].name]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return [3, 3.5, True, [], {}, "a\0b", "\ud800"]
        case FieldDescriptor.CPPTYPE_BOOL:
            return [0, 1, 0.0, "true", "false", "", [], {}]
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return ["0.5", "", True, False, [], {}, math.nan, math.inf, -math.inf, 10**400]
        case _:
            return ["3", "", 3.0, 3.7, 1e300, True, False, [], {}, math.nan, math.inf]


def bounds(place: Place) -> tuple[list[Any], list[Any]]:
    field, name = place.proto, place.path[-1]
    assert isinstance(name, str)
    if field.is_repeated or field.message_type is not None or field.enum_type is not None:
        return [], []
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if name == "padding":
                return ["", "none", "max_length", "longest"], ["NONE", "x"]
            if name in NOT_EMPTY and place.path[0] != "output_config":
                return ["ü", "日本"], ["", " ", "\t\n", "x" * 100_000]
            empty = name == "custom_script_path" or name in ("model_name", "job_id")
            return ["x", *([] if empty else [""])], ["x" * 100_000]
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return [0, 1, 0.0, 1.0, 0.5], [-0.001, 1.001, -1, 2]
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64:
            wide = field.cpp_type == FieldDescriptor.CPPTYPE_INT64
            least = AT_LEAST.get(name, 0)
            most = AT_MOST.get(name, 2**63 - 1 if wide else 2**31 - 1)
            return [least, most], [least - 1, most + 1, 10**400, -(10**400)]
    return [], []


def wrong_entries(field: Any) -> list[tuple[Any, str | int]]:
    if is_map(field):
        return [
            ({"k": 1}, "k"),
            ({"k": None}, "k"),
            ({"k": True}, "k"),
            ({"k": {}}, "k"),
            ({"k": "a\0b"}, "k"),
            ({"k": "x" * 100_000}, "k"),
            ({"a.b": 1}, "a.b"),
            ({"": "v"}, ""),
            ({"a\0": "v"}, "a\0"),
            ({"x" * 1000: "v"}, "x" * 63 + "…"),
        ]
    if not field.is_repeated:
        return []
    texts: list[Any] = [3, None, True, [], {}, "", " ", "a\0b"]
    objects: list[Any] = [3, None, True, [], "x"]
    if field.message_type is None:
        return [(["a", each], 1) for each in texts]
    return [([each], 0) for each in objects]


class TestNames:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_schema_and_message_have_the_same_fields(self, case: Case) -> None:
        seen = 0

        def compare(schema: Schema, descriptor: Any, elsewhere: frozenset[str]) -> None:
            nonlocal seen
            seen += 1
            assert set(schema.fields) | elsewhere == set(descriptor.fields_by_name), descriptor.name
            assert not set(schema.fields) & elsewhere
            for name, field in schema.fields.items():
                proto = descriptor.fields_by_name[name]
                inner = field.inner if isinstance(field, fields.List) else field
                assert isinstance(field, fields.List) == (proto.is_repeated and not is_map(proto))
                if isinstance(inner, fields.Nested):
                    compare(inner.schema, proto.message_type, frozenset())
                else:
                    assert proto.message_type is None or is_map(proto) or is_time(proto), name

        compare(case.schema, case.message.DESCRIPTOR, case.elsewhere)
        assert seen >= 1

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_the_full_body_has_every_field(self, case: Case) -> None:
        """So that the tests below, which walk it, leave none out."""

        def complete(value: dict[str, Any], descriptor: Any, elsewhere: frozenset[str]) -> None:
            assert set(value) | elsewhere == set(descriptor.fields_by_name)
            for name, nested in value.items():
                field = descriptor.fields_by_name[name]
                if field.message_type is None or is_map(field) or is_time(field):
                    continue
                for each in nested if field.is_repeated else [nested]:
                    complete(each, field.message_type, frozenset())

        complete(case.full, case.message.DESCRIPTOR, case.elsewhere)

    def test_statuses_and_levels_are_those_of_the_contract(self) -> None:
        for ours, enum in ((JOB_STATUSES, JobStatus), (LOG_LEVELS, LogLevel)):
            prefix = enum_prefix(enum.DESCRIPTOR)
            names = [name.removeprefix(prefix) for name in enum.keys()]  # noqa: SIM118 - no mapping
            assert ["UNSPECIFIED", *ours] == names

    @pytest.mark.parametrize(
        "place", [each for each in PLACES if each.proto.enum_type is not None], ids=str
    )
    def test_every_enum_value_is_taken(self, place: Place) -> None:
        prefix = enum_prefix(place.proto.enum_type)
        for value in place.proto.enum_type.values[1:]:
            load_body(place.case.schema, place.body_with(value.name.removeprefix(prefix)))


class TestTheWholeWay:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_a_full_body_arrives_in_the_message_as_it_is(self, case: Case) -> None:
        message = build(case.message, load_body(case.schema, case.body()))

        arrived = to_json(message)

        expected = case.body()
        if case.name == "submit_job":
            expected["scheduling_config"]["not_before"] = "2031-01-31T17:00:00.123456Z"
        assert {name: arrived[name] for name in expected} == expected


class TestNull:
    @pytest.mark.parametrize("place", PLACES, ids=str)
    def test_null_is_the_same_as_leaving_a_field_out(self, place: Place) -> None:
        try:
            left_out: object = load_body(place.case.schema, place.body_without())
        except ApiError:
            # It is required, or another field requires it.
            assert problems(place.case.schema, place.body_with(None)) == problems(
                place.case.schema, place.body_without()
            )
        else:
            assert load_body(place.case.schema, place.body_with(None)) == left_out

    def test_null_is_no_field(self) -> None:
        for case in CASES:
            assert problems(case.schema, {**case.body(), "no_such_field": None}) == [
                "no_such_field"
            ]

    def test_null_is_no_entry_of_a_map_or_a_list(self) -> None:
        body = deepcopy(SUBMISSION)
        body["labels"] = {"a": None}
        body["data_config"]["sources"] = [None]
        assert set(problems(SUBMIT_JOB_BODY, body)) == {"labels.a", "data_config.sources.0"}


class TestWhatIsRefused:
    @pytest.mark.parametrize("place", PLACES, ids=str)
    def test_values_of_another_type(self, place: Place) -> None:
        for wrong in wrong_types(place.proto):
            found = problems(place.case.schema, place.body_with(wrong))
            assert dotted(place.path) in found, (wrong, found)

    @pytest.mark.parametrize("place", [each for each in PLACES if any(bounds(each))], ids=str)
    def test_values_out_of_bounds(self, place: Place) -> None:
        accepted, refused = bounds(place)
        for value in accepted:
            build(place.case.message, load_body(place.case.schema, place.body_with(value)))
        for value in refused:
            found = problems(place.case.schema, place.body_with(value))
            assert dotted(place.path) in found, (value, found)

    @pytest.mark.parametrize(
        "place", [each for each in PLACES if wrong_entries(each.proto)], ids=str
    )
    def test_entries_of_maps_and_lists(self, place: Place) -> None:
        for wrong, step in wrong_entries(place.proto):
            found = problems(place.case.schema, place.body_with(wrong))
            assert dotted((*place.path, step)) in found, (wrong, found)

    @pytest.mark.parametrize("place", PLACES, ids=str)
    def test_a_field_beside_it_that_does_not_exist(self, place: Place) -> None:
        beside = Place(place.case, (*place.path[:-1], "no_such_field"), place.proto)

        assert problems(place.case.schema, beside.body_with(1)) == [dotted(beside.path)]
