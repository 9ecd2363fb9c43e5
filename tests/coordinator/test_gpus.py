"""GPUs by a driver that is not there: this machine's, where there is one, are not touched.

The seam is the module `pynvml`: what stands in for it answers as NVML does.
"""

import asyncio
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from app.coordinator.cluster import gpus
from app.coordinator.cluster.gpus import GpuMeter, GpuUse, Nvml
from app.coordinator.cluster.node_specs import GpuSpec
from app.coordinator.engines.local import launcher
from generated.mindcoordinator.v1.cluster_pb2 import GetNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest, MetricsSnapshot
from tests.coordinator.harness import PATIENCE, running, status_of

GIB = 1024**3

#: A `pynvml` with two GPUs; the second cannot tell how busy it is.
FAKE = """
from types import SimpleNamespace

class NVMLError(Exception):
    pass

def nvmlInit():
    pass

def nvmlDeviceGetCount():
    return 2

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetName(gpu):
    return "NVIDIA A100-SXM4-80GB"

def nvmlDeviceGetMemoryInfo(gpu):
    return SimpleNamespace(total=80 * 2**30, used=(gpu + 1) * 2**30)

def nvmlDeviceGetUtilizationRates(gpu):
    if gpu == 1:
        raise NVMLError("Not Supported")
    return SimpleNamespace(gpu=75, memory=10)
"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Two GPUs for this process."""
    module = ModuleType("pynvml")
    exec(FAKE, module.__dict__)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_gpus_are_found_by_the_driver(driver: ModuleType) -> None:
    nvml = Nvml.open()
    assert nvml is not None
    assert nvml.specs() == (GpuSpec("A100-SXM4-80GB", 80 * GIB),) * 2
    assert nvml.use(0) == GpuUse(0.75, GIB)
    assert nvml.use(1) == GpuUse(None, 2 * GIB)


def test_without_a_driver_there_are_no_gpus(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise driver.NVMLError("NVML Shared Library Not Found")

    driver.nvmlInit = missing
    assert Nvml.open() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml.open() is None


def test_a_driver_that_fails_has_no_gpus_to_offer(driver: Any) -> None:
    def lost(index: int) -> None:
        raise driver.NVMLError("GPU is lost")

    driver.nvmlDeviceGetHandleByIndex = lost
    nvml = Nvml.open()
    assert nvml is not None
    assert nvml.specs() == ()
    assert nvml.use(0) == GpuUse(None, None)


def meter_with(sample: dict[int, GpuUse], monkeypatch: pytest.MonkeyPatch) -> GpuMeter:
    """A meter that has taken its first sample."""
    asked = []
    taken = threading.Event()

    def use(index: int) -> GpuUse:
        asked.append(index)
        if len(asked) > len(sample):
            taken.set()
        return sample[index]

    monkeypatch.setattr(gpus, "INTERVAL", 0.001)
    meter = GpuMeter(sample, nvml=lambda: SimpleNamespace(use=use))  # type: ignore[arg-type,return-value]  # stands in
    meter.start()
    assert taken.wait(60)
    return meter


def test_a_snapshot_gets_the_mean_use_and_the_memory_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter = meter_with({2: GpuUse(0.5, GIB), 3: GpuUse(1.0, 3 * GIB)}, monkeypatch)
    snapshot = MetricsSnapshot(step=1)
    meter.fill_in(snapshot)
    assert snapshot.gpu_utilization == 0.75
    assert snapshot.gpu_memory_bytes == 4 * GIB
    own = MetricsSnapshot(step=1, gpu_utilization=0.1, gpu_memory_bytes=5)
    meter.fill_in(own)
    assert (own.gpu_utilization, own.gpu_memory_bytes) == (0.1, 5)
    meter.close()
    monkeypatch.setattr(gpus, "_STALE", 0.0)
    assert meter.latest() == {}


def test_what_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = meter_with({0: GpuUse(None, None)}, monkeypatch)
    snapshot = MetricsSnapshot(step=1)
    meter.fill_in(snapshot)
    assert snapshot == MetricsSnapshot(step=1)
    meter.close()


def test_without_gpus_the_driver_is_not_asked() -> None:
    def never() -> Nvml | None:
        raise AssertionError("asked")

    meter = GpuMeter((), nvml=never)
    meter.start()
    assert meter.latest() == {}
    meter.close()


def test_a_driver_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def stuck() -> None:
        hangs.wait()

    monkeypatch.setattr(gpus, "INTERVAL", 0.01)
    meter = GpuMeter([0], nvml=stuck)
    meter.start()
    snapshot = MetricsSnapshot(step=1)
    meter.fill_in(snapshot)
    assert not snapshot.HasField("gpu_utilization")
    meter.close()
    hangs.set()


async def test_a_job_with_gpus_is_measured(
    tmp_path: Path, driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "pynvml.py").write_text(FAKE)
    monkeypatch.setattr(launcher, "_PACKAGE_ROOT", f"{fake}:{launcher._PACKAGE_ROOT}")
    script = """
        import json, os, time
        print(os.environ["CUDA_DEVICE_ORDER"], os.environ["CUDA_VISIBLE_DEVICES"])
        for step in range(1, int(os.environ["STEPS"]) + 1):
            with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as metrics:
                metrics.write(json.dumps({"step": step}) + "\\n")
            time.sleep(0.02)
    """
    async with running(tmp_path / "data") as (_, client):
        job_id = await client.submit(
            script,
            training_config={"environment": {"STEPS": "10000"}},
            resource_config={"gpu_count": 1},
        )
        async with asyncio.timeout(PATIENCE):
            async for message in client.watch(job_id):
                if any(point.HasField("gpu_utilization") for point in message.metrics):
                    break
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert any(entry.message == "PCI_BUS_ID 0" for entry in await client.log(job_id))
        metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=job_id))
        assert metrics.points[-1].gpu_utilization == 0.75
        assert metrics.points[-1].gpu_memory_bytes == GIB

        node = await client.call("GetNode", GetNodeRequest(node_id="local"))
        assert (node.total_gpus, node.gpu_type) == (2, "A100-SXM4-80GB")
        assert node.gpus[0].utilization == 0.75
        assert not node.gpus[1].HasField("utilization")
        assert [gpu.memory_used_bytes for gpu in node.gpus] == [GIB, 2 * GIB]

        plain = await client.submit(script, training_config={"environment": {"STEPS": "5"}})
        assert status_of(await client.end(plain)) == "COMPLETED"
        metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=plain))
        assert len(metrics.points) == 5
        assert not any(point.HasField("gpu_utilization") for point in metrics.points)
