"""Jobs: submit, read and control them."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR, EXCHANGE, FEATURES, JOB_CACHE, caller_of
from app.api.audit import acts_as, acts_on, has_created
from app.api.endpoint import Operation, body_of, headers_of, query_of
from app.api.envelope import success
from app.api.paths import JOB_ID
from app.api.stale_if_error import answer_stale, check_page, may_be_stale
from app.auth import exchange
from app.auth.exchange import lent_tokens
from app.bridge import features
from app.errors import ApiError
from app.scaikey.permissions import Permission
from app.schemas.cache import STALE_HEADERS, STALE_META
from app.schemas.headers import SUBMIT_HEADERS
from app.schemas.jobs import (
    CANCEL_JOB_BODY,
    LIST_JOBS_QUERY,
    PAGE_QUERY,
    PAUSE_JOB_BODY,
    RESUME_JOB_BODY,
    RETRY_JOB_BODY,
    SUBMISSION_CHECK,
    SUBMIT_JOB_BODY,
    SUBMIT_JOB_QUERY,
)
from app.telemetry.audit import Action

routes = web.RouteTableDef()


@routes.get("/jobs")
@requires(Permission.VIEW)
@Operation(rpc="ListJobs", query=LIST_JOBS_QUERY, headers=STALE_HEADERS, meta=STALE_META)
async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs of the caller's tenant.

    A list that was begun while the coordinator was away consists of jobs that
    have passed through the gateway, and cannot be continued once it is back.
    """
    caller, query = caller_of(request), query_of(request)
    try:
        return success(await request.app[COORDINATOR].list_jobs(caller, **query))
    except ApiError as error:
        check_page(query["page_token"], request, error)
        if not may_be_stale(request, error):
            raise
        reading = request.app[JOB_CACHE].jobs(caller.tenant_id, **query)
        return await answer_stale(request, error, reading, read="jobs")


@routes.post("/jobs")
@requires(Permission.MANAGE)
@Operation(
    rpc="SubmitJob",
    query=SUBMIT_JOB_QUERY,
    headers=SUBMIT_HEADERS,
    body=SUBMIT_JOB_BODY,
    statuses=(200, 201),
    other_answers={200: SUBMISSION_CHECK},
    errors=(*exchange.ERRORS, *features.ERRORS),
    action=Action.JOB_SUBMIT,
)
async def submit_job(request: web.Request) -> web.Response:
    """Submit a training job.

    With `validate_only`, everything is checked that a submission checks, and
    nothing is stored; an `Idempotency-Key` stays unused. The answer is 200 with
    what would become of the job, or the error that a submission would get.
    501 where the coordinator cannot do that.
    """
    caller = caller_of(request)
    if query_of(request)["validate_only"]:
        acts_as(request, Action.JOB_VALIDATE)
        # Another one would ignore what it does not know, and queue the job.
        await request.app[FEATURES].require(caller, "validate_only")
        async with lent_tokens(request.app[EXCHANGE], caller) as tokens:
            check = await request.app[COORDINATOR].check_submission(
                caller, body_of(request), tokens=tokens
            )
        return success({"valid": True, **check})
    async with lent_tokens(request.app[EXCHANGE], caller) as tokens:
        answer = await request.app[COORDINATOR].submit_job(
            caller, body_of(request), tokens=tokens, **headers_of(request)
        )
    acts_on(request, "job", answer["job_id"])
    return success(answer, status=201)


@routes.get("/jobs/{job_id}")
@requires(Permission.VIEW)
@Operation(rpc="GetJob", headers=STALE_HEADERS, meta=STALE_META)
async def get_job(request: web.Request) -> web.Response:
    """Get a job's full state."""
    caller, job_id = caller_of(request), JOB_ID.of(request)
    try:
        return success(await request.app[COORDINATOR].get_job(caller, job_id))
    except ApiError as error:
        if not may_be_stale(request, error):
            raise
        reading = request.app[JOB_CACHE].job(caller.tenant_id, job_id)
        return await answer_stale(request, error, reading, read="job")


@routes.get("/jobs/{job_id}/checkpoints")
@requires(Permission.VIEW)
@Operation(rpc="ListCheckpoints", query=PAGE_QUERY)
async def list_checkpoints(request: web.Request) -> web.Response:
    """List a job's checkpoints, newest first.

    The job itself has the newest 100 of them; any can be resumed from. 501
    where the coordinator cannot list them.
    """
    return success(
        await request.app[COORDINATOR].list_checkpoints(
            caller_of(request), JOB_ID.of(request), **query_of(request)
        )
    )


@routes.post("/jobs/{job_id}/cancel")
@requires(Permission.MANAGE)
@Operation(
    rpc="CancelJob",
    body=CANCEL_JOB_BODY,
    body_optional=True,
    action=Action.JOB_CANCEL,
)
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel a job that has not ended."""
    return success(
        await request.app[COORDINATOR].cancel_job(
            caller_of(request), JOB_ID.of(request), **body_of(request)
        )
    )


@routes.post("/jobs/{job_id}/pause")
@requires(Permission.MANAGE)
@Operation(
    rpc="PauseJob",
    body=PAUSE_JOB_BODY,
    body_optional=True,
    action=Action.JOB_PAUSE,
)
async def pause_job(request: web.Request) -> web.Response:
    """Pause a running job."""
    return success(
        await request.app[COORDINATOR].pause_job(
            caller_of(request), JOB_ID.of(request), **body_of(request)
        )
    )


@routes.post("/jobs/{job_id}/resume")
@requires(Permission.MANAGE)
@Operation(
    rpc="ResumeJob",
    body=RESUME_JOB_BODY,
    body_optional=True,
    action=Action.JOB_RESUME,
)
async def resume_job(request: web.Request) -> web.Response:
    """Resume a paused job."""
    return success(
        await request.app[COORDINATOR].resume_job(
            caller_of(request), JOB_ID.of(request), **body_of(request)
        )
    )


@routes.post("/jobs/{job_id}/retry")
@requires(Permission.MANAGE)
@Operation(
    rpc="RetryJob",
    body=RETRY_JOB_BODY,
    body_optional=True,
    action=Action.JOB_RETRY,
)
async def retry_job(request: web.Request) -> web.Response:
    """Retry a failed or preempted job as a new child job."""
    child = await request.app[COORDINATOR].retry_job(
        caller_of(request), JOB_ID.of(request), **body_of(request)
    )
    has_created(request, child["job_id"])
    return success(child)
