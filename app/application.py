"""The composition root: the one place where the gateway is put together."""

import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable
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
    evaluations,
    jobs,
    middlewares,
    monitoring,
    operations,
    queue,
    streams,
)
from app.api.access import check_declared
from app.api.keys import AUTHENTICATOR, COORDINATOR, HUB, METRICS, READINESS, SETTINGS
from app.api.readiness import Readiness
from app.auth.authenticator import ApiKeyVerifier, Authenticator
from app.auth.lookup import KeyLookup
from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.health import coordinator_problem
from app.bridge.watch import WatchClient
from app.cache.pool import Pool
from app.hub import Hub
from app.hub_metrics import HubMetrics
from app.settings import Settings
from app.telemetry import logs
from app.telemetry.metrics import Metrics

log = structlog.get_logger()

PREFIX = "/v1/modules/scaimind"

#: The sections of the API reference, below the prefix.
SECTIONS = (jobs, monitoring, streams, cluster, queue, evaluations, data)

#: Seconds that one dependency may take to tell how it is.
_CHECK_SECONDS = 2.0

_POOL: web.AppKey[Pool] = web.AppKey("pool", Pool)
_CHANNEL: web.AppKey[grpc.aio.Channel] = web.AppKey("channel", grpc.aio.Channel)


def create_app(settings: Settings) -> web.Application:
    """Put the gateway together. It starts, and says so, without PostgreSQL and coordinator."""
    app = web.Application(client_max_size=settings.server.max_body_bytes)
    app[SETTINGS] = settings
    app[METRICS] = Metrics()
    middlewares.install(app)
    for section in SECTIONS:
        _add_routes(app, section.routes, prefix=PREFIX)
    _add_routes(app, operations.routes, prefix="")
    check_declared(app.router.routes())
    # Entered in this order, left in reverse.
    app.cleanup_ctx.extend((_database, _coordinator, _hub, _readiness))
    app.on_shutdown.append(_end_streams)
    return app


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises `OSError` if the address cannot be listened on."""
    logs.configure(
        settings.telemetry,
        out=sys.stdout.buffer,
        known_secrets=(settings.coordinator.api_secret, settings.database.dsn),
    )
    logging.captureWarnings(True)
    with _listen(settings) as listening:
        log.info(
            "gateway_starting",
            version=__version__,
            url=_url(listening),
            coordinator=settings.coordinator.address,
        )
        web.run_app(
            create_app(settings),
            sock=listening,
            loop=uvloop.new_event_loop(),
            shutdown_timeout=settings.server.shutdown_timeout,
            access_log=None,  # `trace` logs requests
            print=None,
        )
    log.info("gateway_stopped")


async def _database(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    app[_POOL] = pool = Pool(settings.database)
    keys = KeyLookup(
        database=pool,
        ttl=settings.auth.key_ttl,
        size=settings.auth.key_cache_size,
        clock=time.monotonic,
        lookups=app[METRICS].auth_lookups,
    )
    app[AUTHENTICATOR] = Authenticator(
        verifiers=(ApiKeyVerifier(keys=keys, now=lambda: datetime.now(UTC)),)
    )
    yield
    await pool.shut()


async def _coordinator(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS].coordinator
    app[_CHANNEL] = channel = open_channel(settings)
    app[COORDINATOR] = CoordinatorClient(
        channel=channel, settings=settings, observe=app[METRICS].observe_coordinator_call
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
    app[HUB] = Hub(upstream=upstream, settings=settings.hub, observer=HubMetrics(app[METRICS]))
    yield


async def _end_streams(app: web.Application) -> None:
    """Close the hub before the open requests are waited for: streams do not end by themselves."""
    if HUB in app:  # else the start failed before it
        await app[HUB].close()


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
