"""A job's log, read by position and searched; its stream is in `streams`."""

from typing import Any

import orjson
from aiohttp import web

from app.api.access import requires, stream_of_job
from app.api.app_keys import COORDINATOR, FEATURES, HUB, caller_of
from app.api.endpoint import Operation, query_of
from app.api.envelope import success
from app.api.paths import JOB_ID
from app.api.streams.events import SEARCH_EVENTS
from app.api.streams.negotiation import prefers_gzip
from app.api.streams.streaming import hand_over, in_chunks, last_position, watching_caller
from app.auth.tickets import StreamKind
from app.caller import Caller
from app.errors import (
    FAILED_PRECONDITION,
    MALFORMED_REQUEST,
    NOT_IMPLEMENTED,
    RATE_LIMITED,
    ApiError,
)
from app.hub.core.judging import ALL, Unjudged
from app.hub.upstream import LogPage
from app.log_filter import LogFilter
from app.scaikey.permissions import Permission
from app.schemas.headers import STREAM_HEADERS
from app.schemas.logs.answers import LOG_ENTRIES
from app.schemas.logs.queries import LOG_ENTRIES_QUERY, LOG_MARKS_QUERY, LOG_SEARCH_QUERY

routes = web.RouteTableDef()


@routes.get("/jobs/{job_id}/log-entries")
@requires(Permission.VIEW)
@Operation(rpc="ListJobLogs", answer=LOG_ENTRIES, query=LOG_ENTRIES_QUERY)
async def list_log_entries(request: web.Request) -> web.Response:
    """Read entries of a job's log by their offsets, forward or backward.

    With a filter, a page ends where 64 MiB of the log were scanned, and may be empty:
    `scanned_to` says how far it got, `next` where to go on.
    """
    query, caller, job_id = query_of(request), caller_of(request), JOB_ID.of(request)
    log_filter: LogFilter = query["log_filter"]
    if query["before"] is None:
        page = await _forward(request, caller, job_id, query)
        scanned_to = page.next_after
        following = None if scanned_to >= page.last_offset else scanned_to + 1
    else:
        page = await _backward(request, caller, job_id, query)
        scanned_to = page.next_before
        following = None if scanned_to <= max(page.first_offset, 1) else scanned_to
    entries = [record.data for record in page.records]
    if log_filter != ALL:
        # An older coordinator ignores what it does not know.
        unjudged = [Unjudged(*record) for record in page.records]
        said = await request.app[HUB].passing(log_filter, unjudged)
        entries = [data for data, (_, passed) in zip(entries, said, strict=True) if passed]
    return success(
        {
            "epoch": page.epoch,
            "entries": [orjson.Fragment(data) for data in entries],
            "missing": [{"first": first, "last": last} for first, last in page.missing],
            "first_offset": page.first_offset,
            "last_offset": page.last_offset,
            "scanned_to": scanned_to,
            "next": following,
            "complete": page.complete,
        }
    )


async def _forward(
    request: web.Request, caller: Caller, job_id: str, query: dict[str, Any]
) -> LogPage:
    client, given = request.app[COORDINATOR], query["epoch"]
    for attempt in (1, 2):
        epoch = given or await client.get_log_epoch(caller, job_id)
        try:
            return await client.list_job_logs(
                caller,
                job_id,
                log_filter=query["log_filter"],
                limit=query["limit"],
                after=(epoch, (query["first"] or 1) - 1),
            )
        except ApiError as error:
            # The log may have become another one in between.
            if error.kind is not FAILED_PRECONDITION or given or attempt == 2:
                raise
    raise AssertionError("unreachable")


async def _backward(
    request: web.Request, caller: Caller, job_id: str, query: dict[str, Any]
) -> LogPage:
    await request.app[FEATURES].require(caller, "log_filters")
    page = await request.app[COORDINATOR].list_job_logs(
        caller,
        job_id,
        log_filter=query["log_filter"],
        limit=query["limit"],
        before=query["before"],
    )
    if not page.next_before:
        # It was another coordinator a moment ago: this one ignores what it does not know.
        raise ApiError(
            NOT_IMPLEMENTED,
            "The coordinator cannot read a log backward. Read it forward, with from, or ask an"
            " operator to update it.",
        )
    if query["epoch"] not in ("", page.epoch):
        raise ApiError(
            FAILED_PRECONDITION,
            "epoch: is not the epoch of this log. Read it anew, without epoch.",
        )
    return page


@routes.get("/jobs/{job_id}/log-marks")
@requires(Permission.VIEW)
@Operation(rpc="GetLogMarks", query=LOG_MARKS_QUERY)
async def get_log_marks(request: web.Request) -> web.Response:
    """Get where a job's log has which levels, where its runs begin and what it lacks."""
    caller, job_id = caller_of(request), JOB_ID.of(request)
    return success(
        await request.app[COORDINATOR].get_log_marks(
            caller, job_id, buckets=query_of(request)["buckets"]
        )
    )


@routes.get("/jobs/{job_id}/logs/search", allow_head=False)
@requires(Permission.VIEW, ticket=stream_of_job(StreamKind.SEARCH))
@Operation(
    rpc="SearchJobLogs",
    events=SEARCH_EVENTS,
    statuses=(200, 204),
    errors=(MALFORMED_REQUEST, RATE_LIMITED),
    query=LOG_SEARCH_QUERY,
    headers=STREAM_HEADERS,
)
async def search_logs(request: web.Request) -> web.StreamResponse:
    """Search a job's log, from its newest entry to its oldest.

    The id of each event is where to go on, as `Last-Event-ID`; that of `done` is at the
    beginning of the log, so that an EventSource that reconnects is told to stop (204).
    """
    query, caller, job_id = query_of(request), watching_caller(request), JOB_ID.of(request)
    watcher = await request.app[HUB].searches.watch(
        caller,
        job_id,
        log_filter=query["log_filter"],
        before=query["before"] or 0,
        after=last_position(request),
        limit=query["limit"],
        chunked=in_chunks(request),
        gzip=prefers_gzip(request.headers),
    )
    return await hand_over(request, watcher)
