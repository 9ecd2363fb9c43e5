"""What the database needs before the gateway starts: its schema, and a first API key."""

from collections.abc import Callable
from contextlib import suppress

from app.database.connection import connected
from app.database.errors import DatabaseError
from app.database.migrate import migrate
from app.local import example
from app.local.data_dir import CannotStart, DataDir, write_secret
from app.scaikey.api_keys import create_key, digest, found, lookup_statement
from app.telemetry.audit import Action, Actor, Identity, Target, record
from app.telemetry.logs import logger_to


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
