"""What the database needs before the gateway starts: itself, its schema, and a first API key."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection

from app.database.connection import connected
from app.database.errors import DatabaseError, reason
from app.database.migrate import migrate
from app.local import example
from app.local.data_dir import CannotStart, DataDir, write_secret
from app.local.postgres import DATABASE
from app.scaikey.api_keys import create_key, digest, found, lookup_statement
from app.telemetry.audit import Action, Actor, Identity, Target, record
from app.telemetry.logs import logger_to

#: Seconds within which a server that was just started answers.
_START_LIMIT: Final = 120.0


def make_database(dsn: str, data_dir: DataDir) -> None:
    """Make sure that the server of a data directory has the database that `dsn` names.

    Blocks until the server answers. Raises `CannotStart`.
    """
    with closing(_first_connection(dsn, data_dir)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")


def _first_connection(dsn: str, data_dir: DataDir) -> Connection:
    limit = time.monotonic() + _START_LIMIT
    while True:
        try:
            return psycopg2.connect(dsn, dbname="postgres", connect_timeout=5)
        except psycopg2.OperationalError as error:
            # Not of the whole text, which names the directory.
            if "password" in reason(error):
                raise CannotStart(
                    f"The database rejected the password in {data_dir.postgres_password}. "
                    "Restore the file from when the database was created."
                ) from error
            if time.monotonic() > limit:
                raise CannotStart(
                    f"The database does not answer after {_START_LIMIT:g} s: {reason(error)}"
                ) from error
        time.sleep(0.05)


def prepare(dsn: str, data_dir: DataDir, tell: Callable[[str], None], *, show_key: bool) -> None:
    """Migrate, and make sure of the key. Blocks. Raises `CannotStart`.

    A new key is told itself only with `show_key`: what is no terminal may be kept.
    """
    try:
        migration = migrate(dsn)
        if migration.changed:
            tell(f"Migrated the database's schema to revision {migration.after}")
        if not _key_is_known(dsn, data_dir):
            _make_key(dsn, data_dir, tell, show_key=show_key)
    except DatabaseError as error:
        raise CannotStart(f"The database is not usable: {error}") from error


def _key_is_known(dsn: str, data_dir: DataDir) -> bool:
    """Whether the kept key is in this database. One that was revoked there is: it stays revoked."""
    with suppress(FileNotFoundError):
        key_digest = digest(data_dir.api_key.read_text(encoding="ascii").strip())
        with connected(dsn) as connection, connection.cursor() as cursor:
            cursor.execute(*lookup_statement(key_digest))
            return found(cursor.fetchall(), key_digest) is not None
    return False


def _make_key(dsn: str, data_dir: DataDir, tell: Callable[[str], None], *, show_key: bool) -> None:
    key = create_key(
        dsn,
        tenant_id=example.TENANT,
        user_id="admin",
        roles=("tenant_admin",),
        name="first start",
    )
    with data_dir.logs.joinpath("audit.log").open("ab") as file:
        record(
            Action.KEY_CREATE,
            by=Identity(Actor.OPERATOR),
            on=Target("key", key.key.key_id, key.key.tenant_id),
            log=logger_to(file),
            key_user_id=key.key.user_id,
            roles=",".join(sorted(key.key.roles)),
        )
    write_secret(data_dir.api_key, key.secret)
    told = f"{key.secret} (kept in {data_dir.api_key})" if show_key else f"in {data_dir.api_key}"
    tell(f"API key of tenant {example.TENANT}, role tenant_admin: {told}")
