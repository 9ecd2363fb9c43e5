"""What Prometheus reads of a coordinator: jobs, queue, nodes and GPUs, and nobody's names."""

from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.coordinator.cluster.gpus import GpuMeter, GpuUse
from app.coordinator.cluster.node_specs import GpuSpec, NodeSpec
from app.coordinator.cluster.nodes import Cluster
from app.coordinator.scheduling.estimates import RunTimes
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.server import Coordinator
from app.coordinator.service.prometheus import registry_of
from app.coordinator.settings.coordinator import BadConfig
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import config_for, running
from tests.coordinator.scripts import WAITS

ANYWHERE = "127.0.0.1:0"
NODES = parse_virtual_nodes("a-1:4xA100-80GB")

Samples = dict[tuple[str, str], float]


def samples(text: str) -> Samples:
    """Values by name and by the values of the labels, joined."""
    return {
        (sample.name, "/".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(port: int) -> str:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        return await answer.text()


async def test_jobs_and_nodes_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path, metrics_address=ANYWHERE, virtual_nodes=NODES) as (
        coordinator,
        client,
    ):
        gpus = {"gpu_count": 3}
        job_id = await client.submit(WAITS, resource_config=gpus, name="a-name-of-theirs")
        await client.until_line(job_id, "ready")
        waiting = await client.submit(WAITS, resource_config=gpus)
        await client.call("DrainNode", DrainNodeRequest(node_id="local"))
        text = await scrape(coordinator.metrics_port)
        for each in (waiting, job_id):
            await client.call("CancelJob", CancelJobRequest(job_id=each))
        await client.end(job_id)
        after = samples(await scrape(coordinator.metrics_port))
    seen = samples(text)
    (node,) = (node.node_id for node in NODES)
    assert seen["scaimind_jobs", "TRAINING"] == seen["scaimind_jobs", "QUEUED"] == 1
    assert seen["scaimind_queue_jobs", ""] == 1
    assert seen["scaimind_queue_oldest_seconds", ""] >= 0
    assert seen["scaimind_node_gpus", node] == 4
    assert seen["scaimind_node_gpus_allocated", node] == 3
    assert seen["scaimind_node_jobs", node] == 1
    assert (seen["scaimind_node_draining", "local"], seen["scaimind_node_draining", node]) == (1, 0)
    assert seen["scaimind_process_resident_memory_bytes", ""] > 0
    assert not {"COMPLETED", "FAILED"} & {label for name, label in seen if name == "scaimind_jobs"}
    for theirs in ("a-name-of-theirs", job_id, "someone"):
        assert theirs not in text
    assert after["scaimind_node_gpus_allocated", node] == after["scaimind_queue_jobs", ""] == 0


class Meter(GpuMeter):
    """A driver that tells one thing of each of two GPUs."""

    def latest(self) -> dict[int, GpuUse]:
        return {0: GpuUse(0.25, None), 1: GpuUse(None, 7 << 30)}


def registry(meter: GpuMeter) -> CollectorRegistry:
    spec = NodeSpec("n", "n", 8, 1 << 34, (GpuSpec("A100", 80 << 30),) * 2)
    scheduler = Scheduler(cluster=Cluster([spec]), clock=lambda: 1, run_times=RunTimes())
    return registry_of(scheduler, meter, node_id="n", clock=lambda: 1)


def test_gpus_tell_what_can_be_measured() -> None:
    seen = samples(generate_latest(registry(Meter((0, 1)))).decode())
    assert seen["scaimind_gpu_utilization_ratio", "0/n"] == 0.25
    assert ("scaimind_gpu_utilization_ratio", "1/n") not in seen
    assert seen["scaimind_gpu_memory_used_bytes", "1/n"] == 7 << 30


def test_drivers_that_were_started_again_are_counted() -> None:
    scheduler = Scheduler(cluster=Cluster([]), clock=lambda: 1, run_times=RunTimes())
    made = registry_of(
        scheduler, Meter(()), node_id="n", clock=lambda: 1, engine_restarts=lambda: 3
    )
    seen = samples(generate_latest(made).decode())
    assert seen["scaimind_engine_driver_restarts_total", ""] == 3


def test_every_name_begins_with_scaimind() -> None:
    names = {name for name, _ in samples(generate_latest(registry(Meter((0, 1)))).decode())}
    assert {name.split("_")[0] for name in names} == {"scaimind"}


async def test_nothing_else_is_served(tmp_path: Path) -> None:
    async with (
        running(tmp_path, metrics_address=ANYWHERE) as (coordinator, _),
        aiohttp.ClientSession(f"http://127.0.0.1:{coordinator.metrics_port}") as http,
    ):
        async with http.get("/") as answer:
            assert answer.status == 404
        async with http.post("/metrics") as answer:
            assert answer.status == 405


async def test_it_is_off_unless_it_is_set(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, _):
        assert coordinator.metrics_port == 0


async def test_an_address_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    async with running(tmp_path / "one", metrics_address=ANYWHERE) as (first, _):
        taken = config_for(tmp_path / "two", metrics_address=f"127.0.0.1:{first.metrics_port}")
        with pytest.raises(BadConfig, match="METRICS_ADDRESS"):
            async with Coordinator(taken):
                pass
