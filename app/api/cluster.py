"""The cluster and its nodes."""

from aiohttp import web

from app.api.access import requires
from app.api.bodies import read_object
from app.api.envelope import success
from app.api.keys import COORDINATOR, caller_of
from app.api.paths import NODE_ID
from app.auth.permissions import Permission
from app.schemas.cluster import DRAIN_NODE_BODY, LIST_NODES_QUERY
from app.schemas.loading import NO_BODY, NO_QUERY, load_body, load_query

routes = web.RouteTableDef()


@routes.get("/cluster")
@requires(Permission.VIEW)
async def get_cluster_status(request: web.Request) -> web.Response:
    """Read cluster-wide totals."""
    load_query(NO_QUERY, request.query)
    return success(await request.app[COORDINATOR].get_cluster_status(caller_of(request)))


@routes.get("/cluster/nodes")
@requires(Permission.VIEW)
async def list_nodes(request: web.Request) -> web.Response:
    """List the nodes."""
    query = load_query(LIST_NODES_QUERY, request.query)
    return success(await request.app[COORDINATOR].list_nodes(caller_of(request), **query))


@routes.get("/cluster/nodes/{node_id}")
@requires(Permission.VIEW)
async def get_node(request: web.Request) -> web.Response:
    """Fetch one node's full status."""
    load_query(NO_QUERY, request.query)
    return success(await request.app[COORDINATOR].get_node(caller_of(request), NODE_ID.of(request)))


@routes.post("/cluster/nodes/{node_id}/drain")
@requires(Permission.CLUSTER_ADMIN)
async def drain_node(request: web.Request) -> web.Response:
    """Stop scheduling new jobs onto a node."""
    load_query(NO_QUERY, request.query)
    body = load_body(DRAIN_NODE_BODY, await read_object(request, optional=True))
    return success(
        await request.app[COORDINATOR].drain_node(caller_of(request), NODE_ID.of(request), **body)
    )


@routes.post("/cluster/nodes/{node_id}/enable")
@requires(Permission.CLUSTER_ADMIN)
async def enable_node(request: web.Request) -> web.Response:
    """Take a drained or disabled node back into service."""
    load_query(NO_QUERY, request.query)
    load_body(NO_BODY, await read_object(request, optional=True))
    return success(
        await request.app[COORDINATOR].enable_node(caller_of(request), NODE_ID.of(request))
    )
