"""The queue."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR
from app.api.endpoint import Operation, query_of
from app.api.reads.shared import answer_shared
from app.scaikey.permissions import Permission
from app.schemas.queue import QUEUE_QUERY

routes = web.RouteTableDef()


@routes.get("/queue")
@requires(Permission.VIEW)
@Operation(rpc="GetQueueStatus", query=QUEUE_QUERY)
async def get_queue_status(request: web.Request) -> web.Response:
    """Get the queue's depth, and a page of the waiting jobs: why each waits, and for how long."""
    query, coordinator = query_of(request), request.app[COORDINATOR]
    return await answer_shared(
        request, lambda caller: coordinator.get_queue_status(caller, **query)
    )
