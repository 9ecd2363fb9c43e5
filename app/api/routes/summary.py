"""Summary: a dashboard's first screen, from the job cache alone."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import JOB_CACHE, METRICS, caller_of
from app.api.endpoint import Operation, query_of
from app.api.envelope import success
from app.cache.jobs import as_shown
from app.database.errors import DatabaseError
from app.errors import CACHE_UNAVAILABLE, ApiError
from app.scaikey.permissions import Permission
from app.schemas.cache import SUMMARY_ANSWER, SUMMARY_META, SUMMARY_QUERY

routes = web.RouteTableDef()

#: Seconds after which to try again.
_RETRY_AFTER = 5


@routes.get("/summary")
@requires(Permission.VIEW)
@Operation(
    answer=SUMMARY_ANSWER, meta=SUMMARY_META, errors=(CACHE_UNAVAILABLE,), query=SUMMARY_QUERY
)
async def get_summary(request: web.Request) -> web.Response:
    """Get a summary of the tenant's jobs.

    Counts, GPUs, the newest failures and run times of the jobs that have
    passed through the gateway. Answered without the coordinator.
    """
    reads = request.app[METRICS].cache_reads
    try:
        summary = await request.app[JOB_CACHE].summary(
            caller_of(request).tenant_id, **query_of(request)
        )
    except DatabaseError:
        reads.labels(read="summary", result="failed").inc()
        raise ApiError(CACHE_UNAVAILABLE, retry_after=_RETRY_AFTER) from None
    reads.labels(read="summary", result="answered").inc()
    return success(summary.data, meta={"synced_at": as_shown(summary.synced_at)})
