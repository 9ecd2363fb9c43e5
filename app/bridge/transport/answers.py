"""How a unary gRPC call ends (gRPC over HTTP/2: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md)."""

from base64 import b64decode
from binascii import Error as NotBase64
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import grpc
import grpc.aio

from app.bridge.transport import frames
from app.bridge.transport.header_blocks import Fields

_STATUS: Final = b"grpc-status"
_MESSAGE: Final = b"grpc-message"
_CODES: Final = {str(code.value[0]).encode(): code for code in grpc.StatusCode}


class Answer(NamedTuple):
    """A call's end, as the peer told it."""

    code: grpc.StatusCode
    #: The one message; empty if the code is not OK.
    message: bytes
    #: What came with the code.
    trailers: Fields

    def error(self) -> grpc.aio.AioRpcError:
        """Make what grpc.aio would raise."""
        detail = b""
        metadata = grpc.aio.Metadata()
        for name, value in self.trailers:
            if name == _MESSAGE:
                detail = unquote_to_bytes(value)
            elif name != _STATUS and not name.startswith(b":"):
                _add(metadata, name, value)
        return failure(self.code, _text(detail), trailers=metadata)


def answer_of(begin: Fields, data: bytes, trailers: Fields) -> Answer | None:
    """Put an answer together: the fields at its begin, its data, and the fields at its end.

    None if it says no status that gRPC has, is OK without exactly one message, or has binary
    values that cannot be read.
    """
    statuses = [value for name, value in trailers if name == _STATUS]
    if (b":status", b"200") not in begin or len(statuses) != 1:
        return None
    code = _CODES.get(statuses[0])
    if code is None:
        return None
    if code is not grpc.StatusCode.OK:
        readable = all(_binaries(value) is not None for name, value in trailers if _is_binary(name))
        return Answer(code, b"", trailers) if readable else None
    message = frames.message_of(data)
    return None if message is None else Answer(code, message, trailers)


def failure(
    code: grpc.StatusCode, detail: str, *, trailers: grpc.aio.Metadata | None = None
) -> grpc.aio.AioRpcError:
    """Make what grpc.aio raises of a call that failed."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers or grpc.aio.Metadata(), detail)


def _add(metadata: grpc.aio.Metadata, name: bytes, value: bytes) -> None:
    key = name.decode("latin-1")
    if _is_binary(name):
        for part in _binaries(value) or ():
            metadata.add(key, part)
    else:
        metadata.add(key, value.decode("latin-1"))


def _is_binary(name: bytes) -> bool:
    return name.endswith(b"-bin")


def _binaries(value: bytes) -> list[bytes] | None:
    """Read the values under one key, which may come as one, and without padding.

    None if they are not base64.
    """
    try:
        return [
            b64decode(part + b"=" * (-len(part) % 4), validate=True) for part in value.split(b",")
        ]
    except NotBase64:
        return None


def _text(detail: bytes) -> str:
    """Read a status's text as grpc.aio does."""
    try:
        return detail.decode()
    except UnicodeDecodeError:
        return detail.decode("latin-1")
