"""Bodies and queries of the cluster endpoints."""

from app.schemas.fields import Flag, Text
from app.schemas.jobs import PageQuery
from app.schemas.loading import Body


class ListNodesQuery(PageQuery):
    """`GET /cluster/nodes`."""

    status_filter = Text("A node status such as ONLINE; empty means all.", most=64, load_default="")


class DrainNodeSchema(Body):
    """`POST /cluster/nodes/{node_id}/drain`."""

    force = Flag(
        "Abort the jobs that run on the node; otherwise they may finish.", load_default=False
    )
    reason = Text("Reason, for people.", load_default="")


LIST_NODES_QUERY = ListNodesQuery()
DRAIN_NODE_BODY = DrainNodeSchema()
