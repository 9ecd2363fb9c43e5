"""A log that is read by its offsets, and metrics for pictures."""

import asyncio
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from app.api.metrics import summaries
from generated.mindcoordinator.v1 import cluster_pb2, watch_pb2
from tests.api.conftest import Gateway
from tests.api.endpoints import PREFIX
from tests.scripted_coordinator import Failure

ENTRIES = f"{PREFIX}/jobs/job-1/log-entries"
METRICS = f"{PREFIX}/jobs/job-1/metrics"


def entry(offset: int, message: str = "x", **more: Any) -> watch_pb2.LogEntry:
    return watch_pb2.LogEntry(
        offset=offset, level=watch_pb2.LOG_LEVEL_INFO, message=message, **more
    )


def page(*entries: watch_pb2.LogEntry, **more: Any) -> watch_pb2.ListJobLogsResponse:
    return watch_pb2.ListJobLogsResponse(
        epoch="e1", entries=entries, first_offset=1, **{"last_offset": 100, **more}
    )


def announce(gateway: Gateway, *features: str) -> None:
    gateway.coordinator.answer("GetClusterStatus", cluster_pb2.ClusterStatus(features=features))


async def data(gateway: Gateway, path: str, **params: Any) -> Any:
    answer = await gateway.ask("GET", path, params={**params})
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def test_a_page_forward_says_where_it_got_to(gateway: Gateway) -> None:
    lost = [watch_pb2.LogRange(first=6, last=6)]
    gateway.coordinator.answer(
        "ListJobLogs",
        page(next_after_offset=0),
        page(entry(5), entry(7), next_after_offset=7, missing=lost),
        page(next_after_offset=100, complete=True),
    )
    found = await data(gateway, ENTRIES, **{"from": "5", "limit": "3"})
    assert [each["offset"] for each in found.pop("entries")] == [5, 7]
    assert found == {
        **{"epoch": "e1", "first_offset": 1, "last_offset": 100},
        **{"scanned_to": 7, "next": 8, "complete": False},
        "missing": [{"first": 6, "last": 6}],
    }
    # The epoch was asked for first; with one, one call is enough.
    [ask, read] = [each.message for each in gateway.coordinator.requests("ListJobLogs")]
    assert not ask.HasField("after")
    assert (read.after.epoch, read.after.offset, read.page_size) == ("e1", 4, 3)
    at_the_end = await data(gateway, ENTRIES, **{"from": "101", "epoch": "e1"})
    assert (at_the_end["next"], at_the_end["complete"]) == (None, True)
    assert len(gateway.coordinator.requests("ListJobLogs")) == 3


async def test_a_page_backward(gateway: Gateway) -> None:
    announce(gateway, "log_filters")
    gateway.coordinator.answer(
        "ListJobLogs",
        page(entry(40), entry(49), next_before_offset=33),
        page(entry(1), next_before_offset=1),
        page(next_before_offset=20),
    )
    found = await data(gateway, ENTRIES, before="50", limit="2", level="DEBUG")
    assert [each["offset"] for each in found["entries"]] == [40, 49]
    assert (found["scanned_to"], found["next"]) == (33, 33)
    [read] = [each.message for each in gateway.coordinator.requests("ListJobLogs")]
    assert (read.before_offset, read.page_size, read.HasField("after")) == (50, 2, False)
    first = await data(gateway, ENTRIES, before="33")
    assert (first["scanned_to"], first["next"]) == (1, None)
    # Nothing passed in what could be scanned: it goes on all the same.
    empty = await data(gateway, ENTRIES, before="33", contains="x")
    assert (empty["entries"], empty["next"]) == ([], 20)
    wrong = await gateway.ask("GET", ENTRIES, params={"before": "33", "epoch": "e0"})
    assert (wrong.status, wrong.error["code"]) == (409, "FAILED_PRECONDITION")


async def test_an_older_coordinator_reads_nothing_backward(gateway: Gateway) -> None:
    announce(gateway)
    answer = await gateway.ask("GET", ENTRIES, params={"before": "33"})
    assert (answer.status, answer.error["code"]) == (501, "NOT_IMPLEMENTED")
    assert "log_filters" in answer.error["message"]
    assert gateway.coordinator.requests("ListJobLogs") == []


async def test_a_coordinator_that_became_an_older_one_does_not_end_a_log_silently(
    gateway: Gateway,
) -> None:
    announce(gateway, "log_filters")
    gateway.coordinator.answer("ListJobLogs", page(entry(40), next_before_offset=33), page())
    assert (await data(gateway, ENTRIES, before="50"))["next"] == 33
    # It was replaced within the minute for which its features are kept.
    answer = await gateway.ask("GET", ENTRIES, params={"before": "33"})
    assert (answer.status, answer.error["code"]) == (501, "NOT_IMPLEMENTED")


@pytest.mark.parametrize(
    ("query", "passing"),
    [
        ({"contains": "LOSS"}, [1, 4]),
        ({"matches": "^loss"}, [1]),
        ({"rank": "2"}, [2, 4]),
        ({"source": "stderr"}, [3]),
        ({"since": "1970-01-01T00:00:03Z"}, [3, 4]),
        ({"until": "1970-01-01T00:00:03Z", "rank": "2"}, [2]),
        ({"level": "ERROR"}, []),
    ],
)
async def test_what_a_coordinator_does_not_filter_is_filtered_here(
    gateway: Gateway, query: dict[str, str], passing: list[int]
) -> None:
    entries = [
        entry(1, "loss 1", timestamp=Timestamp(seconds=1)),
        entry(2, "step", rank=2, timestamp=Timestamp(seconds=2)),
        entry(3, "step", source="stderr", timestamp=Timestamp(seconds=3)),
        entry(4, "the loss", rank=2, timestamp=Timestamp(seconds=4)),
    ]
    if query.get("level") == "ERROR":
        entries = []
    gateway.coordinator.answer("ListJobLogs", page(*entries, next_after_offset=4))
    found = await data(gateway, ENTRIES, epoch="e1", **query)
    assert [each["offset"] for each in found["entries"]] == passing
    assert (found["scanned_to"], found["next"]) == (4, 5)


@pytest.mark.parametrize(
    "lie",
    [
        page(entry(40), entry(49), next_before_offset=41),
        page(entry(49), entry(40), next_before_offset=33),
        page(entry(50), next_before_offset=33),
        page(entry(40), next_before_offset=50),
        page(next_before_offset=33, missing=[watch_pb2.LogRange(first=49, last=50)]),
        page(entry(40), entry(41), entry(42), next_before_offset=39),
        page(entry(40)),
    ],
)
async def test_a_page_backward_that_breaks_the_contract_is_refused(
    gateway: Gateway, lie: watch_pb2.ListJobLogsResponse
) -> None:
    announce(gateway, "log_filters")
    gateway.coordinator.answer("ListJobLogs", lie)
    answer = await gateway.ask("GET", ENTRIES, params={"before": "50", "limit": "2"})
    assert (answer.status, answer.error["code"]) == (500, "COORDINATOR_ERROR")


def snapshot(step: int, **numbers: Any) -> watch_pb2.MetricsSnapshot:
    return watch_pb2.MetricsSnapshot(
        sequence=step, step=step, timestamp=Timestamp(seconds=1000 + step), **numbers
    )


def metrics(*points: watch_pb2.MetricsSnapshot, **more: Any) -> watch_pb2.GetJobMetricsResponse:
    return watch_pb2.GetJobMetricsResponse(job_id="job-1", points=points, total_points=900, **more)


async def test_metrics_by_key_and_step(gateway: Gateway) -> None:
    points = [snapshot(step, loss=1 / step, extra={"lr2": step}) for step in range(1, 6)]
    gateway.coordinator.answer("GetJobMetrics", metrics(*points))
    query = {"keys": "loss", "from_step": "2", "to_step": "4", "max_points": "9"}
    found = await data(gateway, METRICS, **query)
    [asked] = [each.message for each in gateway.coordinator.requests("GetJobMetrics")]
    assert (list(asked.keys), asked.from_step, asked.to_step) == (["loss"], 2, 4)
    assert (asked.max_points, asked.with_buckets) == (9, False)
    # An older coordinator returns all of them, with all their numbers.
    assert [(each["step"], each["extra"]) for each in found["points"]] == [
        (2, {}),
        (3, {}),
        (4, {}),
    ]
    assert await data(gateway, METRICS, keys="nothing") == {
        **{"job_id": "job-1", "points": [], "total_points": 900}
    }


@pytest.mark.parametrize(("x", "places"), [("step", [1, 3, 4]), ("time", [1001.0, 1003.0, 1004.0])])
async def test_metrics_as_columns(gateway: Gateway, x: str, places: list[float]) -> None:
    buckets = [
        watch_pb2.MetricsBucket(key="loss", from_step=1, to_step=3, minimum=-1, maximum=9),
        watch_pb2.MetricsBucket(key="lr2", from_step=1, to_step=3, minimum=0, maximum=float("nan")),
        watch_pb2.MetricsBucket(key="unseen", from_step=1, to_step=3),
    ]
    gateway.coordinator.answer(
        "GetJobMetrics",
        metrics(
            snapshot(1, loss=0.5),
            snapshot(3, loss=float("nan"), extra={"lr2": 2.0}),
            snapshot(4, loss=0.25, eval_metrics={"eval_loss": 1.5}),
            between=watch_pb2.MetricsBuckets(buckets=buckets),
        ),
    )
    found = await data(gateway, METRICS, shape="columns", x=x)
    [asked] = [each.message for each in gateway.coordinator.requests("GetJobMetrics")]
    assert asked.with_buckets
    between: dict[str, Any] = {"from_step": [1], "to_step": [3]}
    assert found.pop("series") == {
        "loss": {
            "x": places,
            "y": [0.5, None, 0.25],
            "buckets": {**between, "minimum": [-1], "maximum": [9]},
        },
        "lr2": {
            "x": [places[1]],
            "y": [2.0],
            "buckets": {**between, "minimum": [0], "maximum": [None]},
        },
        "eval_loss": {"x": [places[2]], "y": [1.5]},
    }
    assert found == {"job_id": "job-1", "total_points": 900, "x": x}


@pytest.mark.parametrize(
    "buckets",
    [
        [watch_pb2.MetricsBucket(key="loss", from_step=3, to_step=1)],
        [watch_pb2.MetricsBucket(key="loss", minimum=2, maximum=1)],
        [watch_pb2.MetricsBucket(key="lr")],
        [watch_pb2.MetricsBucket(key="loss", from_step=n, to_step=n) for n in (2, 1)],
    ],
)
async def test_buckets_that_break_the_contract_are_refused(
    gateway: Gateway, buckets: list[watch_pb2.MetricsBucket]
) -> None:
    between = watch_pb2.MetricsBuckets(buckets=buckets)
    gateway.coordinator.answer("GetJobMetrics", metrics(between=between))
    answer = await gateway.ask("GET", METRICS, params={"shape": "columns", "keys": "loss"})
    assert (answer.status, answer.error["code"]) == (500, "COORDINATOR_ERROR")


async def test_a_summary_tells_of_each_job_and_asks_for_a_few_at_a_time(gateway: Gateway) -> None:
    at_once = most = 0

    async def answer(
        request: watch_pb2.GetJobMetricsRequest, context: Any
    ) -> watch_pb2.GetJobMetricsResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        number = int(request.job_id.partition("-")[2])
        if number % 5 == 0:
            await context.abort(StatusCode.NOT_FOUND, "no such job")
        if number % 5 == 1:
            return watch_pb2.GetJobMetricsResponse(job_id="another")
        points = [snapshot(1, loss=number), snapshot(2, extra={"other": 1})]
        return watch_pb2.GetJobMetricsResponse(
            job_id=request.job_id, points=points[: number % 5], total_points=2
        )

    gateway.coordinator.answer("GetJobMetrics", answer)
    query = "&".join(f"job_id=job-{number}" for number in range(49)) + "&job_id=job-3&points=7"
    found = await data(gateway, f"{PREFIX}/metrics-summary?{query}")
    assert (found["key"], found["x"]) == ("loss", "step")
    assert [each["job_id"] for each in found["jobs"]] == [f"job-{number}" for number in range(49)]
    assert 1 < most <= summaries.CONCURRENCY
    missing, broken, there = found["jobs"][10:13]
    assert missing["error"] == {"code": "JOB_NOT_FOUND", "message": "no such job"}
    assert missing["series"] is None
    assert broken["error"]["code"] == "COORDINATOR_ERROR"
    assert there == {
        **{"job_id": "job-12", "total_points": 2, "error": None},
        "series": {"x": [1], "y": [12]},
    }
    asked = [each.message for each in gateway.coordinator.requests("GetJobMetrics")]
    assert len(asked) == 49
    assert {(each.max_points, tuple(each.keys)) for each in asked} == {(7, ("loss",))}


async def test_a_summary_waits_only_so_long(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "PATIENCE", 0.2)
    never = asyncio.Event()

    async def answer(request: watch_pb2.GetJobMetricsRequest, _: Any) -> Any:
        if request.job_id != "job-1":
            await never.wait()
        return metrics(snapshot(1, loss=0.5))

    gateway.coordinator.answer("GetJobMetrics", answer)
    found = await data(gateway, f"{PREFIX}/metrics-summary?job_id=job-1&job_id=job-2")
    one, two = found["jobs"]
    assert one["error"] is None
    assert two["error"]["code"] == "COORDINATOR_TIMEOUT"
    never.set()


async def test_a_failure_of_the_coordinator_is_told_of_each_job(gateway: Gateway) -> None:
    gateway.coordinator.answer("GetJobMetrics", Failure(StatusCode.RESOURCE_EXHAUSTED, "too many"))
    found = await data(gateway, f"{PREFIX}/metrics-summary?job_id=job-1&job_id=job-2")
    assert [each["error"]["code"] for each in found["jobs"]] == ["RESOURCE_EXHAUSTED"] * 2
