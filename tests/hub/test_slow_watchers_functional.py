"""Watchers that read slowly, not at all, or leave without a word."""

import asyncio

from app.hub.close_reasons import CloseReason
from tests.hub.client import Watching
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.log_coordinator import LogCoordinator

KiB = 1024
#: Far more than the kernel keeps for the two ends of a loopback connection that
#: nobody reads from.
LINES = 40_000
LINE = "x" * 180


async def keep_logging(coordinator: LogCoordinator) -> None:
    for number in range(0, LINES, 200):
        await coordinator.log(*(f"{number + n} {LINE}" for n in range(200)))
        await asyncio.sleep(0)


async def read_all(watching: Watching) -> list[int]:
    """Read up to the last line; the offsets of all lines."""
    while not watching.events or watching.events[-1].offset < LINES:
        assert await watching.read(65536)
    assert {each.name for each in watching.events} <= {"log", "bookmark"}
    return [each.offset for each in watching.events if each.name == "log"]


def most_unsent(gateway: Gateway) -> int:
    return max(connection.unsent for connection in gateway.hub.streams)


async def test_a_stalled_watcher_holds_little_costs_others_nothing_and_catches_up(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    # A history that overflows many times over.
    gateway = await make_gateway(history_bytes=256 * KiB)
    async with (
        gateway.watch(receive_buffer=4 * KiB) as stalled,
        gateway.watch() as other,
    ):
        assert (await stalled.next()).name == "bookmark"
        logging = asyncio.create_task(keep_logging(coordinator))
        assert await read_all(other) == list(range(1, LINES + 1))
        await logging
        assert 0 < most_unsent(gateway) <= 256 * KiB
        assert await read_all(stalled) == list(range(1, LINES + 1))
        await coordinator.log("live")
        assert await stalled.logs(0) == await other.logs(0) == []
        for each in (stalled, other):
            while each.events[-1].offset < LINES + 1:
                assert await each.read(65536)
    assert coordinator.reads, "what the history had lost was read from the coordinator"


async def test_a_watcher_that_takes_nothing_is_dropped_and_comes_back_without_loss(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(write_timeout=0.3)
    async with gateway.watch(receive_buffer=4 * KiB) as stalled:
        await keep_logging(coordinator)
        async with asyncio.timeout(60):
            await gateway.seen.left.wait()
        assert gateway.seen.reasons == [CloseReason.WRITE_TIMEOUT]
        got = await stalled.salvage()
    last_id = got[-1].id
    patient = await make_gateway()
    async with patient.watch(headers={"Last-Event-ID": last_id}) as again:
        offsets = [each.offset for each in got if each.name == "log"] + await read_all(again)
    assert offsets == list(range(1, LINES + 1))


async def test_a_slow_watcher_that_takes_a_little_is_not_dropped(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(write_timeout=3.0)
    async with gateway.watch(receive_buffer=4 * KiB) as slow:
        # It reads meanwhile: to log all of them can take longer than the time-out.
        logging = asyncio.create_task(keep_logging(coordinator))
        # Several time-outs long, a little at a time.
        for _ in range(30):
            assert await slow.read(16 * KiB)
            await asyncio.sleep(0.25)
        await logging
        assert gateway.seen.reasons == []
        assert await read_all(slow) == list(range(1, LINES + 1))


async def test_a_client_that_leaves_without_a_word_is_noticed_on_a_quiet_stream(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    async with gateway.watch() as watching:
        await watching.next()
    async with asyncio.timeout(60):
        await gateway.seen.left.wait()
        await coordinator.until(watches=0)
    assert gateway.seen.reasons == [CloseReason.CLIENT_GONE]


async def test_a_shutdown_does_not_wait_for_stalled_watchers(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(write_timeout=3600)
    async with gateway.watch(receive_buffer=4 * KiB):
        await keep_logging(coordinator)
        async with asyncio.timeout(60):
            await gateway.hub.close()
    assert gateway.seen.reasons == [CloseReason.SHUTDOWN]


async def test_a_thousand_come_and_go_over_one_stream(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(linger=2)
    await coordinator.log(*(f"line {n}" for n in range(200)))
    await coordinator.snapshot(1, loss=1.0)
    at_once = asyncio.Barrier(1000)

    async def come_and_go(number: int) -> None:
        watching = (
            gateway.watch("metrics", interval=1 + number % 60)
            if number % 4 == 0
            else gateway.watch(
                tail=number % 250, level=("DEBUG", "INFO", "WARNING", "ERROR")[number % 4]
            )
        )
        await at_once.wait()
        async with watching:
            assert watching.status == 200
            await watching.next()
        # Half of them come back from where they were.
        if number % 2:
            last_id = watching.events[-1].id
            async with gateway.watch(headers={"Last-Event-ID": last_id}) as again:
                assert (await again.next()).id == last_id

    await asyncio.gather(*(come_and_go(number) for number in range(1000)))
    assert gateway.seen.most_upstreams == 1
    async with asyncio.timeout(60):
        await coordinator.until(watches=0)
    assert gateway.seen.upstreams == 0


async def test_a_fast_log_does_not_grow_the_history(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    coordinator.batch = 5000
    gateway = await make_gateway(history_bytes=256 * KiB)
    async with gateway.watch() as watching:
        for _ in range(20):
            await coordinator.log(*(LINE for _ in range(5000)))
        while not watching.events or watching.events[-1].offset < 100_000:
            assert await watching.read(1 << 20)
        offsets = [each.offset for each in watching.events if each.name == "log"]
    assert offsets == list(range(1, 100_001))
    # A batch may come on top until it has been flushed.
    assert gateway.seen.most_history < 256 * KiB + 2 * 5000 * 400
