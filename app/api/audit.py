"""One audit event for each request that changes something, refused attempts included."""

from aiohttp import web
from aiohttp.typedefs import Handler

from app.api.app_keys import CALLER
from app.api.endpoint import action_of
from app.api.envelope import ERROR_CODE
from app.telemetry.audit import OK, UNKNOWN, Action, Actor, Identity, Target, record

#: Names in paths, and what they are the ids of.
_IN_PATHS = {
    "job_id": "job",
    "node_id": "node",
    "evaluation_id": "evaluation",
    "upload_id": "upload",
}

_TARGET: web.RequestKey[Target] = web.RequestKey("audit_target", Target)
_ACTION: web.RequestKey[Action] = web.RequestKey("audit_action", Action)
_CREATED: web.RequestKey[str] = web.RequestKey("audit_created", str)


def acts_as(request: web.Request, action: Action) -> None:
    """Name what the request does, where its route does not."""
    request[_ACTION] = action


def acts_on(request: web.Request, kind: str, target_id: str) -> None:
    """Name what the request acts on, where its path does not."""
    request[_TARGET] = Target(kind, target_id)


def has_created(request: web.Request, created_id: str) -> None:
    """Name what the request has made of its target."""
    request[_CREATED] = created_id


@web.middleware
async def audit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write the event once the request is answered, or was broken off."""
    action = action_of(request.match_info.handler)
    if action is None:
        return await handler(request)
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        return response
    finally:
        caller = request.get(CALLER)
        record(
            request.get(_ACTION, action),
            by=Identity(Actor.USER)
            if caller is None
            else Identity(Actor.USER, caller.tenant_id, caller.user_id, caller.credential_id),
            on=_target(request),
            outcome=UNKNOWN if response is None else response.get(ERROR_CODE, OK),
            status=None if response is None else response.status,
            created_id=request.get(_CREATED),
            remote=request.remote,
        )


def _target(request: web.Request) -> Target | None:
    named: Target | None = request.get(_TARGET)
    if named is not None:
        return named
    for name, kind in _IN_PATHS.items():
        if name in request.match_info:
            return Target(kind, request.match_info[name])
    return None
