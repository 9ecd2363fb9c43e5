"""The fields that INVALID_ARGUMENT names: google.rpc.BadRequest in a call's trailers."""

import re
from collections.abc import Iterator
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from app.bridge.sanitise import presentable
from app.bridge.sent import Sent
from app.credentials import Masker
from app.errors import FieldProblem
from app.shortening import CUT
from generated.mindcoordinator.v1.errors_pb2 import BadRequest, StatusDetails

_KEY: Final = "grpc-status-details-bin"
_TYPE: Final = "/google.rpc.BadRequest"
#: Bytes of the trailer, and fields, that are read.
_MAX_BYTES: Final = 64 * 1024
_MAX_PROBLEMS: Final = 100
_MAX_PATH: Final = 256
#: A path is the caller's own words in part: keys of maps. Others than these are in no path.
_PATH: Final = re.compile(r"[^\x00-\x1f\x7f]*")
_INDEX: Final = re.compile(r"\[(\d{1,9})\]")
#: In place of what the caller may not read.
_HIDDEN: Final = "It is not valid."


def field_problems(
    error: grpc.aio.AioRpcError, *, sent: Sent, masker: Masker
) -> tuple[FieldProblem, ...]:
    """Return what is wrong with each field, as far as a caller may read it; empty if no field
    is named.

    A path is written with dots whatever the coordinator writes:
    `data_config.sources[0].path` is `data_config.sources.0.path`.
    """
    return tuple(
        FieldProblem(
            _path(each.field, sent, masker),
            presentable(each.description, sent=sent, masker=masker) or _HIDDEN,
        )
        for each in _violations(error)
    )


def _violations(error: grpc.aio.AioRpcError) -> Iterator[BadRequest.FieldViolation]:
    for key, value in error.trailing_metadata() or ():
        if key != _KEY or not isinstance(value, bytes) or len(value) > _MAX_BYTES:
            continue
        try:
            details = StatusDetails.FromString(value).details
            found = [BadRequest.FromString(e.value) for e in details if e.type_url.endswith(_TYPE)]
        except DecodeError:
            continue
        violations = [each for bad_request in found for each in bad_request.field_violations]
        yield from violations[:_MAX_PROBLEMS]
        if (more := len(violations) - _MAX_PROBLEMS) > 0:
            yield BadRequest.FieldViolation(description=f"{CUT} and {more} more")
        return


def _path(path: str, sent: Sent, masker: Masker) -> str:
    dotted = _INDEX.sub(r".\1", path)
    if not dotted or len(dotted) > _MAX_PATH or not _PATH.fullmatch(dotted):
        return "request"
    return presentable(dotted, sent=sent, masker=masker) or "request"
