"""A job's metrics so far; the streams are in `streams`."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR, caller_of
from app.api.endpoint import Operation, query_of
from app.api.envelope import success
from app.api.paths import JOB_ID
from app.scaikey.permissions import Permission
from app.schemas.monitoring import JOB_METRICS_QUERY

routes = web.RouteTableDef()


@routes.get("/jobs/{job_id}/metrics")
@requires(Permission.VIEW)
@Operation(rpc="GetJobMetrics", query=JOB_METRICS_QUERY)
async def get_job_metrics(request: web.Request) -> web.Response:
    """Get a job's current metrics."""
    return success(
        await request.app[COORDINATOR].get_job_metrics(
            caller_of(request), JOB_ID.of(request), **query_of(request)
        )
    )
