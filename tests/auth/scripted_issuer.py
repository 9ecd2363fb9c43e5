"""An identity provider over a real socket, that answers as a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import orjson
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://scaikey.test"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def rsa_key(number: int = 1) -> RSAKey:
    """A key of the whole run; making one takes a while."""
    del number
    return RSAKey.generate_key(2048)


@cache
def ec_key() -> ECKey:
    return ECKey.generate_key("P-256")


def public(key: RSAKey | ECKey, kid: str, **others: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": kid, **others}


def claims(now: float, **others: Any) -> dict[str, Any]:
    """What a token of `ann` of tenant `acme` says; a claim that is given as None is left out."""
    said = {
        "iss": ISSUER,
        "aud": "scaimind",
        "sub": "ann",
        "tenant_id": "acme",
        "roles": ["tenant_viewer"],
        "permissions": ["scaimind:evaluate"],
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now) + 3600,
        "jti": "token-1",
        **others,
    }
    return {name: value for name, value in said.items() if value is not None}


def signed(said: dict[str, Any], *, key: RSAKey | None = None, **header: Any) -> str:
    anything = JWSRegistry(strict_check_header=False)
    return jwt.encode(
        {"alg": "RS256", "kid": "k1", **header}, said, key or rsa_key(), registry=anything
    )


class ScriptedIssuer:
    """What it serves as JWK Set and answers to exchanges can be set; requests are kept."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [public(rsa_key(), "k1")]
        #: Instead of the keys, if it is set.
        self.jwks: Handler | None = None
        self.fetches = 0
        #: Answers an exchange, given the form.
        self.token: Callable[[dict[str, str]], web.StreamResponse] = self._mint
        self.exchanges: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        #: Exchanges and fetches wait for it.
        self.open = asyncio.Event()
        self.open.set()
        #: Told of each request that has arrived.
        self.arrived = asyncio.Semaphore(0)
        self.minted = 0
        self.url = ""

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedIssuer"]:
        app = web.Application()
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/token", self._token)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.open.set()
            await runner.cleanup()

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        self.arrived.release()
        await self.open.wait()
        if self.jwks is not None:
            return await self.jwks(request)
        return web.Response(body=orjson.dumps({"keys": self.keys}))

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.exchanges.append(form)
        self.authorizations.append(request.headers["Authorization"])
        self.arrived.release()
        await self.open.wait()
        return self.token(form)

    def _mint(self, form: dict[str, str]) -> web.StreamResponse:
        self.minted += 1
        return minted(f"{form['audience']}-token-{self.minted}")


def minted(token: str, **others: Any) -> web.Response:
    body = {
        "access_token": token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 300,
        **others,
    }
    return web.Response(
        body=orjson.dumps({name: value for name, value in body.items() if value is not None}),
        content_type="application/json",
    )


def refused(error: Any, *, status: int = 400, **headers: str) -> web.Response:
    body = orjson.dumps({"error": error, "error_description": "the-inner-cause"})
    return web.Response(body=body, status=status, headers=headers)
