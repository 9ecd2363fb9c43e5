"""Filters of watchers: what passes, who shares the work, and how many there may be."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import pytest

from app.hub.core import history
from app.hub.core.judging import Unjudged, verdicts
from app.log_filter import LogFilter
from generated.mindcoordinator.v1 import watch_pb2
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import JOB, LogCoordinator
from tests.hub.test_forms_functional import get

KiB = 1024


async def lines(coordinator: LogCoordinator, start: int, stop: int) -> None:
    """Entries of three ranks and two sources; each tenth is a warning about a loss."""
    log = coordinator.jobs[JOB]
    for offset in range(start, stop):
        message = f"Loss is {offset}" if offset % 10 == 0 else f"step {offset}"
        entry = watch_pb2.LogEntry(
            offset=offset,
            level=watch_pb2.LOG_LEVEL_WARNING if offset % 10 == 0 else watch_pb2.LOG_LEVEL_INFO,
            message=message,
            source="stderr" if offset % 2 else "stdout",
            rank=offset % 3,
        )
        entry.timestamp.FromSeconds(1_800_000_000 + offset)
        log.entries.append(entry)
    await coordinator.log()


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"contains": "LOSS"}, lambda n: n % 10 == 0),
    ({"rank": 1}, lambda n: n % 3 == 1),
    ({"rank": "1&rank=2"}, lambda n: n % 3 != 0),
    ({"source": "stderr"}, lambda n: n % 2 == 1),
    ({"matches": quote("^(step|Loss is) \\d*7$")}, lambda n: n % 10 == 7),
    ({"level": "WARNING", "contains": "5"}, lambda n: n % 10 == 0 and "5" in str(n)),
    ({"since": "2027-01-15T08:33:20Z"}, lambda n: n >= 2000),
    ({"until": "2027-01-15T08:33:20Z", "contains": "loss"}, lambda n: n < 2000 and n % 10 == 0),
    ({"matches": "loss", "contains": "nothing"}, lambda n: False),
]


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("query", "passes"), CASES)
async def test_the_same_entries_pass_behind_the_history_in_it_and_live(
    make_gateway: GatewayMaker,
    coordinator: LogCoordinator,
    query: dict[str, Any],
    passes: Any,
    older: bool,
) -> None:
    """A coordinator that knows no filters is believed no more than it says."""
    gateway = await make_gateway(history_bytes=64 * KiB, history_tail=50)
    coordinator.filters = not older
    await lines(coordinator, 1, 5501)
    async with gateway.watch(last_event_id="e1:0", **query) as watching:
        await lines(coordinator, 5501, 5701)
        await coordinator.end()
        events = await watching.rest()
    assert events[-1].name == "end"
    found = [each.offset for each in events if each.name == "log"]
    assert found == [n for n in range(1, 5701) if passes(n)]
    assert not [each for each in events if each.name == "gap"]
    if not older:
        assert any(request.HasField("filter") for request in coordinator.reads)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("history_tail", "history_bytes"), [(5000, 4096 * KiB), (20, 64 * KiB)])
@pytest.mark.parametrize(("query", "passes"), CASES)
async def test_a_tail_is_counted_in_entries_that_pass(
    make_gateway: GatewayMaker,
    coordinator: LogCoordinator,
    query: dict[str, Any],
    passes: Any,
    history_tail: int,
    history_bytes: int,
    older: bool,
) -> None:
    gateway = await make_gateway(history_bytes=history_bytes, history_tail=history_tail)
    coordinator.filters = not older
    await lines(coordinator, 1, 2101)
    await coordinator.end()
    async with gateway.watch(tail=30, **query) as watching:
        events = await watching.rest()
    found = [each.offset for each in events if each.name == "log"]
    expected = [n for n in range(1, 2101) if passes(n)][-30:]
    if older and history_tail == 20:
        # It counts what it can judge: the level.
        assert found == expected[len(expected) - len(found) :]
    else:
        assert found == expected


async def test_text_and_ndjson_are_filtered_alike(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await lines(coordinator, 1, 101)
    await coordinator.end()
    queries: tuple[dict[str, Any], ...] = ({"contains": "loss"}, {"matches": "Loss"})
    for query in queries:
        text = await get(gateway, format="text", from_=1, follow="false", **query)
        assert text.lines == [f"Loss is {n}" for n in range(10, 101, 10)]
        ndjson = await get(gateway, format="ndjson", from_=1, follow="false", **query)
        assert [each.get("offset") for each in ndjson.objects] == [*range(10, 101, 10), None]


async def test_each_entry_is_judged_once_for_all_who_have_the_same_filter(
    gateway: Gateway, coordinator: LogCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: dict[LogFilter, list[int]] = {}
    really = verdicts

    def counting(entries: list[Unjudged], filters: list[LogFilter]) -> list[list[bool]]:
        for each in filters:
            judged.setdefault(each, []).extend(entry.offset for entry in entries)
        return really(entries, filters)

    monkeypatch.setattr(history, "verdicts", counting)
    await lines(coordinator, 1, 2)
    async with AsyncExitStack() as watchers:
        everyone = [
            await watchers.enter_async_context(gateway.watch(tail=0, contains=each))
            for each in ("loss", "step")
            for _ in range(20)
        ]
        for each in everyone:
            await each.next()
        for start in range(2, 402, 40):
            await lines(coordinator, start, start + 40)
        await coordinator.end()
        for each in everyone:
            assert (await each.rest())[-1].name == "end"
    assert coordinator.watches == 1
    assert {each.contains: len(offsets) for each, offsets in judged.items()} == {
        "loss": 400,
        "step": 400,
    }
    assert all(len(set(offsets)) == 400 for offsets in judged.values())


async def test_a_slow_expression_leaves_the_loop_to_others(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    """Lines that take a thread long are no delay to who has no such filter."""
    costly = quote("(([a-z])+.)+[A-Z]([a-z])+$")
    await coordinator.log(*("a" * 16_000 for _ in range(20)))
    async with gateway.watch(matches=costly, tail=0) as slow, gateway.watch(tail=0) as quick:
        await slow.next()
        await quick.next()
        await coordinator.log(*("a" * 16_000 for _ in range(20)))
        await coordinator.end()
        assert len(await quick.rest()) == 21
        assert [each.name for each in await slow.rest()][-1] == "end"


async def test_there_are_only_so_many_filters_of_a_job_and_of_a_user(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(max_filters_per_job=5, max_filters_per_user=3)
    async with AsyncExitStack() as watchers:

        async def join(job: str = JOB, **query: Any) -> tuple[int, str]:
            watching = await watchers.enter_async_context(gateway.watch(job=job, **query))
            return watching.status, "" if watching.status == 200 else watching.error["message"]

        for number in range(3):
            assert (await join(contains=f"a{number}"))[0] == 200
        status, told = await join(contains="a3")
        assert status == 429
        assert "Your open streams already use 3 different filters" in told
        # One that is there, and levels alone, cost nothing more.
        assert (await join(contains="a1"))[0] == 200
        assert (await join(level="ERROR"))[0] == 200
        gateway.log_in(user_id="ben")
        assert (await join(contains="a0"))[0] == 200
        for number in range(2):
            assert (await join(contains=f"b{number}"))[0] == 200
        gateway.log_in(user_id="cid")
        status, told = await join(contains="c0")
        assert status == 429
        assert "of this job already use 5 different filters" in told
        coordinator.jobs["job-2"]
        assert (await join("job-2", contains="c0"))[0] == 200
    assert gateway.seen.refused == ["filters"] * 2
    # What nobody has any more counts no longer.
    async with asyncio.timeout(60):
        while gateway.seen.watchers["logs"]:
            gateway.seen.left.clear()
            await gateway.seen.left.wait()
    gateway.log_in(user_id="ann")
    async with gateway.watch(contains="a3") as watching:
        assert watching.status == 200
