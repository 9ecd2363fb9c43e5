"""What nobody waits for any more is left, and what is waited for is returned or raised."""

import asyncio

import pytest

from app.tasks.patience import Patience, PatienceOver

LONG = 60.0


async def test_what_is_done_in_time_is_returned_or_raised() -> None:
    patience = Patience()
    patience.limit(LONG)

    async def fail() -> None:
        raise ValueError("no")

    assert await patience.wait_for(asyncio.sleep(0, "done"), name="a") == "done"
    with pytest.raises(ValueError, match="no"):
        await patience.wait_for(fail(), name="a")
    patience.close()


async def test_what_takes_longer_is_cancelled() -> None:
    patience, ended = Patience(), asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    patience.limit(0.01)
    # The first call holds.
    patience.limit(LONG)
    async with asyncio.timeout(LONG / 2):
        with pytest.raises(PatienceOver):
            await patience.wait_for(never(), name="a")
    assert ended.is_set()
    assert patience.is_over
    patience.lift()
    assert patience.is_over
    ended.clear()
    with pytest.raises(PatienceOver):
        await patience.wait_for(never(), name="b")
    assert not ended.is_set()


async def test_a_limit_that_is_lifted_holds_no_more() -> None:
    patience = Patience()
    patience.limit(0.01)
    patience.lift()
    await patience.wait_for(asyncio.sleep(0.05), name="a")
    assert not patience.is_over
    patience.limit(0.01)
    async with asyncio.timeout(LONG):
        with pytest.raises(PatienceOver):
            await patience.wait_for(asyncio.Event().wait(), name="a")
    patience.close()
