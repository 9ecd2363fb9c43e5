"""The plain way: an aiohttp-sse handler that opens an upstream stream per watcher.

What one writes first, with the same libraries and the same event loop as the
gateway. `python -m scripts.bench.fanout_rig.plain PORT COORDINATOR_ADDRESS`.
"""

import argparse
import json
from collections.abc import AsyncIterator

import grpc
import uvloop
from aiohttp import web
from aiohttp_sse import sse_response
from google.protobuf.json_format import MessageToDict

from generated.mindcoordinator.v1 import coordinator_pb2_grpc, watch_pb2
from scripts.bench.fanout_rig.workloads import SECRET, TENANT

# The async stub exists for the type checker only.
STUB: "web.AppKey[coordinator_pb2_grpc.MindCoordinatorAsyncStub]" = web.AppKey("stub")


async def logs(request: web.Request) -> web.StreamResponse:
    """Follows the log of one job from now on."""
    call = request.app[STUB].WatchJob(
        watch_pb2.WatchJobRequest(job_id=request.match_info["job_id"]),
        metadata=(("x-api-secret", SECRET), ("x-tenant-id", TENANT)),
    )
    try:
        first = await call.read()
        if not isinstance(first, watch_pb2.WatchJobResponse):
            raise web.HTTPBadGateway(text="the coordinator closed the stream")
        epoch = first.start.epoch
        async with sse_response(request) as response:
            while isinstance(batch := await call.read(), watch_pb2.WatchJobResponse):
                for entry in batch.logs:
                    data = MessageToDict(
                        entry,
                        preserving_proto_field_name=True,
                        always_print_fields_with_no_presence=True,
                    )
                    await response.send(json.dumps(data), id=f"{epoch}:{entry.offset}", event="log")
        return response
    finally:
        call.cancel()


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("coordinator")
    arguments = parser.parse_args()
    app = web.Application()

    async def channel(app: web.Application) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(arguments.coordinator) as channel:
            app[STUB] = coordinator_pb2_grpc.MindCoordinatorStub(channel)
            yield

    app.cleanup_ctx.append(channel)
    app.router.add_get("/jobs/{job_id}/logs", logs)
    web.run_app(
        app,
        host="127.0.0.1",
        port=arguments.port,
        loop=uvloop.new_event_loop(),
        access_log=None,
        print=None,
        shutdown_timeout=1,
    )


if __name__ == "__main__":
    main()
