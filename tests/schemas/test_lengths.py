"""Length comes first: what is too long is not looked at, whatever is in it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from marshmallow import Schema, fields
from multidict import MultiDict

from app.api.bodies import decode_object
from app.errors import ApiError
from app.schemas.data import VALIDATE_DATA_BODY
from app.schemas.fields import Many, StringMap, Text
from app.schemas.jobs import SUBMIT_JOB_BODY
from app.schemas.loading import load_body, load_query
from app.schemas.monitoring import LOGS_QUERY
from tests.schemas.bodies import BY_NAME
from tests.schemas.test_rules import least, problems


def fail(*_: Any) -> Any:
    raise AssertionError("its length had to be checked first")


class Entries(list[Any]):
    """A list whose entries must not be looked at."""

    __iter__ = __getitem__ = __contains__ = fail


class Members(dict[Any, Any]):
    """An object whose members must not be looked at."""

    __iter__ = __getitem__ = __contains__ = items = keys = values = get = fail


class Characters(str):
    """Text that must not be looked at."""

    __slots__ = ()
    __iter__ = __getitem__ = __contains__ = isspace = strip = fail


def bounded(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield each bounded field of a schema, by its path, with a value that is too long."""
    for name, field in schema.fields.items():
        here = (*path, name)
        if isinstance(field, fields.Nested):
            yield from bounded(field.schema, here)
        elif isinstance(field, Many):
            yield ".".join(here), Entries([{}] * (field.most + 1))
            if isinstance(field.inner, fields.Nested):
                yield from bounded(field.inner.schema, (*here, "0"))
        elif isinstance(field, StringMap):
            yield ".".join(here), Members((str(n), "") for n in range(field.most + 1))
        elif isinstance(field, Text):
            yield ".".join(here), Characters("x" * (field.most + 1))


CASES = [
    pytest.param(name, path, value, id=f"{name}:{path}")
    for name in BY_NAME
    for path, value in bounded(BY_NAME[name].schema)
]


def test_there_are_cases_of_each_kind() -> None:
    kinds = {type(case.values[2]) for case in CASES}
    assert kinds == {Entries, Members, Characters}
    assert len(CASES) > 40


@pytest.mark.parametrize(("name", "path", "value"), CASES)
def test_what_is_too_long_is_not_looked_at(name: str, path: str, value: Any) -> None:
    body = BY_NAME[name].body()
    node: Any = body
    *parents, last = path.split(".")
    for step in parents:
        node = node[int(step) if step.isdigit() else step]
    node[last] = value
    assert list(problems(BY_NAME[name].schema, body)) == [path]


def test_after_a_hundred_entries_with_problems_no_more_are_looked_at() -> None:
    class Counted(dict[str, Any]):
        looked_at = 0

        def items(self) -> Any:
            Counted.looked_at += 1
            return super().items()

        values = items

    body = {**least(), "data_config": {"sources": [Counted(path="") for _ in range(1000)]}}
    assert len(problems(SUBMIT_JOB_BODY, body)) == 100
    assert 0 < Counted.looked_at <= 200


@pytest.mark.parametrize("number", [10_000, 100_000])
def test_of_many_unknown_names_the_first_are_named(number: int) -> None:
    body = {**least(), **{f"k{n}": n for n in range(number)}}
    with pytest.raises(ApiError) as refused:
        load_body(SUBMIT_JOB_BODY, body)
    assert {each.field for each in refused.value.details[:-1]} <= {f"k{n}" for n in range(101)}
    assert len(refused.value.details) == 100
    assert refused.value.details[-1].message == "… and more problems."


def test_of_many_unknown_arguments_the_first_are_named() -> None:
    with pytest.raises(ApiError) as refused:
        load_query(LOGS_QUERY, MultiDict((f"k{n}", "") for n in range(10_000)))
    assert {each.field for each in refused.value.details[:-1]} <= {f"k{n}" for n in range(101)}
    assert len(refused.value.details) == 100
    assert refused.value.details[-1].message == "… and more problems."


def test_known_names_count_among_many_unknown_ones() -> None:
    body = {**{f"k{n}": n for n in range(10_000)}, "data_sources": {}}
    assert problems(VALIDATE_DATA_BODY, body)["data_sources"] == "Must be a list."


@pytest.mark.parametrize("number", [2**63, -(2**70), 1e300, 10**400])
def test_numbers_beyond_64_bits_are_out_of_range(number: float) -> None:
    body = json.dumps({**least(), "resource_config": {"gpu_count": number}}).encode()
    if number == 10**400:
        with pytest.raises(ApiError, match="not valid JSON"):
            decode_object(body)
        return
    (told,) = problems(SUBMIT_JOB_BODY, decode_object(body)).values()
    assert "32 bits" in told


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, -(2**63) - 1000, 2**64, 10**300])
def test_no_number_is_rounded_into_its_bounds(number: int) -> None:
    body = least()
    body["data_config"]["seed"] = number
    loaded = decode_object(json.dumps(body).encode())
    assert problems(SUBMIT_JOB_BODY, loaded) == {"data_config.seed": "Must fit into 64 bits."}


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_numbers_of_64_bits_are_exact(number: int) -> None:
    body = least()
    body["data_config"]["seed"] = number
    loaded = load_body(SUBMIT_JOB_BODY, decode_object(json.dumps(body).encode()))
    assert loaded["data_config"]["seed"] == number
