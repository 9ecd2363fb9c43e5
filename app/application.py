"""The composition root: the one place where the gateway is put together."""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address

import grpc
import structlog
import uvloop
from aiohttp import web

from app import __version__
from app.api import (
    cluster,
    data,
    documentation,
    evaluations,
    jobs,
    middlewares,
    monitoring,
    operations,
    queue,
    streams,
    summary,
    tickets,
)
from app.api.access import check_declared
from app.api.headers import AnswerHeaders
from app.api.keys import (
    ANSWER_HEADERS,
    AUTHENTICATOR,
    COORDINATOR,
    DOCUMENT,
    EXCHANGE,
    HUB,
    JOB_CACHE,
    METRICS,
    RATE_LIMIT,
    READINESS,
    REVOCATIONS,
    SETTINGS,
    TICKETS,
)
from app.api.readiness import Readiness
from app.api.server import serve
from app.auth.authenticator import ApiKeyVerifier, Authenticator, Verifier
from app.auth.exchange import NoExchange, TokenExchange
from app.auth.jwks import KeySetCache
from app.auth.jwt import JwtVerifier
from app.auth.lookup import KeyLookup
from app.auth.rate_limit import RateLimit
from app.auth.revocations import Revocations
from app.auth.scaikey import open_session
from app.auth.tickets import Tickets
from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.health import coordinator_problem
from app.bridge.tls import channel_credentials
from app.bridge.watch import WatchClient
from app.cache.jobs import JobCache
from app.cache.pool import Pool
from app.cache.writer import JobWriter
from app.descriptors import raise_limit
from app.hub import Hub
from app.hub_metrics import HubReports
from app.openapi.document import Document, build
from app.settings import LimitsSettings, Settings
from app.telemetry import logs
from app.telemetry.metrics import Metrics

log = structlog.get_logger()

PREFIX = "/v1/modules/scaimind"

#: The sections of the API reference, below the prefix.
SECTIONS = (
    jobs,
    monitoring,
    streams,
    tickets,
    summary,
    cluster,
    queue,
    evaluations,
    data,
    documentation,
)

#: Seconds that one dependency may take to tell how it is.
_CHECK_SECONDS = 2.0

_POOL: web.AppKey[Pool] = web.AppKey("pool", Pool)
_CREDENTIALS: web.AppKey[grpc.ChannelCredentials | None] = web.AppKey("credentials")
_KEYS: web.AppKey[KeyLookup] = web.AppKey("keys", KeyLookup)
_JOB_WRITER: web.AppKey[JobWriter] = web.AppKey("job_writer", JobWriter)
_CHANNEL: web.AppKey[grpc.aio.Channel] = web.AppKey("channel", grpc.aio.Channel)


def create_app(settings: Settings) -> web.Application:
    """Put the gateway together. It starts, and says so, without PostgreSQL and coordinator.

    Raises `SettingsError` if a file that the settings name cannot be used.
    """
    app = web.Application(client_max_size=settings.server.max_body_bytes)
    app[SETTINGS] = settings
    app[_CREDENTIALS] = channel_credentials(settings.coordinator)
    app[METRICS] = Metrics()
    app[ANSWER_HEADERS] = AnswerHeaders(server=settings.server, cors=settings.cors)
    app[RATE_LIMIT] = _rate_limit(settings.limits)
    middlewares.install(app)
    add_routes(app)
    check_declared(app.router.routes())
    app[DOCUMENT] = Document.of(build(app.router.routes()))
    # Entered in this order, left in reverse.
    app.cleanup_ctx.extend(
        (_database, _identity, _job_cache, _coordinator, _hub, _revocations, _readiness)
    )
    app.on_shutdown.append(_end_streams)
    return app


def add_routes(app: web.Application) -> None:
    """Give an application all routes; to look at them, it needs nothing else."""
    for section in SECTIONS:
        _add_routes(app, section.routes, prefix=PREFIX)
    _add_routes(app, operations.routes, prefix="")


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises `OSError` if the address cannot be listened on, and `SettingsError`
    if a file that the settings name cannot be used.
    """
    logs.configure(
        settings.telemetry,
        out=sys.stdout.buffer,
        known_secrets=(
            settings.coordinator.api_secret,
            settings.database.dsn,
            settings.auth.client_secret,
        ),
    )
    logging.captureWarnings(True)
    raise_limit(settings.hub)
    app = create_app(settings)
    with _listen(settings) as listening:
        log.info(
            "gateway_starting",
            version=__version__,
            url=_url(listening),
            coordinator=settings.coordinator.address,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(app, listening))
    log.info("gateway_stopped")


async def _database(app: web.Application) -> AsyncIterator[None]:
    app[_POOL] = pool = Pool(app[SETTINGS].database)
    yield
    await pool.shut()


async def _identity(app: web.Application) -> AsyncIterator[None]:
    """Who calls, and what they are given for ScaiDrive and ScaiAtlas."""
    settings, metrics = app[SETTINGS].auth, app[METRICS]
    keys = KeyLookup(
        database=app[_POOL],
        ttl=settings.key_ttl,
        size=settings.key_cache_size,
        clock=time.monotonic,
        lookups=metrics.auth_lookups,
    )
    app[_KEYS] = keys
    app[TICKETS] = Tickets(database=app[_POOL])
    verifiers: list[Verifier] = [ApiKeyVerifier(keys=keys, now=_now)]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session(settings))
        if settings.jwks_url:
            key_set = KeySetCache(
                settings=settings,
                session=session,
                clock=time.monotonic,
                fetches=metrics.jwks_fetches,
            )
            stack.push_async_callback(key_set.close)
            verifiers.append(JwtVerifier(settings=settings, keys=key_set, now=time.time))
        app[EXCHANGE] = NoExchange()
        if settings.token_url:
            app[EXCHANGE] = exchange = TokenExchange(
                settings=settings,
                session=session,
                now=_now,
                clock=time.monotonic,
                exchanges=metrics.token_exchanges,
            )
            stack.push_async_callback(exchange.close)
        app[AUTHENTICATOR] = Authenticator(verifiers=verifiers)
        log.info(
            "identity_configured",
            jwt_issuer=settings.issuer or None,
            tokens_forwarded=bool(settings.token_url),
        )
        yield


async def _job_cache(app: web.Application) -> AsyncIterator[None]:
    """Entered before those who see jobs, and left after them."""
    settings = app[SETTINGS]
    # A pool of its own: whoever checks a token never waits for the cache.
    pool = Pool(replace(settings.database, pool_min=0, pool_max=settings.cache.pool_max))
    app[JOB_CACHE] = JobCache(database=pool)
    app[_JOB_WRITER] = writer = JobWriter(
        database=pool, settings=settings.cache, metrics=app[METRICS], clock=time.monotonic
    )
    yield
    await writer.close()
    await pool.shut()


async def _coordinator(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS].coordinator
    app[_CHANNEL] = channel = open_channel(settings, credentials=app[_CREDENTIALS])
    app[COORDINATOR] = CoordinatorClient(
        channel=channel,
        settings=settings,
        observe=app[METRICS].observe_coordinator_call,
        saw_job=app[_JOB_WRITER].saw,
    )
    yield
    await channel.close()


async def _hub(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    upstream = WatchClient(
        channel=app[_CHANNEL],
        client=app[COORDINATOR],
        settings=settings.coordinator,
        observe=app[METRICS].observe_coordinator_call,
    )
    reports = HubReports(app[METRICS], jobs=app[_JOB_WRITER])
    app[HUB] = Hub(upstream=upstream, settings=settings.hub, observer=reports)
    yield


async def _end_streams(app: web.Application) -> None:
    """Close the hub before the open requests are waited for: streams do not end by themselves."""
    if HUB in app:  # else the start failed before it
        await app[HUB].close()


async def _revocations(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    app[REVOCATIONS] = revocations = Revocations(
        database=settings.database,
        settings=settings.auth,
        reader=app[_POOL],
        keys=app[_KEYS],
        streams=app[HUB],
        clock=time.monotonic,
    )
    task = asyncio.create_task(revocations.run(), name="revocations")
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _readiness(app: web.Application) -> AsyncIterator[None]:
    pool, channel = app[_POOL], app[_CHANNEL]
    api_secret = app[SETTINGS].coordinator.api_secret

    async def database() -> str | None:
        return await pool.problem(within=_CHECK_SECONDS)

    async def coordinator() -> str | None:
        return await coordinator_problem(channel, api_secret=api_secret, within=_CHECK_SECONDS)

    app[READINESS] = Readiness(
        checks={"database": database, "coordinator": coordinator}, clock=time.monotonic
    )
    log.info("gateway_ready_to_serve")
    yield


def _rate_limit(settings: LimitsSettings) -> RateLimit | None:
    if not settings.rate:
        return None
    return RateLimit(
        rate=settings.rate, burst=settings.burst, size=settings.users, clock=time.monotonic
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _add_routes(
    app: web.Application, routes: Iterable[web.AbstractRouteDef], *, prefix: str
) -> None:
    for route in routes:
        assert isinstance(route, web.RouteDef)
        web.route(route.method, prefix + route.path, route.handler, **route.kwargs).register(
            app.router
        )


def _listen(settings: Settings) -> socket.socket:
    """Take the address first: a port in use is told before anything was started."""
    host, port = settings.server.host, settings.server.port
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family, backlog=1024)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    return f"http://{shown}:{port}"
