"""Clients that come back with the id of a replica that was ahead of this one."""

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from app.hub.close_reasons import CloseReason
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, LogCoordinator


def lines(start: int, stop: int) -> list[str]:
    return [f"line {number}" for number in range(start, stop)]


async def test_an_id_of_a_newer_log_is_gone_on_from_where_the_replica_is_behind(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("old 1", "old 2")
    async with gateway.watch() as early:
        assert await early.logs(2) == ["old 1", "old 2"]
        # The stream of this replica stays with the old log until it is opened anew.
        await coordinator.recreate("e2")
        await coordinator.log(*lines(1, 6))
        async with gateway.watch(headers={"Last-Event-ID": "e2:3"}) as watching:
            assert (await watching.next()).id == "e2:3"
            assert await watching.logs(2) == lines(4, 6)
            await coordinator.log("line 6")
            assert await watching.logs(1) == ["line 6"]
        told = await early.next_named("gap")
        assert told.data["reason"] == "epoch_changed"
        assert await early.logs(6) == lines(1, 7)
    assert gateway.seen.most_upstreams == 1


async def test_a_log_that_has_ended_gives_way_to_another_one_of_the_job(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(linger=60)
    await coordinator.log("old 1")
    await coordinator.end()
    async with gateway.watch() as early:
        assert (await early.rest())[-1].id == "e1:1"
    await coordinator.recreate("e2")
    await coordinator.log(*lines(1, 4))
    async with gateway.watch(headers={"Last-Event-ID": "e2:1"}) as refused:
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
    async with gateway.watch(headers={"Last-Event-ID": "e2:1"}) as watching:
        assert await watching.logs(2) == lines(2, 4)


async def test_while_the_coordinator_is_away_an_id_of_another_log_gets_no_old_lines(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("old 1")
    async with gateway.watch() as early:
        assert await early.logs(1) == ["old 1"]
        coordinator.refusals["ListJobLogs"] = (grpc.StatusCode.UNAVAILABLE, "away")
        async with gateway.watch(headers={"Last-Event-ID": "e2:3"}) as watching:
            assert watching.status == 503
            assert watching.error["code"] == "COORDINATOR_UNAVAILABLE"


async def test_an_id_of_the_old_log_that_is_ahead_of_a_replica_is_unknown(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("old 1")
    async with gateway.watch() as early:
        assert await early.logs(1) == ["old 1"]
        await coordinator.recreate("e2")
        await coordinator.log(*lines(1, 3))
        async with gateway.watch(headers={"Last-Event-ID": "e1:5"}) as watching:
            # Who loses the connection here is told the next time.
            assert (await watching.next()).id == "e1:5"
            assert (await watching.next()).data == {
                "from": "e1:6",
                "to": None,
                "reason": "unknown_epoch",
            }
            assert await watching.logs(2) == lines(1, 3)


@pytest.mark.parametrize(
    ("last_id", "reason"), [("e1:9", "future_offset"), ("e0:1", "unknown_epoch")]
)
async def test_metrics_tell_an_id_that_is_none_of_theirs(
    gateway: Gateway, coordinator: LogCoordinator, last_id: str, reason: str
) -> None:
    await coordinator.snapshot(5, loss=5.0)
    epoch, _, sequence = last_id.partition(":")
    async with gateway.watch("metrics", headers={"Last-Event-ID": last_id}) as watching:
        assert (await watching.next()).id == last_id
        told = await watching.next_named("gap")
        assert told.id == "e1:0"
        assert told.data == {
            "from": f"{epoch}:{int(sequence) + 1}",
            "to": None,
            "reason": reason,
        }
        assert (await watching.next_named("metrics")).id == "e1:5"


async def test_metrics_of_a_replica_that_was_ahead_are_not_repeated(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.snapshot(5, loss=5.0)
    async with gateway.watch("metrics") as early:
        assert (await early.next_named("metrics")).id == "e1:5"
        # This replica has not heard of it yet.
        coordinator.jobs[JOB].points = 6
        async with gateway.watch("metrics", headers={"Last-Event-ID": "e1:6"}) as watching:
            assert (await watching.next()).id == "e1:6"
            await coordinator.snapshot(6, loss=6.0)
            await coordinator.snapshot(7, loss=7.0)
            assert (await watching.next_named("metrics")).id == "e1:7"


@pytest.mark.parametrize("sequence", [0, 5])
async def test_who_has_all_metrics_of_a_job_that_ended_need_not_come_back(
    gateway: Gateway, coordinator: LogCoordinator, sequence: int
) -> None:
    if sequence:
        await coordinator.snapshot(sequence, loss=1.0)
    await coordinator.end()
    async with gateway.watch("metrics") as watching:
        events = await watching.rest()
    assert [each.name for each in events] == ["bookmark", *["metrics"] * (sequence > 0), "end"]
    assert events[-1].id == f"e1:{sequence}"
    async with gateway.watch("metrics", headers={"Last-Event-ID": events[-1].id}) as again:
        assert again.status == 204
    async with gateway.watch("metrics", headers={"Last-Event-ID": f"e1:{sequence + 1}"}) as ahead:
        names = [each.name for each in await ahead.rest()]
    assert names == ["bookmark", "gap", *["metrics"] * (sequence > 0), "end"]
    assert gateway.seen.reasons == [CloseReason.JOB_ENDED] * 2


async def test_calls_carry_the_request_of_the_watcher_that_caused_them(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=0)
    await coordinator.log(*lines(1, 11))
    gateway.log_in(request_id="req_first")
    async with gateway.watch(tail=5) as first:
        assert await first.logs(5) == lines(6, 11)
        gateway.log_in(request_id="req_second", user_id="bob")
        async with gateway.watch(headers={"Last-Event-ID": "e1:1"}) as second:
            assert await second.logs(9) == lines(2, 11)
            await first.close()
            await coordinator.stop()
            await coordinator.start()
            await coordinator.log("line 11")
            assert await second.logs(1) == ["line 11"]
    carried = [
        (method, metadata.get("x-request-id"), metadata.get("x-user-id"))
        for method, metadata in coordinator.metadata
        if method != "GetJob"
    ]
    assert {each for each in carried if each[0] == "WatchJob"} == {("WatchJob", "req_first", None)}
    assert {each for each in carried if each[0] == "ListJobLogs"} == {
        ("ListJobLogs", "req_first", None),
        ("ListJobLogs", "req_second", None),
    }


async def test_what_a_shared_feed_logs_names_no_user(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as told:
        gateway = await make_gateway(outage_limit=0.3)
        await coordinator.log("line 1")
        gateway.log_in(request_id="req_first", user_id="ann")
        async with gateway.watch() as watching:
            assert await watching.logs(1) == ["line 1"]
            await coordinator.stop()
            await watching.next_named("error")
    shared = [each for each in told if each["event"] != "hub_watcher_closed"]
    assert {"hub_upstream_lost", "hub_feed_failed"} <= {each["event"] for each in shared}
    for line in shared:
        assert "user_id" not in line
        assert (line["tenant_id"], line["request_id"]) == ("acme", "req_first")
    (closed,) = (each for each in told if each["event"] == "hub_watcher_closed")
    assert closed["user_id"] == "ann"
