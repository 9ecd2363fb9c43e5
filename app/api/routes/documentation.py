"""The API's description of itself, and a page to read and try it.

The page is Swagger UI from its npm package, unchanged (`scripts/vendor-swagger-ui`);
its policy allows no inline script or style, and no other host.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import ETag, web

from app.api.access import public
from app.api.endpoint import Operation
from app.errors import ROUTE_NOT_FOUND, ApiError

if TYPE_CHECKING:
    pass

routes = web.RouteTableDef()

#: The name of the route to the page.
PAGE = "docs"

_STATIC = Path(str(files("app.openapi").joinpath("static")))
#: Swagger UI, as it was published, and what starts it; with their media types.
_ASSETS = {
    "start.js": (_STATIC / "start.js", "text/javascript"),
    "swagger-ui.css": (_STATIC / "swagger-ui" / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (_STATIC / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
}
#: Kept by browsers, and asked for again only to hear that it is the same.
_CACHING = {"Cache-Control": "no-cache"}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@routes.get("/openapi.json")
@public
@Operation(content=("application/json",), statuses=(200, 304), query=None)
async def get_openapi(request: web.Request) -> web.Response:
    """Get this document."""
    document = request.app[DOCUMENT]
    if ETag(document.tag) in (request.if_none_match or ()):
        response = web.Response(status=304, headers=_CACHING)
    else:
        response = web.Response(
            body=document.body, content_type="application/json", headers=_CACHING
        )
    response.etag = document.tag
    return response


@routes.get("/docs", name=PAGE)
@public
@Operation(page=True, content=("text/html",), query=None)
async def show_page(_request: web.Request) -> web.FileResponse:
    """Show the API reference."""
    headers = {**_CACHING, "Content-Security-Policy": _PAGE_POLICY}
    return web.FileResponse(_STATIC / "index.html", headers=headers)


@routes.get("/docs/{asset}")
@public
@Operation(page=True, content=("text/javascript", "text/css"), query=None)
async def get_asset(request: web.Request) -> web.FileResponse:
    """Get a file of the API reference."""
    asset = _ASSETS.get(request.match_info["asset"])
    if asset is None:
        raise ApiError(ROUTE_NOT_FOUND)
    path, media_type = asset
    return web.FileResponse(path, headers={**_CACHING, "Content-Type": media_type})


DOCUMENT: "web.AppKey[Document]" = web.AppKey("document")


@dataclass(frozen=True, slots=True)
class Document:
    """The document as it is served."""

    body: bytes
    #: Its entity tag.
    tag: str

    @classmethod
    def of(cls, built: dict[str, Any]) -> "Document":
        """Encode what `build` made."""
        body = orjson.dumps(built)
        return cls(body, hashlib.sha256(body).hexdigest()[:32])
