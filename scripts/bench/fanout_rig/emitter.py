"""A coordinator that has one job, whose log grows at a rate; and a publisher of that log.

A process of its own, on the load's core.
`python -m scripts.bench.fanout_rig.emitter [--publish URL]` says `{"port": ...}`
when it serves gRPC on 127.0.0.1, and then obeys commands on stdin, each answered
with one JSON object a line:

- `start RATE`: lines per second from now on.
- `opened`: how many streams of a job, and of a tenant's states, were ever opened.
- `calls`: how many calls of GetJob there were.
- `pause`: no more lines until the next command; `last` is the number of the newest one.
- `emit COUNT`: so many lines at once; `last` as above.
- `stop`: no more lines; `last` is the number of the last one that was sent out.

Every line carries its number, dense from 1, and the time at which it was
appended to the log (CLOCK_MONOTONIC, ns). With `--publish` each line is also
sent to that URL, one POST a line, in order.
`--fault hole|double` spoils line 20, to show that the client finds out. A message of a
stream has at most `--batch` entries.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import orjson
import uvloop

from generated.mindcoordinator.v1 import jobs_pb2, watch_jobs_pb2, watch_pb2
from scripts.bench.fanout_rig.workloads import BATCH, JOB, SECRET, TENANT

EPOCH = "bench"
SERVICE = "mindcoordinator.v1.MindCoordinator"
#: Characters of a line.
LINE_SIZE = 200
#: How a line begins, and the digits of the time and of the number in it.
BEGIN, TIME_SIZE, NUMBER_SIZE = "fanout t=", 19, 10
#: Lines that become due within this time go out together, as the one-machine
#: coordinator and every sane log shipper do.
TICK = 0.004
#: Which line `--fault` spoils.
FAULT_LINE = 20
#: Most POSTs that are sent and not yet answered.
PIPELINED = 8
STARTED = time.time_ns()

Context = grpc.aio.ServicerContext[Any, Any]


def born_at(line: str) -> int:
    """When a line was appended: CLOCK_MONOTONIC, ns."""
    return int(line[len(BEGIN) : len(BEGIN) + TIME_SIZE])


class Log:
    """The job's log, in memory: append and read on by offset.

    An entry is kept as it stands in a message of a stream or a page, which have theirs under
    the same number: what sends them a hundred thousand times a second costs little beside
    what receives them.
    """

    def __init__(self, *, fault: str | None, batch: int = BATCH) -> None:
        self._batch = batch
        self.entries: list[bytes] = []
        self._message = watch_pb2.WatchJobResponse()
        self._entry = self._message.logs.add(
            level=watch_pb2.LOG_LEVEL_INFO, source="stdout", node_id="node-1"
        )
        self._fault = fault
        self._number = 0
        self._grown = asyncio.Event()

    @property
    def last_offset(self) -> int:
        """The offset of the newest entry; 0 when there is none."""
        return len(self.entries)

    @property
    def last_number(self) -> int:
        """The number that the newest line carries: its offset, unless there was a fault."""
        return self._number

    def append(self, count: int) -> None:
        """Adds lines that were read together, all born now, and wakes the readers."""
        entry, entries = self._entry, self.entries
        entry.timestamp.GetCurrentTime()
        # `client.c` knows the form of a line.
        begin = f"{BEGIN}{time.monotonic_ns():0{TIME_SIZE}d} n="
        end = " ".ljust(LINE_SIZE - len(begin) - NUMBER_SIZE, "x")
        for _ in range(count):
            self._number += 1
            if self._number == FAULT_LINE and self._fault == "hole":
                self._number += 1
            if self._number == FAULT_LINE + 1 and self._fault == "double":
                self._number, self._fault = FAULT_LINE, None
            entry.offset = len(entries) + 1
            entry.message = f"{begin}{self._number:0{NUMBER_SIZE}d}{end}"
            entries.append(self._message.SerializeToString())
        self._grown.set()
        self._grown = asyncio.Event()

    async def after(self, offset: int) -> list[bytes]:
        """The entries behind `offset`, at least one; waits for it."""
        while offset >= len(self.entries):
            await self._grown.wait()
        return self.entries[offset : offset + self._batch]

    async def grow(self, rate: int) -> None:
        """Appends `rate` lines a second, each when it is due, until cancelled."""
        started = time.monotonic()
        made = 0
        while True:
            due = int((time.monotonic() - started) * rate)
            if due > made:
                self.append(due - made)
                made = due
            next_due = started + (made + 1) / rate
            await asyncio.sleep(max(next_due - time.monotonic(), TICK))


class Coordinator:
    """What a gateway needs of a coordinator to serve one job's log, and `jobs` jobs at once.

    All but the one are quiet: their logs are empty.
    """

    def __init__(self, log: Log, *, jobs: int) -> None:
        self._log = log
        self._jobs = [JOB, *(f"{JOB}-quiet-{number}" for number in range(1, jobs))]
        #: Streams that were ever opened, by method.
        self.opened: Counter[str] = Counter()
        self.get_jobs = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods that are needed; all others are UNIMPLEMENTED."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetJob": grpc.unary_unary_rpc_method_handler(
                    self.get_job,
                    jobs_pb2.GetJobRequest.FromString,
                    jobs_pb2.Job.SerializeToString,
                ),
                "ListJobLogs": grpc.unary_unary_rpc_method_handler(
                    self.list_job_logs, watch_pb2.ListJobLogsRequest.FromString
                ),
                "ListJobs": grpc.unary_unary_rpc_method_handler(
                    self.list_jobs,
                    jobs_pb2.ListJobsRequest.FromString,
                    jobs_pb2.ListJobsResponse.SerializeToString,
                ),
                "WatchJobs": grpc.unary_stream_rpc_method_handler(
                    self.watch_jobs,
                    watch_jobs_pb2.WatchJobsRequest.FromString,
                    watch_jobs_pb2.WatchJobsResponse.SerializeToString,
                ),
                "WatchJob": grpc.unary_stream_rpc_method_handler(
                    self.watch_job, watch_pb2.WatchJobRequest.FromString
                ),
            },
        )

    async def get_job(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:
        """The one job, which trains for ever."""
        self.get_jobs += 1
        await self._admit(request.job_id, context)
        job = jobs_pb2.Job(
            job_id=JOB, tenant_id=TENANT, name=JOB, status=jobs_pb2.JOB_STATUS_TRAINING, revision=1
        )
        job.created_at.FromNanoseconds(STARTED)
        job.started_at.FromNanoseconds(STARTED)
        job.updated_at.FromNanoseconds(STARTED)
        return job

    async def list_jobs(
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        """No jobs: who asks wants to know whether it may."""
        await self._admit(JOB, context)
        return jobs_pb2.ListJobsResponse()

    async def watch_jobs(
        self, request: watch_jobs_pb2.WatchJobsRequest, context: Context
    ) -> AsyncIterator[watch_jobs_pb2.WatchJobsResponse]:
        """All jobs, which train for ever."""
        await self._admit(JOB, context)
        self.opened["WatchJobs"] += 1
        message = watch_jobs_pb2.WatchJobsResponse(
            start=watch_jobs_pb2.WatchJobsStart(epoch=EPOCH, reset=True), synced=len(self._jobs)
        )
        for version, job_id in enumerate(self._jobs, 1):
            state = watch_jobs_pb2.JobState(
                job_id=job_id, name=job_id, status=jobs_pb2.JOB_STATUS_TRAINING, revision=1
            )
            state.created_at.FromNanoseconds(STARTED)
            message.changes.append(watch_jobs_pb2.JobChange(version=version, job=state))
        yield message
        await asyncio.Event().wait()

    async def list_job_logs(self, request: watch_pb2.ListJobLogsRequest, context: Context) -> bytes:
        """A page of the log, as it is sent.

        All lines are INFO: no level leaves one out but WARNING and ERROR.
        """
        await self._admit(request.job_id, context)
        end = min(request.through_offset or self._log.last_offset, self._log.last_offset)
        passing = request.min_level <= watch_pb2.LOG_LEVEL_INFO
        if request.HasField("after"):
            if request.after.epoch != EPOCH:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another epoch")
            start = request.after.offset
        else:
            start = max(end - request.tail, 0) if passing else end
        stop = min(start + (request.page_size or BATCH), end)
        page = watch_pb2.ListJobLogsResponse(
            epoch=EPOCH,
            next_after_offset=max(stop, start),
            first_offset=min(1, self._log.last_offset),
            last_offset=self._log.last_offset,
        )
        entries = self._log.entries[start:stop] if passing else ()
        return b"".join((*entries, page.SerializeToString()))

    async def watch_job(
        self, request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """The log from where the request says, in the batches in which it grew, as it is sent."""
        await self._admit(request.job_id, context)
        self.opened["WatchJob"] += 1
        if request.job_id != JOB:
            yield watch_pb2.WatchJobResponse(
                start=watch_pb2.WatchStart(epoch=EPOCH, status=jobs_pb2.JOB_STATUS_TRAINING)
            ).SerializeToString()
            await asyncio.Event().wait()
        last = self._log.last_offset
        after = request.after
        if request.HasField("after") and after.epoch == EPOCH and after.offset <= last:
            offset = after.offset
        else:
            offset = max(last - request.tail, 0)
        yield watch_pb2.WatchJobResponse(
            start=watch_pb2.WatchStart(
                epoch=EPOCH,
                after_offset=offset,
                first_offset=min(1, last),
                last_offset=last,
                status=jobs_pb2.JOB_STATUS_TRAINING,
            )
        ).SerializeToString()
        while True:
            entries = await self._log.after(offset)
            offset += len(entries)
            yield b"".join(entries)

    async def _admit(self, job_id: str, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if metadata.get("x-api-secret") != SECRET:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong secret")
        if metadata.get("x-tenant-id") != TENANT or job_id not in self._jobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")


class Publisher:
    """Sends the log to an HTTP endpoint, one POST a line, in order over one connection.

    Requests are pipelined (RFC 9112 section 9.3.2), so that the endpoint does
    not wait for this process between two lines.
    """

    def __init__(self, log: Log, url: str) -> None:
        self._log = log
        self._url = urlsplit(url)
        self._stopping = False
        self._free = asyncio.Semaphore(PIPELINED)
        self.last_offset = 0

    async def run(self) -> None:
        """Publishes until told to `stop`; returns when all that was sent has been answered."""
        reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        head = f"POST {self._url.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        try:
            async with asyncio.TaskGroup() as tasks:
                answers = tasks.create_task(self._read_answers(reader), name="answers")
                while True:
                    await self._free.acquire()
                    [entry] = read((await self._log.after(self.last_offset))[:1])
                    if self._stopping:
                        break
                    body = frame_data(entry)
                    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
                    self.last_offset = entry.offset
                for _ in range(PIPELINED - 1):
                    await self._free.acquire()
                answers.cancel()
        finally:
            writer.close()

    def stop(self) -> None:
        """No line after those under way."""
        self._stopping = True

    async def _read_answers(self, reader: asyncio.StreamReader) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = head.split(b" ", 2)[1]
            if status not in (b"201", b"202"):
                raise RuntimeError(f"the publish endpoint answered {status.decode()}")
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            self._free.release()


def read(entries: list[bytes]) -> list[watch_pb2.LogEntry]:
    """Entries that are kept as the log keeps them."""
    return list(watch_pb2.WatchJobResponse.FromString(b"".join(entries)).logs)


def frame_data(entry: watch_pb2.LogEntry) -> bytes:
    """The same JSON that the gateway makes of an entry, so that all peers send like bytes."""
    return orjson.dumps(
        {
            "offset": entry.offset,
            "level": "INFO",
            "message": entry.message,
            "timestamp": entry.timestamp.ToJsonString(),
            "source": entry.source,
            "rank": entry.rank,
            "node_id": entry.node_id,
            "fields": {},
        }
    )


def say(**answer: int) -> None:
    """One answer to the driver."""
    print(orjson.dumps(answer).decode(), flush=True)


async def main(*, publish: str | None, fault: str | None, jobs: int, batch: int) -> None:
    """Serves until the end of stdin."""
    log = Log(fault=fault, batch=batch)
    server = grpc.aio.server()
    coordinator = Coordinator(log, jobs=jobs)
    server.add_generic_rpc_handlers((coordinator.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    say(port=port)

    publisher = Publisher(log, publish) if publish else None
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publisher.run(), name="publisher") if publisher else None
        growing: asyncio.Task[None] | None = None
        while words := (await commands.readline()).decode().split():
            if words[0] == "start":
                growing = tasks.create_task(log.grow(int(words[1])), name="grow")
                say(rate=int(words[1]))
            elif words[0] == "opened":
                say(
                    watch_job=coordinator.opened["WatchJob"],
                    watch_jobs=coordinator.opened["WatchJobs"],
                )
            elif words[0] == "calls":
                say(get_job=coordinator.get_jobs)
            elif words[0] == "pause":
                if growing:
                    growing.cancel()
                say(last=log.last_number)
            elif words[0] == "emit":
                log.append(int(words[1]))
                say(last=log.last_number)
            elif words[0] == "stop":
                if growing:
                    growing.cancel()
                if publisher and publishing:
                    publisher.stop()
                    log.append(1)
                    await publishing
                    say(last=publisher.last_offset)
                else:
                    say(last=log.last_number)
        if growing:
            growing.cancel()
        if publishing:
            publishing.cancel()
    await server.stop(None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish")
    parser.add_argument("--fault", choices=["hole", "double"])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=BATCH)
    uvloop.run(main(**vars(parser.parse_args())))
