"""The streams over real sockets and real gRPC."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from app.hub.close_reasons import CloseReason
from app.hub.feed import Feed
from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, LogCoordinator


def numbers(start: int, stop: int) -> list[str]:
    return [f"line {number}" for number in range(start, stop)]


async def test_a_watcher_gets_the_tail_then_what_is_new_then_the_end(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 11))
    async with gateway.watch(tail=3) as watching:
        assert watching.status == 200
        assert watching.headers["content-type"].startswith("text/event-stream")
        first = await watching.next()
        assert (first.name, first.id, first.data, first.retry) == ("bookmark", "e1:7", {}, 100)
        assert await watching.logs(3) == numbers(8, 11)
        await coordinator.log(*numbers(11, 13))
        assert await watching.logs(2) == numbers(11, 13)
        await coordinator.end()
        end = await watching.next()
        assert (end.name, end.id) == ("end", "e1:12")
        assert end.data == {"status": "COMPLETED", "last_id": "e1:12"}
        assert await watching.rest() == []
    assert gateway.seen.reasons == [CloseReason.JOB_ENDED]


async def test_a_log_event_is_the_entry_as_json(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("a\nb\r\n\n: c\u2028\x00", level=watch_pb2.LOG_LEVEL_WARNING)
    async with gateway.watch() as watching:
        event = await watching.next_named("log")
    assert event.id == "e1:1"
    assert event.data["offset"] == 1
    assert event.data["level"] == "WARNING"
    assert event.data["message"] == "a\nb\r\n\n: c\u2028\x00"
    assert event.data["timestamp"].endswith("Z")


async def test_no_event_has_a_line_break_of_unicode_in_it(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    """Clients that split a stream by `str.splitlines` would cut the JSON there."""
    text = "one\u2028two\u2029three\x85four\x0b\x0c\x1c\x1d\x1efive\r\nsix \u2027 \xe2\x80"
    await coordinator.log(text)
    await coordinator.snapshot(1, extra={text: 1.0})
    async with gateway.watch() as logs, gateway.watch("metrics") as metrics:
        assert await logs.logs(1) == [text]
        assert (await metrics.next_named("metrics")).data["extra"] == {text: 1.0}
    for watching in (logs, metrics):
        assert len(watching.received.decode().splitlines()) == watching.received.count(b"\n")


async def test_many_watchers_of_every_kind_share_one_stream(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 21))
    await coordinator.snapshot(1, loss=1.0)
    logs = [
        gateway.watch(tail=n % 7, level=level)
        for n in range(25)
        for level in ("DEBUG", "INFO", "WARNING", "ERROR")
    ]
    metrics = [gateway.watch("metrics", interval=1 + n % 3) for n in range(20)]
    everyone = [*logs, *metrics]
    await asyncio.gather(*(each.__aenter__() for each in everyone))
    try:
        assert {each.status for each in everyone} == {200}
        assert coordinator.watches == 1
        await coordinator.log("to all", level=watch_pb2.LOG_LEVEL_ERROR)
        for each in logs:
            while (await each.next_named("log")).data["message"] != "to all":
                pass
        for each in metrics:
            assert (await each.next_named("metrics")).data["loss"] == 1.0
        assert gateway.seen.watchers == {"logs": 100, "metrics": 20, "events": 0, "search": 0}
        assert gateway.seen.most_upstreams == 1
    finally:
        await asyncio.gather(*(each.close() for each in everyone))
    async with asyncio.timeout(60):
        await coordinator.until(watches=0)


async def test_a_feed_lingers_so_that_coming_back_costs_nothing(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(linger=60)
    for _ in range(3):
        async with gateway.watch() as watching:
            assert watching.status == 200
    assert coordinator.watches == 1
    assert coordinator.open_watches == 1


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("DEBUG", ["d", "i", "w", "e"]),
        ("INFO", ["i", "w", "e"]),
        ("WARNING", ["w", "e"]),
        ("ERROR", ["e"]),
    ],
)
async def test_a_level_lets_itself_and_what_is_above_pass(
    gateway: Gateway, coordinator: LogCoordinator, level: str, expected: list[str]
) -> None:
    for name in ("debug", "info", "warning", "error"):
        await coordinator.log(name[0], level=watch_pb2.LogLevel.Value(f"LOG_LEVEL_{name.upper()}"))
    await coordinator.end()
    async with gateway.watch(level=level) as watching:
        events = await watching.rest()
    assert [each.data["message"] for each in events if each.name == "log"] == expected
    assert events[-1].name == "end"


@pytest.mark.parametrize("tail", [0, 1, 50, 2_500, 5_000, 1_000_000])
async def test_a_tail_of_any_size_joins_without_a_hole_while_the_job_logs(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, tail: int
) -> None:
    gateway = await make_gateway(history_bytes=65536, history_tail=100)
    await coordinator.log(*numbers(1, 4001))

    async def keep_logging() -> None:
        for number in range(4001, 6001, 20):
            await coordinator.log(*numbers(number, number + 20))
            await asyncio.sleep(0)
        await coordinator.end()

    logging = asyncio.create_task(keep_logging())
    async with gateway.watch(tail=tail) as watching:
        events = await watching.rest()
    await logging
    offsets = [each.offset for each in events if each.name == "log"]
    assert events[-1].name == "end"
    start = int(events[0].id.partition(":")[2])
    assert offsets == list(range(start + 1, 6001))
    assert [each.name for each in events if each.name not in ("log", "bookmark")] == ["end"]
    if tail >= 6000:
        assert start == 0


async def test_a_tail_is_counted_in_entries_that_pass_beyond_the_history_too(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=10)
    for round_ in range(30):
        await coordinator.log(f"warning {round_}", level=watch_pb2.LOG_LEVEL_WARNING)
        await coordinator.log(*numbers(0, 49))
    async with gateway.watch(level="WARNING", tail=20) as watching:
        assert await watching.logs(20) == [f"warning {round_}" for round_ in range(10, 30)]
        await coordinator.log("live", level=watch_pb2.LOG_LEVEL_WARNING)
        assert await watching.logs(1) == ["live"]


@pytest.mark.parametrize("how", ["header", "query"])
@pytest.mark.parametrize("seen", [0, 1, 1500, 2999, 3000])
async def test_a_client_goes_on_behind_its_last_event_id(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, seen: int, how: str
) -> None:
    gateway = await make_gateway(history_bytes=65536, history_tail=50)
    await coordinator.log(*numbers(1, 3001))
    last_id = f"e1:{seen}"
    watching = (
        gateway.watch(headers={"Last-Event-ID": last_id})
        if how == "header"
        else gateway.watch(last_event_id=last_id)
    )
    async with watching:
        await coordinator.log("new")
        expected = [*numbers(seen + 1, 3001), "new"]
        assert await watching.logs(len(expected)) == expected


async def test_a_client_that_has_everything_of_an_ended_job_is_told_to_stop(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 4))
    await coordinator.snapshot(7, loss=0.5)
    await coordinator.end()
    async with gateway.watch(headers={"Last-Event-ID": "e1:3"}) as watching:
        assert watching.status == 204
    async with gateway.watch("metrics", headers={"Last-Event-ID": "e1:7"}) as watching:
        assert watching.status == 204
    async with gateway.watch(headers={"Last-Event-ID": "e1:2"}) as watching:
        assert [each.name for each in await watching.rest()] == ["bookmark", "log", "end"]


async def test_the_polyfills_name_of_the_id_is_taken_and_a_contradiction_is_refused(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 6))
    async with gateway.watch(lastEventId="e1:3") as watching:
        assert await watching.logs(2) == numbers(4, 6)
    async with gateway.watch(lastEventId="e1:3", last_event_id="e1:3") as watching:
        assert await watching.logs(2) == numbers(4, 6)
    async with gateway.watch("metrics", lastEventId="e0:3") as watching:
        assert (await watching.next_named("gap")).data["from"] == "e0:4"
    for kind in ("logs", "metrics"):
        async with gateway.watch(kind, lastEventId="e1:3", last_event_id="e1:2") as watching:
            assert watching.status == 400
            assert watching.error["code"] == "MALFORMED_REQUEST"
    # EventSource sends the header, and repeats the query that it was opened with.
    headers = {"Last-Event-ID": "e1:4"}
    async with gateway.watch(lastEventId="e1:1", headers=headers) as watching:
        assert await watching.logs(1) == ["line 5"]


@pytest.mark.parametrize(
    "garbage", ["x", "e1", "e1:", ":5", "e1:-1", "e1:5x", "E1:5", "e1:٣", "e1:" + "9" * 30]
)
async def test_garbage_in_the_id_is_refused(gateway: Gateway, garbage: str) -> None:
    async with gateway.watch(headers={"Last-Event-ID": garbage}) as watching:
        assert watching.status == 400
        assert watching.error["code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    ("last_id", "reason"), [("e0:4", "unknown_epoch"), ("e1:99", "future_offset")]
)
async def test_an_id_of_another_log_is_told_as_a_gap_then_the_tail(
    gateway: Gateway, coordinator: LogCoordinator, last_id: str, reason: str
) -> None:
    await coordinator.log(*numbers(1, 11))
    async with gateway.watch(tail=2, headers={"Last-Event-ID": last_id}) as watching:
        gap = await watching.next_named("gap")
        epoch, _, offset = last_id.partition(":")
        start = f"{epoch}:{int(offset) + 1}"
        assert gap.data == {"from": start, "to": None, "reason": reason}
        assert await watching.logs(2) == numbers(9, 11)


async def test_a_client_from_a_replica_that_was_ahead_misses_and_repeats_nothing(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway()
    await coordinator.log(*numbers(1, 4))
    async with gateway.watch() as early:
        assert await early.logs(3) == numbers(1, 4)
        # The log has grown, and this replica has not heard of it.
        log = coordinator.jobs[JOB]
        log.entries.extend(
            watch_pb2.LogEntry(
                offset=number, level=watch_pb2.LOG_LEVEL_INFO, message=f"line {number}"
            )
            for number in (4, 5, 6)
        )
        async with gateway.watch(headers={"Last-Event-ID": "e1:5"}) as watching:
            assert (await watching.next()).id == "e1:5"
            await coordinator.log("line 7")
            assert await watching.logs(2) == numbers(6, 8)
        assert await early.logs(4) == numbers(4, 8)


async def test_follow_false_gives_the_tail_and_ends(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 6))
    async with gateway.watch(follow="false", tail=2) as watching:
        events = await watching.rest()
    assert [each.name for each in events] == ["bookmark", "log", "log", "end"]
    assert events[-1].data == {"status": "TRAINING", "last_id": "e1:5"}
    assert gateway.seen.reasons == [CloseReason.TAIL_SENT]


async def test_http_1_0_gets_the_same_bytes_without_chunks(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 3))
    async with gateway.watch(http="1.0") as old, gateway.watch() as new:
        assert "transfer-encoding" not in old.headers
        assert await old.logs(2) == await new.logs(2)
        await coordinator.log("live")
        assert await old.logs(1) == await new.logs(1) == ["live"]
        await coordinator.end()
        assert await old.rest() == await new.rest()


async def test_a_quiet_stream_is_kept_alive_and_told_where_it_is(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    async with gateway.watch(level="ERROR") as watching, gateway.watch("metrics") as metrics:
        assert (await watching.next()).id == "e1:0"
        await coordinator.log(*numbers(1, 6))
        bookmark = await watching.next()
        assert (bookmark.name, bookmark.id, bookmark.data) == ("bookmark", "e1:5", {})
        for each in (watching, metrics):
            # Half a keepalive is the beginning of the next block.
            while b": keepalive\n" not in each._parser.unfinished:
                await each.read(1000)


# Trouble upstream


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (grpc.StatusCode.NOT_FOUND, 404, "JOB_NOT_FOUND"),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "INVALID_ARGUMENT"),
        (grpc.StatusCode.PERMISSION_DENIED, 403, "COORDINATOR_PERMISSION_DENIED"),
        (grpc.StatusCode.UNAUTHENTICATED, 401, "COORDINATOR_UNAUTHENTICATED"),
        (grpc.StatusCode.ALREADY_EXISTS, 409, "ALREADY_EXISTS"),
        (grpc.StatusCode.FAILED_PRECONDITION, 409, "FAILED_PRECONDITION"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "RESOURCE_EXHAUSTED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "COORDINATOR_TIMEOUT"),
        (grpc.StatusCode.UNAVAILABLE, 503, "COORDINATOR_UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, 500, "COORDINATOR_ERROR"),
        (grpc.StatusCode.UNKNOWN, 500, "COORDINATOR_ERROR"),
    ],
)
@pytest.mark.parametrize("method", ["GetJob", "WatchJob"])
@pytest.mark.parametrize("kind", ["logs", "metrics"])
async def test_before_the_stream_an_error_has_its_status(
    gateway: Gateway,
    coordinator: LogCoordinator,
    kind: str,
    method: str,
    code: grpc.StatusCode,
    status: int,
    name: str,
) -> None:
    coordinator.refusals[method] = (code, "because")
    async with gateway.watch(kind) as watching:
        assert watching.status == status
        assert watching.error["code"] == name
    assert coordinator.open_watches == 0


async def test_a_coordinator_that_comes_back_is_gone_on_with(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 4))
    async with gateway.watch() as watching, gateway.watch(level="ERROR") as quiet:
        assert await watching.logs(3) == numbers(1, 4)
        await coordinator.stop()
        await coordinator.log(*numbers(4, 7))
        while b": keepalive\n" not in watching._parser.unfinished:
            await watching.read(1000)
        await coordinator.start()
        assert await watching.logs(3) == numbers(4, 7)
        await coordinator.log("error", level=watch_pb2.LOG_LEVEL_ERROR)
        assert await quiet.logs(1) == ["error"]
    assert gateway.seen.most_upstreams == 1


async def test_a_fault_in_one_job_s_sweep_ends_no_other_job_s(
    gateway: Gateway, coordinator: LogCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Feed.sweep

    def faulty(feed: Feed, now: float, wall: float) -> None:
        if feed.key.job_id == JOB:
            raise ValueError("odd")
        sweep(feed, now, wall)

    monkeypatch.setattr(Feed, "sweep", faulty)
    await coordinator.log("one", job=JOB)
    await coordinator.log("two", job="job-2")
    with capture_logs() as lines:
        async with gateway.watch() as watching, gateway.watch(job="job-2") as other:
            assert await watching.logs(1) == ["one"]
            assert await other.logs(1) == ["two"]
            while b": keepalive\n" not in other._parser.unfinished:
                await other.read(1000)
    assert {line["event"] for line in lines} >= {"hub_sweep_failed"}


async def test_a_stream_that_is_aborted_is_gone_on_with(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    coordinator.script = [
        *scripted(1, 2),
        (grpc.StatusCode.ABORTED, "the log was moved; read it again"),
    ]
    async with gateway.watch() as watching:
        await coordinator.log(*numbers(1, 4))
        assert await watching.logs(3) == numbers(1, 4)
    assert coordinator.watches == 2


async def test_an_outage_beyond_the_limit_ends_the_streams_as_retryable(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(outage_limit=0.3)
    await coordinator.log("one")
    async with gateway.watch() as logs, gateway.watch("metrics") as metrics:
        assert await logs.logs(1) == ["one"]
        await coordinator.stop()
        for each in (logs, metrics):
            error = await each.next_named("error")
            assert error.data == {
                "error": "stream ended",
                "code": "COORDINATOR_UNAVAILABLE",
                "retryable": True,
            }
            assert await each.rest() == []
    assert gateway.seen.reasons == [CloseReason.UPSTREAM_FAILED] * 2


async def test_a_log_that_cannot_be_read_ends_the_stream_after_the_limit(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=0, outage_limit=0.3)
    await coordinator.log(*numbers(1, 11))
    # The stream is fine; only what its history lacks cannot be had.
    coordinator.refusals["ListJobLogs"] = (grpc.StatusCode.FAILED_PRECONDITION, "not now")
    async with gateway.watch(headers={"Last-Event-ID": "e1:2"}) as watching:
        error = await watching.next_named("error")
        assert error.id == "e1:2"
        assert error.data["retryable"] is True
        assert await watching.rest() == []
    assert gateway.seen.reasons == [CloseReason.UPSTREAM_FAILED]
    assert coordinator.open_watches == 1


async def test_who_waits_to_join_while_the_hub_closes_is_told_so(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=0)
    await coordinator.log(*numbers(1, 11))
    coordinator.answering.clear()
    watching = gateway.watch(tail=5)
    joining = asyncio.create_task(watching.__aenter__(), name="joining")
    async with asyncio.timeout(60), coordinator.changed:
        await coordinator.changed.wait_for(lambda: bool(coordinator.reads))
    await gateway.hub.close()
    await joining
    assert watching.status == 503
    assert watching.error["code"] == "SHUTTING_DOWN"
    await watching.close()
    coordinator.answering.set()


async def test_a_job_that_vanishes_ends_the_streams_for_good(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("one")
    async with gateway.watch() as watching:
        assert await watching.logs(1) == ["one"]
        coordinator.refusals["WatchJob"] = (grpc.StatusCode.NOT_FOUND, "gone")
        await coordinator.stop()
        await coordinator.start()
        error = await watching.next_named("error")
        assert error.data["code"] == "JOB_DELETED"
        assert error.data["retryable"] is False
    assert gateway.seen.reasons == [CloseReason.JOB_DELETED]


async def test_a_log_that_was_recreated_is_told_and_read_from_its_start(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 6))
    async with gateway.watch() as watching:
        assert await watching.logs(5) == numbers(1, 6)
        await coordinator.stop()
        await coordinator.recreate("e2")
        await coordinator.log("anew 1", "anew 2")
        await coordinator.start()
        gap = await watching.next_named("gap")
        assert gap.data == {"from": "e1:6", "to": None, "reason": "epoch_changed"}
        assert await watching.logs(2) == ["anew 1", "anew 2"]
        assert watching.events[-1].id == "e2:2"


async def test_what_the_coordinator_dropped_meanwhile_is_told(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log(*numbers(1, 6))
    async with gateway.watch() as watching:
        assert await watching.logs(5) == numbers(1, 6)
        await coordinator.stop()
        await coordinator.log(*numbers(6, 21))
        coordinator.jobs[JOB].first = 11
        await coordinator.start()
        gap = await watching.next_named("gap")
        assert gap.data == {"from": "e1:6", "to": "e1:10", "reason": "dropped"}
        assert await watching.logs(10) == numbers(11, 21)


def scripted(*offsets: int, end: int | None = None) -> list[watch_pb2.WatchJobResponse]:
    start = watch_pb2.WatchStart(epoch="e1", after_offset=0, first_offset=1, last_offset=0)
    messages = [watch_pb2.WatchJobResponse(start=start)]
    messages += [
        watch_pb2.WatchJobResponse(
            logs=[
                watch_pb2.LogEntry(
                    offset=offset, level=watch_pb2.LOG_LEVEL_INFO, message=f"line {offset}"
                )
            ]
        )
        for offset in offsets
    ]
    if end is not None:
        messages[-1].end.CopyFrom(
            watch_pb2.WatchEnd(status=jobs_pb2.JOB_STATUS_COMPLETED, last_offset=end)
        )
    return messages


@pytest.mark.parametrize(
    ("script", "anomaly"),
    [
        (scripted(1, 2, 2, 1, 3), "order"),
        (scripted(1, 2, 6, 7), "skipped"),
        (scripted(1, 2, end=9), "early_end"),
        (scripted(1, 2), None),
    ],
    ids=["repeats", "skips", "ends-early", "breaks-off"],
)
async def test_a_coordinator_that_departs_from_its_contract_costs_no_line(
    gateway: Gateway,
    coordinator: LogCoordinator,
    script: list[watch_pb2.WatchJobResponse],
    anomaly: str | None,
) -> None:
    coordinator.script = script
    async with gateway.watch() as watching:
        await coordinator.log(*numbers(1, 10))
        assert await watching.logs(9) == numbers(1, 10)
        await coordinator.end()
        assert (await watching.next_named("end")).id == "e1:9"
    assert {*gateway.seen.anomalies, *gateway.breaches} == ({anomaly} - {None})


async def test_a_stream_without_a_start_is_an_error_before_the_first_byte(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    coordinator.script = [watch_pb2.WatchJobResponse(logs=[watch_pb2.LogEntry(offset=1)])]
    async with gateway.watch() as watching:
        assert watching.status == 500
        assert watching.error["code"] == "COORDINATOR_ERROR"


# Bounds


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ({"max_watchers": 2}, "process"),
        ({"max_watchers_per_tenant": 2}, "tenant"),
        ({"max_watchers_per_user": 2}, "user"),
    ],
)
async def test_a_limit_is_an_answer_and_frees_itself(
    make_gateway: GatewayMaker, limit: dict[str, int], name: str
) -> None:
    gateway = await make_gateway(**limit)
    async with gateway.watch(), gateway.watch("metrics") as second:
        async with gateway.watch() as refused:
            assert refused.status == 429
            assert refused.error["code"] == "RATE_LIMITED"
            assert refused.headers["retry-after"] == str(refused.error["retry_after"])
        assert gateway.seen.refused == [name]
        await second.close()
        async with asyncio.timeout(60):
            await gateway.seen.left.wait()
        async with gateway.watch() as admitted:
            assert admitted.status == 200


async def test_feeds_are_bounded(make_gateway: GatewayMaker, coordinator: LogCoordinator) -> None:
    gateway = await make_gateway(max_feeds=1)
    coordinator.jobs["job-2"]
    async with gateway.watch(), gateway.watch(job="job-2") as refused:
        assert refused.status == 429
        assert gateway.seen.refused == ["feeds"]


async def test_a_tenant_has_a_share_of_the_feeds(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(max_feeds=4)
    for number in range(2, 5):
        coordinator.jobs[f"job-{number}"]
    async with (
        gateway.watch(),
        gateway.watch(job="job-2"),
        gateway.watch(job="job-2") as shared,
        gateway.watch(job="job-3") as refused,
    ):
        assert (shared.status, refused.status) == (200, 429)
        assert "Your tenant" in refused.error["message"]
        assert gateway.seen.refused == ["tenant_feeds"]
        gateway.log_in(tenant_id="other")
        async with gateway.watch(job="job-3") as admitted:
            assert admitted.status == 200


async def test_histories_together_are_bounded_and_the_oldest_goes_first(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    total = 1024 * 1024
    gateway = await make_gateway(linger=60, history_bytes=total, history_bytes_total=total)
    jobs = [f"job-{number}" for number in range(4)]
    for job in jobs:
        await coordinator.log(*("x" * 500 for _ in range(1000)), job=job)
    for job in jobs:
        async with gateway.watch(job=job, tail=1000, follow="false") as watching:
            assert [each.name for each in await watching.rest()].count("log") == 1000
    assert total * 0.7 < gateway.seen.history <= total
    # What is gone from the history is read from the coordinator.
    async with gateway.watch(job="job-0", tail=1000, follow="false") as watching:
        assert [each.name for each in await watching.rest()].count("log") == 1000
    assert coordinator.reads


# Identity


async def test_another_tenants_job_is_not_there_even_while_it_is_watched(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    coordinator.tenants[JOB] = "acme"
    async with gateway.watch():
        gateway.log_in(tenant_id="evil")
        async with gateway.watch() as refused:
            assert refused.status == 404
            assert refused.error["code"] == "JOB_NOT_FOUND"


async def test_a_stream_ends_with_its_token(gateway: Gateway) -> None:
    gateway.log_in(expires_at=gateway.expiring(0.5))
    async with gateway.watch() as logs, gateway.watch("metrics") as metrics:
        for each in (logs, metrics):
            error = await each.next_named("error")
            assert error.data["code"] == "AUTH_EXPIRED"
            assert error.data["retryable"] is False
            assert await each.rest() == []
    assert gateway.seen.reasons == [CloseReason.AUTH_EXPIRED] * 2


async def test_a_revoked_credential_ends_its_streams_and_no_others(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    gateway.log_in(credential_id="one")
    async with gateway.watch() as first:
        gateway.log_in(credential_id="two")
        async with gateway.watch() as second:
            await first.next()
            await second.next()
            gateway.hub.revoke("one")
            assert (await first.next()).data["code"] == "AUTH_EXPIRED"
            await coordinator.log("still here")
            assert await second.logs(1) == ["still here"]


async def test_a_shutdown_tells_every_watcher_when_to_come_back(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("one")
    watchers = [gateway.watch() for _ in range(20)]
    for each in watchers:
        await each.__aenter__()
        assert await each.logs(1) == ["one"]
    await gateway.server.close()
    pauses = []
    for each in watchers:
        error = await each.next()
        assert error.name == "error"
        assert error.id == "e1:1"
        assert error.data["code"] == "SHUTTING_DOWN"
        assert error.data["retryable"] is True
        assert error.retry is not None
        pauses.append(error.retry)
        assert await each.rest() == []
        await each.close()
    # Each has its own twentieth of the ten seconds.
    assert [(pause - 50) // 500 for pause in sorted(pauses)] == list(range(20))
    assert gateway.seen.reasons == [CloseReason.SHUTDOWN] * 20


# Metrics


async def test_metrics_are_conflated_never_repeated_and_complete_at_the_end(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.snapshot(1, loss=3.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with gateway.watch("metrics", interval=1) as watching:
        first = await watching.next_named("metrics")
        assert first.data["loss"] == 3.0
        for number in range(2, 30):
            await coordinator.snapshot(number, loss=float("nan"), grad_norm=float("inf"))
        sequences = [first.data["sequence"]]
        while sequences[-1] < 29:
            event = await watching.next_named("metrics")
            assert event.data["loss"] is None
            assert event.data["grad_norm"] is None
            assert event.id == f"e1:{event.data['sequence']}"
            sequences.append(event.data["sequence"])
        assert sequences == sorted(set(sequences))
        # One a second, and the first.
        assert len(sequences) <= loop.time() - began + 2
        await coordinator.snapshot(30, loss=0.1)
        await coordinator.end()
        assert (await watching.next_named("metrics")).data["loss"] == 0.1
        end = await watching.next_named("end")
        assert json.loads(json.dumps(end.data)) == {"status": "COMPLETED", "last_id": "e1:30"}


async def test_metrics_go_on_behind_the_last_event_id(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.snapshot(5, loss=5.0)
    async with gateway.watch("metrics", headers={"Last-Event-ID": "e1:5"}) as watching:
        assert (await watching.next()).name == "bookmark"
        await coordinator.snapshot(6, loss=6.0)
        assert (await watching.next_named("metrics")).id == "e1:6"


def test_every_close_reason_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/streams.md").read_text()
    for reason in CloseReason:
        assert f"| `{reason.value}` |" in text
