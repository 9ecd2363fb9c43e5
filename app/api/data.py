"""Data sources and the data-set cache."""

from aiohttp import web

from app.api.access import requires
from app.api.bodies import read_object
from app.api.envelope import success
from app.api.keys import COORDINATOR, caller_of
from app.auth.permissions import Permission
from app.schemas.data import DATA_CACHE_QUERY, VALIDATE_DATA_BODY
from app.schemas.loading import NO_QUERY, load_body, load_query

routes = web.RouteTableDef()


@routes.post("/data/validate")
@requires(Permission.MANAGE)
async def validate_data(request: web.Request) -> web.Response:
    """Check that the coordinator can reach and parse data sources."""
    load_query(NO_QUERY, request.query)
    body = load_body(VALIDATE_DATA_BODY, await read_object(request))
    return success(await request.app[COORDINATOR].validate_data(caller_of(request), body))


@routes.get("/data/cache")
@requires(Permission.MANAGE)
async def get_data_cache(request: web.Request) -> web.Response:
    """Inspect the coordinator's data-set cache."""
    query = load_query(DATA_CACHE_QUERY, request.query)
    return success(await request.app[COORDINATOR].get_data_cache(caller_of(request), **query))
