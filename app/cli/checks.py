"""Commands that check a running deployment."""

import asyncio
import os
import sys

import click

from app.cli.one_line import one_line


@click.command()
def health() -> None:
    """Ask the gateway of this container whether it is alive; a status of 1 if not."""
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
    """See whether the way to the gateway lets streams through.

    Opens the log of a job that runs at URL, the public address, with the API
    key in SCAIMIND_API_KEY. What is wrong is a warning each, and a status of 1.
    """
    from app.cli.ingress_check import CannotCheck, check_ingress
    from app.telemetry import logs
    from app.telemetry.settings import TelemetrySettings

    key = os.environ.get("SCAIMIND_API_KEY", "")
    if not key:
        raise click.ClickException("SCAIMIND_API_KEY: not set. It needs scaimind:view.")
    logs.configure(TelemetrySettings(), out=sys.stdout.buffer, known_secrets=(key,))
    with one_line(CannotCheck):
        if asyncio.run(check_ingress(url, key=key, job_id=job_id)):
            sys.exit(1)
        click.echo("Streams come through as they are written.", err=True)
