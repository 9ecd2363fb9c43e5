"""The API's description of itself, and a page to read and try it.

The page is Swagger UI from its npm package, unchanged (`scripts/vendor-swagger-ui`);
its policy allows no inline script or style, and no other host.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import ETag, web

from app.api.access import public
from app.api.endpoint import Operation
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
#: Kept by browsers, and asked for again only to hear that it is the same.
_CACHING = {"Cache-Control": "no-cache"}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is served."""

    body: bytes
    media_type: str
    #: Its entity tag.
    tag: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> "Document":
        """Tag a document by its content."""
        return cls(body, media_type, hashlib.sha256(body).hexdigest()[:32])


DOCUMENT: web.AppKey[Document] = web.AppKey("document", Document)
FILES: web.AppKey[Mapping[str, Document]] = web.AppKey("documentation_files")


def describe(built: dict[str, Any]) -> Document:
    """Encode what `app.openapi.document.build` made."""
    return Document.of(orjson.dumps(built), "application/json")


def load_files() -> Mapping[str, Document]:
    """Read the page and all that it loads."""
    static = files("app.openapi").joinpath("static")
    return {
        name: Document.of(static.joinpath(path).read_bytes(), media_type)
        for name, (path, media_type) in _FILES.items()
    }


@routes.get("/openapi.json")
@public
@Operation(content=("application/json",), statuses=(200, 304), query=None)
async def get_openapi(request: web.Request) -> web.Response:
    """Get this document."""
    return _answer(request, request.app[DOCUMENT])


@routes.get("/docs", name=PAGE)
@public
@Operation(page=True, content=("text/html",), query=None)
async def show_page(request: web.Request) -> web.Response:
    """Show the API reference."""
    response = _answer(request, request.app[FILES][_PAGE_FILE])
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
    return _answer(request, request.app[FILES][asset])


def _answer(request: web.Request, document: Document) -> web.Response:
    if ETag(document.tag) in (request.if_none_match or ()):
        response = web.Response(status=304, headers=_CACHING)
    else:
        response = web.Response(
            body=document.body, content_type=document.media_type, headers=_CACHING
        )
    response.etag = document.tag
    return response
