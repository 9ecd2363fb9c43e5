"""The issuer's HTTP: token exchange (RFC 8693) and the keys (RFC 7517)."""

import base64
import hmac
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_plus

import orjson
import structlog
from aiohttp import hdrs, web

from app.configuration.listening import listening_socket
from app.credentials import masked
from app.database.errors import DatabaseError
from app.database.pool import Pool
from app.database.settings import DatabaseSettings
from app.issuer.keys import SigningKeys
from app.issuer.settings import IssuerSettings
from app.issuer.tokens import AUDIENCES, Minted, Subject, SubjectRefused, TokenMint
from app.scaikey import api_keys
from app.shortening import quoted
from app.telemetry import logs
from app.telemetry.settings import TelemetrySettings
from app.telemetry.startup import log_unknown

log = structlog.get_logger()

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TYPE = "urn:ietf:params:oauth:token-type:access_token"
API_KEY_TYPE = "urn:scaigrid:params:oauth:token-type:api-key"

_MAX_BODY = 32 * 1024
_FORM = "application/x-www-form-urlencoded"
#: Seconds for which the keys may be kept; a new key is announced by its first token's `kid`.
_KEYS_MAX_AGE = 300

_SETTINGS: web.AppKey[IssuerSettings] = web.AppKey("settings", IssuerSettings)
_MINT: web.AppKey[TokenMint] = web.AppKey("mint", TokenMint)
_KEY_SET: web.AppKey[bytes] = web.AppKey("key_set", bytes)

routes = web.RouteTableDef()


class OAuthError(Exception):
    """An answer as RFC 6749, 5.2 has it. The description may be shown to anyone."""

    def __init__(
        self,
        code: str,
        description: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.description = description
        self.status = status
        self.headers = headers or {}


def create_issuer(
    settings: IssuerSettings, *, database: DatabaseSettings, keys: SigningKeys
) -> web.Application:
    """Put the issuer together. It starts without PostgreSQL."""
    app = web.Application(client_max_size=_MAX_BODY, middlewares=[_answer_errors])
    app[_SETTINGS] = settings
    app[_KEY_SET] = orjson.dumps(keys.public())

    async def mint(app: web.Application) -> AsyncIterator[None]:
        pool = Pool(database)
        app[_MINT] = TokenMint(settings=settings, keys=keys, database=pool, now=time.time)
        yield
        await pool.shut()

    app.cleanup_ctx.append(mint)
    app.add_routes(routes)
    return app


def run(
    settings: IssuerSettings,
    *,
    database: DatabaseSettings,
    telemetry: TelemetrySettings,
    unknown: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Serve until SIGINT or SIGTERM.

    `unknown` are variables that no program reads, each with the one that may be meant. Raises
    `OSError`, `KeysUnusable`, and `SettingsError` if the address cannot be listened on.
    """
    logs.configure(
        telemetry,
        out=sys.stdout.buffer,
        known_secrets=(settings.client_secret, database.dsn),
    )
    logging.captureWarnings(True)
    log_unknown(unknown)
    keys = SigningKeys.load(
        Path(settings.data_dir),
        now=time.time(),
        max_age=settings.key_max_age,
        longest_lifetime=settings.longest_lifetime,
    )
    with closing(
        listening_socket(settings.host, settings.port, prefix=settings.PREFIX)
    ) as listening:
        log.info("issuer_starting", port=listening.getsockname()[1], kid=keys.kid)
        web.run_app(
            create_issuer(settings, database=database, keys=keys),
            sock=listening,
            shutdown_timeout=2.0,
            access_log=None,
            print=None,
        )
    log.info("issuer_stopped")


@routes.get("/health")
async def _health(_request: web.Request) -> web.Response:
    return _json({"status": "alive"})


@routes.get("/.well-known/jwks.json")
async def _keys(request: web.Request) -> web.Response:
    return web.Response(
        body=request.app[_KEY_SET],
        content_type="application/jwk-set+json",
        headers={hdrs.CACHE_CONTROL: f"public, max-age={_KEYS_MAX_AGE}"},
    )


@routes.post("/oauth2/token")
async def _exchange(request: web.Request) -> web.Response:
    _check_client(request)
    form = await _form(request)
    audience = _audience(form)
    mint = request.app[_MINT]
    kind = form.get("subject_token_type", "")
    try:
        subject = await _subject(mint, form.get("subject_token", ""), kind)
        minted = mint.mint(subject, audience)
    except SubjectRefused as refused:
        log.warning("subject_refused", audience=audience, kind=kind, reason=str(refused))
        raise OAuthError(
            "invalid_grant", "The subject token is unknown, revoked or expired."
        ) from None
    except DatabaseError as error:
        log.error("subject_lookup_failed", reason=str(error))
        raise OAuthError(
            "temporarily_unavailable",
            "API keys cannot be looked up at the moment.",
            status=503,
            headers={hdrs.RETRY_AFTER: "2"},
        ) from None
    log.info(
        "issued",
        audience=audience,
        tenant_id=subject.tenant_id,
        user_id=subject.user_id,
        jti=minted.token_id,
        seconds=minted.lifetime,
    )
    return _answer(minted)


def _check_client(request: web.Request) -> None:
    """Demand the client's id and secret (RFC 6749, 2.3.1)."""
    settings = request.app[_SETTINGS]
    given = _credentials(request.headers.get(hdrs.AUTHORIZATION, ""))
    known = (settings.client_id, settings.client_secret)
    # Both are compared, whichever is wrong, in a time that tells nothing of them.
    same = [
        hmac.compare_digest(one.encode(), other.encode())
        for one, other in zip(given, known, strict=True)
    ]
    if not all(same):
        log.warning("client_refused", remote=request.remote)
        raise OAuthError(
            "invalid_client",
            "The client is unknown, or its secret is wrong.",
            status=401,
            headers={hdrs.WWW_AUTHENTICATE: 'Basic realm="scaimind-issuer"'},
        )


def _credentials(authorization: str) -> tuple[str, str]:
    """Read id and secret, which were encoded as a form is, then joined (RFC 7617)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        joined = base64.b64decode(encoded, validate=True).decode("ascii")
    except ValueError:
        joined = ""
    login, _, password = joined.partition(":")
    if scheme.lower() != "basic":
        return "", ""
    return unquote_plus(login), unquote_plus(password)


async def _form(request: web.Request) -> Mapping[str, str]:
    if request.content_type != _FORM:
        raise OAuthError("invalid_request", f"The body must be {_FORM}.")
    try:
        form = await request.post()
    except (ValueError, LookupError, web.HTTPRequestEntityTooLarge):  # LookupError: the charset
        raise OAuthError("invalid_request", "The body is malformed.") from None
    for name in form:
        if len(form.getall(name)) > 1 and name != "audience":
            raise OAuthError("invalid_request", f"{quoted(name)} is given more than once.")
    if form.get("grant_type") != GRANT_TYPE:
        raise OAuthError("unsupported_grant_type", f"grant_type must be {GRANT_TYPE}.")
    if form.get("requested_token_type", JWT_TYPE) not in (JWT_TYPE, ACCESS_TYPE):
        raise OAuthError("invalid_request", "requested_token_type: only JWTs are issued.")
    if "actor_token" in form:
        raise OAuthError("invalid_request", "actor_token: delegation is not supported.")
    if len(form.getall("audience", [])) != 1 or "resource" in form:
        raise OAuthError("invalid_target", "Request exactly one audience, and no resource.")
    return {name: str(value) for name, value in form.items()}


def _audience(form: Mapping[str, str]) -> str:
    audience = form["audience"]
    if audience not in AUDIENCES:
        raise OAuthError("invalid_target", f"audience must be one of {', '.join(AUDIENCES)}.")
    return audience


async def _subject(mint: TokenMint, token: str, kind: str) -> Subject:
    if not token:
        raise OAuthError("invalid_request", "subject_token is missing.")
    if kind == API_KEY_TYPE:
        if not api_keys.is_api_key(token):
            raise SubjectRefused("an API key of an invalid form")
        return await mint.of_api_key(token)
    if kind in (JWT_TYPE, ACCESS_TYPE):
        return mint.of_jwt(token)
    raise OAuthError("invalid_request", f"subject_token_type must be {API_KEY_TYPE} or {JWT_TYPE}.")


def _answer(minted: Minted) -> web.Response:
    """RFC 8693, 2.2.1."""
    return _json(
        {
            "access_token": minted.token,
            "issued_token_type": ACCESS_TYPE,
            "token_type": "Bearer",
            "expires_in": minted.lifetime,
        }
    )


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except OAuthError as error:
        response = _json(
            {"error": error.code, "error_description": masked(error.description)},
            status=error.status,
            headers=error.headers,
        )
    return response


def _json(
    body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        content_type="application/json",
        # RFC 6749, 5.1
        headers={hdrs.CACHE_CONTROL: "no-store", hdrs.PRAGMA: "no-cache", **(headers or {})},
    )
