"""Where a job fits: GPUs and their type and memory, cores, main memory, labels, names, gangs."""

import pytest

from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.jobs.model import ResourceRequest

GIB = 1024**3


def cluster() -> Cluster:
    return Cluster(
        [
            NodeSpec("cpu", "cpu", cpus=8, memory=64 * GIB, labels={"zone": "a"}),
            NodeSpec("l4", "l4", 16, 64 * GIB, (GpuSpec("L4", 24 * GIB),) * 2),
            NodeSpec(
                "mixed",
                "mixed",
                32,
                256 * GIB,
                (GpuSpec("L4", 24 * GIB), GpuSpec("A100", 80 * GIB)),
                labels={"zone": "a"},
            ),
        ]
    )


@pytest.mark.parametrize(
    ("resource_request", "nodes"),
    [
        (ResourceRequest(gpus=2), {"l4"}),
        (ResourceRequest(gpus=1, gpu_type="A100"), {"mixed"}),
        (ResourceRequest(gpus=2, gpu_type="A100"), None),
        (ResourceRequest(gpus=1, gpu_memory=40 * GIB), {"mixed"}),
        (ResourceRequest(cpus=17), {"mixed"}),
        (ResourceRequest(cpus=33), None),
        (ResourceRequest(memory=65 * GIB), {"mixed"}),
        (ResourceRequest(gpus=1, selector=(("zone", "a"),)), {"mixed"}),
        (ResourceRequest(selector=(("zone", "b"),)), None),
        (ResourceRequest(gpus=1, node_ids=("mixed",)), {"mixed"}),
        (ResourceRequest(gpus=1, node_ids=("cpu",)), None),
        (ResourceRequest(nodes=2, gpus=1), {"l4", "mixed"}),
        (ResourceRequest(nodes=3), {"cpu", "l4", "mixed"}),
        (ResourceRequest(nodes=3, gpus=1), None),
        (ResourceRequest(nodes=2, gpus=1, gpu_type="A100"), None),
    ],
)
def test_where_a_demand_fits(resource_request: ResourceRequest, nodes: set[str] | None) -> None:
    empty = cluster()
    placement = empty.place(resource_request)
    assert (placement and {allocation.node_id for allocation in placement}) == nodes
    assert empty.satisfiable(resource_request) == (nodes is not None)
    if placement is not None:
        empty.allocate("job", placement)
        empty.validate()
        for allocation in placement:
            types = {
                empty.nodes[allocation.node_id].spec.gpus[index].type for index in allocation.gpus
            }
            assert len(allocation.gpus) == resource_request.gpus
            assert not resource_request.gpu_type or types == {resource_request.gpu_type}
            assert (allocation.cpus, allocation.memory) == (
                resource_request.cpus,
                resource_request.memory,
            )


@pytest.mark.parametrize(
    ("held", "resource_request"),
    [
        (ResourceRequest(gpus=2, node_ids=("l4",)), ResourceRequest(gpus=1, node_ids=("l4",))),
        (ResourceRequest(cpus=12, node_ids=("l4",)), ResourceRequest(cpus=5, node_ids=("l4",))),
        (
            ResourceRequest(memory=60 * GIB, node_ids=("l4",)),
            ResourceRequest(memory=5 * GIB, node_ids=("l4",)),
        ),
    ],
)
def test_what_is_taken_is_not_given_again_until_it_is_given_back(
    held: ResourceRequest, resource_request: ResourceRequest
) -> None:
    nodes = cluster()
    placement = nodes.place(held)
    assert placement is not None
    nodes.allocate("first", placement)
    assert nodes.place(resource_request) is None
    assert nodes.satisfiable(resource_request)
    with pytest.raises(ValueError, match="twice"):
        nodes.allocate("first", placement)
    nodes.release("first", placement)
    assert nodes.place(resource_request) is not None
    nodes.validate()


def test_a_drained_node_is_given_to_nobody() -> None:
    nodes = cluster()
    nodes.nodes["l4"].drain = "dust"
    assert nodes.place(ResourceRequest(gpus=2, gpu_type="L4")) is None
    assert nodes.satisfiable(ResourceRequest(gpus=2, gpu_type="L4"))


def test_who_asks_for_no_cores_uses_what_is_idle() -> None:
    full = cluster()
    cores = ResourceRequest(cpus=8, node_ids=("cpu",))
    idler = ResourceRequest(cpus=0, node_ids=("cpu",))
    placement = full.place(cores)
    assert placement is not None
    full.allocate("cores", placement)
    for number in range(8):
        placement = full.place(idler)
        assert placement is not None
        assert placement[0].cpus == 0
        full.allocate(f"idler-{number}", placement)
        full.validate()
    assert full.place(idler) is None, "there are never more of them than cores"
    full.release("idler-0", placement)
    assert full.place(idler) is not None
    assert full.place(cores) is None, "what they do without is not given twice"
    full.release_all()
    assert full.nodes["cpu"].idlers == 0


def test_who_asks_for_no_cores_goes_where_most_are_idle() -> None:
    twins = Cluster([NodeSpec(name, name, cpus=8, memory=GIB) for name in ("a", "b")])
    taken = twins.place(ResourceRequest(cpus=6, node_ids=("a",)))
    assert taken is not None
    twins.allocate("busy", taken)
    for node_id in ("b", "b", "b"):
        placement = twins.place(ResourceRequest(cpus=0))
        assert placement is not None
        assert placement[0].node_id == node_id
        twins.allocate(f"idler-{len(twins.nodes['b'].job_ids)}", placement)
    with_cores = twins.place(ResourceRequest(cpus=1))
    assert with_cores is not None
    assert with_cores[0].node_id == "a"
