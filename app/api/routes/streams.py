"""The streams of a job: its log in three forms, its metrics as Server-Sent Events."""

import zlib
from typing import Final

from aiohttp import hdrs, web

from app.api.access import requires, stream_of_job
from app.api.app_keys import HUB
from app.api.endpoint import Operation, query_of
from app.api.paths import JOB_ID
from app.api.streams.events import LOG_EVENTS, METRICS_EVENTS
from app.api.streams.log_bodies import LogBody, file_name
from app.api.streams.log_forms import MEDIA_TYPES, VARY, form_of_request
from app.api.streams.negotiation import prefers_gzip
from app.api.streams.streaming import (
    EventStream,
    hand_over,
    in_chunks,
    last_position,
    watching_caller,
)
from app.auth.tickets import Opens, StreamKind
from app.errors import MALFORMED_REQUEST, RATE_LIMITED, ApiError
from app.hub.core.forms import FormName
from app.scaikey.permissions import Permission
from app.schemas.headers import STREAM_HEADERS
from app.schemas.monitoring import LOGS_QUERY, METRICS_STREAM_QUERY

routes = web.RouteTableDef()

#: The least that gzip can do: twice as fast as what it does by itself, for a tenth more bytes.
_GZIP_LEVEL: Final = 1
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS

_ENDINGS: Final = {FormName.TEXT: "log", FormName.NDJSON: "ndjson"}


def _opened_log(request: web.Request) -> Opens:
    """Demand a ticket for the log of the job in the path, in the form that is asked for."""
    kind = StreamKind.of_log(form_of_request(request))
    return Opens(kind, request.match_info["job_id"])


@routes.get("/jobs/{job_id}/logs", allow_head=False)
@requires(Permission.VIEW, ticket=_opened_log)
@Operation(
    rpc="WatchJob",
    events=LOG_EVENTS,
    also=(MEDIA_TYPES[FormName.NDJSON][0], MEDIA_TYPES[FormName.TEXT][0]),
    statuses=(200, 204),
    errors=(MALFORMED_REQUEST, RATE_LIMITED),
    query=LOGS_QUERY,
    headers=STREAM_HEADERS,
)
async def stream_logs(request: web.Request) -> web.StreamResponse:
    """Stream or download a job's log, in the form that `format` or else `Accept` asks for.

    Text and NDJSON end with the last chunk only if everything that was asked for was sent;
    otherwise the connection is cut, so that the client finds its answer incomplete.
    """
    query, form = query_of(request), form_of_request(request)
    follow, first, job_id = query["follow"], query["first"], JOB_ID.of(request)
    if form is FormName.TEXT and follow and not in_chunks(request):
        raise ApiError(
            MALFORMED_REQUEST,
            "Over HTTP/1.0 nothing says whether a text that is followed is complete. Use "
            "HTTP/1.1, format=ndjson or follow=false.",
        )
    packed = form is not FormName.SSE and not follow and prefers_gzip(request.headers)
    watcher = await request.app[HUB].watch_logs(
        watching_caller(request),
        job_id,
        log_filter=query["log_filter"],
        form=form,
        chunked=in_chunks(request),
        tail=query["tail"],
        after=last_position(request),
        first=first,
        follow=follow,
        gzip=prefers_gzip(request.headers),
        packer=zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_BITS) if packed else None,
    )
    response: web.StreamResponse
    if form is FormName.SSE:
        response = EventStream()
    else:
        download = not follow and first is not None
        name = file_name(job_id, _ENDINGS[form]) if download else None
        response = LogBody(form, packed=packed, name=name)
    response.headers[hdrs.VARY] = VARY
    return await hand_over(request, watcher, response)


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
        gzip=prefers_gzip(request.headers),
        after=last_position(request),
    )
    return await hand_over(request, watcher)
