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
_BINARY: Final = b"-bin"
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
        return failure(self.code, detail.decode("utf-8", "replace"), trailers=metadata)


def answer_of(begin: Fields, data: bytes, trailers: Fields) -> Answer | None:
    """Put an answer together: the fields at its begin, its data, and the fields at its end.

    None if it says no status that gRPC has, or is OK without exactly one message.
    """
    statuses = [value for name, value in trailers if name == _STATUS]
    if (b":status", b"200") not in begin or len(statuses) != 1:
        return None
    code = _CODES.get(statuses[0])
    if code is None:
        return None
    if code is not grpc.StatusCode.OK:
        return Answer(code, b"", trailers)
    message = frames.message_of(data)
    return None if message is None else Answer(code, message, trailers)


def failure(
    code: grpc.StatusCode, detail: str, *, trailers: grpc.aio.Metadata | None = None
) -> grpc.aio.AioRpcError:
    """Make what grpc.aio raises of a call that failed."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers or grpc.aio.Metadata(), detail)


def _add(metadata: grpc.aio.Metadata, name: bytes, value: bytes) -> None:
    key = name.decode("latin-1")
    if not name.endswith(_BINARY):
        metadata.add(key, value.decode("latin-1"))
        return
    # Several values under one key may come as one, and without padding.
    for part in value.split(b","):
        try:
            metadata.add(key, b64decode(part + b"=" * (-len(part) % 4), validate=True))
        except NotBase64:
            continue
