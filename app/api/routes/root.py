"""For whoever knows only the address: `/` and `/version`."""

from aiohttp import web

from app import __version__
from app.api.access import public
from app.api.app_keys import COMMIT
from app.api.endpoint import Operation
from app.api.envelope import success
from app.api.pages.console import PAGE
from app.bridge.channel import CONTRACT
from app.schemas.version import VERSION_ANSWER

routes = web.RouteTableDef()


@routes.get("/")
@public
@Operation(page=True, content=("text/html",), statuses=(302,), query=None)
async def lead_to_page(request: web.Request) -> web.Response:
    """Lead to the console."""
    page = request.app.router[PAGE].url_for()
    return web.Response(status=302, headers={"Location": str(page)})


@routes.get("/version")
@public
@Operation(answer=VERSION_ANSWER, query=None)
async def get_version(request: web.Request) -> web.Response:
    """Get which gateway this is: its version, its commit, and the coordinator's contract."""
    return success(
        {
            "name": "scaimind-gateway",
            "version": __version__,
            "commit": request.app[COMMIT],
            "contract": CONTRACT,
        }
    )
