"""Evaluations.

The platform's table lets `scaimind:view` "list and read ... evaluations" and
`scaimind:evaluate` "submit and read evaluations": either of them reads.
"""

from aiohttp import web

from app.api.access import requires
from app.api.bodies import read_object
from app.api.envelope import success
from app.api.keys import COORDINATOR, caller_of
from app.api.paths import EVALUATION_ID
from app.auth.permissions import Permission
from app.schemas.evaluations import LIST_EVALUATIONS_QUERY, SUBMIT_EVALUATION_BODY
from app.schemas.loading import NO_QUERY, load_body, load_query

routes = web.RouteTableDef()

#: An evaluation runs as a job with this label.
_LABEL = {"type": "evaluation"}


@routes.get("/evaluations")
@requires(Permission.VIEW, Permission.EVALUATE)
async def list_evaluations(request: web.Request) -> web.Response:
    """List the jobs that run evaluations."""
    query = load_query(LIST_EVALUATIONS_QUERY, request.query)
    return success(
        await request.app[COORDINATOR].list_jobs(caller_of(request), label_filter=_LABEL, **query)
    )


@routes.post("/evaluations")
@requires(Permission.EVALUATE)
async def submit_evaluation(request: web.Request) -> web.Response:
    """Submit an evaluation."""
    load_query(NO_QUERY, request.query)
    body = load_body(SUBMIT_EVALUATION_BODY, await read_object(request))
    answer = await request.app[COORDINATOR].submit_evaluation(caller_of(request), body)
    return success(answer, status=201)


@routes.get("/evaluations/{evaluation_id}")
@requires(Permission.VIEW, Permission.EVALUATE)
async def get_evaluation(request: web.Request) -> web.Response:
    """Fetch one evaluation, with its results once it is complete."""
    load_query(NO_QUERY, request.query)
    return success(
        await request.app[COORDINATOR].get_evaluation(caller_of(request), EVALUATION_ID.of(request))
    )
