"""The command line.

Each command imports what it needs when it runs, so that `--help` and the
small commands start at once. What went wrong is one line and a status of 1.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

#: What click accepts for a point in time; without an offset it is UTC.
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """ScaiMind's gateway: REST and Server-Sent Events in front of MindCoordinator.

    Settings come from SCAIMIND_* environment variables; 'settings' lists them.
    """
    import structlog

    # For people, on stderr; 'serve' and 'coordinator' set up their own JSON logs.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@main.command()
def up() -> None:
    """Run everything on this machine: PostgreSQL, the coordinator and the gateway.

    \b
    SCAIMIND_DATA_DIR             where everything is kept; 'var' unless given
    SCAIMIND_HOST, SCAIMIND_PORT  where the gateway listens; 127.0.0.1, 8080
    SCAIMIND_DATABASE_DSN         uses this PostgreSQL instead of an own one
    SCAIMIND_COORDINATOR_ADDRESS  uses this coordinator instead of an own one,
                                  with SCAIMIND_COORDINATOR_API_SECRET

    The first start makes an API key of tenant 'local', shows it and keeps it
    in <data dir>/api-key. Ctrl-C stops everything and loses nothing.
    """
    from app.coordinator import BadConfig
    from app.local import supervisor
    from app.local.data_dir import CannotStart
    from app.settings import SettingsError

    with _one_line(BadConfig, CannotStart, OSError, SettingsError):
        config = supervisor.Config.from_env(os.environ)
        asyncio.run(supervisor.up(config, tell=_tell))


@main.command()
def serve() -> None:
    """Run the gateway alone.

    Needs SCAIMIND_DATABASE_DSN, SCAIMIND_COORDINATOR_ADDRESS and
    SCAIMIND_COORDINATOR_API_SECRET, and a database that 'migrate' was run on.
    """
    from app.application import run
    from app.settings import Settings, SettingsError

    with _one_line(OSError, SettingsError):
        run(Settings.from_env(os.environ))


@main.command()
def coordinator() -> None:
    """Run the one-machine MindCoordinator alone.

    Needs SCAIMIND_COORDINATOR_API_SECRET. On SIGTERM running jobs save a
    checkpoint, and go on at the next start.
    """
    from app.coordinator import BadConfig, CoordinatorConfig, serve
    from app.settings import SettingsError, TelemetrySettings
    from app.telemetry import logs

    with _one_line(BadConfig, SettingsError):
        config = CoordinatorConfig.from_env(os.environ)
        logs.configure(
            TelemetrySettings.from_env(os.environ),
            out=sys.stdout.buffer,
            known_secrets=(config.api_secret,),
        )
        asyncio.run(serve(config))


@main.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Uses SCAIMIND_DATABASE_DSN, or else the database of the 'up' that runs on
    SCAIMIND_DATA_DIR.
    """
    from app.cache.migrate import migrate

    with _database_errors():
        done = migrate(_dsn())
        click.echo(
            f"The schema is at revision {done.after}"
            + (f"; it was at {done.before or 'none'}." if done.changed else " already.")
        )


@main.command()
def settings() -> None:
    """Print every setting of the gateway: variable, default, meaning."""
    from app.configuration import as_markdown

    click.echo(as_markdown(), nl=False)


@main.group()
def keys() -> None:
    """Make, list and revoke API keys.

    Uses SCAIMIND_DATABASE_DSN, or else the database of the 'up' that runs on
    SCAIMIND_DATA_DIR.
    """


@keys.command("create")
@click.option("--tenant", required=True, help="Tenant that the key belongs to.")
@click.option("--user", required=True, help="User that the key speaks for.")
@click.option("--role", "roles", multiple=True, help="Role, such as tenant_viewer; repeatable.")
@click.option(
    "--permission", "permissions", multiple=True, help="Permission, scaimind:view; repeatable."
)
@click.option("--name", default="", help="What it is for, for people.")
@click.option("--expires", type=click.DateTime(_TIMES), help="When it ends; never unless given.")
def create(
    tenant: str,
    user: str,
    roles: tuple[str, ...],
    permissions: tuple[str, ...],
    name: str,
    expires: datetime | None,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    if not roles and not permissions:
        raise click.ClickException(
            "A key needs a --role or a --permission, else it may do nothing."
        )
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    from app.auth.api_keys import create_key

    with _database_errors():
        made = create_key(
            _dsn(),
            tenant_id=tenant,
            user_id=user,
            roles=roles,
            permissions=permissions,
            name=name,
            expires_at=expires,
        )
    # Only the key on stdout, so that KEY=$(... keys create ...) works.
    click.echo(f"Made {made.key.key_id}; it is shown this once:", err=True)
    click.echo(made.secret)


@keys.command("list")
@click.option("--tenant", help="Only this tenant's.")
def list_(tenant: str | None) -> None:
    """List the keys, oldest first: id, tenant, user, state, roles and permissions, name."""
    from app.auth.api_keys import list_keys

    with _database_errors():
        found = list_keys(_dsn(), tenant_id=tenant)
    now = datetime.now(UTC)
    for key in found:
        grants = ",".join(sorted(key.roles | key.permissions))
        state = key.refusal(now) or "valid"
        click.echo("\t".join((key.key_id, key.tenant_id, key.user_id, state, grants, key.name)))


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key for good, by the id that 'list' shows. Streams that it opened end."""
    from app.auth.api_keys import revoke_key

    with _database_errors():
        key = revoke_key(_dsn(), key_id)
    click.echo(f"{key.key_id} is revoked.")


def _tell(line: str) -> None:
    """Print a line; go on in silence if nobody is there to read it any more."""
    try:
        click.echo(line)
    except OSError:
        # The terminal or the reader of a pipe has gone. What could not be
        # written must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dsn() -> str:
    """Tell which database is meant. Raises `SettingsError`."""
    from app.local.data_dir import DataDir
    from app.local.postgres import running_dsn
    from app.settings import DatabaseSettings

    environ = dict(os.environ)
    if not environ.keys() & {"SCAIMIND_DATABASE_DSN", "SCAIMIND_DATABASE_DSN_FILE"}:
        data_dir = DataDir(Path(environ.get("SCAIMIND_DATA_DIR") or "var"))
        dsn = running_dsn(data_dir)
        if dsn is None:
            raise click.ClickException(
                f"No database: 'up' does not run on {data_dir.root}. Start it, "
                "or set SCAIMIND_DATABASE_DSN."
            )
        environ["SCAIMIND_DATABASE_DSN"] = dsn
    return DatabaseSettings.from_env(environ).dsn


@contextmanager
def _one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors that a person can mend into one line. A bug keeps its traceback."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _database_errors() -> Iterator[None]:
    from app.auth.api_keys import InvalidKey, UnknownKey
    from app.cache.failures import DatabaseError
    from app.settings import SettingsError

    with _one_line(DatabaseError, InvalidKey, SettingsError, UnknownKey):
        yield
