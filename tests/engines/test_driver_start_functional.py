"""The driver's process in front of a stand-in for Ray."""

import os
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path

import pytest

from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.ray.driver_settings import NODE_LABEL, DriverSettings
from app.coordinator.engines.remote.calls import DriverAway
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.driver_process import DriverProcess
from app.coordinator.settings.coordinator import CoordinatorConfig
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef

_ROOT = Path(__file__).parents[2]
#: Its one node lives, though it takes a moment to say so, and more is printed than a pipe takes;
#: nothing can be done there.
_RAY = f"""
import time
from ray.exceptions import RayError

__version__ = "2"


class Away:
    def __getattr__(self, name):
        return self

    def __call__(self, *arguments, **options):
        return self

    def __await__(self):
        raise RayError("it is away")
        yield


init = kill = remote = Away()


def nodes():
    time.sleep(0.5)
    print("x" * 300_000, flush=True)
    return [
        {{
            "Alive": True,
            "NodeID": "f",
            "NodeName": "h",
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": "h",
            "Resources": {{"CPU": 4}},
            "Labels": {{"{NODE_LABEL}": "n1"}},
        }}
    ]
"""
_MODULES = {
    "__init__": _RAY,
    "exceptions": "class RayError(Exception):\n    pass\n",
    "util/__init__": "def list_named_actors():\n    return []\n",
    "util/scheduling_strategies": "def NodeAffinitySchedulingStrategy(node_id, soft):\n    pass\n",
    "autoscaler/__init__": "",
    "autoscaler/sdk": "def request_resources(bundles):\n    pass\n",
}


@pytest.fixture
def ray(tmp_path: Path) -> Path:
    """A folder with the stand-in."""
    for name, text in _MODULES.items():
        module = tmp_path / "modules" / "ray" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(text)
    return tmp_path / "modules"


async def test_a_driver_that_serves_knows_the_nodes(ray: Path, tmp_path: Path) -> None:
    """One that was started anew is asked at once: a node that it does not know counts as lost, and
    with it what runs there."""
    config = CoordinatorConfig(api_secret="", data_dir=tmp_path)
    nodes = NodeSettings.of(config, directory=tmp_path / "nodes", isolation="none")
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/s"
        driver = DriverProcess(
            "app.coordinator.driver",
            settings=DriverSettings(socket, "127.0.0.1:1", nodes).encoded(),
            environment={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join((str(ray), *sys.path, str(_ROOT))),
            },
            errors=tmp_path / "errors",
        )
        client = DriverClient(socket)
        await driver.start()
        try:
            with pytest.raises(DriverAway, match="RayError"):
                await client.open_run(RunRef(job_id="a", run=1, node_id="n1"))
            async with aclosing(client.nodes()) as messages:
                async for message in messages:
                    assert [node.node_id for node in message.nodes] == ["n1"]
                    break
        finally:
            await client.close()
            await driver.close()
