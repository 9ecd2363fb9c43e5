"""One synchronous connection, for commands that run outside of the event loop."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import psycopg2.errors
from psycopg2.extensions import connection as Connection

from app.database.errors import SERVER_FAILURES, DatabaseError, SchemaMissing, reason

_CONNECT_SECONDS = 10


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    """Yield a connection whose transaction is committed at the end, rolled back on an exception.

    Raises `DatabaseError` if the server cannot be reached or leaves, and
    `SchemaMissing` if a table is not there.
    """
    connection = connect(dsn)
    try:
        with connection:
            yield connection
    except psycopg2.errors.UndefinedTable:
        raise SchemaMissing from None
    except SERVER_FAILURES as error:
        raise DatabaseError(reason(error)) from None
    finally:
        connection.close()


def connect(dsn: str) -> Connection:
    """Open a connection that the caller closes. Raises `DatabaseError`."""
    try:
        return psycopg2.connect(
            dsn, connect_timeout=_CONNECT_SECONDS, application_name="scaimind-gateway"
        )
    except (*SERVER_FAILURES, psycopg2.ProgrammingError) as error:
        raise DatabaseError(reason(error)) from None
