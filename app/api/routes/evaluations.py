"""Evaluations.

The platform's table lets `scaimind:view` "list and read ... evaluations" and
`scaimind:evaluate` "submit and read evaluations": either of them reads.
"""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR, caller_of
from app.api.audit import acts_on
from app.api.endpoint import Operation, body_of, headers_of, query_of
from app.api.envelope import success
from app.api.paths import EVALUATION_ID
from app.api.reads.shared import answer_shared
from app.scaikey.permissions import Permission
from app.schemas.evaluations import LIST_EVALUATIONS_QUERY, SUBMIT_EVALUATION_BODY
from app.schemas.headers import SUBMIT_HEADERS
from app.telemetry.audit import Action

routes = web.RouteTableDef()

#: An evaluation runs as a job with this label.
_LABEL = {"type": "evaluation"}


@routes.get("/evaluations")
@requires(Permission.VIEW, Permission.EVALUATE)
@Operation(rpc="ListJobs", query=LIST_EVALUATIONS_QUERY)
async def list_evaluations(request: web.Request) -> web.Response:
    """List the evaluation jobs."""
    query, coordinator = query_of(request), request.app[COORDINATOR]
    return await answer_shared(
        request, lambda caller: coordinator.list_jobs(caller, label_filter=_LABEL, **query)
    )


@routes.post("/evaluations")
@requires(Permission.EVALUATE)
@Operation(
    rpc="SubmitEvaluation",
    headers=SUBMIT_HEADERS,
    body=SUBMIT_EVALUATION_BODY,
    statuses=(201,),
    action=Action.EVALUATION_SUBMIT,
)
async def submit_evaluation(request: web.Request) -> web.Response:
    """Submit an evaluation."""
    answer = await request.app[COORDINATOR].submit_evaluation(
        caller_of(request), body_of(request), **headers_of(request)
    )
    acts_on(request, "evaluation", answer["evaluation_id"])
    return success(answer, status=201)


@routes.get("/evaluations/{evaluation_id}")
@requires(Permission.VIEW, Permission.EVALUATE)
@Operation(rpc="GetEvaluation")
async def get_evaluation(request: web.Request) -> web.Response:
    """Get an evaluation, with its results once it is complete."""
    evaluation_id, coordinator = EVALUATION_ID.of(request), request.app[COORDINATOR]
    return await answer_shared(
        request, lambda caller: coordinator.get_evaluation(caller, evaluation_id)
    )
