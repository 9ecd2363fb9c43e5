"""Commands for the whole stack on one machine, and for its tokens."""

import asyncio
import os
import sys
from pathlib import Path

import click

from app.cli.invocation import command_line, stack_name
from app.cli.one_line import one_line
from app.undumpable import make_undumpable


@click.command()
def up() -> None:
    """Run the whole stack on this machine: PostgreSQL, issuer, coordinator, gateway.

    \b
    SCAIMIND_DATA_DIR             data directory; 'var' by default
    SCAIMIND_HOST, SCAIMIND_PORT  where the gateway listens; 127.0.0.1, 8080
    SCAIMIND_DATABASE_DSN         use this PostgreSQL instead of starting one
    SCAIMIND_UPSTREAM_ADDRESS     use this coordinator instead of starting one,
                                  with SCAIMIND_UPSTREAM_API_SECRET
    SCAIMIND_AUTH_TOKEN_URL, SCAIMIND_AUTH_JWKS_URL, SCAIMIND_AUTH_ISSUER
                                  any of them: use that identity provider
                                  instead of starting a token issuer
    SCAIMIND_COORDINATOR_TRAINERS_PYTHON
                                  train language models with this Python, as
                                  scripts/run --with-trainers does
    SCAIMIND_EXAMPLE_MODEL=smollm2
                                  put that model on the drive for it
    SCAIMIND_NO_PROFILE=1         do not write the profile 'local' of the command
                                  scaimind, in ~/.config/scaimind/config.toml

    The first start creates an API key of tenant 'local' and stores it in
    <data dir>/api-key; on a terminal it is printed, too. Ctrl-C stops everything; running
    jobs resume later.
    """
    make_undumpable()
    from app.configuration.section import SettingsError
    from app.coordinator import BadConfig
    from app.local import supervisor
    from app.local.data_dir import CannotStart

    with one_line(BadConfig, CannotStart, OSError, SettingsError):
        config = supervisor.Config.from_env(os.environ)
        asyncio.run(
            supervisor.up(
                config,
                tell=_tell,
                show_key=sys.stdout.isatty(),
                token_command=command_line(os.environ, "token", data_dir=config.data_dir),
            )
        )


@click.command()
@click.option(
    "--audience", default="scaimind", help="Audience of the token; by default the gateway."
)
def token(audience: str) -> None:
    """Exchange an API key for a JWT of the running 'up' of SCAIMIND_DATA_DIR and print it.

    Uses the key in SCAIMIND_API_KEY if it is set, else the key of the first start.
    """
    from app.configuration.section import SettingsError
    from app.issuer.client import NoToken, exchange
    from app.issuer.settings import IssuerSettings
    from app.local.data_dir import DataDir

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
            f"{error.filename} cannot be read: {error.strerror}. "
            f"Has {stack_name(os.environ)} been started on {data_dir.root}?"
        ) from None
    with one_line(NoToken, SettingsError):
        settings = IssuerSettings.from_env(environ)
        made, seconds = exchange(
            issuer_url,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            api_key=api_key,
            audience=audience,
        )
    # Only the token on stdout, so that TOKEN=$(... token) works.
    click.echo(f"Token for {audience}, valid for {seconds} s:", err=True)
    click.echo(made)


def _tell(line: str) -> None:
    """Print a line; go on in silence if nobody is there to read it any more."""
    try:
        click.echo(line)
    except OSError:
        # The terminal or the reader of a pipe has gone. What could not be
        # written must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
