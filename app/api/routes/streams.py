"""The streams of a job, as Server-Sent Events."""

from collections.abc import Mapping
from dataclasses import replace

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from app.api.access import requires, stream_of_job
from app.api.app_keys import HUB, caller_of
from app.api.endpoint import Operation, headers_of, query_of
from app.api.events import LOG_EVENTS, METRICS_EVENTS
from app.api.paths import JOB_ID
from app.api.takeover import take_over
from app.auth.tickets import StreamKind
from app.caller import Caller
from app.errors import MALFORMED_REQUEST, RATE_LIMITED, ApiError
from app.hub import Position
from app.hub.core.forms import FormName
from app.hub.log_watcher import LogWatcher
from app.hub.metrics.watcher import MetricsWatcher
from app.log_filter import LogFilter
from app.scaikey.permissions import Permission
from app.schemas.headers import STREAM_HEADERS
from app.schemas.monitoring import LOGS_QUERY, METRICS_STREAM_QUERY

routes = web.RouteTableDef()

#: The level from which on a filter lets entries pass; every entry passes DEBUG.
_LEVELS: Mapping[str, int] = {"DEBUG": 0, "INFO": 2, "WARNING": 3, "ERROR": 4}


class EventStream(EventSourceResponse):
    """aiohttp-sse's response without its ping task: keepalives come from the hub.

    Its ping is a comment followed by a blank line, which some clients hand out
    as an empty message, and a task of its own for every watcher.
    """

    def __init__(self) -> None:
        super().__init__()
        # The connection ends with the stream.
        self.headers[hdrs.CONNECTION] = "close"
        # Compressed on the way (RFC 9111, 5.2.2.6), events would wait for each other.
        self.headers[hdrs.CACHE_CONTROL] = "no-cache, no-transform"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers."""
        return await super(EventSourceResponse, self).prepare(request)


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
        _watching_caller(request),
        JOB_ID.of(request),
        log_filter=LogFilter(min_level=_LEVELS[query["level"]]),
        form=FormName.SSE,
        chunked=_chunked(request),
        tail=query["tail"],
        after=_last_event_id(request),
        first=None,
        follow=query["follow"],
    )
    return await _hand_over(request, watcher)


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
        _watching_caller(request),
        JOB_ID.of(request),
        interval=query["interval"],
        chunked=_chunked(request),
        after=_last_event_id(request),
    )
    return await _hand_over(request, watcher)


async def _hand_over(
    request: web.Request, watcher: LogWatcher | MetricsWatcher | None
) -> web.StreamResponse:
    """Send the headers, then leave the socket to the watcher: the request is over."""
    if watcher is None:
        # An EventSource that gets this does not connect again (WHATWG HTML, 9.2.3).
        return web.Response(status=204)
    response = EventStream()
    fd = None
    try:
        writer = await response.prepare(request)
        assert writer is not None
        fd = await take_over(request, writer)
    finally:
        if fd is None:
            watcher.connection.abandon()
    if fd is not None:
        watcher.start(fd)
    return response


def _watching_caller(request: web.Request) -> Caller:
    """Return the caller without the token, which a long-lived stream does not need."""
    return replace(caller_of(request), subject_token="")


def _chunked(request: web.Request) -> bool:
    return request.version >= HttpVersion11


def _last_event_id(request: web.Request) -> Position | None:
    """Read where the client left off: the header that EventSource sends, or the query.

    The header comes first: EventSource repeats the query of its first
    connection, with an id that is out of date by then.
    """
    query = query_of(request)
    queried = {query["last_event_id"], query["last_event_id_of_polyfill"]} - {""}
    if len(queried) > 1:
        raise ApiError(
            MALFORMED_REQUEST, "last_event_id and lastEventId are different. Send one of them."
        )
    text = headers_of(request)["last_event_id"] or "".join(queried)
    if not text:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        raise ApiError(
            MALFORMED_REQUEST,
            f"Last-Event-ID is {error}. Send the id of the last event as it was received.",
        ) from None
