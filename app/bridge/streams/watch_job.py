"""The hub's upstream: a job's stream and its log, read from the coordinator."""

from collections.abc import AsyncGenerator

import grpc
from typing_extensions import override

from app.bridge.calls.log_filters import filter_message
from app.bridge.calls.log_pages import LogPageCalls
from app.bridge.client import CoordinatorClient
from app.bridge.contract.breaches import ReportBreach, log_breach
from app.bridge.contract.logs import StreamCheck
from app.bridge.converters import converter_of
from app.bridge.observed_call import Observe
from app.bridge.settings import UpstreamSettings
from app.bridge.streams.json_lines import one_line
from app.bridge.streams.log_records import LogRecords
from app.caller import Caller
from app.hub.upstream import (
    Batch,
    End,
    JobKey,
    LogPage,
    Position,
    Snapshot,
    Start,
    StatusChange,
    Upstream,
)
from app.log_filter import LogFilter
from app.tasks.turns import Turns
from app.telemetry.tracing import Tracer
from generated.mindcoordinator.v1 import watch_pb2
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    ListJobLogsRequest,
    LogLevel,
    LogPosition,
    MetricsSnapshot,
    WatchJobRequest,
    WatchJobResponse,
)

_snapshot = converter_of(MetricsSnapshot)
_change = converter_of(watch_pb2.StatusChange)


class WatchClient(LogPageCalls, Upstream):
    """`app.hub.Upstream` over a channel that somebody else owns and closes.

    The calls are the tenant's, not a user's: who may watch is asked before,
    with `authorize`. They carry the request of the watcher that caused them.
    """

    #: Entries of a page; at 250 bytes a line, a page is about as long as a socket buffer.
    PAGE_SIZE = 1000

    def __init__(
        self,
        *,
        channel: grpc.aio.Channel,
        client: CoordinatorClient,
        settings: UpstreamSettings,
        observe: Observe,
        tracer: Tracer | None = None,
        report: ReportBreach = log_breach,
        turns: Turns | None = None,
    ) -> None:
        """`turns` are those in which pages are read; by default, its own."""
        super().__init__(
            channel=channel,
            settings=settings,
            observe=observe,
            report=report,
            tracer=tracer,
            turns=turns,
        )
        self._client = client

    @override
    async def authorize(self, caller: Caller, job_id: str) -> None:
        await self._client.get_job(caller, job_id)

    @override
    def watch(
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
        check, records = StreamCheck(request), LogRecords()
        return self._stream(
            "WatchJob",
            self._stub.WatchJob,
            _tenant(key, request_id),
            request,
            read=lambda message: _batch(message, check, records),
        )

    @override
    async def read_after(
        self, key: JobKey, after: Position, *, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        return await self._page(
            _tenant(key, request_id),
            ListJobLogsRequest(
                job_id=key.job_id,
                after=LogPosition(epoch=after.epoch, offset=after.offset),
                through_offset=through,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=self.PAGE_SIZE,
            ),
            log_filter,
        )

    @override
    async def read_tail(
        self, key: JobKey, *, tail: int, through: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        return await self._page(
            _tenant(key, request_id),
            ListJobLogsRequest(
                job_id=key.job_id,
                tail=tail,
                through_offset=through,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=self.PAGE_SIZE,
            ),
            log_filter,
        )

    @override
    async def read_before(
        self, key: JobKey, before: int, *, limit: int, log_filter: LogFilter, request_id: str
    ) -> LogPage:
        return await self._page(
            _tenant(key, request_id),
            ListJobLogsRequest(
                job_id=key.job_id,
                before_offset=before,
                min_level=LogLevel.ValueType(log_filter.min_level),
                filter=filter_message(log_filter),
                page_size=limit,
            ),
            log_filter,
        )

    @override
    async def count_snapshots(self, key: JobKey, *, request_id: str) -> int:
        answer = await self._ask(
            "GetJobMetrics",
            self._stub.GetJobMetrics,
            _tenant(key, request_id),
            GetJobMetricsRequest(job_id=key.job_id, max_points=1),
        )
        # Sequences are dense from 1.
        return answer.total_points


def _tenant(key: JobKey, request_id: str) -> Caller:
    return Caller(tenant_id=key.tenant_id, user_id=None, request_id=request_id)


def _batch(message: WatchJobResponse, check: StreamCheck, reader: LogRecords) -> Batch:
    records = reader.read(message.logs)
    if len(message.ListFields()) == 1 and records:
        # As nearly all messages are.
        check.check_order(records)
        return Batch(records=records)
    check.check(message, records)
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
        records=records,
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
