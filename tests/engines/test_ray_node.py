"""What a node of Ray is called here."""

from typing import Any

import pytest

from app.coordinator.engines.ray.driver_settings import GPU_LABEL, NODE_LABEL
from app.coordinator.engines.ray.node import RayNode, by_name, node_of
from app.coordinator.engines.ray.service import message_of


def row(label: str, *, ray_id: str = "ff", gpu: str = "", **resources: float) -> dict[str, Any]:
    """A row of Ray's table of nodes."""
    return {
        **{"Resources": {"CPU": 4.0, **resources}, "NodeName": "10.0.0.1"},
        **{"Labels": {NODE_LABEL: label, GPU_LABEL: gpu}},
        **{"NodeID": ray_id, "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "h"},
    }


def node(label: str, **about: Any) -> RayNode:
    found = node_of(row(label, **about))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("label", "name"),
    [("gpu-1.rack", "gpu-1.rack"), ("..", "-"), (".", "-"), ("../x", "--x"), ("a/b", "a-b")],
)
def test_a_label_is_the_name_of_a_folder_of_its_own(label: str, name: str) -> None:
    found = node_of(row(label))
    assert found is not None
    assert found.node_id == name


def test_a_long_name_is_cut_and_no_characters_of_others_are_in_it() -> None:
    assert node("n" * 5000).node_id == "n" * 63
    assert node("n,ö\n☃").node_id == "n----"


@pytest.mark.parametrize(
    "resources",
    [
        {"CPU": 1e9},
        {"CPU": float("inf")},
        {"CPU": float("nan")},
        {"CPU": -4.0},
        {"GPU": 1e6},
        {"GPU": -1.0},
        {"memory": 1e30},
        {"CPU": 0.0, "GPU": 1e300},
    ],
)
def test_a_node_that_says_what_no_machine_has_is_shown_and_takes_no_jobs(
    resources: dict[str, float],
) -> None:
    found = node("n1", **resources)
    (name,) = (each for each in resources if resources[each])
    assert found.problem.startswith(f"It was started with resources that no machine has: {name} ")
    # Or the coordinator would learn of no node at all.
    assert message_of(found).problem == found.problem
    assert not by_name([found], {})[0]["n1"].is_sound
    # Started anew as what it is, it is examined.
    again = by_name([node("n1")], {"n1": found})[0]["n1"]
    assert again.is_sound
    assert again.problem == "It is being examined."


@pytest.mark.parametrize("size", ["9" * 5000, "99999999999999999999", "١٢"])
def test_a_size_that_no_gpu_has_is_none(size: str) -> None:
    found = message_of(node("n1", gpu=f"A100-{size}GB", GPU=2.0))
    assert [gpu.memory_bytes for gpu in found.gpus] == [0, 0]
    assert message_of(node("n1", gpu="A100-80GB", GPU=1.0)).gpus[0].memory_bytes == 80 * 1024**3


def test_of_two_nodes_with_one_name_the_one_that_had_it_keeps_it() -> None:
    first, second = node("n1", ray_id="a"), node("n1", ray_id="b")
    assert by_name([first, second], {}) == ({"n1": first}, [second])
    known = {"n1": second}
    assert by_name([first, second], known) == ({"n1": second}, [first])
    assert by_name([second, first], known) == ({"n1": second}, [first])
    assert by_name([first], known) == ({"n1": first}, [])
