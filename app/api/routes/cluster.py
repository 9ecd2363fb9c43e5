"""The cluster and its nodes."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR, caller_of
from app.api.endpoint import Operation, body_of, query_of
from app.api.envelope import success
from app.api.paths import NODE_ID
from app.api.reads.shared import answer_shared
from app.scaikey.permissions import Permission
from app.schemas.cluster import DRAIN_NODE_BODY, LIST_NODES_QUERY
from app.schemas.loading import NO_BODY
from app.telemetry.audit import Action

routes = web.RouteTableDef()


@routes.get("/cluster")
@requires(Permission.VIEW)
@Operation(rpc="GetClusterStatus")
async def get_cluster_status(request: web.Request) -> web.Response:
    """Get cluster-wide totals.

    The numbers of jobs are those of all tenants.
    """
    return await answer_shared(request, request.app[COORDINATOR].get_cluster_status)


@routes.get("/cluster/nodes")
@requires(Permission.VIEW)
@Operation(rpc="ListNodes", query=LIST_NODES_QUERY)
async def list_nodes(request: web.Request) -> web.Response:
    """List the nodes."""
    query, coordinator = query_of(request), request.app[COORDINATOR]
    return await answer_shared(request, lambda caller: coordinator.list_nodes(caller, **query))


@routes.get("/cluster/nodes/{node_id}")
@requires(Permission.VIEW)
@Operation(rpc="GetNode")
async def get_node(request: web.Request) -> web.Response:
    """Get a node's full status."""
    node_id, coordinator = NODE_ID.of(request), request.app[COORDINATOR]
    return await answer_shared(request, lambda caller: coordinator.get_node(caller, node_id))


@routes.post("/cluster/nodes/{node_id}/drain")
@requires(Permission.CLUSTER_ADMIN)
@Operation(rpc="DrainNode", body=DRAIN_NODE_BODY, body_optional=True, action=Action.NODE_DRAIN)
async def drain_node(request: web.Request) -> web.Response:
    """Stop scheduling new jobs on a node."""
    return success(
        await request.app[COORDINATOR].drain_node(
            caller_of(request), NODE_ID.of(request), **body_of(request)
        )
    )


@routes.post("/cluster/nodes/{node_id}/enable")
@requires(Permission.CLUSTER_ADMIN)
@Operation(rpc="EnableNode", body=NO_BODY, body_optional=True, action=Action.NODE_ENABLE)
async def enable_node(request: web.Request) -> web.Response:
    """Return a drained or disabled node to service."""
    return success(
        await request.app[COORDINATOR].enable_node(caller_of(request), NODE_ID.of(request))
    )
