"""Streams in gzip: each as good as one without, whoever it shares its pieces with."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.hub.close_reasons import CloseReason
from tests.hub.client import Watching
from tests.hub.conftest import Gateway, GatewayMaker, gateway_to
from tests.hub.log_coordinator import LogCoordinator
from tests.hub.states_coordinator import tells_states

GZIP = {"Accept-Encoding": "gzip"}
#: Too long for a piece that is only stored.
LONG = "x" * 1500


@pytest.fixture
async def gateway(make_gateway: GatewayMaker) -> Gateway:
    return await make_gateway(compression="gzip")


async def test_whoever_joins_when_gets_the_same_as_without(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    """Short and long entries, alone and in common, from the start, the tail and in between."""
    await coordinator.log(*(f"{LONG} {n}" for n in range(10)), "short")
    expected = 11
    async with AsyncExitStack() as opened:
        clients: list[Watching] = []
        for number in range(12):
            headers = GZIP if number % 3 else {}
            watching = gateway.watch(headers=headers, tail=number, follow="true")
            clients.append(await opened.enter_async_context(watching))
            assert watching.headers.get("content-encoding") == ("gzip" if headers else None)
            await coordinator.log(f"new {number}", *([LONG] * (number % 4)))
            expected += 1 + number % 4
            # Everybody has it before the next one comes: no piece waits for another.
            for each in clients:
                while (await each.next()).offset < expected:
                    pass
        await coordinator.end()
        for each in clients:
            assert (await each.rest())[-1].name == "end"
            logged = [event.offset for event in each.events if event.name == "log"]
            assert logged == list(range(logged[0], expected + 1))
    plain, packed = clients[0], clients[1]
    assert len(packed.coded) < len(plain.coded) / 3
    assert all(each.complete for number, each in enumerate(clients) if number % 3)


async def test_an_error_ends_a_stream_in_gzip(gateway: Gateway) -> None:
    gateway.log_in(expires_at=gateway.expiring(5))
    async with gateway.watch(headers=GZIP) as expiring:
        assert (await expiring.rest())[-1].name == "error"
        assert expiring.complete


async def test_a_stream_in_gzip_that_is_cut_has_no_end(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(compression="gzip", write_timeout=0.3)
    async with gateway.watch(headers=GZIP, receive_buffer=4096) as stalled:
        # It does not read. What cannot be packed fills its socket sooner.
        while not gateway.seen.left.is_set():
            await coordinator.log(*(f"{n}{LONG}" * 20 for n in range(200)))
            await asyncio.sleep(0)
        assert gateway.seen.reasons[-1] is CloseReason.WRITE_TIMEOUT
        await stalled.salvage()
        assert not stalled.complete


async def test_a_client_resumes_and_a_quiet_stream_has_keepalives(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("one", LONG, "three")
    async with gateway.watch(headers=GZIP) as first:
        assert await first.logs(2) == ["one", LONG]
        place = first.events[-1].id if first.events[-1].offset == 2 else "e1:2"
    async with gateway.watch(headers=GZIP | {"Last-Event-ID": place}) as second:
        assert await second.logs(1) == ["three"]
        while b": keepalive" not in second.received:
            assert await second.read(65536)
        await coordinator.log(LONG)
        assert await second.logs(1) == [LONG]
        await coordinator.end()
        assert (await second.rest())[-1].name == "end"
        assert second.complete


@pytest.mark.parametrize("http", ["1.1", "1.0"])
async def test_metrics_and_both_versions_of_http(
    gateway: Gateway, coordinator: LogCoordinator, http: str
) -> None:
    extra = {f"a_rather_long_name_{n}": float(n) for n in range(50)}
    await coordinator.snapshot(1, extra=extra)
    async with gateway.watch("metrics", headers=GZIP, http=http) as one:
        async with gateway.watch("metrics") as plain:
            assert (await plain.next_named("metrics")).data["extra"] == extra
        assert (await one.next_named("metrics")).data["extra"] == extra
        assert len(one.coded) < len(one.received)
        async with gateway.watch(headers=GZIP, http=http) as logs:
            await coordinator.log(LONG, "short")
            assert await logs.logs(2) == [LONG, "short"]
            await coordinator.end()
            for each in (one, logs):
                assert (await each.rest())[-1].name == "end"
                assert each.complete


async def test_clients_of_many_jobs_that_meet_share_pieces(gateway: Gateway) -> None:
    async with (
        tells_states() as states,
        gateway_to(states.address, compression="gzip") as many,
        AsyncExitStack() as opened,
    ):
        await states.set_state("job-1")
        clients = []
        for number in range(4):
            headers = GZIP if number else {}
            watching = many.watch("events", headers=headers, include="jobs,logs", tail=5)
            clients.append(await opened.enter_async_context(watching))
            assert watching.headers.get("content-encoding") == ("gzip" if number else None)
            await states.log(f"line {number}", LONG, job="job-1")
            for each in clients:
                got = [event for event in each.events if event.name == "log"]
                while not got or got[-1].data["offset"] < 2 * (number + 1):
                    event = await each.next()
                    got += [event] if event.name == "log" else []
        await many.hub.close()
        for each in clients:
            assert (await each.rest())[-1].name == "error"
            offsets = [event.data["offset"] for event in each.events if event.name == "log"]
            assert offsets == list(range(offsets[0], 9))
        assert all(each.complete for each in clients[1:])


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip, deflate, br, zstd", True),
        ("br;q=1, gzip;q=0.2", True),
        ("x-gzip", True),
        ("*", True),
        ("identity;q=0, *;q=0.5", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0, *", False),
        ("gzip;q=nan", False),
        ("deflate, br", False),
        ("identity;q=0", False),
        ("", False),
    ],
)
async def test_the_coding_is_the_one_that_the_client_prefers(
    gateway: Gateway, coordinator: LogCoordinator, accepted: str, packed: bool
) -> None:
    await coordinator.log("a line")
    async with gateway.watch(headers={"Accept-Encoding": accepted}) as watching:
        assert watching.headers.get("content-encoding") == ("gzip" if packed else None)
        assert "accept-encoding" in watching.headers["vary"].lower()
        assert await watching.logs(1) == ["a line"]


async def test_it_is_off_by_default(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway()
    await coordinator.log("a line")
    for kind in ("logs", "metrics", "search"):
        query: dict[str, Any] = {"contains": "a"} if kind == "search" else {}
        async with gateway.watch(kind, headers=GZIP, **query) as watching:
            assert "content-encoding" not in watching.headers


async def test_a_stream_costs_a_few_numbers(gateway: Gateway, coordinator: LogCoordinator) -> None:
    """No window of deflate is kept, whatever was sent: what it keeps has a size of its own."""
    async with gateway.watch(headers=GZIP) as watching:
        await coordinator.log(*([LONG] * 100))
        assert len(await watching.logs(100)) == 100
        [connection] = gateway.hub.streams
        assert connection.gzip is not None
        kept = [getattr(connection.gzip, name) for name in connection.gzip.__slots__]
        assert sum(isinstance(each, int) for each in kept) == len(kept) - 1
