"""Brings the schema up to date."""

from contextlib import closing
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import StaticPool

from app.database.connection import connect
from app.database.errors import SERVER_FAILURES, DatabaseError, reason

log = structlog.get_logger()

VERSION_TABLE = "mod_scaimind_schema"
#: Of PostgreSQL's advisory locks the one that says "the schema of scaimind is being changed".
_LOCK = 0x5CA1_311D
#: How long another migration is waited for.
_LOCK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` found and left; revisions are numbers such as `0001`."""

    before: str | None
    after: str | None

    @property
    def changed(self) -> bool:
        """Whether there was something to do."""
        return self.before != self.after


def migrate(dsn: str) -> Migration:
    """Bring the schema to the newest revision.

    Any number of processes may call this at once: one migrates under an
    advisory lock while the others wait, and then find nothing to do. A schema
    that is newer than this code is left alone. Raises `DatabaseError`, whose
    text holds nothing of the connection string.
    """
    config = Config()
    config.set_main_option("script_location", "app.database:migrations")
    script = ScriptDirectory.from_config(config)
    with closing(connect(dsn)) as raw:
        engine = sa.create_engine(
            "postgresql+psycopg2://", creator=lambda: raw, poolclass=StaticPool
        )
        try:
            with engine.connect() as connection:
                return _under_lock(connection, config, script)
        except sa.exc.DBAPIError as error:
            if isinstance(error.orig, SERVER_FAILURES):
                raise DatabaseError(reason(error.orig)) from None
            raise


def _under_lock(connection: sa.Connection, config: Config, script: ScriptDirectory) -> Migration:
    connection.execute(sa.text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
    connection.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    try:
        before = _current(connection)
        known = {revision.revision for revision in script.walk_revisions()}
        if before == script.get_current_head() or (before is not None and before not in known):
            return Migration(before, before)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        migration = Migration(before, _current(connection))
    finally:
        connection.rollback()
        connection.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()
    log.info("schema_migrated", before=migration.before, after=migration.after)
    return migration


def _current(connection: sa.Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()
