"""PostgreSQL, as a database of the coordinator's that only its leader writes.

What a transaction writes is sent with its end in one message: a change of a job
is one round trip, on the event loop. It begins with a check of the leader's term,
under a lock that a take-over has to wait for: what a coordinator writes that was
replaced is rolled back by the server.

A call blocks up to `patience` seconds, once: then the connection counts as lost,
and calls fail at once until a thread has opened another one. Where a COMMIT was
on its way, nobody knows whether it is stored; the coordinator gives up its
leadership then, and whoever leads next reads what is there.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
import psycopg2.errors
import structlog

from app.coordinator.database.database import Dialect, Rows
from app.coordinator.database.postgres_connection import (
    ConnectionLost,
    PostgresAddress,
    PostgresConnection,
    bounds_of,
    reason,
    unusable,
)
from app.coordinator.failures import FailureBackoff, LeadershipLost, StoreUnavailable
from app.coordinator.leadership.leadership import Leadership

#: What `check_term` raises.
TERM_IS_OVER: Final = "SM001"

log = structlog.get_logger("scaimind.coordinator")


def _path(path: str) -> str:
    return "'{" + path.replace(".", ",") + "}'"


POSTGRESQL: Final = Dialect(
    state_text=lambda path: f"state_text(state, {_path(path)})",
    state_number=lambda path: f"state_number(state, {_path(path)})",
    state_urls=lambda path: f"state_texts(state, {_path(path)}) AS url(value)",
    # By an index of what is short.
    equals=lambda column: f"md5({column}) = md5(?) AND {column} = ?",
    contains=lambda column: f"strpos({column}, ?) > 0",
    indexed_by=lambda _: "",
    in_order=" CROSS JOIN ",
)


class Fetched(Rows):
    """Rows that are all here."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        """Return the next row; None behind the last."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""
        return self._rows


class PostgresReader:
    """A connection that only reads, see `Database`. For one thread at a time."""

    dialect: Final = POSTGRESQL

    def __init__(self, address: PostgresAddress, *, patience: float) -> None:
        """Connects at the first statement; each may take `patience` seconds."""
        self._address = address
        self._patience = patience
        self._connection: PostgresConnection | None = None

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Return what a statement returns. Raises StoreUnavailable, psycopg2.Error."""
        connection = self._open()
        try:
            return Fetched(
                connection.run(connection.text_of(statement, values), within=self._patience)
            )
        except ConnectionLost:
            self.close()
            raise
        except psycopg2.OperationalError as error:
            raise StoreUnavailable(f"the database refused: {reason(error)}") from None
        except psycopg2.errors.InsufficientPrivilege as error:
            raise unusable(error, self._address.schema) from None

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """All that is read inside is of one moment."""
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # Whatever state it is in: the next one begins with another connection.
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self, statement: str, values: Sequence[Any] = (), /) -> None:
        """Raise RuntimeError: it only reads."""
        raise RuntimeError("a reader writes nothing")

    def write_each(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Raise RuntimeError: it only reads."""
        raise RuntimeError("a reader writes nothing")

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Raise RuntimeError: it only reads."""
        raise RuntimeError("a reader writes nothing")
        yield

    def _open(self) -> PostgresConnection:
        if self._connection is not None and not self._connection.is_idle():
            self.close()
        if self._connection is None:
            self._connection = PostgresConnection.open(self._address, patience=self._patience)
        return self._connection


class PostgresDatabase:
    """The leader's connection, see `Database`. For one thread at a time."""

    dialect: Final = POSTGRESQL

    def __init__(
        self, address: PostgresAddress, *, leadership: Leadership, patience: float
    ) -> None:
        """Connect. Raises StoreUnavailable. Blocks: call it in a thread."""
        self._address = address
        self._leadership = leadership
        #: Seconds that a statement may take.
        self.patience = patience
        self._connection: PostgresConnection | None = PostgresConnection.open(
            address, patience=patience
        )
        self._opening: threading.Thread | None = None
        self._closed = False
        #: What is to be sent of the open transaction.
        self._batch: list[bytes] | None = None
        #: By which some of it was sent.
        self._begun: PostgresConnection | None = None

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Return what a statement returns; within a transaction, all that was written before it is
        sent with it."""
        text = self._text_of(statement, values)
        if self._batch is None:
            return Fetched(self._run(text))
        self._batch.append(text)
        return Fetched(self._send())

    def write(self, statement: str, values: Sequence[Any] = (), /) -> None:
        """Have a statement sent with the transaction's end. Raises RuntimeError outside of one."""
        if self._batch is None:
            raise RuntimeError("what is written needs a transaction")
        self._batch.append(self._text_of(statement, values))

    def write_each(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Do as `Database` says."""
        for row in rows:
            self.write(statement, row)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Do as `Database` says. All are durable, as far as the server's settings are."""
        if self._batch is not None:
            raise RuntimeError("a transaction is open already")
        self._leadership.check()
        self._batch, self._begun = [], None
        try:
            yield
            if self._batch or self._begun:
                self._batch.append(b"COMMIT")
                self._send(commits=True)
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._batch = None

    def hurry(self, patience: float) -> None:
        """Bound statements by so many seconds from here on. Raises StoreUnavailable."""
        self.patience = patience
        for statement in bounds_of(patience):
            self._run(statement)

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def _send(self, *, commits: bool = False) -> list[Any]:
        """Send what was written, and return the rows of the last of it."""
        assert self._batch is not None
        batch, self._batch = self._batch, []
        if self._begun is None:
            check = self._text_of("SELECT check_term(?)", (self._leadership.term,))
            batch = [b"BEGIN", check, *batch]
        # From here on it may be done though no answer comes.
        connection = self._require_connection()
        if self._begun not in (None, connection):
            raise StoreUnavailable("the connection to the database was lost in a transaction")
        self._leadership.check()
        self._begun = connection
        try:
            return self._run(b";\n".join(batch))
        except ConnectionLost as error:
            if not commits:
                raise
            self._leadership.lose(f"it is unknown whether a change was stored: {error}")
            raise LeadershipLost(str(error)) from None

    def _run(self, text: bytes) -> list[Any]:
        try:
            return self._require_connection().run(text, within=self.patience)
        except ConnectionLost:
            self._reopen()
            raise
        except psycopg2.Error as error:
            if error.pgcode == TERM_IS_OVER:
                self._leadership.lose("another coordinator has taken over")
                raise LeadershipLost("another coordinator has taken over") from None
            if isinstance(error, psycopg2.OperationalError):
                raise StoreUnavailable(f"the database refused: {reason(error)}") from None
            if isinstance(error, psycopg2.errors.InsufficientPrivilege):
                raise unusable(error, self._address.schema) from None
            raise

    def _roll_back(self) -> None:
        if self._begun is None or self._begun is not self._connection:
            return
        try:
            self._connection.run(b"ROLLBACK", within=self.patience)
        except (StoreUnavailable, psycopg2.Error):
            # The server rolls it back with its connection.
            self._reopen()

    def _text_of(self, statement: str, values: Sequence[Any]) -> bytes:
        return self._require_connection().text_of(statement, values)

    def _require_connection(self) -> PostgresConnection:
        """Return the connection. Raises StoreUnavailable while there is none, or it has died
        while nothing was asked of it."""
        if self._connection is not None and not self._connection.is_idle():
            self._reopen()
        if self._connection is None:
            raise StoreUnavailable("the connection to the database is lost, and being opened again")
        return self._connection

    def _reopen(self) -> None:
        """Have a thread open another connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._closed or (self._opening is not None and self._opening.is_alive()):
            return
        self._opening = threading.Thread(
            target=self._open_again, name="database connection", daemon=True
        )
        self._opening.start()

    def _open_again(self) -> None:
        backoff = FailureBackoff()
        wait = threading.Event()
        while not self._closed:
            try:
                connection = PostgresConnection.open(self._address, patience=self.patience)
            except StoreUnavailable as error:
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.warning("database_not_reached", reason=str(error))
                wait.wait(seconds)
            else:
                self._connection = connection
                if self._closed:
                    connection.close()
                return
