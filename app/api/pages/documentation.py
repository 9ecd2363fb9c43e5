"""The API's description of itself, and a page to read and try it.

The page is Swagger UI from its npm package, unchanged (`scripts/vendor-swagger-ui`);
its policy allows no inline script or style, and no other host.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import web

from app.api.access import public
from app.api.endpoint import Operation
from app.api.pages.static_files import StaticFile
from app.errors import ROUTE_NOT_FOUND, ApiError

routes = web.RouteTableDef()

#: The name of the route to the page.
PAGE = "docs"

#: The page, Swagger UI as it was published, and what starts it; with their media types.
_FILES = {
    "index.html": ("index.html", "text/html"),
    "start.js": ("start.js", "text/javascript"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", "text/javascript"),
}
_PAGE_FILE = "index.html"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


DOCUMENT: web.AppKey[StaticFile] = web.AppKey("document", StaticFile)
FILES: web.AppKey[Mapping[str, StaticFile]] = web.AppKey("documentation_files")


def describe(built: dict[str, Any]) -> StaticFile:
    """Encode what `app.openapi.document.build` made."""
    return StaticFile.of(orjson.dumps(built), "application/json")


def load_files() -> Mapping[str, StaticFile]:
    """Read the page and all that it loads."""
    static = files("app.openapi").joinpath("static")
    return {
        name: StaticFile.of(static.joinpath(path).read_bytes(), media_type)
        for name, (path, media_type) in _FILES.items()
    }


@routes.get("/openapi.json")
@public
@Operation(content=("application/json",), statuses=(200, 304), query=None)
async def get_openapi(request: web.Request) -> web.Response:
    """Get this document."""
    return request.app[DOCUMENT].answer(request)


@routes.get("/docs", name=PAGE)
@public
@Operation(page=True, content=("text/html",), query=None)
async def show_page(request: web.Request) -> web.Response:
    """Show the API reference."""
    response = request.app[FILES][_PAGE_FILE].answer(request)
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response


@routes.get("/docs/{asset}")
@public
@Operation(page=True, content=("text/javascript", "text/css"), query=None)
async def get_asset(request: web.Request) -> web.Response:
    """Get a file of the API reference."""
    asset = request.match_info["asset"]
    if asset == _PAGE_FILE or asset not in request.app[FILES]:
        raise ApiError(ROUTE_NOT_FOUND)
    return request.app[FILES][asset].answer(request)
