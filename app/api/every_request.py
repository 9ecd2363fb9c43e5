"""What is done for each request, whichever way it takes: through the middlewares, or beside them
when it repeats an earlier one (`app.api.reads.repeated`).
"""

import asyncio
import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from app.api.app_keys import RATE_LIMIT
from app.api.headers import new_request_id
from app.caller import Caller
from app.telemetry.metrics import Metrics
from app.telemetry.trace_context import TraceContext
from app.telemetry.tracing import Tracer

log = structlog.get_logger()

#: nginx's number for a client that left before it was answered; in logs and metrics only.
CLIENT_LEFT = 499

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(slots=True)
class Asked:
    """The coming of a request that was not read at once."""

    request_id: str
    span: TraceContext
    #: By `perf_counter`.
    came_at: float
    remote: str | None
    #: The read that it waits for, and what that answers.
    read: "asyncio.Task[Any] | None" = None
    question: Hashable = None

    def context(self, caller: Caller | None) -> dict[str, str | None]:
        """Return what log lines say of the request, once its caller is known."""
        known: dict[str, str | None] = {
            "request_id": self.request_id,
            "trace_id": self.span.trace_id,
        }
        if caller is not None:
            known["tenant_id"] = caller.tenant_id
            known["user_id"] = caller.user_id
        return known


#: What is known of the coming of a request, if it was not read at once.
ASKED: web.RequestKey[Asked] = web.RequestKey("asked", Asked)


def id_of_request(given: str) -> str:
    """Return the id that the client gave, if it has the form of one; else a new one."""
    return given if _SANE_REQUEST_ID.fullmatch(given) else new_request_id()


def unrecorded_span(tracer: Tracer, parent: TraceContext | None) -> TraceContext:
    """Return a request's place in its trace, where spans are only passed on."""
    return tracer.new_trace() if parent is None else parent.child()


def take_turn(app: web.Application, caller: Caller) -> float:
    """Count a request of a caller; 0, or in how many seconds they may ask again.

    Whoever is not known yet is the ingress's to limit.
    """
    rate_limit = app[RATE_LIMIT]
    return 0.0 if rate_limit is None else rate_limit.take(_limited_as(caller))


def has_turn(app: web.Application, caller: Caller) -> bool:
    """Return whether `take_turn` would count a request; it is not counted."""
    rate_limit = app[RATE_LIMIT]
    return rate_limit is None or not rate_limit.is_empty(_limited_as(caller))


def _limited_as(caller: Caller) -> tuple[str, str]:
    return caller.tenant_id, caller.user_id or caller.credential_id


def record(
    metrics: Metrics,
    *,
    method: str,
    route: str,
    path: str,
    status: int,
    code: str | None,
    seconds: float,
    is_stream: bool,
    remote: str | None,
    **context: Any,
) -> None:
    """Count a request that has ended, and log it.

    `context` is what its line says of its context where none was entered.
    """
    metrics.observe_request(method, route, status, code, None if is_stream else seconds)
    log.info(
        "request",
        method=method,
        route=route,
        path=path,
        status=status,
        code=code,
        seconds=round(seconds, 6),
        remote=remote,
        **context,
    )
