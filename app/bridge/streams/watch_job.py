"""The hub's upstream: a job's stream and its log, read from the coordinator."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import Message
from typing_extensions import override

from app.bridge.calls.log_filters import filter_message
from app.bridge.client import CoordinatorClient
from app.bridge.contract.answers import check_answer
from app.bridge.contract.breaches import Breach, ReportBreach, log_breach
from app.bridge.contract.logs import StreamCheck, check_page
from app.bridge.converters import converter_of
from app.bridge.metadata import call_metadata
from app.bridge.observed_call import Observe, observed
from app.bridge.sent import Asked
from app.bridge.settings import UpstreamSettings
from app.bridge.streams.json_lines import one_line
from app.caller import Caller
from app.errors import BrokenContract
from app.hub.upstream import (
    Batch,
    End,
    JobKey,
    LogPage,
    LogRecord,
    Position,
    Snapshot,
    Start,
    StatusChange,
    Upstream,
)
from app.log_filter import LogFilter
from app.telemetry.tracing import NoTracer, Tracer
from generated.mindcoordinator.v1 import watch_pb2
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    GetJobMetricsResponse,
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogEntry,
    LogLevel,
    LogPosition,
    MetricsSnapshot,
    WatchJobRequest,
    WatchJobResponse,
)

if TYPE_CHECKING:
    from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorAsyncStub

_entry = converter_of(LogEntry)
_snapshot = converter_of(MetricsSnapshot)
_change = converter_of(watch_pb2.StatusChange)


class WatchClient(Upstream):
    """`app.hub.Upstream` over a channel that somebody else owns and closes.

    The calls are the tenant's, not a user's: who may watch is asked before,
    with `authorize`. They carry the request of the watcher that caused them.
    """

    #: Entries of a page; at 250 bytes a line, a page is about as long as a socket buffer.
    PAGE_SIZE = 1000
    #: Of those, how many are converted at a time: some 0.5 ms.
    SLICE = 100

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        client: CoordinatorClient,
        settings: UpstreamSettings,
        observe: Observe,
        tracer: Tracer | None = None,
        report: ReportBreach = log_breach,
    ) -> None:
        self._stub: MindCoordinatorAsyncStub = MindCoordinatorStub(channel)
        self._client = client
        self._settings = settings
        self._observe = observe
        self._tracer = tracer or NoTracer()
        self._report = report
        #: Pages are converted one after the other: live entries wait for a slice, not for all.
        self._converting = asyncio.Lock()

    @override
    async def authorize(self, caller: Caller, job_id: str) -> None:
        await self._client.get_job(caller, job_id)

    @override
    async def watch(
        self,
        key: JobKey,
        *,
        after: Position | None,
        tail: int,
        after_sequence: int,
        request_id: str,
    ) -> AsyncGenerator[Batch, None]:
        request = WatchJobRequest(
            job_id=key.job_id,
            after=None if after is None else LogPosition(epoch=after.epoch, offset=after.offset),
            tail=tail,
            after_metrics_sequence=after_sequence,
        )
        metadata, check = self._metadata(key, request_id), StreamCheck(request)
        with observed(
            "WatchJob",
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=self._asked(request),
            stream=True,
        ) as traced:
            # No deadline: it would bound the stream's whole life.
            call = self._stub.WatchJob(request, metadata=metadata + traced)
            try:
                async for message in call:
                    yield _batch(message, check)
            finally:
                # A call that is merely left goes on upstream for ever.
                call.cancel()

    @override
    async def read_after(
        self, key: JobKey, after: Position, *, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        return await self._read(
            key,
            request_id,
            log_filter,
            ListJobLogsRequest(
                job_id=key.job_id,
                after=LogPosition(epoch=after.epoch, offset=after.offset),
                through_offset=through,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=self.PAGE_SIZE,
            ),
        )

    @override
    async def read_tail(
        self, key: JobKey, *, tail: int, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        return await self._read(
            key,
            request_id,
            log_filter,
            ListJobLogsRequest(
                job_id=key.job_id,
                tail=tail,
                through_offset=through,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=self.PAGE_SIZE,
            ),
        )

    @override
    async def read_before(
        self, key: JobKey, before: int, *, limit: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        return await self._read(
            key,
            request_id,
            log_filter,
            ListJobLogsRequest(
                job_id=key.job_id,
                before_offset=before,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=limit,
            ),
        )

    @override
    async def count_snapshots(self, key: JobKey, *, request_id: str) -> int:
        request = GetJobMetricsRequest(job_id=key.job_id, max_points=1)
        metadata, timeout = self._metadata(key, request_id), self._settings.unary_timeout
        with observed(
            "GetJobMetrics",
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=self._asked(request),
        ) as traced:
            answer: GetJobMetricsResponse | None = await self._stub.GetJobMetrics(
                request, metadata=metadata + traced, timeout=timeout
            )
            if answer is None:
                raise BrokenContract(Breach.UNREADABLE, "the answer is not the right message")
            check_answer("GetJobMetrics", key.tenant_id, request, answer)
        # Sequences are dense from 1.
        return answer.total_points

    async def _read(
        self, key: JobKey, request_id: str, log_filter: LogFilter, request: ListJobLogsRequest
    ) -> LogPage:
        metadata, timeout = self._metadata(key, request_id), self._settings.unary_timeout
        with observed(
            "ListJobLogs",
            self._observe,
            tracer=self._tracer,
            report=self._report,
            asked=self._asked(request),
        ) as traced:
            page: ListJobLogsResponse | None = await self._stub.ListJobLogs(
                request, metadata=metadata + traced, timeout=timeout
            )
            if page is None:
                raise BrokenContract(Breach.UNREADABLE, "the page is not the right message")
            check_page(request, page)
        return LogPage(
            epoch=page.epoch,
            records=await self._records(page.entries),
            next_after=page.next_after_offset,
            first_offset=page.first_offset,
            last_offset=page.last_offset,
            filter=log_filter,
            complete=page.complete,
            missing=[(each.first, each.last) for each in page.missing],
            next_before=page.next_before_offset,
        )

    async def _records(self, entries: Sequence[LogEntry]) -> list[LogRecord]:
        """Convert a page's entries in slices, between which the event loop turns."""
        records: list[LogRecord] = []
        async with self._converting:
            for start in range(0, len(entries), self.SLICE):
                if start:
                    await asyncio.sleep(0)
                records += map(_record, entries[start : start + self.SLICE])
        return records

    def _asked(self, request: Message) -> Asked:
        return Asked(request, (self._settings.api_secret,))

    def _metadata(self, key: JobKey, request_id: str) -> tuple[tuple[str, str], ...]:
        tenant = Caller(tenant_id=key.tenant_id, user_id=None, request_id=request_id)
        return call_metadata(tenant, api_secret=self._settings.api_secret)


def _record(entry: LogEntry) -> LogRecord:
    return LogRecord(entry.offset, entry.level, one_line(_entry(entry)))


def _batch(message: WatchJobResponse | None, check: StreamCheck) -> Batch:
    if message is None:
        raise BrokenContract(Breach.UNREADABLE, "the message is not the right one")
    check.check(message)
    start = end = None
    if message.HasField("start"):
        start = Start(
            epoch=message.start.epoch,
            after_offset=message.start.after_offset,
            first_offset=message.start.first_offset,
            last_offset=message.start.last_offset,
            status=_status(message.start.status),
        )
    if message.HasField("end"):
        end = End(status=_status(message.end.status), last_offset=message.end.last_offset)
    return Batch(
        start=start,
        records=[_record(entry) for entry in message.logs],
        snapshots=[Snapshot(each.sequence, one_line(_snapshot(each))) for each in message.metrics],
        statuses=[
            StatusChange(_status(each.status), each.message, _change(each).get("timestamp") or "")
            for each in message.status_changes
        ],
        end=end,
    )


def _status(status: JobStatus.ValueType) -> str:
    try:
        return JobStatus.Name(status).removeprefix("JOB_STATUS_")
    except ValueError:
        # Of a newer contract.
        return str(status)
