"""Who may touch a tenant's data: the forwarded tokens, checked against the issuer's keys.

A token is a JWT (RFC 7519) signed with RS256 that names its `kid`, with
`iss`, `aud`, `exp` and `tenant_id`. Nothing of a token is kept, logged or told.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError
from joserfc.jws import extract_compact

from app.coordinator.errors import PermissionDenied, Unauthenticated, Unavailable
from app.coordinator.identity.access import Access
from app.coordinator.identity.peer import Peer
from app.scaikey.jwks import KeySetCache, KeysUnavailable

#: The metadata that carries a token, and the audience that the token must have.
AUDIENCES: Final = {"x-scaidrive-token": "scaidrive", "x-scaiatlas-token": "scaiatlas"}
_MAX_TOKEN: Final = 16 * 1024

log = structlog.get_logger("scaimind.coordinator")


class TokenChecker:
    """Checks tokens of one issuer."""

    def __init__(
        self, *, keys: KeySetCache, issuer: str, leeway: float, clock: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._leeway = leeway
        self._clock = clock

    async def check(self, token: str, *, audience: str, tenant_id: str) -> None:
        """Return if the token is good for this audience and this tenant.

        Raises Unauthenticated, PermissionDenied, and Unavailable if it cannot be told.
        """
        claims = await self._claims(token, audience)
        now = int(self._clock())
        try:
            self._registry(audience, now).validate(claims)
        except ExpiredTokenError:
            raise Unauthenticated(
                f"the {audience} token has expired; ask for a new one",
                reason=self._clock_reason(claims, audience, tenant_id, now),
            ) from None
        except InvalidClaimError as error:
            raise _refused(
                audience,
                f"its claim {error.claim!r} is not accepted",
                reason=self._clock_reason(claims, audience, tenant_id, now),
            ) from None
        except JoseError as error:
            raise _refused(audience, error.description or error.error) from None
        if claims.get("tenant_id") != tenant_id:
            raise PermissionDenied(f"the {audience} token belongs to another tenant")

    def _registry(self, audience: str, now: int) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=now,
            leeway=math.ceil(self._leeway),
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )

    def _clock_reason(
        self, claims: Mapping[str, Any], audience: str, tenant_id: str, now: int
    ) -> str:
        """Return the contract's reason if the token would be good at another time; else nothing."""
        times = [claims[name] for name in ("iat", "nbf") if name in claims]
        try:
            then = int(max(times, default=claims["exp"] - 1))
            self._registry(audience, then).validate(dict(claims))
        except (JoseError, KeyError, TypeError, ValueError, OverflowError):
            return ""
        if claims.get("tenant_id") != tenant_id:
            return ""
        log.warning(
            "token_out_of_its_time",
            audience=audience,
            seconds_since_issued=now - then,
            seconds_until_end=int(claims["exp"]) - now,
            advice="If it is new, the clocks of the issuer and of this machine differ.",
        )
        return "TOKEN_EXPIRED" if now > then else "TOKEN_NOT_YET_VALID"

    async def _claims(self, token: str, audience: str) -> dict[str, Any]:
        if len(token) > _MAX_TOKEN:
            raise _refused(audience, "it is too long")
        try:
            header = extract_compact(token.encode("ascii")).headers()
        except (JoseError, ValueError) as error:
            raise _refused(audience, "it is not a signed JWT", type(error).__name__) from None
        kid = header.get("kid")
        if header.get("alg") != "RS256" or not isinstance(kid, str):
            raise _refused(audience, "it is not signed with RS256 by a named key")
        try:
            key = await self._keys.find(kid)
        except KeysUnavailable:
            raise Unavailable("the token issuer's keys cannot be fetched; try again") from None
        if isinstance(key, str):
            raise _refused(audience, f"its signing key cannot be used: {key}")
        try:
            return dict(jwt.decode(token, key, algorithms=["RS256"]).claims)
        except (JoseError, ValueError) as error:
            raise _refused(audience, "its signature is invalid", type(error).__name__) from None


def _refused(audience: str, why: str, kind: str = "", *, reason: str = "") -> Unauthenticated:
    log.info("token_refused", audience=audience, reason=why, kind=kind)
    return Unauthenticated(f"the {audience} token cannot be used: {why}", reason=reason)


class Admission:
    """Makes the access of a call. Without a checker the tenant that the caller names is trusted."""

    def __init__(self, checker: TokenChecker | None) -> None:
        self._checker = checker

    async def admit(self, peer: Peer, metadata: Mapping[str, str]) -> Access:
        """The access of a call that forwards tokens.

        Raises Unauthenticated, PermissionDenied, Unavailable.
        """
        if self._checker is not None:
            for name, audience in AUDIENCES.items():
                if not (token := metadata.get(name, "")):
                    raise Unauthenticated(f"the call has no {audience} token ({name})")
                await self._checker.check(token, audience=audience, tenant_id=peer.tenant_id)
        return Access(peer.tenant_id)
