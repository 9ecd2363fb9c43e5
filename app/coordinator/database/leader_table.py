"""Who leads, as a row of the database: the lease that coordinators take over from one another.

Its times are the server's own. Every transaction that writes locks the row and compares
the term (`check_term`), so that a take-over waits for those that are on their
way, and those that come later are refused.
"""

from dataclasses import dataclass
from typing import Any, Final

import psycopg2

from app.coordinator.database.postgres_connection import (
    PostgresAddress,
    PostgresConnection,
    reason,
)
from app.coordinator.failures import StoreUnavailable

#: Of PostgreSQL's advisory locks the one that says "a coordinator's schema is being made".
_LOCK: Final = 0x5CA1_C00D
_TABLES: Final = (
    "CREATE SCHEMA IF NOT EXISTS {schema}",
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
    """
    CREATE OR REPLACE FUNCTION check_term(own bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM leadership WHERE term = own AND expires_at > clock_timestamp() FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the term % is over', own USING ERRCODE = 'SM001';
        END IF;
    END $$
    """,
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


class LeaderTable:
    """The row, on a connection of its own. For one thread at a time; each call blocks up to
    `patience` seconds, and raises StoreUnavailable."""

    def __init__(self, address: PostgresAddress, *, patience: float) -> None:
        self._address = address
        self._patience = patience
        self._connection: PostgresConnection | None = None

    def prepare(self) -> None:
        """Make the schema and the row, if they are not there."""
        if self._run("SELECT to_regclass('leadership') AS found")[0]["found"]:
            return
        statements = [text.format(schema=self._address.schema) for text in _TABLES]
        lock = f"SELECT pg_advisory_xact_lock({_LOCK})"
        self._run(";\n".join(["BEGIN", lock, *statements, "COMMIT"]))

    def read(self) -> Leader:
        """Return who leads."""
        (row,) = self._run(
            "SELECT term, holder, address, expires_at > clock_timestamp() AS leads FROM leadership"
        )
        return Leader(**row)

    def take(
        self, *, holder: str, address: str, seconds: float, known: int, ended: int | None = None
    ) -> int | None:
        """Take over if nobody leads, for `seconds`; returns the new term, or None.

        The term is higher than the last one, and than `known`. Who leads for the term
        `ended` is known to have ended: its lease does not count.
        """
        rows = self._run(
            "UPDATE leadership SET term = greatest(term, ?) + 1, holder = ?, address = ?,"
            " expires_at = clock_timestamp() + make_interval(secs => ?)"
            " WHERE expires_at <= clock_timestamp() OR term = ? RETURNING term",
            (known, holder, address, seconds, ended),
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
        except BaseException:
            self.close()
            raise
