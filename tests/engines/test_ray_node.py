"""What a node of Ray is called here."""

from typing import Any

import pytest

from app.coordinator.engines.ray.driver_settings import NODE_LABEL
from app.coordinator.engines.ray.node import node_of


def row(label: str) -> dict[str, Any]:
    """A row of Ray's table of nodes."""
    return {
        **{"Resources": {"CPU": 4.0}, "Labels": {NODE_LABEL: label}, "NodeName": "10.0.0.1"},
        **{"NodeID": "ff", "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "h"},
    }


@pytest.mark.parametrize(
    ("label", "name"),
    [("gpu-1.rack", "gpu-1.rack"), ("..", "-"), (".", "-"), ("../x", "--x"), ("a/b", "a-b")],
)
def test_a_label_is_the_name_of_a_folder_of_its_own(label: str, name: str) -> None:
    found = node_of(row(label))
    assert found is not None
    assert found.node_id == name
