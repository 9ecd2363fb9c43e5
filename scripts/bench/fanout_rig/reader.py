"""What lies under every feed: a bare grpc.aio call that reads the job's stream, and counts.

A process of its own: `python -m scripts.bench.fanout_rig.reader COORDINATOR` says
`{"read": 0}` when its stream has begun, and obeys two commands on stdin:

- `read COUNT`: answers once it has read so many entries in all.
- `follow SECONDS`: reads for so long; answers the median latency of the entries, from their birth.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from statistics import median

import grpc
import orjson
import uvloop

from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, WatchJobRequest, WatchJobResponse
from scripts.bench.fanout_rig.emitter import born_at
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
        _say(read=count)

        async def read() -> Sequence[LogEntry]:
            message = await call.read()
            assert isinstance(message, WatchJobResponse), "the stream ended"
            return message.logs

        while words := (await commands.readline()).split():
            if words[0] == b"read":
                while count < int(words[1]):
                    count += len(await read())
                _say(read=count)
                continue
            ends, latencies = time.monotonic() + float(words[1]), [0]
            while time.monotonic() < ends:
                entries = await read()
                count += len(entries)
                now = time.monotonic_ns()
                latencies += [now - born_at(each.message) for each in entries]
            _say(read=count, p50_us=round(median(latencies) / 1000))


def _say(**answer: int) -> None:
    print(orjson.dumps(answer).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
