"""Commands on the database: its schema, and the API keys."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.audited import audited
from app.cli.invocation import stack_name
from app.cli.one_line import one_line
from app.scaikey.permissions import PRESETS

if TYPE_CHECKING:
    from app.scaikey.api_keys import ApiKey

#: The columns of 'keys list'.
_HEADER = (
    *("KEY", "TENANT", "USER", "STATE", "ROLES AND PERMISSIONS"),
    *("CREATED", "EXPIRES", "REVOKED", "NAME"),
)
#: What click accepts for a point in time; without an offset it is UTC.
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Uses SCAIMIND_DATABASE_DSN if it is set, else the database of the running
    'up' of SCAIMIND_DATA_DIR.
    """
    from app.database.migrate import migrate

    with _database_errors():
        done = migrate(_dsn())
        click.echo(
            f"The schema is at revision {done.after}"
            + (f"; it was at {done.before or 'none'}." if done.changed else " already.")
        )


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    Uses SCAIMIND_DATABASE_DSN if it is set, else the database of the running
    'up' of SCAIMIND_DATA_DIR.
    """


@keys.command("create")
@click.option("--tenant", required=True, help="Tenant that the key belongs to.")
@click.option("--user", required=True, help="User that the key acts for.")
@click.option("--role", "roles", multiple=True, help="Role, such as tenant_viewer; repeatable.")
@click.option(
    "--permission", "permissions", multiple=True, help="Permission, scaimind:view; repeatable."
)
@click.option(
    "--preset",
    type=click.Choice([*PRESETS]),
    help="Permissions of a kind of user, each given by itself: an engineer gets "
    "scaimind:view, scaimind:manage and scaimind:evaluate.",
)
@click.option("--name", default="", help="Description of the key, for people.")
@click.option(
    "--expires",
    type=click.DateTime(_TIMES),
    help="Expiry time; by default the key does not expire.",
)
def create(
    tenant: str,
    user: str,
    roles: tuple[str, ...],
    permissions: tuple[str, ...],
    preset: str | None,
    name: str,
    expires: datetime | None,
) -> None:
    """Create a key and print it. It cannot be shown again: only its hash is stored."""
    if preset is not None:
        permissions = (*permissions, *PRESETS[preset])
    if not roles and not permissions:
        raise click.ClickException("A key needs at least one --role, --permission or --preset.")
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    from app.scaikey.api_keys import create_key
    from app.telemetry.audit import Action, Target

    with _database_errors(), audited(Action.KEY_CREATE) as change:
        made = create_key(
            _dsn(),
            tenant_id=tenant,
            user_id=user,
            roles=roles,
            permissions=permissions,
            name=name,
            expires_at=expires,
        )
        change.target = Target("key", made.key.key_id, made.key.tenant_id)
        change.details = {
            "key_user_id": made.key.user_id,
            "roles": ",".join(sorted(made.key.roles)),
            "permissions": ",".join(sorted(made.key.permissions)),
        }
    # Only the key on stdout, so that KEY=$(... keys create ...) works.
    click.echo(f"Created {made.key.key_id}. The key is not shown again:", err=True)
    click.echo(made.secret)


@keys.command("list")
@click.option("--tenant", help="Only keys of this tenant.")
def list_(tenant: str | None) -> None:
    """List the keys, oldest first. Times are UTC.

    The columns are aligned on a terminal and separated by tabs elsewhere.
    """
    from app.scaikey.api_keys import list_keys

    with _database_errors():
        found = list_keys(_dsn(), tenant_id=tenant)
    now = datetime.now(UTC)
    rows = [_HEADER, *(_row(key, now) for key in found)]
    for line in columns(rows, aligned=sys.stdout.isatty()):
        click.echo(line)


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key permanently, by the id that 'list' shows. Its open streams end."""
    from app.scaikey.api_keys import revoke_key
    from app.telemetry.audit import Action, Target

    with _database_errors(), audited(Action.KEY_REVOKE, Target("key", key_id)) as change:
        key = revoke_key(_dsn(), key_id)
        change.target = Target("key", key.key_id, key.tenant_id)
    click.echo(f"{key.key_id} is revoked.")


def _row(key: "ApiKey", now: datetime) -> Sequence[str]:
    return (
        key.key_id,
        key.tenant_id,
        key.user_id,
        key.refusal(now) or "valid",
        ",".join(sorted(key.roles | key.permissions)),
        _time(key.created_at),
        _time(key.expires_at) if key.expires_at else "never",
        _time(key.revoked_at) if key.revoked_at else "-",
        key.name,
    )


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def columns(rows: Sequence[Sequence[str]], *, aligned: bool) -> Iterator[str]:
    """Write rows as lines: padded to columns, or separated by tabs."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        if aligned:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()
        else:
            yield "\t".join(row)


def _dsn() -> str:
    """Return the connection string. Raises `SettingsError`."""
    from app.database.settings import DatabaseSettings
    from app.local.data_dir import DataDir
    from app.local.postgres import running_dsn

    environ = dict(os.environ)
    if not environ.keys() & {"SCAIMIND_DATABASE_DSN", "SCAIMIND_DATABASE_DSN_FILE"}:
        data_dir = DataDir(Path(environ.get("SCAIMIND_DATA_DIR") or "var"))
        dsn = running_dsn(data_dir)
        if dsn is None:
            raise click.ClickException(
                f"No database: {stack_name(os.environ)} is not running on {data_dir.root}. "
                "Start it, or set SCAIMIND_DATABASE_DSN."
            )
        environ["SCAIMIND_DATABASE_DSN"] = dsn
    return DatabaseSettings.from_env(environ).dsn


@contextmanager
def _database_errors() -> Iterator[None]:
    from app.configuration.section import SettingsError
    from app.database.errors import DatabaseError
    from app.scaikey.api_keys import InvalidKey, UnknownKey

    with one_line(DatabaseError, InvalidKey, SettingsError, UnknownKey):
        yield
