"""What a stream over many jobs is asked for, in one form for queries, tickets and cursors."""

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from multidict import MultiDict, MultiMapping

from app.auth.tickets import Opens, StreamKind
from app.errors import VALIDATION_ERROR, ApiError, FieldProblem
from app.hub.selection.selection import Interest, Selection
from app.schemas.loading import load_query
from app.schemas.streams.many_jobs import EVENTS_QUERY, IDENTITY

#: What counts where a query names no level.
_LEVEL: Final = cast(str, EVENTS_QUERY.fields["level"].load_default)


def interest_of(query: MultiMapping[str], loaded: Mapping[str, Any]) -> Interest:
    """Return what a query asks for, as it arrived and as its schema loads it."""
    ended_after, included = loaded["ended_after"], loaded["include"]
    return Interest(
        selection=Selection.of(
            job_ids=loaded["job_id"],
            statuses=loaded["status"],
            labels=loaded["label"],
            user_ids=loaded["user_id"],
            ended_after=None if ended_after is None else ended_after.time,
            ended_within=None if ended_after is None else ended_after.ago,
        ),
        jobs="jobs" in included,
        logs="logs" in included,
        metrics="metrics" in included,
        nodes="nodes" in included,
        queue="queue" in included,
        filter=loaded["log_filter"],
        interval=loaded["interval"],
        text=_identity(query, loaded),
    )


def opens_selection(request: web.Request) -> Opens:
    """Return the ticket that opens a request's stream. Raises `ApiError` if it asks for none."""
    loaded = load_query(EVENTS_QUERY, request.query)
    return Opens(StreamKind.EVENTS, _subject(interest_of(request.query, loaded)))


def opens_text(text: str) -> Opens:
    """Return the ticket for a query string. Raises `ApiError` if it asks for no stream."""
    query = MultiDict(parse_qsl(text, keep_blank_values=True))
    try:
        loaded = load_query(EVENTS_QUERY, query)
    except ApiError as error:
        problems = [FieldProblem(f"selection.{each.field}", each.message) for each in error.details]
        raise ApiError(VALIDATION_ERROR, details=problems) from None
    return Opens(StreamKind.EVENTS, _subject(interest_of(query, loaded)))


def _subject(interest: Interest) -> str:
    return interest.digest.hex()


def _identity(query: MultiMapping[str], loaded: Mapping[str, Any]) -> str:
    """Write what a query is about in one form, however it was written; times as they were."""
    asked = {name: sorted(set(query.getall(name, ()))) for name in IDENTITY}
    asked["include"] = sorted(loaded["include"])
    asked["level"] = [query.get("level", _LEVEL)]
    return orjson.dumps({name: values for name, values in asked.items() if values}).decode()
