"""Answers from the job cache while the coordinator cannot be reached (RFC 5861)."""

from collections.abc import Awaitable
from typing import Any

from aiohttp import hdrs, web

from app.api.app_keys import METRICS
from app.api.endpoint import headers_of
from app.api.envelope import success
from app.cache.jobs import Stale, as_shown
from app.cache.page_tokens import BadPage, is_ours
from app.database.errors import DatabaseError
from app.errors import COORDINATOR_UNAVAILABLE, INVALID_ARGUMENT, ApiError


def may_be_stale(request: web.Request, error: ApiError) -> bool:
    """Whether the cache may answer in place of this error: no other one, and only who asks."""
    return (
        error.kind is COORDINATOR_UNAVAILABLE and headers_of(request)["stale_if_error"] is not None
    )


def check_page(token: str, request: web.Request, error: ApiError) -> None:
    """Raise a clearer error where a list was begun by the cache, or by the coordinator, alone."""
    if error.kind is INVALID_ARGUMENT and is_ours(token):
        raise ApiError(
            INVALID_ARGUMENT,
            "page_token: it belongs to a list answered from the job cache, and the coordinator "
            "is available again. Start without one.",
        ) from None
    if token and may_be_stale(request, error) and not is_ours(token):
        raise ApiError(
            COORDINATOR_UNAVAILABLE,
            "The coordinator is temporarily unavailable, and only it can continue this list. Try "
            "again shortly, or start without page_token.",
            retry_after=error.retry_after,
        ) from None


async def answer_stale(
    request: web.Request, error: ApiError, reading: Awaitable[Stale | None], *, read: str
) -> web.Response:
    """Answer with what the cache has if it is young enough; else raise the error that there was."""
    result = "failed"
    try:
        stale = await reading
        if stale is None:
            result = "missing"
        elif stale.age > headers_of(request)["stale_if_error"]:
            result = "too_old"
        else:
            result = "answered"
            return _answer(stale)
    except BadPage as bad:
        result = "refused"
        raise ApiError(INVALID_ARGUMENT, str(bad)) from None
    except DatabaseError:
        pass  # counted; the coordinator's absence is what matters to the caller
    finally:
        request.app[METRICS].cache_reads.labels(read=read, result=result).inc()
    raise error


def _answer(stale: Stale) -> web.Response:
    meta: dict[str, Any] = {"stale": True, "synced_at": as_shown(stale.synced_at)}
    response = success(stale.data, meta=meta)
    # RFC 9111, 5.1
    response.headers[hdrs.AGE] = str(max(int(stale.age), 0))
    return response
