"""The driver: `python -m app.coordinator.driver`, told what to do on stdin.

It says one line of JSON on stdout, `{"problem": ""}` once it listens, or why it
cannot. It ends when its stdin does.
"""

import asyncio
import os
import sys
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Final

import grpc.aio
import orjson
import ray
from ray.autoscaler.sdk import request_resources

from app.coordinator.driver.node_host import NodeAgentHost
from app.coordinator.engines.ray.agents import RayAgents
from app.coordinator.engines.ray.driver_settings import DriverSettings
from app.coordinator.engines.ray.nodes import RayNodes
from app.coordinator.engines.ray.own_node import commands, why_not_joined
from app.coordinator.engines.ray.service import DriverService
from app.telemetry import logs
from app.telemetry.settings import TelemetrySettings
from generated.mindcoordinator.internal.v1 import engine_pb2_grpc

_MESSAGE: Final = 64 * 1024 * 1024


def main() -> int:
    """Run the driver."""
    # Whatever else is printed, as by a library, is no line of these.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.configure(TelemetrySettings(), out=told, for_good=True)
    settings = DriverSettings.decoded(sys.stdin.buffer.readline())
    # Of a driver that was killed.
    Path(settings.socket).unlink(missing_ok=True)
    try:
        ray.init(
            address=settings.address,
            namespace=settings.namespace,
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except Exception as error:  # whatever keeps it from the cluster: the coordinator says so
        reason = f"{type(error).__name__}: {error}."[:2000]
        _say(told, f"{reason} {why_not_joined(settings.address, commands())}".rstrip())
        return 1
    asyncio.run(_serve(settings, told))
    return 0


async def _serve(settings: DriverSettings, told: RawIOBase) -> None:
    loop = asyncio.get_running_loop()
    nodes = RayNodes(settings.nodes)
    # Or whoever asks first is told that a node is lost which this driver does not know yet.
    await nodes.look()
    service = DriverService(
        nodes=nodes,
        agents=RayAgents(nodes, namespace=settings.namespace, host=NodeAgentHost),
        request=lambda bundles: request_resources(bundles=bundles),
    )
    limits = [(f"grpc.max_{way}_message_length", _MESSAGE) for way in ("send", "receive")]
    server = grpc.aio.server(options=limits)
    engine_pb2_grpc.add_EngineDriverCoordinatorServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{settings.socket}")
    await server.start()
    _say(told, "")
    left = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), left.set)
    following = asyncio.create_task(nodes.follow(), name="nodes of Ray")
    leaving = asyncio.create_task(left.wait(), name="end of stdin")
    await asyncio.wait([following, leaving], return_when=asyncio.FIRST_COMPLETED)
    if following.done() and (error := following.exception()) is not None:
        sys.stderr.write(f"Ray cannot be asked: {error}\n")
    if leaving.done():
        # The coordinator has left, or was killed and removes nothing.
        _remove(Path(settings.socket))
    # Ray's own end takes seconds, and nothing is lost without it: all actors are detached.
    sys.stderr.flush()
    os._exit(1 if following.done() else 0)


def _remove(socket: Path) -> None:
    """Remove the socket, and its folder, which has nothing else."""
    with suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()


def _say(told: RawIOBase, problem: str) -> None:
    told.write(orjson.dumps({"problem": problem}) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
