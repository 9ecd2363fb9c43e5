"""The pool: its own promises, and the two defects of aiopg that it cures."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiopg
import psycopg2
import pytest

from app.database.connection import connected
from app.database.errors import DatabaseError, SchemaMissing
from app.database.pool import Pool
from app.database.settings import DatabaseSettings

NOWHERE = "postgresql://someone:the-password@127.0.0.1:1/nothing"


def settings(dsn: str, **others: float) -> DatabaseSettings:
    given = {"connect_timeout": 60.0, "statement_timeout": 60.0, **others}
    return DatabaseSettings(dsn=dsn, **given)  # type: ignore[arg-type]  # numbers all of them


async def turn_until(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until something is so that tells nobody when it is."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - neither asyncio nor aiopg has an event for it
            await asyncio.sleep(0)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(settings(postgres_dsn, pool_min=0, pool_max=1))
    yield pool
    async with asyncio.timeout(60):
        await pool.shut()


async def test_reads_rows(pool: Pool) -> None:
    assert await pool.read("SELECT %s::int, %s::text", (1, "a")) == [(1, "a")]


async def test_writes_what_another_connection_sees(pool: Pool, postgres_dsn: str) -> None:
    await pool.write("CREATE TABLE seen (n int)")
    await pool.write("INSERT INTO seen VALUES (%s)", (7,))
    with connected(postgres_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n FROM seen")
        assert cursor.fetchall() == [(7,)]


async def test_a_mistake_in_a_statement_is_no_database_error(pool: Pool) -> None:
    with pytest.raises(psycopg2.ProgrammingError):
        await pool.read("SELEKT 1")
    assert await pool.read("SELECT 1") == [(1,)]


async def test_a_missing_table_is_told_as_what_it_is(pool: Pool) -> None:
    with pytest.raises(SchemaMissing, match="migrate"):
        await pool.read("SELECT FROM nothing_of_this_name")


async def test_without_a_server_it_starts_and_says_why_it_cannot_answer() -> None:
    pool = Pool(settings(NOWHERE))
    with pytest.raises(DatabaseError) as caught:
        await pool.read("SELECT 1")
    assert str(caught.value) == "Connection refused"
    assert await pool.problem(within=5) == "Connection refused"
    await pool.shut()


async def test_a_connection_string_that_is_none_is_not_repeated() -> None:
    pool = Pool(settings("the-password in clear"))
    with pytest.raises(DatabaseError) as caught:
        await pool.read("SELECT 1")
    assert str(caught.value) == "the connection string is not valid"
    await pool.shut()


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = Pool(settings(f"host=127.0.0.1 port={port} sslmode=disable", connect_timeout=0.2))
        with pytest.raises(DatabaseError, match="no answer in time"):
            await pool.read("SELECT 1")
        assert await pool.problem(within=0.05) == "no answer in time"
        await pool.shut()


# aio-libs/aiopg#800


async def waiting_for_a_place(pool: aiopg.Pool) -> "asyncio.Task[aiopg.Connection]":
    """Returns once the task waits, because the only place is taken."""

    async def acquire() -> aiopg.Connection:
        return await pool.acquire()

    waiter = asyncio.create_task(acquire())
    await turn_until(lambda: bool(pool._cond._waiters))
    return waiter


async def test_a_connection_that_comes_back_closed_wakes_who_waits(pool: Pool) -> None:
    connection = await pool.acquire()
    waiter = await waiting_for_a_place(pool)
    await connection.close()
    await pool.release(connection)
    async with asyncio.timeout(60):
        other = await waiter
    await pool.release(other)


async def test_aiopg_itself_lets_them_wait(postgres_dsn: str) -> None:
    """Shows that the cure is needed; when this fails, aiopg has its own, and ours can go."""
    theirs = await aiopg.create_pool(postgres_dsn, minsize=0, maxsize=1, enable_hstore=False)
    connection = await theirs.acquire()
    waiter = await waiting_for_a_place(theirs)
    await connection.close()
    await theirs.release(connection)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiter.done()
    waiter.cancel()
    await asyncio.wait((waiter,))
    theirs.close()
    await theirs.wait_closed()


async def test_closing_does_not_hang_on_a_connection_that_comes_back_closed(
    postgres_dsn: str,
) -> None:
    pool = Pool(settings(postgres_dsn))
    connection = await pool.acquire()
    closing = asyncio.create_task(pool.shut())
    await turn_until(lambda: bool(pool._cond._waiters))
    await connection.close()
    await pool.release(connection)
    async with asyncio.timeout(60):
        await closing


async def test_aiopg_itself_hangs(postgres_dsn: str) -> None:
    """Shows that the cure is needed; when this fails, aiopg has its own, and ours can go."""
    theirs = await aiopg.create_pool(postgres_dsn, minsize=0, maxsize=1, enable_hstore=False)
    connection = await theirs.acquire()
    theirs.close()
    closing = asyncio.create_task(theirs.wait_closed())
    await turn_until(lambda: bool(theirs._cond._waiters))
    await connection.close()
    await theirs.release(connection)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not closing.done()
    closing.cancel()
    await asyncio.wait((closing,))


# aio-libs/aiopg#537


async def test_aiopg_itself_says_that_the_task_was_cancelled(postgres_dsn: str) -> None:
    """Shows that the cure is needed; when this fails, aiopg has its own, and ours can go."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: None)
    theirs = await aiopg.create_pool(
        postgres_dsn, minsize=0, enable_hstore=False, options="-c statement_timeout=50"
    )
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        async with theirs.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT pg_sleep(300)")
    assert task.cancelling() == 0
    theirs.terminate()
    await theirs.wait_closed()


async def test_a_statement_that_the_server_ends_is_an_error_and_no_cancellation(
    postgres_dsn: str,
) -> None:
    pool = Pool(settings(postgres_dsn, statement_timeout=3.0))
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: complaints.append(what))
    with pytest.raises(DatabaseError, match="took too long"):
        await pool.read("SELECT pg_sleep(300)")
    assert await pool.read("SELECT 1") == [(1,)]
    await pool.shut()


async def test_a_cancellation_stays_one(pool: Pool) -> None:
    await pool.read("SELECT 1")
    task = asyncio.create_task(pool.read("SELECT pg_sleep(300)"))
    await turn_until(lambda: any(connection.isexecuting() for connection in pool._used))
    task.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pool.read("SELECT 1") == [(1,)]


async def test_a_time_out_around_it_stays_one(pool: Pool) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await pool.read("SELECT pg_sleep(300)")
    assert await pool.read("SELECT 1") == [(1,)]


async def test_a_statement_of_someone_who_left_is_ended_by_the_server(
    pool: Pool, postgres_dsn: str
) -> None:
    [(told,)] = await pool.read("SHOW statement_timeout")
    assert told == "1min"
    own = Pool(settings(f"{postgres_dsn}&options=-c%20work_mem%3D7MB", statement_timeout=62.5))
    assert await own.read("SELECT current_setting('work_mem')") == [("7MB",)]
    assert await own.read("SHOW statement_timeout") == [("62500ms",)]
    await own.shut()


async def test_dead_connections_are_replaced_without_an_error(postgres_dsn: str) -> None:
    """As after a restart of the server: every connection of the pool is dead."""
    pool = Pool(settings(postgres_dsn, pool_min=3, pool_max=3))
    await pool.read("SELECT 1")
    with connected(postgres_dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 50000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert cursor.rowcount == 3
    assert await pool.read("SELECT 1") == [(1,)]
    await pool.shut()


async def test_many_at_once_share_few_connections(postgres_dsn: str) -> None:
    pool = Pool(settings(postgres_dsn, pool_max=2))
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(pool.read("SELECT %s", (n,)) for n in range(50)))
    assert answers == [[(n,)] for n in range(50)]
    assert pool.size <= 2
    await pool.shut()


async def test_sslmode_of_the_connection_string_counts() -> None:
    async def without_ssl(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # PostgreSQL's answer to an SSLRequest, if it has no SSL (its documentation, 54.2.11).
        assert await reader.readexactly(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"
        writer.write(b"N")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(without_ssl, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        dsn = f"postgresql://someone:the-password@127.0.0.1:{port}/db?sslmode=require"
        pool = Pool(settings(dsn, pool_min=0))
        try:
            with pytest.raises(DatabaseError) as caught:
                await pool.read("SELECT 1")
        finally:
            await pool.shut()
    assert str(caught.value) == "server does not support SSL, but SSL was required"
