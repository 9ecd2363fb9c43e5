"""Typed keys under which the application and a request hold what handlers need."""

from typing import TYPE_CHECKING, Any

from aiohttp import web

from app.api.settings import ServerSettings
from app.caller import Caller

if TYPE_CHECKING:
    from app.api.headers import AnswerHeaders
    from app.api.readiness import Readiness
    from app.auth.authenticator import Authenticator
    from app.auth.console_sessions import ConsoleSessions
    from app.auth.exchange import Exchange
    from app.auth.rate_limit import RateLimit
    from app.auth.revocations import Revocations
    from app.auth.tickets import Tickets
    from app.bridge.client import CoordinatorClient
    from app.bridge.features import Features
    from app.cache.jobs import JobCache
    from app.cache.writer import JobWriter
    from app.drive.drive import Drive
    from app.drive.transfers import Transfers
    from app.drive.uploads import Uploads
    from app.hub.hub import Hub
    from app.tasks.shared_reads import SharedReads
    from app.telemetry.metrics import Metrics
    from app.telemetry.tracing import Tracer

SERVER_SETTINGS: web.AppKey[ServerSettings] = web.AppKey("server_settings", ServerSettings)
#: The commit that the gateway was built from; None if that is not known.
COMMIT: "web.AppKey[str | None]" = web.AppKey("commit")
METRICS: "web.AppKey[Metrics]" = web.AppKey("metrics")
TRACER: "web.AppKey[Tracer]" = web.AppKey("tracer")
COORDINATOR: "web.AppKey[CoordinatorClient]" = web.AppKey("coordinator")
SHARED_READS: "web.AppKey[SharedReads[Any]]" = web.AppKey("shared_reads")
FEATURES: "web.AppKey[Features]" = web.AppKey("features")
HUB: "web.AppKey[Hub]" = web.AppKey("hub")
AUTHENTICATOR: "web.AppKey[Authenticator]" = web.AppKey("authenticator")
EXCHANGE: "web.AppKey[Exchange]" = web.AppKey("exchange")
CONSOLE_SESSIONS: "web.AppKey[ConsoleSessions]" = web.AppKey("console_sessions")
TICKETS: "web.AppKey[Tickets]" = web.AppKey("tickets")
REVOCATIONS: "web.AppKey[Revocations]" = web.AppKey("revocations")
RATE_LIMIT: "web.AppKey[RateLimit | None]" = web.AppKey("rate_limit")
ANSWER_HEADERS: "web.AppKey[AnswerHeaders]" = web.AppKey("answer_headers")
JOB_CACHE: "web.AppKey[JobCache]" = web.AppKey("job_cache")
JOB_WRITER: "web.AppKey[JobWriter]" = web.AppKey("job_writer")
DRIVE: "web.AppKey[Drive]" = web.AppKey("drive")
UPLOADS: "web.AppKey[Uploads]" = web.AppKey("uploads")
TRANSFERS: "web.AppKey[Transfers]" = web.AppKey("transfers")
READINESS: "web.AppKey[Readiness]" = web.AppKey("readiness")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def caller_of(request: web.Request) -> Caller:
    """Return the caller of the request; its route must not be public."""
    return request[CALLER]


def request_id_of(request: web.Request) -> str:
    """Return the id under which the request is logged."""
    return request[REQUEST_ID]
