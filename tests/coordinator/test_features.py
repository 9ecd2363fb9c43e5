"""What the coordinator announces: names of the contract, for what it does."""

import re
from pathlib import Path

from app.coordinator.service.features import FEATURES
from app.coordinator.service.service import Service
from generated.mindcoordinator.v1.cluster_pb2 import ClusterStatus, GetClusterStatusRequest
from tests.coordinator.harness import running

CONTRACT = Path(__file__).parents[2] / "proto/mindcoordinator/v1/cluster.proto"
#: The features that stand for a call.
CALLS = {
    "delete_job": "DeleteJob",
    "log_marks": "GetLogMarks",
    "log_search": "SearchJobLogs",
    "update_job": "UpdateJob",
    "watch_jobs": "WatchJobs",
}


def test_what_is_announced_is_named_in_the_contract() -> None:
    comment = CONTRACT.read_text().partition("repeated string features")[0].rpartition("\n\n")[2]
    named = set(re.findall(r"`([a-z_]+)`", comment))
    assert {*FEATURES, *CALLS} <= named
    assert list(FEATURES) == sorted(set(FEATURES))


def test_a_call_is_announced_exactly_if_it_is_served() -> None:
    classes = {
        feature: getattr(Service, call).__qualname__.partition(".")[0]
        for feature, call in CALLS.items()
    }
    served = {feature for feature, name in classes.items() if name != "MindCoordinatorServicer"}
    assert CALLS.keys() & set(FEATURES) == served


async def test_the_clusters_status_has_the_features(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        status: ClusterStatus = await client.call("GetClusterStatus", GetClusterStatusRequest())
    assert tuple(status.features) == FEATURES
