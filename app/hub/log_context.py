"""What log lines of work that watchers share carry."""

from contextvars import Context, copy_context

import structlog

from app.telemetry import trace_context


def shared_context(*, tenant_id: str, request_id: str) -> Context:
    """Return a context whose log lines carry a tenant, and the request that caused the work.

    They carry no user: work that one watcher starts goes on for all others,
    and when that watcher has long left. The trace is that of the caller's context.
    """
    context = copy_context()
    context.run(_bind, tenant_id, request_id)
    return context


def _bind(tenant_id: str, request_id: str) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(tenant_id=tenant_id, request_id=request_id)
    if (span := trace_context.current()) is not None:
        structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
