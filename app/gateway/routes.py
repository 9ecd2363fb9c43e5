"""All routes of the gateway."""

from collections.abc import Iterable

from aiohttp import web

from app.api.pages import console, documentation
from app.api.routes import (
    cluster,
    console_sessions,
    data,
    drive,
    drive_uploads,
    evaluations,
    events,
    health,
    jobs,
    logs,
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
    logs,
    monitoring,
    streams,
    events,
    tickets,
    console_sessions,
    summary,
    cluster,
    queue,
    evaluations,
    data,
    documentation,
)


#: Those of the drive, which have paths of their own.
DRIVE_SECTIONS = (drive, drive_uploads)


def add_routes(app: web.Application, *, with_drive: bool = True) -> None:
    """Add all routes to an application; describing them needs nothing else.

    Those of the drive are left out where there is none.
    """
    for section in SECTIONS:
        _add_routes(app, section.routes, prefix=PREFIX)
    for section in (*(DRIVE_SECTIONS if with_drive else ()), health, root, console):
        _add_routes(app, section.routes, prefix="")


def _add_routes(
    app: web.Application, routes: Iterable[web.AbstractRouteDef], *, prefix: str
) -> None:
    for route in routes:
        assert isinstance(route, web.RouteDef)
        web.route(route.method, prefix + route.path, route.handler, **route.kwargs).register(
            app.router
        )
