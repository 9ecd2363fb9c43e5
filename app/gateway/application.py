"""The composition root: builds the gateway from its components."""

from aiohttp import web

from app.api import middlewares
from app.api.access import check_declared
from app.api.app_keys import ANSWER_HEADERS, COMMIT, METRICS, RATE_LIMIT, SERVER_SETTINGS, TRACER
from app.api.drive import tus
from app.api.headers import AnswerHeaders
from app.api.pages.documentation import DOCUMENT, describe
from app.bridge.tls import channel_credentials
from app.gateway import components
from app.gateway.drive import STORE, drive_context, open_store
from app.gateway.routes import add_routes
from app.gateway.settings import Settings
from app.openapi.document import build
from app.telemetry.metrics import Metrics
from app.telemetry.tracing import NoTracer, Tracer


def create_app(
    settings: Settings, *, commit: str | None = None, tracer: Tracer | None = None
) -> web.Application:
    """Build the gateway. It starts, and reports that, without PostgreSQL or coordinator.

    `commit` is what it was built from, if that is known. The tracer stays the caller's, who
    closes it; without one, nothing is recorded.
    Raises `SettingsError` if a file that the settings name cannot be used.
    """
    app = web.Application(client_max_size=settings.server.max_body_bytes)
    app[components.SETTINGS] = settings
    app[SERVER_SETTINGS] = settings.server
    app[components.CREDENTIALS] = channel_credentials(settings.upstream)
    app[STORE] = open_store(settings.drive)
    app[METRICS] = Metrics()
    app[COMMIT] = commit
    app[TRACER] = tracer or NoTracer()
    app[ANSWER_HEADERS] = AnswerHeaders(server=settings.server, cors=settings.cors)
    app[RATE_LIMIT] = components.rate_limit(settings.limits)
    middlewares.install(app)
    app.on_response_prepare.append(tus.add_version)
    add_routes(app, with_drive=settings.drive.served)
    check_declared(app.router.routes())
    app[DOCUMENT] = describe(build(app.router.routes()))
    # Entered in this order, left in reverse.
    app.cleanup_ctx.extend(
        (
            components.pages_context,
            components.database_context,
            components.identity_context,
            components.job_cache_context,
            components.coordinator_context,
            components.hub_context,
            drive_context,
            components.revocations_context,
            components.readiness_context,
        )
    )
    app.on_shutdown.append(components.end_streams)
    return app
