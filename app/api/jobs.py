"""Jobs: submit, read and control them."""

from aiohttp import web

from app.api.access import requires
from app.api.bodies import read_object
from app.api.envelope import success
from app.api.keys import COORDINATOR, caller_of
from app.api.paths import JOB_ID
from app.auth.permissions import Permission
from app.schemas.jobs import (
    CANCEL_JOB_BODY,
    LIST_JOBS_QUERY,
    PAUSE_JOB_BODY,
    RESUME_JOB_BODY,
    RETRY_JOB_BODY,
    SUBMIT_JOB_BODY,
)
from app.schemas.loading import NO_QUERY, load_body, load_query

routes = web.RouteTableDef()


@routes.get("/jobs")
@requires(Permission.VIEW)
async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs of the caller's tenant."""
    query = load_query(LIST_JOBS_QUERY, request.query)
    return success(await request.app[COORDINATOR].list_jobs(caller_of(request), **query))


@routes.post("/jobs")
@requires(Permission.MANAGE)
async def submit_job(request: web.Request) -> web.Response:
    """Submit a training job."""
    load_query(NO_QUERY, request.query)
    body = load_body(SUBMIT_JOB_BODY, await read_object(request))
    answer = await request.app[COORDINATOR].submit_job(caller_of(request), body)
    return success(answer, status=201)


@routes.get("/jobs/{job_id}")
@requires(Permission.VIEW)
async def get_job(request: web.Request) -> web.Response:
    """Fetch one job's full state."""
    load_query(NO_QUERY, request.query)
    return success(await request.app[COORDINATOR].get_job(caller_of(request), JOB_ID.of(request)))


@routes.post("/jobs/{job_id}/cancel")
@requires(Permission.MANAGE)
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel a job that has not ended."""
    load_query(NO_QUERY, request.query)
    body = load_body(CANCEL_JOB_BODY, await read_object(request, optional=True))
    return success(
        await request.app[COORDINATOR].cancel_job(caller_of(request), JOB_ID.of(request), **body)
    )


@routes.post("/jobs/{job_id}/pause")
@requires(Permission.MANAGE)
async def pause_job(request: web.Request) -> web.Response:
    """Pause a running job."""
    load_query(NO_QUERY, request.query)
    body = load_body(PAUSE_JOB_BODY, await read_object(request, optional=True))
    return success(
        await request.app[COORDINATOR].pause_job(caller_of(request), JOB_ID.of(request), **body)
    )


@routes.post("/jobs/{job_id}/resume")
@requires(Permission.MANAGE)
async def resume_job(request: web.Request) -> web.Response:
    """Resume a paused job."""
    load_query(NO_QUERY, request.query)
    body = load_body(RESUME_JOB_BODY, await read_object(request, optional=True))
    return success(
        await request.app[COORDINATOR].resume_job(caller_of(request), JOB_ID.of(request), **body)
    )


@routes.post("/jobs/{job_id}/retry")
@requires(Permission.MANAGE)
async def retry_job(request: web.Request) -> web.Response:
    """Retry a failed or preempted job as its child."""
    load_query(NO_QUERY, request.query)
    body = load_body(RETRY_JOB_BODY, await read_object(request, optional=True))
    return success(
        await request.app[COORDINATOR].retry_job(caller_of(request), JOB_ID.of(request), **body)
    )
