"""All routes of the gateway."""

from collections.abc import Iterable

from aiohttp import web

from app.api.routes import (
    cluster,
    console_sessions,
    data,
    documentation,
    evaluations,
    health,
    jobs,
    monitoring,
    queue,
    root,
    streams,
    summary,
    tickets,
)

PREFIX = "/v1/modules/scaimind"


#: The sections of the API reference, below the prefix.
SECTIONS = (
    jobs,
    monitoring,
    streams,
    tickets,
    console_sessions,
    summary,
    cluster,
    queue,
    evaluations,
    data,
    documentation,
)


def add_routes(app: web.Application) -> None:
    """Add all routes to an application; describing them needs nothing else."""
    for section in SECTIONS:
        _add_routes(app, section.routes, prefix=PREFIX)
    for section in (health, root):
        _add_routes(app, section.routes, prefix="")


def _add_routes(
    app: web.Application, routes: Iterable[web.AbstractRouteDef], *, prefix: str
) -> None:
    for route in routes:
        assert isinstance(route, web.RouteDef)
        web.route(route.method, prefix + route.path, route.handler, **route.kwargs).register(
            app.router
        )
