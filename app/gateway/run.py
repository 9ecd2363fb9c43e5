"""Runs the gateway until it is asked to stop."""

import asyncio
import logging
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import MappingProxyType

import structlog
import uvloop

from app import __version__
from app.configuration.listening import listening_socket
from app.gateway.application import create_app
from app.gateway.commit import running_commit
from app.gateway.file_limits import raise_limit
from app.gateway.http_server import serve
from app.gateway.settings import Settings
from app.telemetry import logs
from app.telemetry.startup import log_unknown
from app.telemetry.tracing import open_tracer

log = structlog.get_logger()


def run(settings: Settings, *, unknown: Mapping[str, str] = MappingProxyType({})) -> None:
    """Serve until SIGINT or SIGTERM.

    `unknown` are variables that no program reads, each with the one that may be meant. Raises
    `SettingsError` if the address cannot be listened on, or a file that the settings name
    cannot be used.
    """
    logs.configure(
        settings.telemetry,
        out=sys.stdout.buffer,
        known_secrets=(
            settings.upstream.api_secret,
            settings.database.dsn,
            settings.auth.client_secret,
        ),
        for_good=True,
    )
    logging.captureWarnings(True)
    for each in settings.renamed:
        log.warning("setting_renamed", variable=each.former, use=each.variable)
    log_unknown(unknown)
    raise_limit(settings.hub)
    with ExitStack() as stack:
        tracer = open_tracer(service_name="scaimind-gateway")
        stack.callback(tracer.close)
        commit = running_commit(settings.server.commit, root=Path(__file__).parents[2])
        app = create_app(settings, commit=commit, tracer=tracer)
        listening = stack.enter_context(_listen(settings))
        log.info(
            "gateway_starting",
            version=__version__,
            url=_url(listening),
            coordinator=settings.upstream.address,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(app, listening))
    log.info("gateway_stopped")


def _listen(settings: Settings) -> socket.socket:
    """Bind the address first: a port in use is reported before anything starts."""
    server = settings.server
    return listening_socket(server.host, server.port, prefix=server.PREFIX, backlog=1024)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    return f"http://{shown}:{port}"
