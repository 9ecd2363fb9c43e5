"""Data sources and the data-set cache."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR, EXCHANGE, caller_of
from app.api.endpoint import Operation, body_of, query_of
from app.api.envelope import success
from app.auth import exchange
from app.auth.exchange import lent_tokens
from app.scaikey.permissions import Permission
from app.schemas.data import DATA_CACHE_QUERY, VALIDATE_DATA_BODY
from app.telemetry.audit import Action

routes = web.RouteTableDef()


@routes.post("/data/validate")
@requires(Permission.MANAGE)
@Operation(
    rpc="ValidateData",
    body=VALIDATE_DATA_BODY,
    errors=exchange.ERRORS,
    action=Action.DATA_VALIDATE,
)
async def validate_data(request: web.Request) -> web.Response:
    """Check that the coordinator can read and parse data sources."""
    caller = caller_of(request)
    async with lent_tokens(request.app[EXCHANGE], caller) as tokens:
        answer = await request.app[COORDINATOR].validate_data(
            caller, body_of(request), tokens=tokens
        )
    return success(answer)


@routes.get("/data/cache")
@requires(Permission.MANAGE)
@Operation(rpc="GetDataCache", query=DATA_CACHE_QUERY, errors=exchange.ERRORS)
async def get_data_cache(request: web.Request) -> web.Response:
    """Get the state of the coordinator's data-set cache."""
    caller = caller_of(request)
    async with lent_tokens(request.app[EXCHANGE], caller) as tokens:
        answer = await request.app[COORDINATOR].get_data_cache(
            caller, tokens=tokens, **query_of(request)
        )
    return success(answer)
