"""Reads that identical requests share: one call of the coordinator, encoded once.

Each request has passed its own checks before: token, rate limit, permission; and has its
own entry in the log and its own request id. What they share depends on tenant, user,
permissions, path and query alone.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, TypeAlias, TypeVar

from aiohttp import hdrs, web

from app.api.access import Access
from app.api.app_keys import SHARED_READS, caller_of
from app.api.envelope import encoded, success_of
from app.api.every_request import ASKED
from app.caller import Caller
from app.scaikey.permissions import Permission

A = TypeVar("A")

#: Those that change nothing (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})

#: Reads something for a caller. It may be kept, and so refers to no request.
Work: TypeAlias = Callable[[Caller], Coroutine[Any, Any, A]]


class SharedAnswer:
    """What was read for all who asked the same, encoded when the first of them needs that.

    `tag` is its version, for those who have it already; None if it has none.
    """

    __slots__ = ("_body", "tag")

    def __init__(self, body: bytes | Callable[[], Any], *, tag: str | None = None) -> None:
        """`body` is the whole body, or returns what is to be its `data`, JSON-ready."""
        self._body = body
        self.tag = tag

    @property
    def body(self) -> bytes:
        """The whole body of an answer with it."""
        if not isinstance(self._body, bytes):
            self._body = encoded(self._body())
        return self._body


#: What answered a request that others may share.
SHARED_WORK: "web.RequestKey[Work[SharedAnswer]]" = web.RequestKey("shared_work")


def question_of(caller: Caller, raw_path: str) -> tuple[str, Hashable]:
    """Return the tenant, and what is asked as whom within it."""
    return caller.tenant_id, (caller.user_id, caller.permissions, raw_path)


async def read_shared(request: web.Request, work: Work[SharedAnswer]) -> SharedAnswer:
    """Return what `work` reads for this request, or for one like it that was made just now."""
    caller, reads = caller_of(request), request.app[SHARED_READS]
    question = question_of(caller, request.raw_path)
    asked = request.get(ASKED)
    found: SharedAnswer
    if asked is not None and asked.read is not None and asked.question == question:
        found = await asyncio.shield(asked.read)
    else:
        found = await reads.ask(*question, partial(work, caller))
    if reads.shares:
        request[SHARED_WORK] = work
    return found


async def answer_shared(request: web.Request, work: Work[Any]) -> web.Response:
    """Answer with what `work` reads, which is JSON-ready, as `read_shared` does."""

    async def read(caller: Caller) -> SharedAnswer:
        return SharedAnswer(encoded(await work(caller)))

    return success_of((await read_shared(request, read)).body)


def forget_reads(app: web.Application, caller: Caller, access: Access) -> None:
    """Have no read that begins after a write was answered get what was read before it.

    The write may have come to pass, whatever it was answered.
    """
    app[SHARED_READS].forget(caller.tenant_id)
    if Permission.CLUSTER_ADMIN in access.any_of:
        # Nodes are shown to all tenants.
        app[SHARED_READS].forget_all()
