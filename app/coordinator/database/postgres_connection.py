"""One connection to PostgreSQL on which every call ends in time.

libpq's own calls wait for a server without a bound: one that is stopped, or whose
machine is gone, holds them up for minutes. So the connection is opened in psycopg2's
asynchronous mode, and what it waits for is waited for here, up to a deadline.
"""

import select
import time
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2.extras import DictCursor

from app.coordinator.failures import StoreUnavailable

#: Seconds until a connection that is being opened is given up.
CONNECT_PATIENCE: Final = 5.0
#: Seconds that the server is given less than the client waits.
_GRACE: Final = 0.2
#: Seconds that the answer has once the deadline has passed.
_LAST_LOOK: Final = 0.1
_WAITS: Final = {
    psycopg2.extensions.POLL_READ: select.POLLIN,
    psycopg2.extensions.POLL_WRITE: select.POLLOUT,
}


class ConnectionLost(StoreUnavailable):
    """The connection is gone: what was sent last may have been done, or not."""


class UnusableDatabase(StoreUnavailable):
    """It does not let this coordinator do what it has to, until somebody changes that. The message
    is a phrase that says what to do."""


#: PostgreSQL's number of the type of bytes.
_BYTEA_TYPE: Final = 17


def _bytes(value: str | bytes | None, cursor: Any) -> bytes | None:
    found = psycopg2.BINARY(value, cursor)
    return None if found is None else bytes(found)


_BYTEA: Final = psycopg2.extensions.new_type((_BYTEA_TYPE,), "BYTES", _bytes)


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Which database, and which schema of it."""

    dsn: str = field(repr=False)
    schema: str


class PostgresConnection:
    """For one thread at a time. Statements run in autocommit mode unless they say BEGIN."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._cursor = raw.cursor(cursor_factory=DictCursor)

    @classmethod
    def open(
        cls, address: PostgresAddress, *, patience: float, within: float = CONNECT_PATIENCE
    ) -> "PostgresConnection":
        """Connect. The server ends what takes longer than `patience` seconds, and a transaction
        that nothing is done in for so long. Raises StoreUnavailable; UnusableDatabase for what is
        no connection string. Names may be looked up without a bound: call it in a thread."""
        try:
            raw = psycopg2.connect(
                address.dsn,
                async_=True,
                application_name="scaimind-coordinator",
                options=(
                    f"{_options(address.dsn)} -c search_path={address.schema}"
                    f" -c statement_timeout={_millis(patience)}"
                    f" -c idle_in_transaction_session_timeout={_millis(patience)}"
                    " -c default_transaction_isolation=read\\ committed"
                ).strip(),
            )
            try:
                _wait(raw, time.monotonic() + within)
            except BaseException:
                raw.close()
                raise
        except (psycopg2.ProgrammingError, ValueError):
            # What it says may quote the string.
            raise UnusableDatabase(
                "the connection string is not valid; it is a URI (postgresql://...) or pairs of"
                " <key>=<value>, such as host=db dbname=scaimind user=coordinator"
            ) from None
        except (psycopg2.Error, TimeoutError) as error:
            raise StoreUnavailable(f"the database cannot be reached: {reason(error)}") from None
        psycopg2.extensions.register_type(_BYTEA, raw)
        return cls(raw)

    def text_of(self, statement: str, values: Any) -> bytes:
        """Return a statement with its values in it."""
        # PostgreSQL has no NUL in a text.
        plain = tuple(
            value.replace("\0", "") if isinstance(value, str) else value for value in values
        )
        text: bytes = self._cursor.mogrify(statement.replace("%", "%%").replace("?", "%s"), plain)
        return text

    def run(self, statements: bytes, *, within: float) -> list[Any]:
        """Execute statements, and return the rows of the last one.

        Raises ConnectionLost; psycopg2.Error if the server has refused: then
        nothing of the statements is done, unless they have a COMMIT before the
        one that it refused.
        """
        try:
            self._cursor.execute(statements)
            _wait(self._raw, time.monotonic() + within)
            return list(self._cursor.fetchall()) if self._cursor.description else []
        except TimeoutError:
            self.close()
            raise ConnectionLost("the database gave no answer in time") from None
        except psycopg2.Error as error:
            if self._raw.closed or isinstance(error, psycopg2.InterfaceError):
                self.close()
                raise ConnectionLost(f"the database left: {reason(error)}") from None
            if isinstance(error, psycopg2.errors.ReadOnlySqlTransaction):
                # It was the primary before.
                self.close()
                raise ConnectionLost("the database has become one that is only read") from None
            raise

    def is_idle(self) -> bool:
        """Whether nothing has come that nobody has asked for, such as the connection's end."""
        if self._raw.closed:
            return False
        poller = select.poll()
        poller.register(self._raw.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not poller.poll(0)

    def close(self) -> None:
        """Close it; once more does nothing."""
        self._raw.close()


def bounds_of(patience: float) -> list[bytes]:
    """Statements that have the server bound others as `open` does."""
    millis = _millis(patience)
    return [
        f"SET {name} = {millis}".encode()
        for name in ("statement_timeout", "idle_in_transaction_session_timeout")
    ]


def _millis(patience: float) -> int:
    return max(int((patience - _GRACE) * 1000), 100)


def _options(dsn: str) -> str:
    """The options that a connection string itself has. Raises psycopg2.Error."""
    options: str = psycopg2.extensions.parse_dsn(dsn).get("options", "")
    return options


def reason(error: BaseException) -> str:
    """Why PostgreSQL failed, without a word of the connection string."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # libpq quotes host, port and user in front of the cause.
    first = str(error).strip().partition("\n")[0]
    return first.rpartition("failed: ")[2] or "the connection was closed"


def unusable(error: psycopg2.ProgrammingError, schema: str) -> UnusableDatabase:
    """Return what is raised where the server has refused what the role, or the schema, is not fit
    for."""
    return UnusableDatabase(
        f"the database refused: {reason(error)}; have the role of the connection string own the"
        f" schema {schema} and what is in it (CREATE SCHEMA ... AUTHORIZATION), or let it make the"
        " schema (GRANT CREATE ON DATABASE)"
    )


def _wait(raw: Any, deadline: float) -> None:
    """Wait until nothing is to be waited for. Raises TimeoutError, psycopg2.Error."""
    last = False
    while (state := raw.poll()) != psycopg2.extensions.POLL_OK:
        if last:
            raise TimeoutError
        left = deadline - time.monotonic()
        # libpq may have another socket by now.
        poller = select.poll()
        poller.register(raw.fileno(), _WAITS[state])
        # Once after the deadline, too: it may be this process that stood still, and the answer
        # may be there.
        last = left <= 0
        poller.poll(max(left, _LAST_LOOK) * 1000)
