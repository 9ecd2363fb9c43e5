"""The console's page, and the files that it loads.

Every address below `/console` is one of the page: the page reads it. The policy allows
no inline script or style, no other host, and no text that becomes markup (Trusted Types).
"""

from collections.abc import Mapping
from importlib.resources import files

from aiohttp import web

from app.api.access import public
from app.api.endpoint import Operation
from app.api.pages.static_files import StaticFile, load
from app.errors import ROUTE_NOT_FOUND, ApiError

routes = web.RouteTableDef()

#: The name of the route to the page.
PAGE = "console"
CONSOLE_FILES: web.AppKey[Mapping[str, StaticFile]] = web.AppKey("console_files")

_PAGE_FILE = "index.html"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def load_console() -> Mapping[str, StaticFile]:
    """Read the page and all that it loads."""
    return load(files("app.console").joinpath("static"))


@routes.get("/console-files/{path:.+}")
@public
@Operation(page=True, content=("text/javascript", "text/css", "image/svg+xml"), query=None)
async def get_console_file(request: web.Request) -> web.Response:
    """Get a file of the console."""
    path = request.match_info["path"]
    if path == _PAGE_FILE or path not in request.app[CONSOLE_FILES]:
        raise ApiError(ROUTE_NOT_FOUND)
    return request.app[CONSOLE_FILES][path].answer(request)


@routes.get("/console", name=PAGE)
@routes.get("/console/{path:.*}")
@public
@Operation(page=True, content=("text/html",), query=None)
async def show_console(request: web.Request) -> web.Response:
    """Show the console."""
    response = request.app[CONSOLE_FILES][_PAGE_FILE].answer(request)
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response
