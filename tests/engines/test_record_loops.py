"""Work that one loop has done on another is over when it is over for both."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from app.coordinator.engines.remote.records.loops import LoopClosed, RecordLoop, RecordLoops

PATIENCE = 60


@pytest.fixture
def loop() -> Iterator[RecordLoop]:
    with closing(RecordLoop("a test's")) as loop:
        yield loop


async def test_work_is_done_in_the_thread_of_the_loop(loop: RecordLoop) -> None:
    async def name() -> str:
        return threading.current_thread().name

    assert await loop.carry_out(name, name="work") == "a test's"


async def test_what_it_raises_is_raised(loop: RecordLoop) -> None:
    async def fail() -> None:
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        await loop.carry_out(fail, name="work")


async def test_a_cancellation_is_passed_on_and_waited_for(loop: RecordLoop) -> None:
    here = asyncio.get_running_loop()
    begun, may_end = asyncio.Event(), threading.Event()
    ended: list[str] = []

    async def work() -> None:
        try:
            here.call_soon_threadsafe(begun.set)
            await asyncio.Event().wait()
        finally:
            # As one that is being written when it is cancelled.
            may_end.wait(PATIENCE)  # blocks this loop alone
            ended.append("work")

    waiting = asyncio.create_task(loop.carry_out(work, name="work"), name="waits")
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        waiting.cancel()
        # However often it is.
        await asyncio.sleep(0)
        waiting.cancel()
        may_end.set()
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert ended == ["work"]


async def test_a_loop_that_is_closed_has_cancelled_its_work_and_takes_no_more() -> None:
    here = asyncio.get_running_loop()
    begun = asyncio.Event()

    async def work() -> None:
        here.call_soon_threadsafe(begun.set)
        await asyncio.Event().wait()

    loop = RecordLoop("a test's")
    waiting = asyncio.create_task(loop.carry_out(work, name="work"), name="waits")
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        loop.close()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    with pytest.raises(LoopClosed):
        await loop.carry_out(work, name="work")


async def test_runs_share_a_few_loops() -> None:
    with closing(RecordLoops()) as loops:
        taken = [loops.take() for _ in range(20)]
        assert 1 < len(set(taken)) < len(taken)
