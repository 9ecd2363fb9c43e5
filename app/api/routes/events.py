"""One stream over many jobs, as Server-Sent Events."""

from aiohttp import web

from app.api.access import requires
from app.api.app_keys import HUB
from app.api.endpoint import Operation, query_of
from app.api.streams.events import MANY_JOBS_EVENTS
from app.api.streams.negotiation import prefers_gzip
from app.api.streams.selections import interest_of, opens_selection
from app.api.streams.streaming import (
    hand_over,
    in_chunks,
    last_event_id,
    not_an_id,
    watching_caller,
)
from app.errors import JOB_NOT_FOUND, MALFORMED_REQUEST, RATE_LIMITED
from app.hub.selection.places import Place
from app.scaikey.permissions import Permission
from app.schemas.streams.many_jobs import EVENTS_HEADERS, EVENTS_QUERY

routes = web.RouteTableDef()


@routes.get("/events", allow_head=False)
@requires(Permission.VIEW, ticket=opens_selection)
@Operation(
    rpc="WatchJobs",
    events=MANY_JOBS_EVENTS,
    errors=(JOB_NOT_FOUND, MALFORMED_REQUEST, RATE_LIMITED),
    query=EVENTS_QUERY,
    headers=EVENTS_HEADERS,
)
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Stream the states, logs and metrics of many jobs.

    The selection is live: jobs that come to match join by themselves. The states come first,
    then `synced`, then changes. Only bookmarks have an id; a client that comes back with the
    last one is sent what has changed since.
    """
    query = query_of(request)
    watcher = await request.app[HUB].events.watch(
        watching_caller(request),
        interest_of(request.query, query),
        tail=query["tail"],
        after=_place(request),
        chunked=in_chunks(request),
        gzip=prefers_gzip(request.headers),
    )
    return await hand_over(request, watcher)


def _place(request: web.Request) -> Place | None:
    text = last_event_id(request)
    if not text:
        return None
    try:
        return Place.parse(text)
    except ValueError as error:
        raise not_an_id(error) from None
