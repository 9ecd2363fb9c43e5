"""The contract, clause by clause: what breaks it, and what is left open."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from app import errors
from app.bridge.contract.answers import check_answer
from app.bridge.contract.breaches import Breach, BreachReports
from app.bridge.contract.fields import MAX_ID, MAX_OFFSET, MAX_PAGE_TOKEN, MAX_TEXT, check_fields
from app.bridge.contract.logs import StreamCheck
from app.errors import BrokenContract
from generated.mindcoordinator.v1.cluster_pb2 import (
    ClusterStatus,
    GetNodeRequest,
    Gpu,
    ListNodesRequest,
    ListNodesResponse,
    Node,
)
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest, ValidateDataResponse
from generated.mindcoordinator.v1.evaluations_pb2 import (
    BenchmarkResult,
    Evaluation,
    GetEvaluationRequest,
    SubmitEvaluationRequest,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_COMPLETED,
    JOB_STATUS_TRAINING,
    Checkpoint,
    DataSource,
    GetJobRequest,
    Job,
    JobProgress,
    JobStatus,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    ListJobsRequest,
    ListJobsResponse,
    RetryJobRequest,
    SubmitJobRequest,
    SubmitJobResponse,
)
from generated.mindcoordinator.v1.queue_pb2 import (
    GetQueueStatusRequest,
    GetQueueStatusResponse,
    QueuedJob,
)
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    GetJobMetricsResponse,
    ListJobLogsRequest,
    ListJobLogsResponse,
    LogEntry,
    LogLevel,
    LogPosition,
    LogRange,
    MetricsSnapshot,
    StatusChange,
    WatchEnd,
    WatchJobRequest,
    WatchJobResponse,
    WatchStart,
)
from tests.scripted_coordinator import SERVICE, type_of

ANSWERS = [type_of(method.output_type) for method in SERVICE.methods]


def status(number: int) -> JobStatus.ValueType:
    return JobStatus.ValueType(number)


def level(number: int) -> LogLevel.ValueType:
    return LogLevel.ValueType(number)


# Fields


@pytest.mark.parametrize(
    ("message", "breach"),
    [
        (Job(job_id="j", revision=-1), Breach.VALUE),
        (Job(job_id="j", status=status(-1)), Breach.VALUE),
        (Job(job_id="j", status=status(256)), Breach.VALUE),
        (Job(job_id="j", created_at=Timestamp(seconds=253402300800)), Breach.VALUE),
        (Job(job_id="j", created_at=Timestamp(seconds=-62135596801)), Breach.VALUE),
        (Job(job_id="j", ended_at=Timestamp(nanos=-1)), Breach.VALUE),
        (Job(job_id="j", ended_at=Timestamp(nanos=10**9)), Breach.VALUE),
        (Job(job_id="j", message="x" * (MAX_TEXT + 1)), Breach.VALUE),
        (Job(job_id="j", labels={"k": "x" * (MAX_TEXT + 1)}), Breach.VALUE),
        (Job(job_id="j", labels={"x" * (MAX_TEXT + 1): "v"}), Breach.VALUE),
        (Job(job_id="j", checkpoints=[Checkpoint()]), Breach.IDENTIFIER),
        (Job(job_id="j", checkpoints=[Checkpoint(checkpoint_id="c", size_bytes=-1)]), Breach.VALUE),
        (Job(job_id="x" * (MAX_ID + 1)), Breach.IDENTIFIER),
        (Job(job_id="a\nb"), Breach.IDENTIFIER),
        (Job(job_id="a\x85b"), Breach.IDENTIFIER),
        (Job(job_id="j", node_ids=["n", "a\0b"]), Breach.IDENTIFIER),
        (Job(job_id="j", progress=JobProgress(total_steps=-1)), Breach.VALUE),
        (ListJobsResponse(next_page_token="x" * (MAX_PAGE_TOKEN + 1)), Breach.IDENTIFIER),
        (ListJobsResponse(next_page_token="a\r\nb"), Breach.IDENTIFIER),
        (ListJobsResponse(total_count=-1), Breach.VALUE),
        (ClusterStatus(cluster_utilization=math.nan), Breach.VALUE),
        (ClusterStatus(cluster_utilization=1.5), Breach.VALUE),
        (ClusterStatus(active_jobs=-3), Breach.VALUE),
        (Node(node_id="n", gpus=[Gpu(utilization=math.inf)]), Breach.VALUE),
        (Node(node_id="n", gpus=[Gpu(utilization=-0.1)]), Breach.VALUE),
        (Node(node_id="n", gpus=[Gpu(memory_used_bytes=-1)]), Breach.VALUE),
        (
            Evaluation(results=[BenchmarkResult(duration_seconds=math.nan)]),
            Breach.VALUE,
        ),
        (WatchJobResponse(logs=[LogEntry(offset=1, level=level(256))]), Breach.LEVEL),
        (WatchJobResponse(logs=[LogEntry(offset=1, level=level(-1))]), Breach.LEVEL),
        (WatchJobResponse(logs=[LogEntry(offset=MAX_OFFSET + 1)]), Breach.VALUE),
        (WatchJobResponse(logs=[LogEntry(offset=-1)]), Breach.VALUE),
        (WatchJobResponse(metrics=[MetricsSnapshot(sequence=-1)]), Breach.VALUE),
        (WatchJobResponse(end=WatchEnd(last_offset=-1)), Breach.VALUE),
    ],
    ids=lambda value: repr(value)[:60].replace("\n", " ") if isinstance(value, Message) else value,
)
def test_a_field_out_of_its_bounds_breaks_it(message: Message, breach: Breach) -> None:
    with pytest.raises(BrokenContract) as broken:
        check_fields(message)
    assert broken.value.breach == breach
    assert broken.value.kind is errors.COORDINATOR_ERROR
    assert broken.value.message == errors.COORDINATOR_ERROR.text


@pytest.mark.parametrize(
    "message",
    [
        # What training measures, whatever it is.
        MetricsSnapshot(sequence=1, step=-1, loss=math.nan, epoch=math.inf, extra={"x": -math.inf}),
        JobProgress(step=-1, epoch=math.nan, loss=math.inf),
        BenchmarkResult(scores={"accuracy": math.nan}),
        # Of a newer contract.
        Job(job_id="j", status=status(99)),
        LogEntry(offset=1, level=level(255)),
        # At the bounds.
        Job(job_id="j" * MAX_ID, revision=2**63 - 1, exit_code=-9),
        Job(job_id="ä@rack1/7 \N{SNOWMAN}", message="x" * MAX_TEXT),
        Job(job_id="j", created_at=Timestamp(seconds=-62135596800)),
        Job(job_id="j", created_at=Timestamp(seconds=253402300799, nanos=999999999)),
        LogEntry(offset=MAX_OFFSET, message="\u2028\x00\r\n"),
    ],
    ids=lambda value: repr(value)[:60].replace("\n", " "),
)
def test_what_is_left_open_passes(message: Message) -> None:
    check_fields(message)


def reached(message_type: type[Message]) -> Iterator[tuple[list[FieldDescriptor], FieldDescriptor]]:
    """Every field of a type and of those that it holds, with the way to it."""

    def walk(descriptor: Any, way: list[FieldDescriptor]) -> Iterator[Any]:
        for field in descriptor.fields:
            nested = field.message_type
            if nested is not None and nested.GetOptions().map_entry:
                continue
            yield way, field
            if nested is not None and field not in way:
                yield from walk(nested, [*way, field])

    yield from walk(message_type.DESCRIPTOR, [])


def held(message: Any, way: list[FieldDescriptor]) -> Any:
    for field in way:
        inner = getattr(message, field.name)
        message = inner.add() if field.is_repeated else inner
        message.SetInParent()
    return message


#: A negative number says something there.
NEGATIVE = {
    *("exit_code", "seed", "step", "seconds"),
    *("epoch", "loss", "learning_rate", "grad_norm", "gpu_utilization"),
    *("samples_per_second", "tokens_per_second"),
    *("from_step", "to_step", "minimum", "maximum"),
}


@pytest.mark.parametrize("message_type", ANSWERS, ids=lambda each: each.DESCRIPTOR.name)
def test_every_number_of_every_answer_has_a_bound(message_type: type[Message]) -> None:
    """A field that is added to the contract gets one by its type."""
    numbers = (
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_ENUM,
    )
    checked = 0
    for way, field in reached(message_type):
        if field.type not in numbers or field.is_repeated or field.name in NEGATIVE:
            continue
        message = message_type()
        setattr(held(message, way), field.name, -1)
        with pytest.raises(BrokenContract):
            check_fields(message)
        checked += 1
    assert checked


# Answers


@pytest.mark.parametrize(
    ("method", "request_", "answer", "breach"),
    [
        ("GetJob", GetJobRequest(job_id="a"), Job(job_id="b"), Breach.RESOURCE),
        ("GetJob", GetJobRequest(job_id="a"), Job(), Breach.IDENTIFIER),
        ("GetJob", GetJobRequest(job_id="a"), Job(job_id="a", tenant_id="evil"), Breach.TENANT),
        ("RetryJob", RetryJobRequest(job_id="a"), Job(job_id="a"), Breach.RESOURCE),
        (
            "RetryJob",
            RetryJobRequest(job_id="a"),
            Job(job_id="b", parent_job_id="c"),
            Breach.RESOURCE,
        ),
        ("SubmitJob", SubmitJobRequest(), SubmitJobResponse(), Breach.IDENTIFIER),
        (
            "ListJobs",
            ListJobsRequest(page_size=9),
            ListJobsResponse(jobs=[Job(job_id="a"), Job(job_id="b", tenant_id="evil")]),
            Breach.TENANT,
        ),
        ("ListJobs", ListJobsRequest(), ListJobsResponse(jobs=[Job()]), Breach.IDENTIFIER),
        (
            "ListJobs",
            ListJobsRequest(page_size=1),
            ListJobsResponse(jobs=[Job(job_id="a"), Job(job_id="b")]),
            Breach.PAGE,
        ),
        (
            "ListJobs",
            ListJobsRequest(),
            ListJobsResponse(jobs=[Job(job_id="a"), Job(job_id="a")]),
            Breach.PAGE,
        ),
        (
            "ListJobs",
            ListJobsRequest(page_token="t"),
            ListJobsResponse(next_page_token="t"),
            Breach.PAGE,
        ),
        (
            "ListJobs",
            ListJobsRequest(statuses=[JOB_STATUS_TRAINING]),
            ListJobsResponse(jobs=[Job(job_id="a", status=JOB_STATUS_COMPLETED)]),
            Breach.RESOURCE,
        ),
        (
            "ListJobs",
            ListJobsRequest(label_filter={"type": "evaluation"}),
            ListJobsResponse(jobs=[Job(job_id="a", labels={"type": "other"})]),
            Breach.RESOURCE,
        ),
        (
            "ListCheckpoints",
            ListCheckpointsRequest(page_token="t"),
            ListCheckpointsResponse(next_page_token="t"),
            Breach.PAGE,
        ),
        (
            "GetJobMetrics",
            GetJobMetricsRequest(job_id="a"),
            GetJobMetricsResponse(job_id="b"),
            Breach.RESOURCE,
        ),
        ("GetNode", GetNodeRequest(node_id="a"), Node(node_id="b"), Breach.RESOURCE),
        (
            "ListNodes",
            ListNodesRequest(page_size=1),
            ListNodesResponse(nodes=[Node(node_id="a"), Node(node_id="b")]),
            Breach.PAGE,
        ),
        (
            "GetQueueStatus",
            GetQueueStatusRequest(),
            GetQueueStatusResponse(queued_jobs=[QueuedJob(job_id="a", tenant_id="evil")]),
            Breach.TENANT,
        ),
        (
            "GetQueueStatus",
            GetQueueStatusRequest(queue_name="q"),
            GetQueueStatusResponse(queued_jobs=[QueuedJob(job_id="a", queue_name="r")]),
            Breach.RESOURCE,
        ),
        ("SubmitEvaluation", SubmitEvaluationRequest(), Evaluation(), Breach.IDENTIFIER),
        (
            "GetEvaluation",
            GetEvaluationRequest(evaluation_id="a"),
            Evaluation(evaluation_id="b"),
            Breach.RESOURCE,
        ),
        (
            "GetEvaluation",
            GetEvaluationRequest(evaluation_id="a"),
            Evaluation(evaluation_id="a", tenant_id="evil"),
            Breach.TENANT,
        ),
        (
            "ValidateData",
            ValidateDataRequest(data_sources=[DataSource()]),
            ValidateDataResponse(),
            Breach.RESOURCE,
        ),
    ],
)
def test_an_answer_to_something_else_breaks_it(
    method: str, request_: Message, answer: Message, breach: Breach
) -> None:
    with pytest.raises(BrokenContract) as broken:
        check_answer(method, "acme", request_, answer)
    assert broken.value.breach == breach


# Streams

START = WatchStart(epoch="e1", after_offset=5, first_offset=1, last_offset=9)


def started(**changes: Any) -> WatchJobResponse:
    message = WatchJobResponse(start=START)
    message.start.MergeFrom(WatchStart(**changes))
    return message


def entries(*offsets: int) -> WatchJobResponse:
    return WatchJobResponse(logs=[LogEntry(offset=offset) for offset in offsets])


def ended(offset: int, status: JobStatus.ValueType = JOB_STATUS_COMPLETED) -> WatchJobResponse:
    return WatchJobResponse(end=WatchEnd(status=status, last_offset=offset))


AFTER_7 = WatchJobRequest(after=LogPosition(epoch="e1", offset=7))


@pytest.mark.parametrize(
    ("request_", "messages", "breach"),
    [
        (WatchJobRequest(), [entries(1)], Breach.START),
        (WatchJobRequest(), [ended(1)], Breach.START),
        (WatchJobRequest(), [WatchJobResponse()], Breach.START),
        (WatchJobRequest(), [started(), started()], Breach.START),
        (WatchJobRequest(), [started(), started(epoch="e2")], Breach.START),
        (WatchJobRequest(), [started(after_offset=10)], Breach.START),
        (AFTER_7, [started(after_offset=6)], Breach.START),
        (WatchJobRequest(), [started(first_offset=11)], Breach.ORDER),
        (WatchJobRequest(), [started(epoch="e" * 33)], Breach.EPOCH),
        (WatchJobRequest(), [started(epoch="E1")], Breach.EPOCH),
        (WatchJobRequest(), [started(epoch="e1\nevent: end")], Breach.EPOCH),
        (WatchJobRequest(), [started(epoch="e1\n")], Breach.EPOCH),
        (WatchJobRequest(), [started(epoch="\u0661")], Breach.EPOCH),
        (WatchJobRequest(), [WatchJobResponse(start=WatchStart())], Breach.EPOCH),
        (WatchJobRequest(), [started(), entries(5)], Breach.ORDER),
        (WatchJobRequest(), [started(), entries(6, 7, 7)], Breach.ORDER),
        (WatchJobRequest(), [started(), entries(6, 7), entries(6)], Breach.ORDER),
        (WatchJobRequest(), [started(), entries(6), ended(5)], Breach.END),
        (WatchJobRequest(), [started(), ended(9, JOB_STATUS_TRAINING)], Breach.END),
        (WatchJobRequest(), [started(), ended(9, status(99))], Breach.END),
        (WatchJobRequest(), [started(), ended(9, status(0))], Breach.END),
        (
            WatchJobRequest(),
            [started(), *[WatchJobResponse(metrics=[MetricsSnapshot(sequence=3)])] * 2],
            Breach.ORDER,
        ),
        (
            WatchJobRequest(),
            [started(), WatchJobResponse(status_changes=[StatusChange(message="m")])],
            Breach.VALUE,
        ),
    ],
)
def test_a_stream_that_breaks_it(
    request_: WatchJobRequest, messages: list[WatchJobResponse], breach: Breach
) -> None:
    check = StreamCheck(request_)
    for message in messages[:-1]:
        check.check(message, message.logs)
    with pytest.raises(BrokenContract) as broken:
        check.check(messages[-1], messages[-1].logs)
    assert broken.value.breach == breach


@pytest.mark.parametrize(
    ("request_", "messages"),
    [
        (WatchJobRequest(), [started(), entries(6, 7), WatchJobResponse(), entries(9), ended(9)]),
        # A hole, which is told; what is new since the stream began; an end that comes early.
        (WatchJobRequest(), [started(), entries(8, 20), ended(21)]),
        (AFTER_7, [started(after_offset=7), entries(8)]),
        # Another log, one that was dropped in part, one that has been cut.
        (AFTER_7, [started(epoch="e2")]),
        (AFTER_7, [started(after_offset=8, first_offset=9)]),
        (AFTER_7, [WatchJobResponse(start=WatchStart(epoch="e1", after_offset=2, last_offset=6))]),
        # A log that is empty, or of which all was dropped.
        (WatchJobRequest(), [WatchJobResponse(start=WatchStart(epoch="0"))]),
        (WatchJobRequest(), [started(after_offset=9, first_offset=10), ended(9)]),
    ],
)
def test_a_stream_that_keeps_it(
    request_: WatchJobRequest, messages: list[WatchJobResponse]
) -> None:
    check = StreamCheck(request_)
    for message in messages:
        check.check(message, message.logs)


# Pages


def asked(offset: int | None, *, through: int = 9, **fields: Any) -> ListJobLogsRequest:
    after = None if offset is None else LogPosition(epoch="e1", offset=offset)
    return ListJobLogsRequest(after=after, through_offset=through, **fields)


def page(*offsets: int, after: int, **fields: Any) -> ListJobLogsResponse:
    found = [LogEntry(offset=offset, level=LogLevel.LOG_LEVEL_INFO) for offset in offsets]
    told = {"epoch": "e1", "first_offset": 1, "last_offset": 12, **fields}
    return ListJobLogsResponse(entries=found, next_after_offset=after, **told)


@pytest.mark.parametrize(
    ("request_", "answer", "breach"),
    [
        (asked(3), page(4, after=4, epoch="e2"), Breach.EPOCH),
        (asked(None, tail=1), page(4, after=4, epoch="e\n2"), Breach.EPOCH),
        (asked(3), page(after=3), Breach.PAGE),
        (asked(3), page(after=2), Breach.PAGE),
        (asked(3), page(4, 5, after=4), Breach.PAGE),
        (asked(3), page(4, after=10), Breach.PAGE),
        (asked(3, page_size=1), page(4, 5, after=5), Breach.PAGE),
        (asked(None, tail=1), page(4, 5, after=5), Breach.PAGE),
        (asked(3), page(3, after=4), Breach.ORDER),
        (asked(3), page(5, 4, after=5), Breach.ORDER),
        (asked(3), page(9, 10, after=10), Breach.ORDER),
        (asked(3), page(4, after=4, first_offset=20), Breach.ORDER),
        (asked(3, min_level=LogLevel.LOG_LEVEL_ERROR), page(4, after=4), Breach.LEVEL),
        (asked(3), page(4, after=6, missing=[LogRange(first=6, last=5)]), Breach.ORDER),
        (asked(3), page(4, after=6, missing=[LogRange(first=3, last=5)]), Breach.ORDER),
        (asked(3), page(4, after=6, missing=[LogRange(first=5, last=5)] * 2), Breach.ORDER),
        (asked(3), page(5, after=6, missing=[LogRange(first=4, last=6)]), Breach.ORDER),
        (asked(3), page(5, after=6, missing=[LogRange(first=0, last=6)]), Breach.VALUE),
        (asked(3), page(4, after=-1), Breach.VALUE),
        (asked(3), page(4, after=4, first_offset=-1), Breach.VALUE),
    ],
)
def test_a_page_that_breaks_it(
    request_: ListJobLogsRequest, answer: ListJobLogsResponse, breach: Breach
) -> None:
    with pytest.raises(BrokenContract) as broken:
        check_answer("ListJobLogs", "acme", request_, answer)
    assert broken.value.breach == breach


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (asked(3), page(4, 5, 6, after=6)),
        # What did not pass, a hole, and what was dropped.
        (asked(3), page(7, after=9)),
        (asked(3), page(after=9)),
        (
            asked(3),
            page(5, 8, after=8, missing=[LogRange(first=4, last=4), LogRange(first=6, last=7)]),
        ),
        (asked(3), page(8, after=8, first_offset=8)),
        (asked(None, tail=3), page(7, 8, 9, after=9)),
        # A place that only the coordinator can know.
        (asked(11), page(after=11)),
        (asked(11), page(after=9)),
        (asked(20), page(after=12)),
    ],
)
def test_a_page_that_keeps_it(request_: ListJobLogsRequest, answer: ListJobLogsResponse) -> None:
    check_answer("ListJobLogs", "acme", request_, answer)


# What is told of it


def test_each_breach_is_counted_and_each_kind_is_logged_once_a_minute() -> None:
    counted: list[str] = []
    now = 0.0
    expected: list[str] = []
    reports = BreachReports(count=counted.append, expect=expected.append, clock=lambda: now)
    assert expected == [each.value for each in Breach]
    with capture_logs() as logs:
        for _ in range(3):
            reports("GetJob", BrokenContract(Breach.TENANT, "one"))
        reports("GetJob", BrokenContract(Breach.VALUE, "two"))
        now = 60.0
        reports("GetNode", BrokenContract(Breach.TENANT, "three"))
        now = 100.0
        reports("GetNode", BrokenContract(Breach.TENANT, "four"))
    assert counted == ["tenant"] * 3 + ["value"] + ["tenant"] * 2
    assert [(each["problem"], each["unlogged"]) for each in logs] == [
        ("one", 0),
        ("two", 0),
        ("three", 2),
    ]
