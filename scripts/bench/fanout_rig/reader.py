"""What lies under every feed: a bare grpc.aio call that reads the job's stream, and counts.

A process of its own: `python -m scripts.bench.fanout_rig.reader COORDINATOR` says
`{"read": 0}` when its stream has begun, and obeys one command on stdin:

- `read COUNT`: answers once it has read so many entries in all.
"""

import asyncio
import sys

import grpc
import orjson
import uvloop

from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.watch_pb2 import WatchJobRequest, WatchJobResponse
from scripts.bench.fanout_rig.workloads import JOB, SECRET, TENANT


async def main(address: str) -> None:
    """Read until stdin ends."""
    metadata = (("x-api-secret", SECRET), ("x-tenant-id", TENANT))
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    count = 0
    async with grpc.aio.insecure_channel(address) as channel:
        call = MindCoordinatorStub(channel).WatchJob(WatchJobRequest(job_id=JOB), metadata=metadata)
        await call.read()
        _say(count)
        while words := (await commands.readline()).split():
            while count < int(words[1]):
                message = await call.read()
                assert isinstance(message, WatchJobResponse), "the stream ended"
                count += len(message.logs)
            _say(count)


def _say(count: int) -> None:
    print(orjson.dumps({"read": count}).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
