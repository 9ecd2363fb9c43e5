"""How INVALID_ARGUMENT names the fields on the wire: google.rpc.BadRequest in the trailers."""

from collections.abc import Sequence
from typing import Final

import grpc

from app.coordinator.errors import FieldProblem
from app.coordinator.service.status_details import Trailers, trailers_with
from app.credentials import masked
from app.shortening import CUT, shortened
from generated.mindcoordinator.v1.errors_pb2 import BadRequest

#: Bytes of all violations. Clients of gRPC take 8 KiB of metadata unless they are told more, and
#: these are sent in Base64.
_MAX_BYTES: Final = 3 * 1024
#: Characters of one field's path, and of what is wrong with it.
_MAX_FIELD: Final = 256
_MAX_DESCRIPTION: Final = 500


def bad_request(detail: str, problems: Sequence[FieldProblem]) -> Trailers:
    """Return the trailing metadata of a call that is refused because of these fields.

    What does not fit is left out, and a last violation of no field says how many those are.
    """
    found = BadRequest()
    for at, problem in enumerate(problems):
        found.field_violations.add(
            field=shortened(masked(problem.field), _MAX_FIELD),
            description=shortened(masked(problem.message), _MAX_DESCRIPTION),
        )
        if found.ByteSize() > _MAX_BYTES:
            del found.field_violations[-1]
            found.field_violations.add(description=f"{CUT} and {len(problems) - at} more")
            break
    message = detail if len(problems) == 1 else ""
    return trailers_with(grpc.StatusCode.INVALID_ARGUMENT, message, found)
