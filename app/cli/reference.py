"""Commands that print reference pages: settings, errors, OpenAPI."""

import click


@click.command()
@click.option(
    "--coordinator", is_flag=True, help="Print the settings of the one-machine coordinator."
)
def settings(coordinator: bool) -> None:
    """Print every setting of the gateway: variable, default, meaning."""
    from app.configuration.reference import as_markdown
    from app.coordinator.settings import reference as config_text
    from app.gateway.settings import SECTIONS

    click.echo(
        config_text.as_markdown() if coordinator else as_markdown(SECTIONS.values()), nl=False
    )


@click.command()
def errors() -> None:
    """Print every error that callers can receive: code, status, meaning."""
    from app.openapi.errors import as_markdown

    click.echo(as_markdown(), nl=False)


@click.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document as JSON."""
    import json

    from aiohttp import web

    from app.gateway.routes import add_routes
    from app.openapi.document import build

    app = web.Application()
    add_routes(app)
    click.echo(json.dumps(build(app.router.routes()), indent=2))
