"""Where a job fits: GPUs and their type and memory, cores, main memory, labels, names, gangs."""

import pytest

from app.coordinator.cluster.nodes import Cluster, GpuSpec, NodeSpec
from app.coordinator.jobs.model import Demand

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
    ("demand", "nodes"),
    [
        (Demand(gpus=2), {"l4"}),
        (Demand(gpus=1, gpu_type="A100"), {"mixed"}),
        (Demand(gpus=2, gpu_type="A100"), None),
        (Demand(gpus=1, gpu_memory=40 * GIB), {"mixed"}),
        (Demand(cpus=17), {"mixed"}),
        (Demand(cpus=33), None),
        (Demand(memory=65 * GIB), {"mixed"}),
        (Demand(gpus=1, selector=(("zone", "a"),)), {"mixed"}),
        (Demand(selector=(("zone", "b"),)), None),
        (Demand(gpus=1, node_ids=("mixed",)), {"mixed"}),
        (Demand(gpus=1, node_ids=("cpu",)), None),
        (Demand(nodes=2, gpus=1), {"l4", "mixed"}),
        (Demand(nodes=3), {"cpu", "l4", "mixed"}),
        (Demand(nodes=3, gpus=1), None),
        (Demand(nodes=2, gpus=1, gpu_type="A100"), None),
    ],
)
def test_where_a_demand_fits(demand: Demand, nodes: set[str] | None) -> None:
    empty = cluster()
    placement = empty.place(demand)
    assert (placement and {share.node_id for share in placement}) == nodes
    assert empty.could_ever(demand) == (nodes is not None)
    if placement is not None:
        empty.take("job", placement)
        empty.validate()
        for share in placement:
            types = {empty.nodes[share.node_id].spec.gpus[index].type for index in share.gpus}
            assert len(share.gpus) == demand.gpus
            assert not demand.gpu_type or types == {demand.gpu_type}
            assert (share.cpus, share.memory) == (demand.cpus, demand.memory)


@pytest.mark.parametrize(
    ("held", "demand"),
    [
        (Demand(gpus=2, node_ids=("l4",)), Demand(gpus=1, node_ids=("l4",))),
        (Demand(cpus=12, node_ids=("l4",)), Demand(cpus=5, node_ids=("l4",))),
        (Demand(memory=60 * GIB, node_ids=("l4",)), Demand(memory=5 * GIB, node_ids=("l4",))),
    ],
)
def test_what_is_taken_is_not_given_again_until_it_is_given_back(
    held: Demand, demand: Demand
) -> None:
    nodes = cluster()
    placement = nodes.place(held)
    assert placement is not None
    nodes.take("first", placement)
    assert nodes.place(demand) is None
    assert nodes.could_ever(demand)
    with pytest.raises(ValueError, match="twice"):
        nodes.take("first", placement)
    nodes.give_back("first", placement)
    assert nodes.place(demand) is not None
    nodes.validate()


def test_a_drained_node_is_given_to_nobody() -> None:
    nodes = cluster()
    nodes.nodes["l4"].drain = "dust"
    assert nodes.place(Demand(gpus=2, gpu_type="L4")) is None
    assert nodes.could_ever(Demand(gpus=2, gpu_type="L4"))


def test_who_asks_for_no_cores_uses_what_is_idle() -> None:
    full = cluster()
    cores = Demand(cpus=8, node_ids=("cpu",))
    idler = Demand(cpus=0, node_ids=("cpu",))
    placement = full.place(cores)
    assert placement is not None
    full.take("cores", placement)
    for number in range(8):
        placement = full.place(idler)
        assert placement is not None
        assert placement[0].cpus == 0
        full.take(f"idler-{number}", placement)
        full.validate()
    assert full.place(idler) is None, "there are never more of them than cores"
    full.give_back("idler-0", placement)
    assert full.place(idler) is not None
    assert full.place(cores) is None, "what they do without is not given twice"
    full.release_all()
    assert full.nodes["cpu"].idlers == 0


def test_who_asks_for_no_cores_goes_where_most_are_idle() -> None:
    twins = Cluster([NodeSpec(name, name, cpus=8, memory=GIB) for name in ("a", "b")])
    taken = twins.place(Demand(cpus=6, node_ids=("a",)))
    assert taken is not None
    twins.take("busy", taken)
    for node_id in ("b", "b", "b"):
        placement = twins.place(Demand(cpus=0))
        assert placement is not None
        assert placement[0].node_id == node_id
        twins.take(f"idler-{len(twins.nodes['b'].job_ids)}", placement)
    with_cores = twins.place(Demand(cpus=1))
    assert with_cores is not None
    assert with_cores[0].node_id == "a"
