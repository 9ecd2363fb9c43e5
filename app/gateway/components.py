"""The gateway's components, in the order in which they start; they stop in reverse."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web

from app.api.app_keys import (
    AUTHENTICATOR,
    CONSOLE_SESSIONS,
    COORDINATOR,
    EXCHANGE,
    FEATURES,
    HUB,
    JOB_CACHE,
    JOB_WRITER,
    METRICS,
    READINESS,
    REVOCATIONS,
    SHARED_READS,
    TICKETS,
    TRACER,
    TRANSFERS,
)
from app.api.pages.console import CONSOLE_FILES, load_console
from app.api.pages.documentation import FILES, load_files
from app.api.readiness import Check, Dependency, Readiness
from app.api.settings import LimitsSettings
from app.auth.authenticator import ApiKeyVerifier, Authenticator, Verifier
from app.auth.console_sessions import ConsoleSessions
from app.auth.exchange import NoExchange, TokenExchange
from app.auth.jwt import JwtVerifier
from app.auth.rate_limit import RateLimit
from app.auth.revocations import OpenByCredential, Revocations
from app.auth.tickets import Tickets
from app.bridge.channel import Channel, open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.contract.breaches import BreachReports
from app.bridge.contract.unknown_fields import UnknownFields
from app.bridge.features import Features
from app.bridge.health import coordinator_problem
from app.bridge.streams.watch_job import WatchClient
from app.bridge.streams.watch_jobs import WatchJobsClient
from app.bridge.tls import ChannelCredentials
from app.cache.jobs import JobCache
from app.cache.writer import JobWriter
from app.database.pool import Pool
from app.gateway.hub_observer import HubReports
from app.gateway.settings import Settings
from app.hub.hub import Hub
from app.scaikey.api_key_lookup import KeyLookup
from app.scaikey.http import open_session
from app.scaikey.jwks import KeySetCache
from app.tasks.shared_reads import SharedReads
from app.tasks.turns import Turns

#: Timeout of a dependency's check, in seconds.
_CHECK_SECONDS = 2.0


log = structlog.get_logger()

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
_POOL: web.AppKey[Pool] = web.AppKey("pool", Pool)
CREDENTIALS: web.AppKey[ChannelCredentials | None] = web.AppKey("credentials")
_KEYS: web.AppKey[KeyLookup] = web.AppKey("keys", KeyLookup)
#: None where neither JWTs nor forwarded tokens are configured.
_IDENTITY_PROVIDER: web.AppKey[Check | None] = web.AppKey("identity_provider")
_BREACHES: web.AppKey[BreachReports] = web.AppKey("breaches", BreachReports)
_CHANNEL: web.AppKey[Channel] = web.AppKey("channel", Channel)
_TURNS: web.AppKey[Turns] = web.AppKey("turns", Turns)


async def pages_context(app: web.Application) -> AsyncIterator[None]:
    """The files of the API reference and of the console, in memory."""
    app[FILES] = await asyncio.to_thread(load_files)
    app[CONSOLE_FILES] = await asyncio.to_thread(load_console)
    yield


async def database_context(app: web.Application) -> AsyncIterator[None]:
    """The pool of connections to PostgreSQL."""
    app[_POOL] = pool = Pool(app[SETTINGS].database)
    yield
    await pool.shut()


async def identity_context(app: web.Application) -> AsyncIterator[None]:
    """Authentication, and token exchange for ScaiDrive and ScaiAtlas."""
    settings, metrics = app[SETTINGS].auth, app[METRICS]
    keys = KeyLookup(
        database=app[_POOL],
        ttl=settings.key_ttl,
        size=settings.key_cache_size,
        clock=time.monotonic,
        lookups=metrics.auth_lookups,
    )
    app[_KEYS] = keys
    app[TICKETS] = Tickets(database=app[_POOL], now=_now)
    app[CONSOLE_SESSIONS] = sessions = ConsoleSessions(database=app[_POOL], now=_now)
    verifiers: list[Verifier] = [ApiKeyVerifier(keys=keys, now=_now), sessions]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(keys.close)
        session = await stack.enter_async_context(open_session(timeout=settings.http_timeout))
        key_set: KeySetCache | None = None
        if settings.jwks_url:
            key_set = KeySetCache(
                settings=settings.jwks,
                session=session,
                clock=time.monotonic,
                fetches=metrics.jwks_fetches,
            )
            stack.push_async_callback(key_set.close)
            verifiers.append(JwtVerifier(settings=settings, keys=key_set, now=time.time))
        exchange: TokenExchange | None = None
        if settings.token_url:
            exchange = TokenExchange(
                settings=settings,
                session=session,
                now=_now,
                clock=time.monotonic,
                exchanges=metrics.token_exchanges,
            )
            stack.push_async_callback(exchange.close)
        else:
            log.warning(
                "tokens_not_forwarded",
                reason="SCAIMIND_AUTH_TOKEN_URL is not set: POST /jobs, POST /data/validate and "
                "GET /data/cache reach the coordinator without tokens for ScaiDrive and ScaiAtlas.",
                advice="Set it, with the client id and secret, unless the coordinator needs none.",
            )
        app[EXCHANGE] = exchange or NoExchange()
        app[_IDENTITY_PROVIDER] = _identity_provider_check(key_set, exchange)
        app[AUTHENTICATOR] = Authenticator(verifiers=verifiers)
        log.info(
            "identity_configured",
            jwt_issuer=settings.issuer or None,
            tokens_forwarded=bool(settings.token_url),
        )
        yield


async def job_cache_context(app: web.Application) -> AsyncIterator[None]:
    """Entered before those who see jobs, and left after them."""
    settings = app[SETTINGS]
    # A pool of its own: whoever checks a token never waits for the cache.
    pool = Pool(replace(settings.database, pool_min=0, pool_max=settings.cache.pool_max))
    app[JOB_CACHE] = JobCache(database=pool)
    app[JOB_WRITER] = writer = JobWriter(
        database=pool, settings=settings.cache, metrics=app[METRICS], clock=time.monotonic
    )
    yield
    await writer.close()
    await pool.shut()


async def coordinator_context(app: web.Application) -> AsyncIterator[None]:
    """The channel to the coordinator, and the client on it."""
    settings = app[SETTINGS].upstream
    metrics = app[METRICS]
    app[_BREACHES] = BreachReports(count=metrics.count_breach, expect=metrics.expect_breach)
    app[_CHANNEL] = channel = open_channel(
        settings,
        credentials=app[CREDENTIALS],
        unknown_fields=UnknownFields(count=metrics.count_unknown_fields),
    )
    app[_TURNS] = turns = Turns()
    app[COORDINATOR] = CoordinatorClient(
        channel=channel,
        settings=settings,
        observe=app[METRICS].observe_coordinator_call,
        report=app[_BREACHES],
        record_job=app[JOB_WRITER].record_job,
        tracer=app[TRACER],
        turns=turns,
    )
    app[FEATURES] = features = Features(app[COORDINATOR])
    app[SHARED_READS] = reads = SharedReads[Any](kept=settings.shared_reads)
    yield
    await reads.close()
    await features.close()
    await channel.close()


async def hub_context(app: web.Application) -> AsyncIterator[None]:
    """The hub, on the coordinator's channel."""
    settings, turns = app[SETTINGS], app[_TURNS]
    upstream = WatchClient(
        channel=app[_CHANNEL],
        client=app[COORDINATOR],
        settings=settings.upstream,
        observe=app[METRICS].observe_coordinator_call,
        tracer=app[TRACER],
        report=app[_BREACHES],
        turns=turns,
    )
    states = WatchJobsClient(
        channel=app[_CHANNEL],
        client=app[COORDINATOR],
        settings=settings.upstream,
        observe=app[METRICS].observe_coordinator_call,
        tracer=app[TRACER],
        report=app[_BREACHES],
    )
    reports = HubReports(app[METRICS], jobs=app[JOB_WRITER], reads=app[SHARED_READS])
    app[HUB] = Hub(
        upstream=upstream,
        states=states,
        searcher=app[COORDINATOR],
        settings=settings.hub,
        observer=reports,
        turns=turns,
    )
    yield


async def end_streams(app: web.Application) -> None:
    """Close the hub before waiting for open requests: streams do not end by themselves."""
    if HUB in app:  # else the start failed before it
        await app[HUB].close()


async def revocations_context(app: web.Application) -> AsyncIterator[None]:
    """The task that watches for revoked keys."""
    settings = app[SETTINGS]
    app[REVOCATIONS] = revocations = Revocations(
        database=settings.database,
        settings=settings.auth,
        reader=app[_POOL],
        keys=app[_KEYS],
        streams=OpenByCredential(app[HUB], app[TRANSFERS]),
        clock=time.monotonic,
    )
    task = asyncio.create_task(revocations.run(), name="revocations")
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def readiness_context(app: web.Application) -> AsyncIterator[None]:
    """The checks behind `/health/ready`."""
    pool, channel = app[_POOL], app[_CHANNEL]
    api_secret = app[SETTINGS].upstream.api_secret

    async def database() -> str | None:
        return await pool.problem(within=_CHECK_SECONDS)

    async def coordinator() -> str | None:
        return await coordinator_problem(channel, api_secret=api_secret, within=_CHECK_SECONDS)

    app[READINESS] = readiness = Readiness(
        (
            Dependency("database", database),
            Dependency("coordinator", coordinator),
            # API keys, and JWTs of known keys, count without it.
            Dependency("identity_provider", app[_IDENTITY_PROVIDER], required=False),
        ),
        clock=time.monotonic,
    )
    log.info("gateway_ready_to_serve")
    yield
    await readiness.close()


def _identity_provider_check(
    keys: KeySetCache | None, exchange: TokenExchange | None
) -> Check | None:
    if keys is None and exchange is None:
        return None

    async def check() -> str | None:
        if keys is not None:
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    problem = await keys.problem()
            except TimeoutError:
                problem = "it does not answer in time"
            if problem is not None:
                return problem
        if exchange is not None and not exchange.answered:
            return "it did not answer the last request for tokens"
        return None

    return check


def rate_limit(settings: LimitsSettings) -> RateLimit | None:
    """Return the limit by user, or None if the settings set none."""
    if not settings.rate:
        return None
    return RateLimit(
        rate=settings.rate, burst=settings.burst, size=settings.users, clock=time.monotonic
    )


def _now() -> datetime:
    return datetime.now(UTC)
