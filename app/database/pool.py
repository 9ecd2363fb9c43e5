"""The PostgreSQL pool: aiopg's, with its two defects cured, behind three methods.

- aiopg wakes no waiter when a connection comes back closed
  (aio-libs/aiopg#800), so that `acquire` and `wait_closed` hang.
- aiopg raises `CancelledError` when the server ends a statement
  (aio-libs/aiopg#537), which looks as if the task had been cancelled.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import aiopg
import psycopg2.errors
import psycopg2.extensions

from app.database.errors import SERVER_FAILURES, DatabaseError, SchemaMissing, reason
from app.database.polled_connection import PolledConnection
from app.database.settings import DatabaseSettings

Row = tuple[Any, ...]
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

#: Seconds that the client waits beyond `statement_timeout` before it gives the connection up.
_GRACE = 1.0

#: Needs the newest table that a request needs.
_PROBE = "SELECT FROM mod_scaimind_stream_tickets LIMIT 1"


class Pool(aiopg.Pool):
    """Connections to PostgreSQL. Opens none before the first use, so it starts without a server.

    Statements run in autocommit mode. Every failure that is not the
    statement's own is a `DatabaseError`.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__(
            settings.dsn,
            settings.pool_min,
            settings.pool_max,
            settings.connect_timeout,
            enable_json=True,
            enable_hstore=False,
            enable_uuid=False,
            echo=False,
            on_connect=None,
            pool_recycle=-1,
            connection_factory=PolledConnection,
            options=_options(settings),
            application_name="scaimind-gateway",
        )
        self._statement_timeout = settings.statement_timeout

    async def read(self, statement: str, parameters: Parameters = ()) -> list[Row]:
        """Run a statement that changes nothing, and return its rows.

        Tried once more if the connection turns out to be dead, as all are
        after a restart of the server.
        """
        try:
            return await self._run(statement, parameters, fetch=True)
        except _ConnectionLost:
            await self.clear()
            return await self._run(statement, parameters, fetch=True)

    async def write(self, statement: str, parameters: Parameters = ()) -> None:
        """Run a statement that returns no rows, once."""
        try:
            await self._run(statement, parameters, fetch=False)
        except _ConnectionLost:
            # Those beside it are dead, too: the next statement gets a new one.
            await self.clear()
            raise

    async def take(self, statement: str, parameters: Parameters = ()) -> list[Row]:
        """Run a statement that changes rows and returns some, once."""
        return await self._run(statement, parameters, fetch=True)

    async def problem(self, *, within: float) -> str | None:
        """Return why the database does not answer within `within` seconds; None if it does."""
        try:
            async with asyncio.timeout(within):
                await self.read(_PROBE)
        except (DatabaseError, TimeoutError) as error:
            return str(error) or "no answer in time"
        return None

    async def shut(self) -> None:
        """Close every connection; waits for those that are in use."""
        self.close()
        await self.wait_closed()

    def release(self, conn: aiopg.Connection) -> "asyncio.Future[None]":
        """Take a connection back, and wake whoever waits for a place, also if it is closed."""
        if conn.closed:
            # By the server: it is still to be taken out of the event loop.
            conn.close()
        released = super().release(conn)
        # A future that is done already means that the base class woke nobody.
        return asyncio.ensure_future(self._wakeup()) if released.done() else released

    async def _wakeup(self) -> None:
        # All of them: before Python 3.13, a waiter that is cancelled while it is
        # being notified takes the notification with it (python/cpython#112202).
        async with self._cond:
            self._cond.notify_all()

    async def _run(self, statement: str, parameters: Parameters, *, fetch: bool) -> list[Row]:
        try:
            connection = await self.acquire()
        except (*SERVER_FAILURES, psycopg2.ProgrammingError, TimeoutError) as error:
            raise DatabaseError(reason(error)) from None
        try:
            async with connection.cursor(timeout=self._statement_timeout + _GRACE) as cursor:
                await _execute(cursor, statement, parameters)
                return list(await cursor.fetchall()) if fetch else []
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn):
            raise SchemaMissing from None
        except SERVER_FAILURES as error:
            raise _ConnectionLost(reason(error)) from None
        except TimeoutError as error:
            raise DatabaseError(reason(error)) from None
        finally:
            await self.release(connection)


class _ConnectionLost(DatabaseError):
    """The connection failed while a statement ran on it."""


async def _execute(cursor: aiopg.Cursor, statement: str, parameters: Parameters) -> None:
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    try:
        await cursor.execute(statement, parameters)
    except asyncio.CancelledError:
        if task.cancelling() > cancelling:
            raise
        raise DatabaseError("the server ended the statement: it took too long") from None


def _options(settings: DatabaseSettings) -> str:
    """Add the statement timeout to the options that the connection string itself has.

    The server has to know it: a query whose client went away runs on otherwise.
    """
    try:
        given = psycopg2.extensions.parse_dsn(settings.dsn).get("options", "")
    except psycopg2.ProgrammingError:
        given = ""  # told at the first connection, like any other failure
    return f"{given} -c statement_timeout={round(settings.statement_timeout * 1000)}".strip()
