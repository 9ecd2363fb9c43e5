"""Who leads, as a row of the database: the lease that coordinators take over from one another.

Its times are the server's own. Every transaction that writes locks the row and compares
the term (`check_term`), so that a take-over waits for those that are on their
way, and those that come later are refused. A renewal of the lease waits for none of
them: a long one does not end the lead that it is made for.
"""

from dataclasses import dataclass
from typing import Any, Final

import psycopg2

from app.coordinator.database.postgres_connection import (
    PostgresAddress,
    PostgresConnection,
    reason,
    unusable,
)
from app.coordinator.failures import StoreUnavailable

#: Of PostgreSQL's advisory locks the one that says "a coordinator's schema is being made".
_LOCK: Final = 0x5CA1_C00D
#: The lock conflicts with that of a take-over, and not with that of a renewal.
CHECK_TERM: Final = """
    CREATE OR REPLACE FUNCTION check_term(own bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM leadership WHERE term = own AND expires_at > clock_timestamp()
            FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the term % is over', own USING ERRCODE = 'SM001';
        END IF;
    END $$
    """
_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS leadership (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        -- Grows with each take-over.
        term bigint NOT NULL,
        holder text NOT NULL,
        -- Where it is called.
        address text NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    """
    INSERT INTO leadership VALUES (true, 0, '', '', '-infinity') ON CONFLICT DO NOTHING
    """,
    CHECK_TERM,
    """
    CREATE TABLE IF NOT EXISTS schema_version (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        version bigint NOT NULL
    )
    """,
    "INSERT INTO schema_version VALUES (true, 0) ON CONFLICT DO NOTHING",
)


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, or has led last."""

    term: int
    holder: str
    address: str
    #: Whether its lease has not run out.
    leads: bool
    #: How many steps of the schema were taken.
    schema_version: int


class LeaderTable:
    """The row, on a connection of its own. For one thread at a time; each call blocks up to
    `patience` seconds, and raises StoreUnavailable."""

    def __init__(self, address: PostgresAddress, *, patience: float) -> None:
        self._address = address
        self._patience = patience
        self._connection: PostgresConnection | None = None

    def prepare(self) -> None:
        """Make the schema and the row, if they are not there. Raises UnusableDatabase where the
        role must not."""
        (found,) = self._run(
            "SELECT to_regclass('leadership') AS row, to_regnamespace(?) AS schema",
            (self._address.schema,),
        )
        if found["row"]:
            return
        statements = [f"SELECT pg_advisory_xact_lock({_LOCK})", *_TABLES]
        if not found["schema"]:
            # One that is there needs no right to make schemas.
            statements.insert(1, f"CREATE SCHEMA IF NOT EXISTS {self._address.schema}")
        self._run(";\n".join(["BEGIN", *statements, "COMMIT"]))

    def read(self) -> Leader:
        """Return who leads."""
        (row,) = self._run(
            "SELECT term, holder, address, expires_at > clock_timestamp() AS leads,"
            " version AS schema_version FROM leadership, schema_version"
        )
        return Leader(**row)

    def take(
        self,
        *,
        holder: str,
        address: str,
        seconds: float,
        known: int,
        ended: int | None = None,
        readable: int | None = None,
    ) -> int | None:
        """Take over if nobody leads, for `seconds`; returns the new term, or None.

        The term is higher than the last one, and than `known`. Who leads for the term
        `ended` is known to have ended: its lease does not count. A schema of a newer version
        than `readable` is left to others.
        """
        free = (
            "WHERE (expires_at <= clock_timestamp() OR term = ?)"
            " AND coalesce((SELECT version FROM schema_version) <= ?, true)"
        )
        rows = self._run(
            # One transaction. What the former leader has sent is stored, or not, by then.
            f"SELECT FROM leadership {free} FOR UPDATE;\n"
            "UPDATE leadership SET term = greatest(term, ?) + 1, holder = ?, address = ?,"
            f" expires_at = clock_timestamp() + make_interval(secs => ?) {free} RETURNING term",
            (ended, readable, known, holder, address, seconds, ended, readable),
        )
        return int(rows[0]["term"]) if rows else None

    def renew(self, term: int, *, seconds: float) -> bool:
        """Lead for `seconds` from now on; whether the term was not over."""
        return bool(
            self._run(
                "UPDATE leadership SET expires_at = clock_timestamp() + make_interval(secs => ?)"
                " WHERE term = ? AND expires_at > clock_timestamp() RETURNING term",
                (seconds, term),
            )
        )

    def release(self, term: int) -> None:
        """Let another one take over at once."""
        self._run("UPDATE leadership SET expires_at = '-infinity' WHERE term = ?", (term,))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> list[dict[str, Any]]:
        if self._connection is not None and not self._connection.is_idle():
            self.close()
        if self._connection is None:
            self._connection = PostgresConnection.open(
                self._address, patience=self._patience, within=self._patience
            )
        try:
            text = self._connection.text_of(statement, values)
            return list(map(dict, self._connection.run(text, within=self._patience)))
        except psycopg2.OperationalError as error:
            self.close()
            raise StoreUnavailable(f"the database refused: {reason(error)}") from None
        except psycopg2.ProgrammingError as error:
            self.close()
            raise unusable(error, self._address.schema) from None
        except BaseException:
            self.close()
            raise
