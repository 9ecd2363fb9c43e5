"""Typed keys under which the application and a request hold what handlers need."""

from typing import TYPE_CHECKING

from aiohttp import web

from app.caller import Caller
from app.settings import Settings

if TYPE_CHECKING:
    from app.api.readiness import Readiness
    from app.auth.authenticator import Authenticator
    from app.bridge.client import CoordinatorClient
    from app.hub import Hub
    from app.telemetry.metrics import Metrics

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
METRICS: "web.AppKey[Metrics]" = web.AppKey("metrics")
COORDINATOR: "web.AppKey[CoordinatorClient]" = web.AppKey("coordinator")
HUB: "web.AppKey[Hub]" = web.AppKey("hub")
AUTHENTICATOR: "web.AppKey[Authenticator]" = web.AppKey("authenticator")
READINESS: "web.AppKey[Readiness]" = web.AppKey("readiness")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def caller_of(request: web.Request) -> Caller:
    """Tell who makes the request; its route must not be public."""
    return request[CALLER]


def request_id_of(request: web.Request) -> str:
    """Tell the id under which the request is logged."""
    return request[REQUEST_ID]
