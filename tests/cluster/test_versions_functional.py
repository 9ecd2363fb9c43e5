"""Nodes and coordinators of other versions are refused, with both versions."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from app import __version__
from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.ray.driver_settings import DriverSettings
from app.coordinator.settings.coordinator import CoordinatorConfig
from generated.mindcoordinator.v1.cluster_pb2 import ListNodesRequest, NodeStatus
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import all_online, until

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
#: Runs what stands behind it as if this were another Ray, or another Python.
OTHER_RAY = "import ray; ray.__version__ = '2.1.0'"
OTHER_PYTHON = (
    "import ray, ray._private.utils as utils;"
    " utils.compute_version_info = lambda: (ray.__version__, '3.7.9')"
)
START = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"
DRIVE = "import runpy; runpy.run_module('app.coordinator.driver', run_name='__main__')"


async def test_a_node_with_another_version_of_this_project_takes_no_jobs(
    ray: RayCluster, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for name in ("app", "generated"):
        shutil.copytree(_ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    module = other / "app" / "__init__.py"
    module.write_text(module.read_text().replace(f'"{__version__}"', '"0.0.1"'))
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        await asyncio.to_thread(ray.start_worker, 4, PYTHONPATH=str(other))
        try:

            async def refused() -> bool:
                answer = await user.call("ListNodes", ListNodesRequest())
                return any(
                    node.node_id == "n4"
                    and node.status == NodeStatus.NODE_STATUS_OFFLINE
                    and "being examined" not in str(node)
                    for node in answer.nodes
                )

            await until("the node is refused", refused)
            answer = await user.call("ListNodes", ListNodesRequest(status_filter="OFFLINE"))
            (node,) = answer.nodes
            assert f"scaimind-gateway 0.0.1 there and {__version__} here" in str(node)
        finally:
            await asyncio.to_thread(ray.kill_worker, 4)


@pytest.mark.parametrize(
    ("patch", "version"), [(OTHER_RAY, "2.1.0"), (OTHER_PYTHON, "3.7.9")], ids=["ray", "python"]
)
async def test_a_node_with_another_ray_or_python_does_not_join(
    ray: RayCluster, patch: str, version: str
) -> None:
    def start() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                *(str(ray.python), "-c", f"{patch}; {START}", "start"),
                *("--address", ray.address, "--node-ip-address", ray.ip_of(5)),
            ],
            env=ray.environment(),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    done = await asyncio.to_thread(start)
    assert done.returncode != 0
    assert version in done.stdout + done.stderr
    assert await asyncio.to_thread(_own_version, ray, version) in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("patch", "version"), [(OTHER_RAY, "2.1.0"), (OTHER_PYTHON, "3.7.9")], ids=["ray", "python"]
)
async def test_a_driver_with_another_ray_or_python_says_so(
    ray: RayCluster, tmp_path: Path, patch: str, version: str
) -> None:
    config = CoordinatorConfig(api_secret="", data_dir=tmp_path)
    nodes = NodeSettings.of(config, directory=tmp_path / "nodes", isolation="landlock")
    settings = DriverSettings(str(tmp_path / "s"), ray.address, nodes)

    def drive() -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [str(ray.python), "-c", f"{patch}; {DRIVE}"],
            input=settings.encoded(),
            env={**ray.environment(), "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor"},
            capture_output=True,
            timeout=180,
            check=False,
        )

    done = await asyncio.to_thread(drive)
    problem = orjson.loads(done.stdout.splitlines()[-1])["problem"]
    assert version in problem
    assert await asyncio.to_thread(_own_version, ray, version) in problem


def _own_version(ray: RayCluster, other: str) -> str:
    """What the cluster has in place of the other version."""
    code = (
        "import ray; print(ray.__version__)"
        if other == "2.1.0"
        else "import platform; print(platform.python_version())"
    )
    done = subprocess.run(
        [str(ray.python), "-c", code],
        env={"PATH": os.defpath, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout.strip()
