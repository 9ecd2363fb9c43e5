"""Commands that run one service alone: the gateway, the coordinator, the issuer."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.audited import audited
from app.cli.one_line import one_line
from app.undumpable import make_undumpable

if TYPE_CHECKING:
    from app.local.variables import Program


@click.command()
def serve() -> None:
    """Run only the gateway.

    Needs SCAIMIND_DATABASE_DSN, SCAIMIND_UPSTREAM_ADDRESS and
    SCAIMIND_UPSTREAM_API_SECRET, and a database migrated by 'migrate'.
    """
    make_undumpable()
    from app.configuration.section import SettingsError
    from app.gateway.run import run
    from app.gateway.settings import Settings

    with one_line(OSError, SettingsError):
        run(Settings.from_env(os.environ), unknown=_unknown("gateway"))


@click.group(invoke_without_command=True)
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file; environment variables take precedence.",
)
@click.pass_context
def coordinator(context: click.Context, config_file: Path | None) -> None:
    """Run only the one-machine MindCoordinator.

    Needs SCAIMIND_COORDINATOR_API_SECRET, or api_secret in the file;
    'settings --coordinator' lists the others. On SIGTERM running jobs save a
    checkpoint and resume at the next start.
    """
    make_undumpable()
    context.obj = config_file
    if context.invoked_subcommand is not None:
        return
    from app.configuration.section import SettingsError
    from app.coordinator import BadConfig, CoordinatorConfig, serve
    from app.telemetry import logs
    from app.telemetry.settings import TelemetrySettings
    from app.telemetry.startup import log_unknown

    with one_line(BadConfig, SettingsError):
        config = CoordinatorConfig.from_env(os.environ, file=config_file)
        logs.configure(
            TelemetrySettings.from_env(os.environ),
            out=sys.stdout.buffer,
            known_secrets=tuple(filter(None, (config.api_secret, config.database_dsn))),
        )
        log_unknown(_unknown("coordinator"))
        asyncio.run(serve(config))


@coordinator.command("move-store")
@click.option(
    "--to",
    "target",
    type=click.Choice(["postgresql", "sqlite"]),
    required=True,
    help="Where the jobs are to be.",
)
@click.pass_obj
def move_store(config_file: Path | None, target: str) -> None:
    """Copy the jobs of a stopped coordinator into PostgreSQL, or back.

    Reads the coordinator's settings, SCAIMIND_COORDINATOR_DATABASE_DSN among
    them. All is copied and compared, or nothing is: it can be started again. What
    is copied stays where it is; the target must be empty.
    """
    from app.cli.variables import warn_of_unknown
    from app.configuration.section import SettingsError
    from app.coordinator import BadConfig, CoordinatorConfig
    from app.coordinator.failures import LeadershipLost, StoreUnavailable
    from app.coordinator.jobs.moving import NotMoved
    from app.coordinator.jobs.steps.store_steps import UnusableStore
    from app.coordinator.ownership.moving import move_to_postgresql, move_to_sqlite

    def progress(table: str, copied: int, count: int) -> None:
        click.echo(f"{table}: {copied} of {count}", err=True)

    warn_of_unknown(os.environ)
    with one_line(
        BadConfig, LeadershipLost, NotMoved, SettingsError, StoreUnavailable, UnusableStore
    ):
        config = CoordinatorConfig.from_env(os.environ, file=config_file)
        if not config.database_dsn:
            raise BadConfig(f"{config.variable('database_dsn')}: not set.")
        move = move_to_postgresql if target == "postgresql" else move_to_sqlite
        moved = move(config, progress=progress)
    click.echo(f"Copied {sum(moved.rows.values())} rows, {moved.rows['jobs']} of them jobs.")


@click.command()
@click.option(
    "--rotate", is_flag=True, help="Only create a new signing key, used from the next start."
)
def issuer(rotate: bool) -> None:
    """Run only the token issuer: ScaiKey for one machine. 'up' includes it.

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
    from app.configuration.section import SettingsError
    from app.database.settings import DatabaseSettings
    from app.issuer.keys import KeysUnusable, SigningKeys
    from app.issuer.settings import IssuerSettings, KeySettings
    from app.telemetry.audit import Action, Target
    from app.telemetry.settings import TelemetrySettings

    environ = dict(os.environ)
    if data_dir := environ.get("SCAIMIND_DATA_DIR"):
        environ.setdefault("SCAIMIND_ISSUER_DATA_DIR", str(Path(data_dir) / "issuer"))
    with one_line(KeysUnusable, OSError, SettingsError):
        if rotate:
            folder = Path(KeySettings.from_env(environ).data_dir)
            with audited(Action.SIGNING_KEY_ROTATE) as change:
                keys = SigningKeys.rotate(folder, now=datetime.now(UTC).timestamp())
                change.target = Target("signing_key", keys.kid)
            click.echo(f"The next start will sign with the new key {keys.kid}.")
            return
        from app.issuer.server import run

        run(
            IssuerSettings.from_env(environ),
            database=DatabaseSettings.from_env(environ),
            telemetry=TelemetrySettings.from_env(environ),
            unknown=_unknown("issuer"),
        )


def _unknown(program: "Program") -> dict[str, str]:
    """Return the variables that no program reads, each with the one that may be meant."""
    from app.cli.variables import unknown_variables
    from app.local.variables import variables_of

    unknown = unknown_variables(os.environ, read=variables_of(program))
    return {each.variable: each.meant for each in unknown}
