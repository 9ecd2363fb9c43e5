"""What lies under every gateway: aiohttp that answers constant bytes, or with a bare gRPC call.

python -m scripts.bench.fanout_rig.floors constant|call PORT COORDINATOR
"""

import sys
from collections.abc import AsyncIterator

import grpc
import uvloop
from aiohttp import web

from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest
from scripts.bench.fanout_rig.workloads import JOB, SECRET, TENANT

_BODY = b'{"data":{}}'
_METADATA = (("x-api-secret", SECRET), ("x-tenant-id", TENANT))


def main() -> None:
    """Serve until the process is stopped."""
    kind, port, address = sys.argv[1:]
    app = web.Application()

    async def constant(request: web.Request) -> web.Response:
        return web.Response(body=_BODY, content_type="application/json")

    async def channel(app: web.Application) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(address) as opened:
            stub = MindCoordinatorStub(opened)

            async def call(request: web.Request) -> web.Response:
                await stub.GetJob(GetJobRequest(job_id=JOB), metadata=_METADATA)
                return web.Response(body=_BODY, content_type="application/json")

            calls.append(call)
            yield

    calls = [constant]
    if kind == "call":
        app.cleanup_ctx.append(channel)

    async def answer(request: web.Request) -> web.Response:
        return await calls[-1](request)

    app.router.add_get("/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
