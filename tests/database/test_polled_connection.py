"""A server that refuses, goes away and comes back, on the event loop that the gateway runs on."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvloop

from app.database.errors import DatabaseError
from app.database.pool import Pool
from app.database.settings import DatabaseSettings
from tests.databases import patient

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses: taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("new_loop", LOOPS, ids=lambda each: each.__module__)
def test_a_refusal_is_told_each_time_and_leaves_nothing_behind(
    new_loop: "type[asyncio.AbstractEventLoop]", closed_port: int, migrated_dsn: str
) -> None:
    async def connect() -> None:
        refused = DatabaseSettings(dsn=f"postgresql://nobody@127.0.0.1:{closed_port}/none")
        pool = Pool(refused)
        for _ in range(20):
            with pytest.raises(DatabaseError, match="refused"):
                await pool.read("SELECT 1")
        # The descriptors that failed are given out again.
        working = Pool(patient(migrated_dsn))
        assert await asyncio.gather(*(working.read("SELECT 1") for _ in range(8))) == [[(1,)]] * 8
        await working.shut()
        await pool.shut()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(connect())


@pytest.mark.parametrize("new_loop", LOOPS, ids=lambda each: each.__module__)
def test_a_connection_that_is_reset_is_replaced(
    new_loop: "type[asyncio.AbstractEventLoop]", migrated_dsn: str
) -> None:
    async def lose() -> None:
        pool, other = (Pool(patient(migrated_dsn)) for _ in range(2))
        pids = set()
        for _ in range(30):
            ((pid,),) = await pool.read("SELECT pg_backend_pid()")
            pids.add(pid)
            assert await other.read("SELECT pg_terminate_backend(%s, 50000)", (pid,)) == [(True,)]
        assert len(pids) == 30
        await pool.shut()
        await other.shut()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(lose())
