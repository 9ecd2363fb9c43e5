"""Console sessions: a browser's own bearer token, with the rights of the one that asked for it."""

from aiohttp import hdrs, web

from app.api.access import public, requires
from app.api.app_keys import CALLER, CONSOLE_SESSIONS, REQUEST_ID, caller_of
from app.api.endpoint import Operation, body_of
from app.api.envelope import success, told_time
from app.errors import (
    AUTH_CODE_INVALID,
    AUTH_UNAVAILABLE,
    AUTHZ_PERMISSION_DENIED,
    NOT_FOUND,
    ApiError,
)
from app.scaikey.permissions import Permission
from app.schemas.console import (
    CONSOLE_CODE,
    CONSOLE_SESSION,
    CONSOLE_SESSION_BODY,
    ENDED_CONSOLE_SESSION,
)
from app.telemetry.audit import Action

routes = web.RouteTableDef()


@routes.post("/console-codes")
@requires(*Permission)
@Operation(
    answer=CONSOLE_CODE,
    statuses=(201,),
    errors=(AUTH_UNAVAILABLE,),
    action=Action.CONSOLE_CODE_CREATE,
)
async def create_console_code(request: web.Request) -> web.Response:
    """Create a single-use code that signs a browser in to the console within a minute."""
    sessions = request.app[CONSOLE_SESSIONS]
    # Signing out ends a session with all that it made.
    if sessions.recognises(_token(request)):
        raise ApiError(
            AUTHZ_PERMISSION_DENIED,
            "A console session makes no codes. Use the key or token that it comes from.",
        )
    made = await sessions.make_code(caller_of(request))
    return success({"code": made.secret, "expires_at": told_time(made.expires_at)}, status=201)


@routes.post("/console-sessions")
@public
@Operation(
    answer=CONSOLE_SESSION,
    statuses=(201,),
    errors=(AUTH_CODE_INVALID, AUTH_UNAVAILABLE),
    body=CONSOLE_SESSION_BODY,
    action=Action.CONSOLE_SESSION_CREATE,
)
async def create_console_session(request: web.Request) -> web.Response:
    """Exchange a code for a token of its own, which ends with the one that made the code."""
    sessions = request.app[CONSOLE_SESSIONS]
    caller, made = await sessions.exchange(body_of(request)["code"], request_id=request[REQUEST_ID])
    request[CALLER] = caller  # for the audit trail
    return success({"token": made.secret, "expires_at": told_time(made.expires_at)}, status=201)


@routes.delete("/console-sessions/current")
@requires(*Permission)
@Operation(
    answer=ENDED_CONSOLE_SESSION,
    errors=(AUTH_UNAVAILABLE, NOT_FOUND),
    action=Action.CONSOLE_SESSION_END,
)
async def end_console_session(request: web.Request) -> web.Response:
    """End the console session whose token the request has."""
    if not await request.app[CONSOLE_SESSIONS].end(_token(request)):
        raise ApiError(NOT_FOUND, "The token is not that of a console session.")
    return success({})


def _token(request: web.Request) -> str:
    """Return the bearer token, which the authenticator has found."""
    return request.headers[hdrs.AUTHORIZATION].strip().partition(" ")[2].strip()
