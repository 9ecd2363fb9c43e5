"""Metrics so far, of a job and of many; the streams are in `streams`."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import COORDINATOR
from app.api.endpoint import JsonObject, Operation, query_of
from app.api.metrics.columns import columns, selected
from app.api.metrics.summaries import summarize
from app.api.paths import JOB_ID
from app.api.reads.shared import answer_shared
from app.caller import Caller
from app.scaikey.permissions import Permission
from app.schemas.metrics.pictures import (
    JOB_METRICS_COLUMNS,
    JOB_METRICS_QUERY,
    METRICS_SUMMARY,
    METRICS_SUMMARY_QUERY,
)

routes = web.RouteTableDef()


@routes.get("/jobs/{job_id}/metrics")
@requires(Permission.VIEW)
@Operation(rpc="GetJobMetrics", or_answer=JOB_METRICS_COLUMNS, query=JOB_METRICS_QUERY)
async def get_job_metrics(request: web.Request) -> web.Response:
    """Get a job's current metrics: its points, or arrays for each number."""
    query, job_id, coordinator = query_of(request), JOB_ID.of(request), request.app[COORDINATOR]
    in_columns = query["shape"] == "columns"
    selection = {name: query[name] for name in ("keys", "from_step", "to_step")}

    async def read(caller: Caller) -> JsonObject:
        answer = await coordinator.get_job_metrics(
            caller,
            job_id,
            max_points=query["max_points"],
            with_buckets=in_columns,
            **selection,
        )
        answer = selected(answer, **selection)
        return columns(answer, x=query["x"]) if in_columns else answer

    return await answer_shared(request, read)


@routes.get("/metrics-summary")
@requires(Permission.VIEW)
@Operation(rpc="GetJobMetrics", answer=METRICS_SUMMARY, query=METRICS_SUMMARY_QUERY)
async def get_metrics_summary(request: web.Request) -> web.Response:
    """Get one number of up to 50 jobs, each with a few points.

    A job that cannot be read has an `error` in place of its series; the others are there.
    """
    query, coordinator = query_of(request), request.app[COORDINATOR]

    async def read(caller: Caller) -> JsonObject:
        jobs = await summarize(
            coordinator,
            caller,
            list(dict.fromkeys(query["job_id"])),
            key=query["key"],
            points=query["points"],
            x=query["x"],
        )
        return {"key": query["key"], "x": query["x"], "jobs": jobs}

    return await answer_shared(request, read)
