"""Reads that identical requests share: one call of the coordinator, encoded once.

Each request has passed its own checks before: token, rate limit, permission; and has its
own entry in the log and its own request id. What they share depends on tenant, user,
permissions, path and query alone.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import hdrs, web

from app.api.access import Access
from app.api.app_keys import SHARED_READS, caller_of
from app.api.envelope import encoded, success_of
from app.bridge.calls.jobs import FetchedJob
from app.caller import Caller
from app.scaikey.permissions import Permission

R = TypeVar("R")

#: Those that change nothing (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class SharedJob:
    """A job that was read, encoded when the first request needs that."""

    __slots__ = ("_body", "_job", "revision")

    def __init__(self, job: FetchedJob) -> None:
        self._job = job
        self._body: bytes | None = None
        self.revision = job.revision

    def response(self) -> web.Response:
        """Make one request's response."""
        if self._body is None:
            self._body = encoded(self._job.json())
        return success_of(self._body)


async def read_shared(request: web.Request, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Return what `work` reads for this request, or for one like it that was made just now."""
    caller = caller_of(request)
    question = caller.user_id, caller.permissions, request.raw_path
    found: R = await request.app[SHARED_READS].ask(caller.tenant_id, question, work)
    return found


async def answer_shared(
    request: web.Request, work: Callable[[], Coroutine[Any, Any, Any]]
) -> web.Response:
    """Answer with what `work` reads, which is JSON-ready, as `read_shared` does."""

    async def read() -> bytes:
        return encoded(await work())

    return success_of(await read_shared(request, read))


def forget_reads(app: web.Application, caller: Caller, access: Access) -> None:
    """Have no read that begins after a write was answered get what was read before it.

    The write may have come to pass, whatever it was answered.
    """
    app[SHARED_READS].forget(caller.tenant_id)
    if Permission.CLUSTER_ADMIN in access.any_of:
        # Nodes are shown to all tenants.
        app[SHARED_READS].forget_all()
