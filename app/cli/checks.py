"""Commands that check a running deployment."""

import asyncio
import os
import sys

import click

from app.cli.one_line import one_line


@click.command()
def health() -> None:
    """Check that the gateway of this container is alive; exits with status 1 if it is not."""
    from urllib.request import urlopen

    from app.api.settings import ServerSettings
    from app.configuration.section import SettingsError

    with one_line(OSError, SettingsError):
        server = ServerSettings.from_env(os.environ)
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)
        with urlopen(f"http://{host}:{server.port}/health", timeout=4):
            pass


@click.command("check-ingress")
@click.argument("url")
@click.argument("job_id")
def check_ingress(url: str, job_id: str) -> None:
    """Check that proxies in front of the gateway do not hold back streams.

    Opens the log of a running job at URL, the public address, with the API
    key in SCAIMIND_API_KEY. Logs a warning for each problem and exits with
    status 1.
    """
    from app.cli.ingress_check import CannotCheck, check_ingress
    from app.telemetry import logs
    from app.telemetry.settings import TelemetrySettings

    key = os.environ.get("SCAIMIND_API_KEY", "")
    if not key:
        raise click.ClickException(
            "SCAIMIND_API_KEY is not set. The key needs the permission scaimind:view."
        )
    logs.configure(TelemetrySettings(), out=sys.stdout.buffer, known_secrets=(key,))
    with one_line(CannotCheck):
        if asyncio.run(check_ingress(url, key=key, job_id=job_id)):
            sys.exit(1)
        click.echo("Streams arrive without delay.", err=True)
