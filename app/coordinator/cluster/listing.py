"""Pages of the list of nodes (AIP-158), and the size that a page may have."""

from dataclasses import dataclass
from typing import Final

from app.coordinator.cluster.messages import node_status
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.errors import all_problems, not_known
from generated.mindcoordinator.v1.cluster_pb2 import NodeStatus

_PREFIX: Final = "NODE_STATUS_"


@dataclass(frozen=True, slots=True)
class NodePage:
    """A page of nodes, by node id."""

    node_ids: list[str]
    next_page_token: str
    total_count: int


class NodePages:
    """The nodes of a cluster in pages; the token is the last node id of the page before."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def page(self, *, status_filter: str, page_size: int, page_token: str) -> NodePage:
        """A page. Raises InvalidArgument."""
        names = [name.removeprefix(_PREFIX) for name in NodeStatus.keys()[1:]]
        with all_problems() as problems:
            if status_filter and status_filter not in names:
                problems.add("status_filter", not_known(status_filter, names))
            if page_token and page_token not in self._cluster.nodes:
                problems.add("page_token", "it is not from a response to this request")
        chosen = sorted(
            node_id
            for node_id, node in self._cluster.nodes.items()
            if not status_filter or NodeStatus.Name(node_status(node)) == _PREFIX + status_filter
        )
        rest = [node_id for node_id in chosen if node_id > page_token]
        more = len(rest) > page_size
        rest = rest[:page_size]
        return NodePage(rest, rest[-1] if more else "", len(chosen))
