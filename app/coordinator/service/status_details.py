"""What a status says beyond its text: google.rpc.Status in a call's trailers."""

from typing import Final

import grpc
from google.protobuf.message import Message

from generated.mindcoordinator.v1.errors_pb2 import ErrorInfo, StatusDetail, StatusDetails

_KEY: Final = "grpc-status-details-bin"
_TYPE: Final = "type.googleapis.com/google.rpc."
#: Whose reasons they are, in ErrorInfo.
DOMAIN: Final = "mindcoordinator.v1"

Trailers = tuple[tuple[str, bytes], ...]


def trailers_with(code: grpc.StatusCode, message: str, detail: Message) -> Trailers:
    """Return the trailing metadata of a status; `detail` is one of Google's by our name."""
    status = StatusDetails(
        code=code.value[0],
        message=message,
        details=[
            StatusDetail(type_url=_TYPE + detail.DESCRIPTOR.name, value=detail.SerializeToString())
        ],
    )
    return ((_KEY, status.SerializeToString()),)


def error_info(code: grpc.StatusCode, message: str, reason: str) -> Trailers:
    """Return the trailing metadata that tell a program why, by one of the contract's reasons."""
    return trailers_with(code, message, ErrorInfo(reason=reason, domain=DOMAIN))
