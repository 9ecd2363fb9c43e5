from typing import Any

import grpc
import pytest

from app.bridge.transport.answers import Answer, answer_of

BEGIN = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK = ((b"grpc-status", b"0"),)
MESSAGE = b"\0\0\0\0\x02hi"


def test_an_answer_has_its_message() -> None:
    assert answer_of(BEGIN, MESSAGE, OK) == Answer(grpc.StatusCode.OK, b"hi", OK)


@pytest.mark.parametrize(
    ("begin", "data", "trailers"),
    [
        ((), MESSAGE, OK),
        (((b":status", b"503"),), MESSAGE, OK),
        (BEGIN, MESSAGE, ()),
        (BEGIN, MESSAGE, OK + OK),
        (BEGIN, MESSAGE, ((b"grpc-status", b"99"),)),
        (BEGIN, MESSAGE, ((b"grpc-status", b"-1"),)),
        (BEGIN, MESSAGE, ((b"grpc-status", b""),)),
        (BEGIN, MESSAGE, ((b"grpc-status", b"9" * 5000),)),
        (BEGIN, b"", OK),
        (BEGIN, MESSAGE[:-1], OK),
        (BEGIN, MESSAGE + MESSAGE, OK),
        (BEGIN, b"\1" + MESSAGE[1:], OK),
        (BEGIN, b"", ((b"grpc-status", b"5"), (b"broken-bin", b"?"))),
    ],
)
def test_what_is_none_of_grpc(begin: Any, data: bytes, trailers: Any) -> None:
    assert answer_of(begin, data, trailers) is None


def test_an_error_is_what_grpc_makes_of_it() -> None:
    answer = answer_of(
        BEGIN,
        b"",
        (
            (b":status", b"200"),
            (b"grpc-status", b"5"),
            (b"grpc-message", b"100%25 gone: %C3%A4"),
            (b"grpc-status-details-bin", b"AQI,AwQ="),
            (b"x-text", b"said"),
        ),
    )
    assert answer is not None
    error = answer.error()
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "100% gone: ä"
    assert [*error.trailing_metadata()] == [
        ("grpc-status-details-bin", b"\x01\x02"),
        ("grpc-status-details-bin", b"\x03\x04"),
        ("x-text", "said"),
    ]
