"""Reading a body: strictly, and with an error that says where."""

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.bodies import decode_object
from app.errors import ApiError
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX

CANCEL = f"{PREFIX}/jobs/job-1/cancel"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("body", [b'{"reason": "x"}', b' \n{"reason":"x"}\t'])
@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
)
async def test_json_is_read(gateway: Gateway, kind: str, body: bytes) -> None:
    answer = await gateway.ask("POST", CANCEL, data=body, headers={"Content-Type": kind})
    assert answer.status == 200
    assert gateway.coordinator.requests("CancelJob")[0].message.reason == "x"


@pytest.mark.parametrize("body", [b"", b"  \n"])
async def test_an_optional_body_may_be_empty(gateway: Gateway, body: bytes) -> None:
    answer = await gateway.ask("POST", CANCEL, data=body, headers=JSON)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"reason": }', "line 1, column 12"),
        (b'{"reason": "x"\n "a": 1}', "line 2, column 2"),
        (b'{"reason": "x"', "line 1"),
        (b"{'reason': 'x'}", "line 1, column 2"),
        (b'{"reason": "x"} trailing', "line 1, column 17"),
        (b'{"reason": NaN}', "line 1"),
        (b'{"reason": "\xff"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"reason": "x"}', "not valid JSON"),
        (b'{"reason": "\\ud800"}', "not valid JSON"),
        (b'{"reason": "a\nb"}', "not valid JSON"),
        (b'{"reason": "x", "reason": "y"}', "duplicate name 'reason'"),
        (b'{"a": [{"b": 1, "c": {}, "b": 2}]}', "duplicate name 'b'"),
        (b'{"a": "\\u003a", "a": 2}', "duplicate name 'a'"),
        (b'{"a": "\\u003A\\u003A", "a": 2}', "duplicate name 'a'"),
        (b'{"a": ":", "\\u0061": ":::"}', "duplicate name 'a'"),
        (b'{"a": ' * 250 + b'{"b": 1, "b": 2}' + b"}" * 250, "duplicate name 'b'"),
        (b'{"a": ' * 300 + b"1" + b"}" * 300, "nested too deeply"),
        (b"[" * 5000 + b"]" * 5000, ""),
        (b'{"a": ' * 1000 + b"1" + b"}" * 1000, ""),
        (b'{"reason": 1' + b"0" * 5000 + b"}", "line 1, column 12"),
        (b"[]", "one JSON object"),
        (b'"reason"', "one JSON object"),
        (b"null", "one JSON object"),
        (b"3", "one JSON object"),
    ],
)
async def test_what_is_not_one_json_object(gateway: Gateway, body: bytes, told: str) -> None:
    answer = await gateway.ask("POST", CANCEL, data=body, headers=JSON)
    assert (answer.status, answer.error["code"]) == (400, "MALFORMED_REQUEST")
    assert told in answer.error["message"]
    assert gateway.coordinator.requests("CancelJob") == []


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/json; charset=latin-1",
    ],
)
async def test_another_kind_of_body(gateway: Gateway, kind: str) -> None:
    answer = await gateway.ask("POST", CANCEL, data=b"{}", headers={"Content-Type": kind})
    assert (answer.status, answer.error["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "JSON" in answer.error["message"]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "identity"])
async def test_a_packed_body_is_read(gateway: Gateway, coding: str) -> None:
    data = b'{"reason": "x"}'
    if "gzip" in coding.lower():
        data = gzip.compress(data)
    elif coding == "deflate":
        data = zlib.compress(data)
    answer = await gateway.ask(
        "POST", CANCEL, data=data, headers={**JSON, "Content-Encoding": coding}
    )
    assert answer.status == 200
    assert gateway.coordinator.requests("CancelJob")[0].message.reason == "x"


@pytest.mark.parametrize("coding", ["br", "zstd", "foo", "gzip, gzip", "gzip, br"])
async def test_another_coding_is_not_supported(gateway: Gateway, coding: str) -> None:
    answer = await gateway.ask(
        "POST", CANCEL, data=b"{}", headers={**JSON, "Content-Encoding": coding}
    )
    assert (answer.status, answer.error["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "gzip" in answer.error["message"]


async def chunks(size: int) -> Any:
    yield b'{"reason": "'
    for _ in range(size // 1024):
        yield b"x" * 1024
    yield b'"}'


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit(gateway: Gateway, chunked: bool) -> None:
    size = 2 * 1024 * 1024
    body = chunks(size) if chunked else io.BytesIO(b"x" * size)
    answer = await gateway.ask("POST", CANCEL, data=body, headers=JSON)
    assert (answer.status, answer.error["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert str(1024 * 1024) in answer.error["message"]


@pytest.mark.parametrize(
    ("size", "told"),
    [(6_000, "duplicate name '5999' in an object."), (80_000, "named here for bodies of up to 64")],
)
async def test_a_duplicate_name_is_looked_for_in_bodies_that_are_not_large(
    gateway: Gateway, size: int, told: str
) -> None:
    names = ",".join(f'"{number}":0' for number in range(size))
    body = f'{{{names},"{size - 1}":0}}'.encode()
    answer = await gateway.ask("POST", CANCEL, data=body, headers=JSON)
    assert (answer.status, answer.error["code"]) == (400, "MALFORMED_REQUEST")
    assert told in answer.error["message"]


class Pairs(list[tuple[str, Any]]):
    """An object's members, of which some may have the same name."""


NAMES = st.text('ab:\\"\n\0é', max_size=2)
PAIRS = st.recursive(
    NAMES | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(NAMES, inner), max_size=4).map(Pairs)
    ),
    max_leaves=12,
)


def written(value: Any, escaped: Callable[[str], str]) -> str:
    """Write JSON, with names that stand twice."""
    if isinstance(value, Pairs):
        members = (f"{escaped(name)} : {written(inner, escaped)}" for name, inner in value)
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(inner, escaped) for inner in value) + "]"
    return escaped(value) if isinstance(value, str) else json.dumps(value)


def doubled(value: Any) -> set[str]:
    """Return the names that an object has twice."""
    if isinstance(value, Pairs):
        names = Counter(name for name, _ in value)
        here = {name for name, times in names.items() if times > 1}
        return here.union(*(doubled(inner) for _, inner in value))
    return set().union(*map(doubled, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    "escaped",
    [
        lambda text: orjson.dumps(text).decode(),
        json.dumps,
        lambda text: '"' + "".join(f"\\u{ord(each):04x}" for each in text) + '"',
        lambda text: '"' + "".join(f"\\u{ord(each):04X}" for each in text) + '"',
    ],
    ids=["plain", "ascii", "escaped", "capitals"],
)
@given(value=PAIRS)
def test_a_duplicate_name_is_found_however_strings_are_written(
    value: Any, escaped: Callable[[str], str]
) -> None:
    body = f'{{"a": {written(value, escaped)}}}'.encode()
    if expected := doubled(value):
        with pytest.raises(ApiError) as refused:
            decode_object(body)
        assert any(f"name {name!r} in" in str(refused.value.message) for name in expected)
    else:
        assert decode_object(body) == json.loads(body)


async def test_a_body_that_is_not_as_compressed_as_it_says(gateway: Gateway) -> None:
    answer = await gateway.ask(
        "POST", CANCEL, data=b"not gzip!", headers={**JSON, "Content-Encoding": "gzip"}
    )
    assert (answer.status, answer.error["code"]) == (400, "MALFORMED_REQUEST")
    assert "Content-Encoding" in answer.error["message"]


async def test_a_body_that_grows_beyond_the_limit_when_it_is_unpacked(gateway: Gateway) -> None:
    answer = await gateway.ask(
        "POST",
        CANCEL,
        data=gzip.compress(b" " * 50 * 1024 * 1024),
        headers={**JSON, "Content-Encoding": "gzip"},
    )
    assert (answer.status, answer.error["code"]) == (413, "PAYLOAD_TOO_LARGE")
