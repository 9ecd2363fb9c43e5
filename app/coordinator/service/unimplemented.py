"""Calls of the contract that this coordinator does not serve: each is UNIMPLEMENTED.

A call leaves this module when it is served.
"""

from typing_extensions import override

from app.coordinator.errors import NotImplementedHere
from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context
from generated.mindcoordinator.v1 import logs_pb2


class UnimplementedCalls(Calls):
    """Refuses each of these calls."""

    @override
    async def GetLogMarks(
        self, request: logs_pb2.GetLogMarksRequest, context: Context
    ) -> logs_pb2.LogMarks:
        raise _refusal("GetLogMarks")


def _refusal(call: str) -> NotImplementedHere:
    return NotImplementedHere(f"this coordinator does not implement {call}")
