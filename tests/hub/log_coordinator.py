"""A coordinator that serves the logs of jobs from memory, and misbehaves when told to."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from app.log_filter import LogFilter
from generated.mindcoordinator.v1 import coordinator_pb2_grpc, jobs_pb2, logs_pb2, watch_pb2
from tests.ports import free_ports

Context = grpc.aio.ServicerContext[Any, Any]
#: What a WatchJob of a coordinator with a fault does.
StandIn = Callable[[watch_pb2.WatchJobRequest, Context], AsyncIterator[watch_pb2.WatchJobResponse]]
#: What a SearchJobLogs does in place of sending what is there to be found.
SearchStandIn = Callable[
    [logs_pb2.SearchJobLogsRequest, Context], AsyncIterator[logs_pb2.SearchJobLogsResponse]
]
JOB = "job-1"
#: A status and its detail.
Refusal: TypeAlias = tuple[grpc.StatusCode, str]
M = TypeVar("M", bound=Message)


@dataclass
class JobLog:
    """One job: its log, its newest metrics and whether it has ended."""

    epoch: str = "e1"
    entries: list[watch_pb2.LogEntry] = field(default_factory=list)
    first: int = 1
    status: jobs_pb2.JobStatus.ValueType = jobs_pb2.JOB_STATUS_TRAINING
    snapshot: watch_pb2.MetricsSnapshot | None = None
    #: How many snapshots there were, if the newest does not tell.
    points: int = 0
    ended: bool = False
    #: Offsets of entries that are damaged.
    lost: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        return len(self.entries)


class Lie(Protocol):
    """Changes a message before it is sent, or not."""

    def __call__(self, method: str, number: int, message: M) -> M: ...


def honest(method: str, number: int, message: M) -> M:
    """Leave it as it is."""
    return message


class LogCoordinator(coordinator_pb2_grpc.MindCoordinatorServicer):
    """Use as an async context manager; `address` stays the same over `stop` and `start`."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobLog] = defaultdict(JobLog)
        self.tenants: dict[str, str] = {}
        self.address = ""
        #: The metadata of each call, with its method.
        self.metadata: list[tuple[str, dict[str, str]]] = []
        #: WatchJob calls that are open, and that were ever opened.
        self.open_watches = 0
        self.watches = 0
        self.reads: list[watch_pb2.ListJobLogsRequest] = []
        #: Whether it knows filters, and reads backward.
        self.filters = True
        #: Stands in for every page.
        self.page: watch_pb2.ListJobLogsResponse | None = None
        #: Cleared, it holds back the answers of ListJobLogs.
        self.answering = asyncio.Event()
        self.answering.set()
        #: What GetJob says of jobs, and how often it was asked for each.
        self.messages: dict[str, str] = {}
        self.reads_of: Counter[str] = Counter()
        #: Aborts calls by method name.
        self.refusals: dict[str, Refusal] = {}
        #: Sent as they are by the next WatchJob in place of what it would send; a status ends it.
        self.script: Sequence[watch_pb2.WatchJobResponse | Refusal] | None = None
        #: Stands in for every WatchJob.
        self.stand_in: StandIn | None = None
        #: Changes what is answered: the method, how many messages the call has sent, the message.
        self.lie: Lie = honest
        #: What a search brings; a status ends it.
        self.found: Sequence[logs_pb2.SearchJobLogsResponse | Refusal] = ()
        self.search_stand_in: SearchStandIn | None = None
        self.searches: list[logs_pb2.SearchJobLogsRequest] = []
        self.batch = 500
        #: Notified at every change.
        self.changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        coordinator_pb2_grpc.add_MindCoordinatorServicer_to_server(self, server)
        self.address = self.address or f"127.0.0.1:{free_ports(1)[0]}"
        server.add_insecure_port(self.address)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Break everything off, as a crash does."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def log(
        self,
        *messages: str,
        level: watch_pb2.LogLevel.ValueType = watch_pb2.LOG_LEVEL_INFO,
        job: str = JOB,
    ) -> None:
        """Append entries."""
        log = self.jobs[job]
        now = Timestamp()
        now.GetCurrentTime()
        for message in messages:
            log.entries.append(
                watch_pb2.LogEntry(offset=log.last + 1, level=level, message=message, timestamp=now)
            )
        await self._notify()

    async def until_read(self, job: str, count: int) -> None:
        """Wait until GetJob was asked so often for a job."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.reads_of[job] >= count)

    async def until_watches(self, count: int) -> None:
        """Wait until so many WatchJob calls are open."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.open_watches == count)

    async def snapshot(self, sequence: int, job: str = JOB, **values: Any) -> None:
        """Make this the newest metrics snapshot."""
        self.jobs[job].snapshot = watch_pb2.MetricsSnapshot(
            sequence=sequence, step=sequence, **values
        )
        await self._notify()

    async def end(
        self, job: str = JOB, status: jobs_pb2.JobStatus.ValueType = jobs_pb2.JOB_STATUS_COMPLETED
    ) -> None:
        log = self.jobs[job]
        log.status, log.ended = status, True
        await self._notify()

    async def recreate(self, epoch: str, job: str = JOB) -> None:
        """Lose the log and begin another one."""
        self.jobs[job] = JobLog(epoch=epoch)
        await self._notify()

    async def until(self, watches: int) -> None:
        """Wait until this many WatchJob calls are open."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.open_watches == watches)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # The service

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:
        self.reads_of[request.job_id] += 1
        await self._notify()
        await self._admit("GetJob", request.job_id, context)
        job = jobs_pb2.Job(
            job_id=request.job_id,
            status=self.jobs[request.job_id].status,
            message=self.messages.get(request.job_id, ""),
        )
        return self.lie("GetJob", 0, job)

    async def ListJobLogs(
        self, request: watch_pb2.ListJobLogsRequest, context: Context
    ) -> watch_pb2.ListJobLogsResponse:
        await self._admit("ListJobLogs", request.job_id, context)
        self.reads.append(request)
        await self._notify()
        await self.answering.wait()
        if self.page is not None:
            return self.page
        log = self.jobs[request.job_id]
        through = min(request.through_offset or log.last, log.last)
        size = request.page_size or 1000
        passes = self._filter(request)
        if request.before_offset and self.filters:
            return self.lie("ListJobLogs", 0, self._page_before(log, request, passes, size))
        if request.HasField("after"):
            if request.after.epoch != log.epoch:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not this log's epoch")
            after = request.after.offset
        else:
            passing = [
                each.offset
                for each in log.entries[log.first - 1 : through]
                if each.level >= request.min_level and each.offset not in log.lost
            ][-request.tail :]
            after = passing[0] - 1 if request.tail and passing else through
        place = max(after, log.first - 1)
        entries: list[watch_pb2.LogEntry] = []
        while place < through and len(entries) < size:
            entry = log.entries[place]
            place += 1
            if passes(entry) and entry.offset not in log.lost:
                entries.append(entry)
        page = watch_pb2.ListJobLogsResponse(
            epoch=log.epoch,
            entries=entries,
            next_after_offset=place,
            first_offset=log.first if log.entries else 0,
            last_offset=log.last,
            complete=log.ended,
        )
        return self.lie("ListJobLogs", 0, page)

    def _filter(
        self, request: watch_pb2.ListJobLogsRequest
    ) -> Callable[[watch_pb2.LogEntry], bool]:
        """What passes; an older coordinator knows no more than the level."""
        given = request.filter if self.filters else watch_pb2.LogFilter()
        log_filter = LogFilter(
            min_level=max(request.min_level, given.min_level),
            ranks=frozenset(given.ranks),
            sources=frozenset(given.sources),
            contains=given.contains,
            matches=given.matches,
            since=given.since.ToNanoseconds() if given.HasField("since") else None,
            until=given.until.ToNanoseconds() if given.HasField("until") else None,
        )
        return lambda entry: log_filter.passes(
            level=entry.level,
            message=entry.message,
            source=entry.source,
            rank=entry.rank,
            timestamp_ns=entry.timestamp.ToNanoseconds(),
        )

    @staticmethod
    def _page_before(
        log: JobLog,
        request: watch_pb2.ListJobLogsRequest,
        passes: Callable[[watch_pb2.LogEntry], bool],
        size: int,
    ) -> watch_pb2.ListJobLogsResponse:
        place = min(request.before_offset, log.last + 1)
        entries: list[watch_pb2.LogEntry] = []
        while place > log.first and len(entries) < size:
            place -= 1
            entry = log.entries[place - 1]
            if passes(entry) and entry.offset not in log.lost:
                entries.append(entry)
        return watch_pb2.ListJobLogsResponse(
            epoch=log.epoch,
            entries=reversed(entries),
            next_before_offset=place if place > log.first else 1,
            first_offset=log.first if log.entries else 0,
            last_offset=log.last,
            complete=log.ended,
        )

    async def GetJobMetrics(
        self, request: watch_pb2.GetJobMetricsRequest, context: Context
    ) -> watch_pb2.GetJobMetricsResponse:
        await self._admit("GetJobMetrics", request.job_id, context)
        log = self.jobs[request.job_id]
        newest = 0 if log.snapshot is None else log.snapshot.sequence
        answer = watch_pb2.GetJobMetricsResponse(
            job_id=request.job_id, total_points=max(newest, log.points)
        )
        return self.lie("GetJobMetrics", 0, answer)

    async def SearchJobLogs(
        self, request: logs_pb2.SearchJobLogsRequest, context: Context
    ) -> AsyncIterator[logs_pb2.SearchJobLogsResponse]:
        await self._admit("SearchJobLogs", request.job_id, context)
        self.searches.append(request)
        if self.search_stand_in is not None:
            async for message in self.search_stand_in(request, context):
                yield message
            return
        for found in self.found:
            if isinstance(found, tuple):
                await context.abort(*found)
            yield found

    async def WatchJob(
        self, request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[watch_pb2.WatchJobResponse]:
        await self._admit("WatchJob", request.job_id, context)
        with self._counted():
            if self.script is not None:
                script, self.script = self.script, None
                for message in script:
                    if isinstance(message, tuple):
                        await context.abort(*message)
                    yield message
                return
            watch = self._watch if self.stand_in is None else self.stand_in
            number = 0
            async for message in watch(request, context):
                yield self.lie("WatchJob", number, message)
                number += 1

    async def _watch(
        self, request: watch_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[watch_pb2.WatchJobResponse]:
        log = self.jobs[request.job_id]
        place = max(log.last - request.tail, log.first - 1)
        after = request.after
        if request.HasField("after") and after.epoch == log.epoch and after.offset <= log.last:
            place = max(after.offset, log.first - 1)
        yield watch_pb2.WatchJobResponse(
            start=watch_pb2.WatchStart(
                epoch=log.epoch,
                after_offset=place,
                first_offset=log.first if log.entries else 0,
                last_offset=log.last,
                status=log.status,
            )
        )
        sequence = request.after_metrics_sequence
        while True:
            entries: Sequence[watch_pb2.LogEntry] = log.entries[place : place + self.batch]
            place += len(entries)
            sound = [entry for entry in entries if entry.offset not in log.lost]
            message = watch_pb2.WatchJobResponse(logs=sound)
            snapshot = log.snapshot
            if snapshot is not None and snapshot.sequence > sequence:
                sequence = snapshot.sequence
                message.metrics.append(snapshot)
            done = log.ended and place == log.last
            if done:
                message.end.CopyFrom(watch_pb2.WatchEnd(status=log.status, last_offset=log.last))
            if message.ByteSize():
                yield message
            if done:
                return
            async with self.changed:
                await self.changed.wait_for(partial(self._news, log, place, sequence))

    @staticmethod
    def _news(log: JobLog, place: int, sequence: int) -> bool:
        newest = 0 if log.snapshot is None else log.snapshot.sequence
        return log.last > place or newest > sequence or log.ended

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.watches += 1
        self.open_watches += 1
        self._soon()
        try:
            yield
        finally:
            self.open_watches -= 1
            self._soon()

    def _soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify(), name="notify")
        self._notifications = task

    async def _admit(self, method: str, job_id: str, context: Context) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.metadata.append((method, metadata))
        if method in self.refusals:
            code, detail = self.refusals[method]
            await context.abort(code, detail)
        tenant = metadata["x-tenant-id"]
        if self.tenants.get(job_id, tenant) != tenant or job_id not in self.jobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")


@asynccontextmanager
async def one_job() -> AsyncIterator[LogCoordinator]:
    """A coordinator that runs and has the job `JOB`."""
    # What it does not serve is UNIMPLEMENTED, as generated.
    async with LogCoordinator() as running:  # type: ignore[abstract]
        running.jobs[JOB]
        yield running
