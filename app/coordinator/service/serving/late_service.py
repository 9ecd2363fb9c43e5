"""The service of a coordinator that does not lead yet: it says who does."""

from collections.abc import Callable
from typing import Any, Final, cast

from app.coordinator.errors import Unavailable
from app.coordinator.service.service import Service
from generated.mindcoordinator.v1 import coordinator_pb2, coordinator_pb2_grpc

_METHODS: Final = coordinator_pb2.DESCRIPTOR.services_by_name["MindCoordinator"].methods_by_name


class LateService:
    """Passes calls on once it has begun; until then they are UNAVAILABLE."""

    def __init__(self) -> None:
        #: Returns the address of the coordinator that leads; empty if it is not known.
        self.leader: Callable[[], str] = str
        self._service: Service | None = None

    @property
    def servicer(self) -> coordinator_pb2_grpc.MindCoordinatorServicer:
        """This, as a server takes it: its methods are made of the contract."""
        return cast(coordinator_pb2_grpc.MindCoordinatorServicer, self)

    def begin(self, service: Service) -> None:
        """Pass calls on from here on."""
        self._service = service

    def pass_on(self, method: str, request: Any, context: Any) -> Any:
        """Return what the service returns. Raises Unavailable."""
        if self._service is None:
            leader = self.leader()
            raise Unavailable(
                "this coordinator stands by; "
                + (f"the one at {leader} leads" if leader else "it does not know which one leads")
            )
        return getattr(self._service, method)(request, context)


def _passing_on(method: str) -> Callable[[LateService, Any, Any], Any]:
    def call(self: LateService, request: Any, context: Any) -> Any:
        return self.pass_on(method, request, context)

    return call


for _method in _METHODS:
    setattr(LateService, _method, _passing_on(_method))
