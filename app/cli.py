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

from app.undumpable import make_undumpable

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
    """Run everything on this machine: PostgreSQL, issuer, coordinator and gateway.

    \b
    SCAIMIND_DATA_DIR             where everything is kept; 'var' unless given
    SCAIMIND_HOST, SCAIMIND_PORT  where the gateway listens; 127.0.0.1, 8080
    SCAIMIND_DATABASE_DSN         uses this PostgreSQL instead of an own one
    SCAIMIND_COORDINATOR_ADDRESS  uses this coordinator instead of an own one,
                                  with SCAIMIND_COORDINATOR_API_SECRET
    SCAIMIND_AUTH_TOKEN_URL, SCAIMIND_AUTH_JWKS_URL, SCAIMIND_AUTH_ISSUER
                                  any of them: uses that identity provider
                                  instead of an own issuer of tokens

    The first start makes an API key of tenant 'local', shows it and keeps it
    in <data dir>/api-key. Ctrl-C stops everything and loses nothing.
    """
    make_undumpable()
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
    make_undumpable()
    from app.application import run
    from app.settings import Settings, SettingsError

    with _one_line(OSError, SettingsError):
        run(Settings.from_env(os.environ))


@main.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file; environment variables win over it.",
)
def coordinator(config_file: Path | None) -> None:
    """Run the one-machine MindCoordinator alone.

    Needs SCAIMIND_COORDINATOR_API_SECRET, or api_secret in the file;
    'settings --coordinator' lists the others. On SIGTERM running jobs save a
    checkpoint, and go on at the next start.
    """
    make_undumpable()
    from app.coordinator import BadConfig, CoordinatorConfig, serve
    from app.settings import SettingsError, TelemetrySettings
    from app.telemetry import logs

    with _one_line(BadConfig, SettingsError):
        config = CoordinatorConfig.from_env(os.environ, file=config_file)
        logs.configure(
            TelemetrySettings.from_env(os.environ),
            out=sys.stdout.buffer,
            known_secrets=(config.api_secret,),
        )
        asyncio.run(serve(config))


@main.command()
@click.option("--rotate", is_flag=True, help="Only make a new signing key, for the next start.")
def issuer(rotate: bool) -> None:
    """Run the issuer of tokens alone: ScaiKey for one machine. 'up' does it by itself.

    Needs SCAIMIND_DATABASE_DSN, where the API keys are. Times are seconds.

    \b
    SCAIMIND_ISSUER_HOST              address that it listens on; 127.0.0.1
    SCAIMIND_ISSUER_PORT              port that it listens on; 8081
    SCAIMIND_ISSUER_NAME              the tokens' iss; scaimind-local
    SCAIMIND_ISSUER_DATA_DIR          where its signing keys are kept; var/issuer
    SCAIMIND_ISSUER_CLIENT_ID         who may exchange tokens; scaimind-gateway
    SCAIMIND_ISSUER_CLIENT_SECRET     the secret of that client, or
    SCAIMIND_ISSUER_CLIENT_SECRET_FILE  the file that holds it; needed
    SCAIMIND_ISSUER_TOKEN_LIFETIME    of tokens for ScaiDrive and ScaiAtlas; 300
    SCAIMIND_ISSUER_SESSION_LIFETIME  of tokens for the gateway; 3600
    SCAIMIND_ISSUER_KEY_MAX_AGE       age from which a start replaces the signing
                                      key; 2592000
    """
    make_undumpable()
    from app.issuer.keys import KeysUnusable, SigningKeys
    from app.issuer.settings import IssuerSettings, KeySettings
    from app.settings import DatabaseSettings, SettingsError, TelemetrySettings

    environ = dict(os.environ)
    if data_dir := environ.get("SCAIMIND_DATA_DIR"):
        environ.setdefault("SCAIMIND_ISSUER_DATA_DIR", str(Path(data_dir) / "issuer"))
    with _one_line(KeysUnusable, OSError, SettingsError):
        if rotate:
            folder = Path(KeySettings.from_env(environ).data_dir)
            keys = SigningKeys.rotate(folder, now=datetime.now(UTC).timestamp())
            click.echo(f"The next start signs with the new key {keys.kid}.")
            return
        from app.issuer.server import run

        run(
            IssuerSettings.from_env(environ),
            database=DatabaseSettings.from_env(environ),
            telemetry=TelemetrySettings.from_env(environ),
        )


@main.command()
@click.option("--audience", default="scaimind", help="Whom it is for; the gateway unless given.")
def token(audience: str) -> None:
    """Exchange an API key for a JWT at the 'up' that runs on SCAIMIND_DATA_DIR, and print it.

    The key is that in SCAIMIND_API_KEY, or else that of the first start.
    """
    from app.issuer.client import NoToken, exchange
    from app.issuer.settings import IssuerSettings
    from app.local.data_dir import DataDir
    from app.settings import SettingsError

    data_dir = DataDir(Path(os.environ.get("SCAIMIND_DATA_DIR") or "var"))
    environ = {
        **os.environ,
        "SCAIMIND_ISSUER_CLIENT_SECRET_FILE": str(data_dir.issuer_secret),
    }
    try:
        issuer_url = data_dir.issuer_url.read_text(encoding="ascii").strip()
        api_key = os.environ.get("SCAIMIND_API_KEY") or data_dir.api_key.read_text().strip()
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be read: has 'up' been started on {data_dir.root}?"
        ) from None
    with _one_line(NoToken, SettingsError):
        settings = IssuerSettings.from_env(environ)
        made, seconds = exchange(
            issuer_url,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            api_key=api_key,
            audience=audience,
        )
    # Only the token on stdout, so that TOKEN=$(... token) works.
    click.echo(f"A token for {audience} that lives for {seconds} s:", err=True)
    click.echo(made)


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
def health() -> None:
    """Ask the gateway of this container whether it is alive; a status of 1 if not."""
    from urllib.request import urlopen

    from app.settings import ServerSettings, SettingsError

    with _one_line(OSError, SettingsError):
        server = ServerSettings.from_env(os.environ)
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)
        with urlopen(f"http://{host}:{server.port}/health", timeout=4):
            pass


@main.command("check-ingress")
@click.argument("url")
@click.argument("job_id")
def check_ingress(url: str, job_id: str) -> None:
    """See whether the way to the gateway lets streams through.

    Opens the log of a job that runs at URL, the public address, with the API
    key in SCAIMIND_API_KEY. What is wrong is a warning each, and a status of 1.
    """
    from app.ingress_check import CannotCheck, check_ingress
    from app.settings import TelemetrySettings
    from app.telemetry import logs

    key = os.environ.get("SCAIMIND_API_KEY", "")
    if not key:
        raise click.ClickException("SCAIMIND_API_KEY: not set. It needs scaimind:view.")
    logs.configure(TelemetrySettings(), out=sys.stdout.buffer, known_secrets=(key,))
    with _one_line(CannotCheck):
        if asyncio.run(check_ingress(url, key=key, job_id=job_id)):
            sys.exit(1)
        click.echo("Streams come through as they are written.", err=True)


@main.command()
@click.option("--coordinator", is_flag=True, help="Those of the one-machine coordinator.")
def settings(coordinator: bool) -> None:
    """Print every setting of the gateway: variable, default, meaning."""
    from app.configuration import as_markdown
    from app.coordinator import config_text

    click.echo(config_text.as_markdown() if coordinator else as_markdown(), nl=False)


@main.command()
def errors() -> None:
    """Print every error that a caller can be given: code, status, meaning."""
    from app.openapi.errors import as_markdown

    click.echo(as_markdown(), nl=False)


@main.command()
def openapi() -> None:
    """Print the API's description, OpenAPI 3.1, as JSON."""
    import json

    from aiohttp import web

    from app.application import add_routes
    from app.openapi.document import build

    app = web.Application()
    add_routes(app)
    click.echo(json.dumps(build(app.router.routes()), indent=2))


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
