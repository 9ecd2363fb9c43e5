"""The streams of a job, as Server-Sent Events."""

from collections.abc import Mapping
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from app.api.access import requires
from app.api.keys import HUB, caller_of
from app.api.paths import JOB_ID
from app.auth.permissions import Permission
from app.errors import MALFORMED_REQUEST, ApiError
from app.hub import Position, TransportSink
from app.hub.watchers import LogWatcher, MetricsWatcher
from app.schemas.loading import load_query
from app.schemas.monitoring import LOGS_QUERY, METRICS_STREAM_QUERY

routes = web.RouteTableDef()

#: The level from which on a filter lets entries pass; every entry passes DEBUG.
_LEVELS: Mapping[str, int] = {"DEBUG": 0, "INFO": 2, "WARNING": 3, "ERROR": 4}


class EventStream(EventSourceResponse):
    """aiohttp-sse's response without its ping task: keepalives come from the hub.

    Its ping is a comment followed by a blank line, which some clients hand out
    as an empty message, and a task of its own for every watcher.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers."""
        return await super(EventSourceResponse, self).prepare(request)


@routes.get("/jobs/{job_id}/logs")
@requires(Permission.VIEW)
async def logs(request: web.Request) -> web.StreamResponse:
    """Stream a job's log."""
    query = load_query(LOGS_QUERY, request.query)
    async with request.app[HUB].watch_logs(
        caller_of(request),
        JOB_ID.of(request),
        level=_LEVELS[query["level"]],
        chunked=_chunked(request),
        tail=query["tail"],
        after=_last_event_id(request, query),
        follow=query["follow"],
    ) as watcher:
        return await _stream(request, watcher)


@routes.get("/jobs/{job_id}/metrics/stream")
@requires(Permission.VIEW)
async def metrics(request: web.Request) -> web.StreamResponse:
    """Stream a job's metric snapshots."""
    query = load_query(METRICS_STREAM_QUERY, request.query)
    async with request.app[HUB].watch_metrics(
        caller_of(request),
        JOB_ID.of(request),
        interval=query["interval"],
        chunked=_chunked(request),
        after=_last_event_id(request, query),
    ) as watcher:
        return await _stream(request, watcher)


async def _stream(
    request: web.Request, watcher: LogWatcher | MetricsWatcher | None
) -> web.StreamResponse:
    if watcher is None:
        # An EventSource that gets this does not connect again (WHATWG HTML, 9.2.3).
        return web.Response(status=204)
    response = EventStream()
    writer = await response.prepare(request)
    assert writer is not None
    await watcher.run(TransportSink(request, writer))
    return response


def _chunked(request: web.Request) -> bool:
    return request.version >= HttpVersion11


def _last_event_id(request: web.Request, query: Mapping[str, Any]) -> Position | None:
    """Read where the client left off: the header that EventSource sends, or the query."""
    text = request.headers.get("Last-Event-ID") or query["last_event_id"]
    if not text:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        raise ApiError(
            MALFORMED_REQUEST,
            f"Last-Event-ID is {error}; send the id of the last event as it was received.",
        ) from None
