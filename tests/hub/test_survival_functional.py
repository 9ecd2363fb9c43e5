"""Nothing is lost: a real job on the real coordinator, which is killed while 200 watch."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from tests.coordinator.harness import SECRET, client_of, coordinator_process
from tests.hub.client import Watching
from tests.hub.conftest import GatewayMaker

LINES = 6_000
#: Prints lines as fast as a busy job does, through both deaths of its coordinator.
SCRIPT = f"""
import time
for number in range(1, {LINES} + 1):
    print(f"line {{number}} " + "x" * 100, flush=number % 50 == 0)
    if number % 50 == 0:
        time.sleep(0.02)
"""


class Reader:
    """A client that wants every line."""

    def __init__(self, watching: Watching) -> None:
        self.watching = watching
        self.reached = asyncio.Event()
        self.lines: list[str] = []
        self.offsets: list[int] = []
        self.goal = 0

    async def past(self, count: int) -> None:
        """Wait until it has this many entries."""
        self.goal = count
        self.reached.clear()
        if len(self.offsets) < count:
            await self.reached.wait()

    async def read_to_the_end(self) -> None:
        while True:
            event = await self.watching.next()
            if event.name == "end":
                assert event.data["status"] == "COMPLETED"
                return
            assert event.name in ("log", "bookmark"), event
            if event.name == "log":
                self.offsets.append(event.offset)
                if event.data["source"] == "stdout":
                    self.lines.append(event.data["message"].split(" x")[0])
                if self.goal and len(self.offsets) >= self.goal:
                    self.reached.set()

    def check(self) -> None:
        assert self.offsets == list(range(1, len(self.offsets) + 1))
        assert self.lines == [f"line {number}" for number in range(1, LINES + 1)]


async def trickle(watching: Watching, until: "asyncio.Future[list[None]]") -> None:
    """Read 1 KB/s."""
    while not until.done():
        await watching.read(1024)
        await asyncio.wait({until}, timeout=1)


async def test_two_hundred_watchers_miss_nothing_of_a_job_whose_coordinator_is_killed_twice(
    make_gateway: GatewayMaker, tmp_path: Path
) -> None:
    drive = tmp_path / "drive"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(coordinator_process(tmp_path))
        client = await stack.enter_async_context(client_of(first.port, drive, "acme"))
        job_id = await client.submit(SCRIPT)
        gateway = await make_gateway(
            address=f"127.0.0.1:{first.port}",
            api_secret=SECRET,
            history_bytes=65536,
            history_tail=10,
            # One watcher reads nothing until all others have read everything.
            write_timeout=600,
        )
        readers = [
            Reader(
                await stack.enter_async_context(
                    gateway.watch(
                        job=job_id,
                        tail=1_000_000,
                        level="DEBUG",
                        receive_buffer=4096 if number < 2 else None,
                    )
                )
            )
            for number in range(200)
        ]
        stalled, slow, *others = readers
        reading = asyncio.gather(*(reader.read_to_the_end() for reader in others))
        trickling = asyncio.create_task(trickle(slow.watching, reading))

        await others[0].past(LINES // 4)
        await first.stop(signal.SIGKILL)
        second = await stack.enter_async_context(coordinator_process(tmp_path, port=first.port))
        await others[0].past(LINES // 2)
        await second.stop(signal.SIGKILL)
        await stack.enter_async_context(coordinator_process(tmp_path, port=first.port))

        async with asyncio.timeout(180):
            await reading
            await trickling
            await stalled.read_to_the_end()
            await slow.read_to_the_end()
        for reader in readers:
            reader.check()
        assert gateway.seen.most_upstreams == 1
