"""An issuer of tokens over a real socket, and the tokens that it signs."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

ISSUER = "https://issuer.example"


class Issuer:
    """Signs tokens, and serves the keys that it is said to have."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
        self.keys: list[RSAKey | ECKey] = [self.key]
        self.fetches = 0
        self.broken = False
        self.url = ""

    async def serve(self, _: web.Request) -> web.Response:
        self.fetches += 1
        if self.broken:
            return web.Response(status=500)
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    def token(
        self,
        audience: str | list[str],
        *,
        tenant: str = "local",
        life: float = 60,
        key: RSAKey | None = None,
        header: dict[str, Any] | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        now = int(time.time())
        body = {
            "iss": ISSUER,
            "aud": audience,
            "sub": "someone",
            "tenant_id": tenant,
            "iat": now,
            "nbf": now,
            "exp": now + life,
            **claims,
        }
        body.pop(without, None)
        head = {"alg": "RS256", "kid": "first", **(header or {})}
        return jwt.encode(head, body, key or self.key, algorithms=[head["alg"]])

    def pair(self, **more: Any) -> dict[str, str]:
        """The metadata that a gateway forwards."""
        return {
            "x-scaidrive-token": self.token("scaidrive", **more),
            "x-scaiatlas-token": self.token("scaiatlas", **more),
        }


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/jwks", issuer.serve)
    async with TestServer(app, host="127.0.0.1") as server:
        issuer.url = str(server.make_url("/jwks"))
        yield issuer
