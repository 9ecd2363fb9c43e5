"""The hub's upstream: a job's stream and its log, read from the coordinator."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import grpc
import orjson
from typing_extensions import override

from app.bridge.client import CoordinatorClient
from app.bridge.converters import converter_of
from app.bridge.errors import broken_answer
from app.bridge.metadata import call_metadata
from app.bridge.observed_call import Observe, observed
from app.bridge.settings import UpstreamSettings
from app.caller import Caller
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
from app.telemetry.tracing import NoTracer, Tracer
from generated.mindcoordinator.v1 import watch_pb2
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import JobStatus
from generated.mindcoordinator.v1.watch_pb2 import (
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

    The streams are the tenant's, not a user's: who may watch is asked before,
    with `authorize`.
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
    ) -> None:
        self._stub: MindCoordinatorAsyncStub = MindCoordinatorStub(channel)
        self._client = client
        self._settings = settings
        self._observe = observe
        self._tracer = tracer or NoTracer()

    @override
    async def authorize(self, caller: Caller, job_id: str) -> None:
        await self._client.get_job(caller, job_id)

    @override
    async def watch(
        self, key: JobKey, *, after: Position | None, tail: int, after_sequence: int
    ) -> AsyncGenerator[Batch, None]:
        request = WatchJobRequest(
            job_id=key.job_id,
            after=None if after is None else LogPosition(epoch=after.epoch, offset=after.offset),
            tail=tail,
            after_metrics_sequence=after_sequence,
        )
        metadata = self._metadata(key)
        with observed("WatchJob", self._observe, tracer=self._tracer, stream=True) as traced:
            # No deadline: it would bound the stream's whole life.
            call = self._stub.WatchJob(request, metadata=metadata + traced)
            try:
                async for message in call:
                    yield _batch(message)
            finally:
                # A call that is merely left goes on upstream for ever.
                call.cancel()

    @override
    async def read_after(
        self, key: JobKey, after: Position, *, through: int, level: int
    ) -> LogPage:
        return await self._read(
            key,
            ListJobLogsRequest(
                job_id=key.job_id,
                after=LogPosition(epoch=after.epoch, offset=after.offset),
                through_offset=through,
                min_level=LogLevel.ValueType(level),
                page_size=self.PAGE_SIZE,
            ),
        )

    @override
    async def read_tail(self, key: JobKey, *, tail: int, through: int, level: int) -> LogPage:
        return await self._read(
            key,
            ListJobLogsRequest(
                job_id=key.job_id,
                tail=tail,
                through_offset=through,
                min_level=LogLevel.ValueType(level),
                page_size=self.PAGE_SIZE,
            ),
        )

    async def _read(self, key: JobKey, request: ListJobLogsRequest) -> LogPage:
        metadata, timeout = self._metadata(key), self._settings.unary_timeout
        with observed("ListJobLogs", self._observe, tracer=self._tracer) as traced:
            page: ListJobLogsResponse | None = await self._stub.ListJobLogs(
                request, metadata=metadata + traced, timeout=timeout
            )
            if page is None:
                raise broken_answer(method="ListJobLogs", problem="not the right message")
        return LogPage(
            epoch=page.epoch,
            records=[_record(entry) for entry in page.entries],
            next_after=page.next_after_offset,
            first_offset=page.first_offset,
            last_offset=page.last_offset,
        )

    def _metadata(self, key: JobKey) -> tuple[tuple[str, str], ...]:
        tenant = Caller(tenant_id=key.tenant_id, user_id=None)
        return call_metadata(tenant, api_secret=self._settings.api_secret)


def _record(entry: LogEntry) -> LogRecord:
    return LogRecord(entry.offset, entry.level, orjson.dumps(_entry(entry)))


def _batch(message: WatchJobResponse | None) -> Batch:
    if message is None:
        raise broken_answer(method="WatchJob", problem="not the right message")
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
        snapshots=[
            Snapshot(each.sequence, orjson.dumps(_snapshot(each))) for each in message.metrics
        ],
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
