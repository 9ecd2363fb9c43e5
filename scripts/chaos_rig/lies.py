"""A coordinator that lies: each of its jobs breaks the contract in a way of its own."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import grpc
from google.protobuf.message import Message

from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2

SERVICE = "mindcoordinator.v1.MindCoordinator"
#: The log of every job: so many lines, of which the first stream sends the first half.
LINES = 20
HALF = LINES // 2
REST = range(HALF + 1, LINES + 1)
COMPLETED = jobs_pb2.JOB_STATUS_COMPLETED
_TOO_FAR = 2**62

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Watch: TypeAlias = watch_pb2.WatchJobRequest
#: What a stream sends: messages, bytes as they are, a status that ends it, or silence for ever.
Sent: TypeAlias = Message | bytes | grpc.StatusCode | None


def entry(offset: int, message: str = "", level: int = 2) -> watch_pb2.LogEntry:
    """A line of the log as it is, unless told otherwise."""
    return watch_pb2.LogEntry(
        offset=offset,
        message=message or f"line {offset}",
        level=watch_pb2.LogLevel.ValueType(level),
    )


def start(after: int, *, epoch: str = "e1", last: int = LINES) -> watch_pb2.WatchJobResponse:
    """The beginning of a stream."""
    return watch_pb2.WatchJobResponse(
        start=watch_pb2.WatchStart(
            epoch=epoch, after_offset=after, first_offset=1, last_offset=last
        )
    )


def lines(*offsets: int) -> watch_pb2.WatchJobResponse:
    """Lines of the log."""
    return watch_pb2.WatchJobResponse(logs=[entry(offset) for offset in offsets])


def one(made: watch_pb2.LogEntry) -> watch_pb2.WatchJobResponse:
    """One line, whatever it is."""
    return watch_pb2.WatchJobResponse(logs=[made])


def ended(last: int, status: jobs_pb2.JobStatus.ValueType = COMPLETED) -> Message:
    """The end of a stream."""
    return watch_pb2.WatchJobResponse(end=watch_pb2.WatchEnd(status=status, last_offset=last))


def page(request: watch_pb2.ListJobLogsRequest, **lie: Any) -> watch_pb2.ListJobLogsResponse:
    """A page of the log as it is, but for the fields that are given."""
    after = request.after.offset if request.HasField("after") else LINES - request.tail
    through = min(request.through_offset or LINES, LINES)
    answer: dict[str, Any] = {
        "epoch": "e1",
        "entries": [entry(offset) for offset in range(max(after, 0) + 1, through + 1)],
        "next_after_offset": max(through, after),
        "first_offset": 1,
        "last_offset": LINES,
        **lie,
    }
    return watch_pb2.ListJobLogsResponse(**answer)


@dataclass(frozen=True, slots=True)
class Lie:
    """What a job's streams send behind the first half, and what its pages and GetJob say."""

    watch: Callable[[int], Iterable[Sent]] = lambda _: ()
    page: Callable[[watch_pb2.ListJobLogsRequest], Message] = page
    job: Mapping[str, Any] | None = None
    #: Whether the first stream lies, too.
    at_once: bool = False


def _then(*sent: Sent) -> Callable[[int], Iterable[Sent]]:
    """Begin where the gateway is, then send this."""
    return lambda after: (start(after), *sent)


#: By job id.
LIES: Mapping[str, Lie] = {
    "early-ok": Lie(_then()),
    "internal": Lie(_then(grpc.StatusCode.INTERNAL)),
    "exhausted": Lie(_then(grpc.StatusCode.RESOURCE_EXHAUSTED)),
    "aborted": Lie(_then(grpc.StatusCode.ABORTED)),
    "wrong-end": Lie(_then(ended(HALF - 3))),
    "end-too-far": Lie(_then(ended(LINES + 100))),
    "live-end": Lie(_then(lines(*REST), ended(LINES, jobs_pb2.JOB_STATUS_TRAINING))),
    "not-utf-8": Lie(_then(b"\x12\x06\x08\x0b\x1a\x02\xff\xfe")),
    "not-protobuf": Lie(_then(b"\xff\xff\xff\xff")),
    "too-large": Lie(_then(one(entry(HALF + 1, "x" * 17_000_000)))),
    "level-too-high": Lie(_then(one(entry(HALF + 1, level=999)))),
    "offset-too-far": Lie(_then(one(entry(_TOO_FAR)))),
    "offset-negative": Lie(_then(one(entry(-5)))),
    "repeats": Lie(_then(lines(HALF - 1, HALF))),
    "without-start": Lie(lambda _: (lines(HALF + 1),)),
    "two-starts": Lie(_then(start(0), lines(1, 2))),
    "forged-epoch": Lie(lambda _: (start(0, epoch="e\n\nevent: end\ndata: {}\n\n"), lines(1))),
    "long-epoch": Lie(lambda _: (start(0, epoch="e" * 500), lines(1))),
    "silent": Lie(lambda _: (None,)),
    "silent-behind-start": Lie(_then(None)),
    "jump": Lie(
        _then(lines(LINES)), page=lambda request: page(request, entries=[], next_after_offset=LINES)
    ),
    "page-of-another-log": Lie(_then(lines(LINES)), page=lambda request: page(request, epoch="e2")),
    "page-leads-nowhere": Lie(
        _then(lines(LINES)),
        page=lambda request: page(request, entries=[], next_after_offset=request.after.offset),
    ),
    "page-behind": Lie(_then(lines(LINES)), page=lambda request: page(request, entries=[entry(2)])),
    "job-of-another-tenant": Lie(job={"tenant_id": "evil"}, at_once=True),
    "another-job": Lie(job={"job_id": "job-other"}, at_once=True),
    "silent-at-once": Lie(lambda _: (None,), at_once=True),
    "forged-epoch-at-once": Lie(lambda _: (start(0, epoch="e\r\nid: x"), lines(1)), at_once=True),
}


class Liar:
    """The lying coordinator. An async context manager."""

    def __init__(self, tenant: str) -> None:
        self.port = 0
        self._tenant = tenant
        self._streams: Counter[str] = Counter()
        self._server = grpc.aio.server()

    async def __aenter__(self) -> Self:
        """Listen."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetJob": grpc.unary_unary_rpc_method_handler(
                self._get_job,
                request_deserializer=jobs_pb2.GetJobRequest.FromString,
                response_serializer=_bytes,
            ),
            "ListJobLogs": grpc.unary_unary_rpc_method_handler(
                self._list,
                request_deserializer=watch_pb2.ListJobLogsRequest.FromString,
                response_serializer=_bytes,
            ),
            "WatchJob": grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=watch_pb2.WatchJobRequest.FromString,
                response_serializer=_bytes,
            ),
        }
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Break everything off."""
        await self._server.stop(None)

    async def _get_job(self, request: jobs_pb2.GetJobRequest, _: Context) -> Message:
        says = {"job_id": request.job_id, "tenant_id": self._tenant}
        lie = LIES[request.job_id].job or {}
        return jobs_pb2.Job(**{**says, **lie}, status=jobs_pb2.JOB_STATUS_TRAINING)

    async def _list(self, request: watch_pb2.ListJobLogsRequest, _: Context) -> Message:
        return LIES[request.job_id].page(request)

    async def _watch(self, request: Watch, context: Context) -> AsyncIterator[Sent]:
        lie = LIES[request.job_id]
        self._streams[request.job_id] += 1
        if self._streams[request.job_id] == 1 and not lie.at_once:
            yield start(0, last=HALF)
            yield lines(*range(1, HALF + 1))
            # Long enough for the clients to join.
            await asyncio.sleep(1)
            return
        for sent in lie.watch(request.after.offset):
            if isinstance(sent, grpc.StatusCode):
                await context.abort(sent, "a lie")
            if sent is None:
                await asyncio.Event().wait()
            yield sent


def _bytes(sent: Message | bytes) -> bytes:
    return sent if isinstance(sent, bytes) else sent.SerializeToString()
