"""Why the coordinator refused a call, for programs: google.rpc.ErrorInfo in a call's trailers."""

from typing import Final

import grpc
from google.protobuf.message import DecodeError

from generated.mindcoordinator.v1.errors_pb2 import ErrorInfo, StatusDetails

_KEY: Final = "grpc-status-details-bin"
_TYPE: Final = "/google.rpc.ErrorInfo"
_DOMAIN: Final = "mindcoordinator.v1"
#: Bytes of the trailer that are read.
_MAX_BYTES: Final = 64 * 1024

#: Of tokens that the issuer has only just made: its clock and the coordinator's differ.
CLOCK_REASONS: Final = frozenset({"TOKEN_EXPIRED", "TOKEN_NOT_YET_VALID"})


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the contract's reason of a refusal; empty if it has none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key != _KEY or not isinstance(value, bytes) or len(value) > _MAX_BYTES:
            continue
        try:
            for detail in StatusDetails.FromString(value).details:
                if detail.type_url.endswith(_TYPE):
                    info = ErrorInfo.FromString(detail.value)
                    return info.reason if info.domain == _DOMAIN else ""
        except DecodeError:
            return ""
    return ""
