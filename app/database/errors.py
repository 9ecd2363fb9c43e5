"""How a failing database shows itself, without a word of the connection string."""

import re

import psycopg2

#: What psycopg2 raises when the server, not the query, is at fault.
SERVER_FAILURES = (psycopg2.OperationalError, psycopg2.InterfaceError)

_QUOTED = re.compile(r'\s*"[^"]*"')


class DatabaseError(Exception):
    """The database cannot be used now; the text is for operators and holds no secret."""


class SchemaMissing(DatabaseError):
    """The tables are not there."""

    def __init__(self) -> None:
        super().__init__("the schema is missing: run 'python -m app migrate'")


def reason(error: BaseException) -> str:
    """Return why PostgreSQL failed: the cause, without host, user or connection string.

    libpq quotes what it took from the connection string, as in `connection to
    server at "db", port 5432 failed: <cause>`.
    """
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, psycopg2.ProgrammingError):
        return "the connection string is not valid"
    first = str(error).strip().partition("\n")[0]
    cause = first.rpartition("failed: ")[2]
    return _QUOTED.sub("", cause) or "the connection is closed"
