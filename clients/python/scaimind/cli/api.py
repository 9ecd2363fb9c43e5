"""Any request of the API."""

import json
import sys
from typing import Any

import click

from scaimind.cli.output import show_data
from scaimind.cli.session import client


@click.command()
@click.argument("method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE"], False))
@click.argument("path")
@click.option("-q", "--query", multiple=True, metavar="NAME=VALUE", help="An argument of it.")
@click.option("-d", "--data", "body", metavar="JSON", help="The body; '-' reads standard input.")
@click.pass_obj
def api(
    profile: str | None, method: str, path: str, query: tuple[str, ...], body: str | None
) -> None:
    """Make any request below the API's root, and print the answer.

    \b
    scaimind api GET /jobs -q status=FAILED
    scaimind api POST /jobs/JOB/cancel -d '{"reason": "had enough"}'
    """
    if not path.startswith("/"):
        raise click.UsageError(f"The path begins with a slash: /{path}")
    arguments: dict[str, list[str]] = {}
    for each in query:
        name, sign, value = each.partition("=")
        if not sign:
            raise click.UsageError(f"-q {each!r}: write NAME=VALUE.")
        arguments.setdefault(name, []).append(value)
    sent: Any = None
    if body is not None:
        try:
            sent = json.loads(sys.stdin.read() if body == "-" else body)
        except ValueError as error:
            raise click.UsageError(f"The body is no JSON: {error}") from error
    with client(profile) as made:
        found = made.request(method.upper(), path, query=arguments, body=sent)
    if isinstance(found, str):
        click.echo(found, nl=not found.endswith("\n"))
    elif found is not None:
        show_data(found, "json")
