"""The streams of a job, as Server-Sent Events."""

from collections.abc import Mapping

from aiohttp import web

from app.api.access import requires, stream_of_job
from app.api.app_keys import HUB
from app.api.endpoint import Operation, query_of
from app.api.paths import JOB_ID
from app.api.streams.events import LOG_EVENTS, METRICS_EVENTS
from app.api.streams.streaming import (
    hand_over,
    in_chunks,
    last_event_id,
    not_an_id,
    watching_caller,
)
from app.auth.tickets import StreamKind
from app.errors import MALFORMED_REQUEST, RATE_LIMITED
from app.hub import Position
from app.hub.core.forms import FormName
from app.log_filter import LogFilter
from app.scaikey.permissions import Permission
from app.schemas.headers import STREAM_HEADERS
from app.schemas.monitoring import LOGS_QUERY, METRICS_STREAM_QUERY

routes = web.RouteTableDef()

#: The level from which on a filter lets entries pass; every entry passes DEBUG.
_LEVELS: Mapping[str, int] = {"DEBUG": 0, "INFO": 2, "WARNING": 3, "ERROR": 4}


@routes.get("/jobs/{job_id}/logs", allow_head=False)
@requires(Permission.VIEW, ticket=stream_of_job(StreamKind.LOGS))
@Operation(
    rpc="WatchJob",
    events=LOG_EVENTS,
    statuses=(200, 204),
    errors=(MALFORMED_REQUEST, RATE_LIMITED),
    query=LOGS_QUERY,
    headers=STREAM_HEADERS,
)
async def stream_logs(request: web.Request) -> web.StreamResponse:
    """Stream a job's log."""
    query = query_of(request)
    watcher = await request.app[HUB].watch_logs(
        watching_caller(request),
        JOB_ID.of(request),
        log_filter=LogFilter(min_level=_LEVELS[query["level"]]),
        form=FormName.SSE,
        chunked=in_chunks(request),
        tail=query["tail"],
        after=_last_event_id(request),
        first=None,
        follow=query["follow"],
    )
    return await hand_over(request, watcher)


@routes.get("/jobs/{job_id}/metrics/stream", allow_head=False)
@requires(Permission.VIEW, ticket=stream_of_job(StreamKind.METRICS))
@Operation(
    rpc="WatchJob",
    events=METRICS_EVENTS,
    statuses=(200, 204),
    errors=(MALFORMED_REQUEST, RATE_LIMITED),
    query=METRICS_STREAM_QUERY,
    headers=STREAM_HEADERS,
)
async def stream_metrics(request: web.Request) -> web.StreamResponse:
    """Stream a job's metric snapshots."""
    query = query_of(request)
    watcher = await request.app[HUB].watch_metrics(
        watching_caller(request),
        JOB_ID.of(request),
        interval=query["interval"],
        chunked=in_chunks(request),
        after=_last_event_id(request),
    )
    return await hand_over(request, watcher)


def _last_event_id(request: web.Request) -> Position | None:
    """Read where the client left off."""
    text = last_event_id(request)
    if not text:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        raise not_an_id(error) from None
