"""Who makes a call."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    # Generic in the stubs, not at run time.
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any] | None
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler | None


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls, by the metadata of the call."""

    tenant_id: str
    user_id: str
