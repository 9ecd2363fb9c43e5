"""For operators and their tools: `/health`, `/health/ready`, `/metrics`."""

from typing import Any

from aiohttp import hdrs, web

from app.api.access import public
from app.api.app_keys import METRICS, READINESS
from app.api.endpoint import Operation
from app.api.envelope import success
from app.api.readiness import Finding
from app.schemas.health import ALIVE_ANSWER, READY_ANSWER

routes = web.RouteTableDef()


@routes.get("/health")
@public
@Operation(answer=ALIVE_ANSWER, query=None)
async def health(_request: web.Request) -> web.Response:
    """Liveness: the process is up and its event loop is responsive."""
    return success({"status": "alive"})


@routes.get("/health/ready")
@public
@Operation(answer=READY_ANSWER, statuses=(200, 503), query=None)
async def ready(request: web.Request) -> web.Response:
    """Readiness: whether requests can be served, and the state of each dependency."""
    report = await request.app[READINESS].report()
    dependencies = {each.dependency.name: _told(each) for each in report.findings}
    return success(
        {"status": "ready" if report.ready else "unready", "dependencies": dependencies},
        status=200 if report.ready else 503,
    )


@routes.get("/metrics")
@public
@Operation(content=("text/plain", "application/openmetrics-text"), query=None)
async def metrics(request: web.Request) -> web.Response:
    """Return the metrics in the format that the scraper requests."""
    body, content_type = request.app[METRICS].render(request.headers.get(hdrs.ACCEPT, ""))
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


def _told(finding: Finding) -> dict[str, Any]:
    dependency, problem = finding.dependency, finding.problem
    required = {"required": dependency.required}
    if problem is not None:
        return {"status": "failed", "message": problem, **required}
    return {"status": "not_configured" if dependency.check is None else "ok", **required}
