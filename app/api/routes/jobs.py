"""Jobs: submit, read and control them."""

from aiohttp import hdrs, web

from app.api.access import requires
from app.api.app_keys import (
    COORDINATOR,
    EXCHANGE,
    FEATURES,
    HUB,
    JOB_CACHE,
    JOB_WRITER,
    caller_of,
)
from app.api.audit import acts_as, acts_on, has_created
from app.api.endpoint import JsonObject, Operation, body_of, headers_of, query_of
from app.api.envelope import NotModified, success, success_of
from app.api.paths import JOB_ID
from app.api.reads.job_versions import asked_revisions, is_current, known_tags, tag_of
from app.api.reads.shared import SharedAnswer, answer_shared, read_shared
from app.api.stale_if_error import answer_stale, check_page, may_be_stale
from app.auth import exchange
from app.auth.exchange import lent_tokens
from app.bridge.features import ERRORS as FEATURE_ERRORS
from app.caller import Caller
from app.errors import JOB_NOT_FOUND, MALFORMED_REQUEST, PRECONDITION_FAILED, ApiError
from app.scaikey.permissions import Permission
from app.schemas.cache import GET_JOB_HEADERS, STALE_HEADERS, STALE_META
from app.schemas.headers import (
    CHANGE_JOB_HEADERS,
    RETRY_HEADERS,
    SUBMIT_HEADERS,
)
from app.schemas.jobs import (
    CANCEL_JOB_BODY,
    CHANGE_JOB_BODY,
    DELETED_JOB_ANSWER,
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

#: Of the query of a list: for coordinators with the feature `job_filters`.
_JOB_FILTERS = ("name_contains", "user_ids", "created_after", "kind")


@routes.get("/jobs")
@requires(Permission.VIEW)
@Operation(
    rpc="ListJobs",
    errors=FEATURE_ERRORS,
    query=LIST_JOBS_QUERY,
    headers=STALE_HEADERS,
    meta=STALE_META,
)
async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs of the caller's tenant.

    A list that was begun while the coordinator was away consists of jobs that
    have passed through the gateway, and cannot be continued once it is back.
    """
    query = query_of(request)
    features, coordinator = request.app[FEATURES], request.app[COORDINATOR]

    async def read(caller: Caller) -> JsonObject:
        if any(query[name] for name in _JOB_FILTERS):
            # One that does not know them would answer as if they had not been given.
            await features.require(caller, "job_filters")
        if query["parent_job_id"]:
            await features.require(caller, "parent_filter")
        return await coordinator.list_jobs(caller, **query)

    try:
        return await answer_shared(request, read)
    except ApiError as error:
        check_page(query["page_token"], request, error)
        if not may_be_stale(request, error):
            raise
        reading = request.app[JOB_CACHE].jobs(caller_of(request).tenant_id, **query)
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
    errors=(*exchange.ERRORS, *FEATURE_ERRORS),
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
@Operation(
    rpc="GetJob",
    statuses=(200, 304),
    errors=(MALFORMED_REQUEST,),
    headers=GET_JOB_HEADERS,
    meta=STALE_META,
)
async def get_job(request: web.Request) -> web.Response:
    """Get a job's full state.

    Its `ETag` is its revision: with `If-None-Match` a job that has not changed
    is 304. An answer from the job cache has none.
    """
    job_id, coordinator = JOB_ID.of(request), request.app[COORDINATOR]

    async def read(caller: Caller) -> SharedAnswer:
        job = await coordinator.fetch_job(caller, job_id)
        return SharedAnswer(job.json, tag=tag_of(job.revision))

    try:
        job = await read_shared(request, read)
    except ApiError as error:
        tenant_id = caller_of(request).tenant_id
        if error.kind is JOB_NOT_FOUND:
            # Perhaps one that the coordinator has deleted by itself.
            request.app[JOB_WRITER].forget_job(tenant_id, job_id)
        if not may_be_stale(request, error):
            raise
        reading = request.app[JOB_CACHE].job(tenant_id, job_id)
        return await answer_stale(request, error, reading, read="job")
    if is_current(known_tags(request), job.tag):
        return _tagged(NotModified(), job.tag)
    return _tagged(success_of(job.body), job.tag)


@routes.patch("/jobs/{job_id}")
@requires(Permission.MANAGE)
@Operation(
    rpc="UpdateJob",
    errors=(MALFORMED_REQUEST, PRECONDITION_FAILED),
    headers=CHANGE_JOB_HEADERS,
    body=CHANGE_JOB_BODY,
    body_types=("application/merge-patch+json", "application/json"),
    action=Action.JOB_UPDATE,
)
async def change_job(request: web.Request) -> web.Response:
    """Change a job's name and labels, by a JSON merge patch (RFC 7396).

    Labels that the patch does not name stay; null removes one, or all of them.
    The label `type` and those that begin with `scaimind/` are the platform's.
    With `If-Match` the job must still have that revision. 501 where the
    coordinator cannot change jobs.
    """
    caller, job_id = caller_of(request), JOB_ID.of(request)
    coordinator, revisions = request.app[COORDINATOR], asked_revisions(request)
    revision = revisions[0] if revisions else 0
    if len(revisions) > 1:
        revision = (await coordinator.get_job(caller, job_id))["revision"]
        if revision not in revisions:
            raise ApiError(PRECONDITION_FAILED)
    job = await coordinator.update_job(caller, job_id, body_of(request), revision=revision)
    return _tagged(success(job), tag_of(job["revision"]))


@routes.delete("/jobs/{job_id}")
@requires(Permission.MANAGE)
@Operation(rpc="DeleteJob", answer=DELETED_JOB_ANSWER, action=Action.JOB_DELETE)
async def delete_job(request: web.Request) -> web.Response:
    """Delete a job that has ended, with its log, metrics and checkpoints.

    It cannot be undone. What the job has exported and the models that it has
    registered stay. Whoever still watches it gets `error` `JOB_DELETED`. 501
    where the coordinator cannot delete jobs.
    """
    caller, job_id = caller_of(request), JOB_ID.of(request)
    freed = 0
    try:
        freed = (await request.app[COORDINATOR].delete_job(caller, job_id))["freed_bytes"]
    except ApiError as error:
        if error.kind is not JOB_NOT_FOUND:
            raise
        # Perhaps one that was deleted by a request of which nobody learned the outcome.
        await _forget(request, job_id, known=True)
        raise
    await _forget(request, job_id)
    return success({"job_id": job_id, "freed_bytes": freed})


@routes.get("/jobs/{job_id}/checkpoints")
@requires(Permission.VIEW)
@Operation(rpc="ListCheckpoints", query=PAGE_QUERY)
async def list_checkpoints(request: web.Request) -> web.Response:
    """List a job's checkpoints, newest first.

    The job itself has the newest 100 of them; any can be resumed from. 501
    where the coordinator cannot list them.
    """
    job_id, query, coordinator = JOB_ID.of(request), query_of(request), request.app[COORDINATOR]
    return await answer_shared(
        request, lambda caller: coordinator.list_checkpoints(caller, job_id, **query)
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
    errors=FEATURE_ERRORS,
    headers=RETRY_HEADERS,
    body=RETRY_JOB_BODY,
    body_optional=True,
    action=Action.JOB_RETRY,
)
async def retry_job(request: web.Request) -> web.Response:
    """Retry a failed or preempted job as a new child job.

    501 with an `Idempotency-Key` where the coordinator knows none for retries.
    """
    caller, key = caller_of(request), headers_of(request)["idempotency_key"]
    if key:
        # One that does not know it would make another child each time.
        await request.app[FEATURES].require(caller, "retry_keys")
    child = await request.app[COORDINATOR].retry_job(
        caller, JOB_ID.of(request), **body_of(request), idempotency_key=key
    )
    has_created(request, child["job_id"])
    return success(child)


def _tagged(response: web.Response, tag: str | None) -> web.Response:
    if tag is not None:
        response.headers[hdrs.ETAG] = tag
    return response


async def _forget(request: web.Request, job_id: str, *, known: bool = False) -> None:
    """Have nothing of a job shown here any more; `known`: where it was seen before."""
    tenant_id = caller_of(request).tenant_id
    request.app[HUB].job_deleted(tenant_id, job_id)
    await request.app[JOB_WRITER].delete_job(tenant_id, job_id, known=known)
