"""ScaiKey's JWTs: RS256 (RFC 7515, RFC 7519), checked against the issuer's keys.

Claims: `iss`, `aud`, `exp`, `sub` (the user) and `tenant_id` have to be there;
`nbf` and `iat` are heeded; `roles` and `permissions` are lists of strings and
may be missing; `jti` names the token. A token ends `leeway` seconds after its
`exp`.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import structlog
from cachetools import LRUCache
from joserfc import jws
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import RSAKey
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from typing_extensions import override

from app.auth.authenticator import Refused, Verifier
from app.auth.settings import AuthSettings
from app.caller import Caller
from app.errors import AUTH_UNAVAILABLE, ApiError
from app.scaikey.jwks import KeySetCache, KeysUnavailable
from app.scaikey.permissions import granted
from app.shortening import shortened

log = structlog.get_logger()

ALGORITHM = "RS256"

#: The form that tenants have everywhere on the platform: they are parts of paths.
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}")
#: Printable, and without white space at the ends: it is carried in gRPC metadata as it is.
_USER = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_TOKEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Roles, and permissions, that one token may name.
_MOST_GRANTS = 1000
#: Seconds after which a caller whose token could not be checked may try again.
_RETRY_AFTER = 2


#: Tokens that are remembered.
_MOST_VERIFIED = 10_000


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was found genuine and within its time, and whose it is."""

    caller: Caller
    kid: str
    key: RSAKey
    #: When, in seconds since 1970: at an earlier time it may not count yet.
    at: float

    def counts(self, key: RSAKey | None, now: float) -> bool:
        """Return whether it does at `now`, if this is the issuer's key of its id."""
        # The issuer's keys are fetched again and again, and may be others then.
        return (
            key is self.key
            and now >= self.at
            and not self.caller.expired(datetime.fromtimestamp(now, UTC))
        )


class JwtVerifier(Verifier):
    """Tokens of one issuer for one audience. `now` is in seconds since 1970.

    Of a token that counts its caller is remembered, by the token's SHA-256, for as long as the
    issuer's keys stay as they were fetched: its signature and its claims are then those that
    were checked, and only the time has to be looked at.
    """

    def __init__(
        self, *, settings: AuthSettings, keys: KeySetCache, now: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._now = now
        self._leeway = timedelta(seconds=settings.leeway)
        self._verified: LRUCache[bytes, _Verified] = LRUCache(_MOST_VERIFIED)
        # What is unknown in a header is ignored (RFC 7515, 4); `crit` is refused below.
        self._registry = JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)
        self._claims = JWTClaimsRegistry(
            now=lambda: math.floor(now()),
            leeway=settings.leeway,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    @override
    def recognises(self, token: str) -> bool:
        return token.startswith("eyJ") and token.count(".") == 2

    @override
    async def verify(self, token: str) -> Caller:
        digest = _digest(token)
        verified = self._verified.get(digest)
        if verified is None:
            signed = self._extract(token)
            kid = _key_id(signed.headers())
            key, now = await self._key(kid), self._now()
        else:
            kid = verified.kid
            # Its time is looked at when the key is there: that may have been waited for.
            key, now = await self._key(kid), self._now()
            if verified.counts(key, now):
                return verified.caller
            signed = self._extract(token)
        caller = self._checked(token, signed, kid, key)
        self._verified[digest] = _Verified(caller, kid, key, now)
        return caller

    @override
    def at_hand(self, token: str) -> Caller | None:
        verified = self._verified.get(_digest(token))
        if verified is None:
            return None
        key = self._keys.at_hand(verified.kid)
        return verified.caller if verified.counts(key, self._now()) else None

    async def _key(self, kid: str) -> RSAKey:
        try:
            key = await self._keys.find(kid)
        except KeysUnavailable as error:
            log.error("jwt_check_failed", reason=str(error))
            raise ApiError(AUTH_UNAVAILABLE, retry_after=_RETRY_AFTER) from None
        if isinstance(key, str):
            raise Refused(f"a JWT of key {_shown(kid)}: {key}")
        return key

    def _checked(self, token: str, signed: CompactSignature, kid: str, key: RSAKey) -> Caller:
        try:
            genuine = jws.validate_compact(signed, key, registry=self._registry)
        except (JoseError, ValueError) as error:
            raise Refused(f"a JWT that cannot be verified: {error}") from None
        if not genuine:
            raise Refused(f"a JWT whose signature by key {_shown(kid)} is not valid")
        return self._caller(token, _claims(signed.payload))

    def _extract(self, token: str) -> CompactSignature:
        try:
            signed = jws.extract_compact(token.encode("ascii"), registry=self._registry)
        # TypeError: for a header that is a list, of all things, the library does not check it.
        except (JoseError, ValueError, TypeError):
            raise Refused("a malformed JWT") from None
        if not isinstance(signed.headers(), dict):
            raise Refused("a JWT whose header is not an object")
        return signed

    def _caller(self, token: str, claims: dict[str, Any]) -> Caller:
        try:
            self._claims.validate(claims)
            expires_at = datetime.fromtimestamp(claims["exp"], UTC) + self._leeway
        except ClaimError as error:
            shown = _shown(claims.get(error.claim))
            raise Refused(f"a JWT with a bad claim: {error.claim} ({shown})") from None
        except (ValueError, OverflowError, OSError):
            raise Refused("a JWT whose exp is out of range") from None
        tenant_id, user_id = claims.get("tenant_id"), claims["sub"]
        if not isinstance(tenant_id, str) or not _TENANT.fullmatch(tenant_id):
            raise Refused(f"a JWT with a bad claim: tenant_id ({_shown(tenant_id)})")
        if not _USER.fullmatch(user_id):
            raise Refused(f"a JWT with a bad claim: sub ({_shown(user_id)})")
        roles = _strings(claims, "roles")
        caller = Caller(
            tenant_id=tenant_id,
            user_id=user_id,
            roles=roles,
            permissions=granted(roles, _strings(claims, "permissions")),
            credential_id=_credential_id(token, claims),
            expires_at=expires_at,
        )
        # The library counts whole seconds: it lets a token pass that a stream would be closed for.
        if caller.expired(datetime.fromtimestamp(self._now(), UTC)):
            raise Refused("a JWT with a bad claim: exp has passed")
        return caller


def _key_id(header: Mapping[str, Any]) -> str:
    """Return the id of the signing key. Raises `Refused` if the header is not acceptable."""
    if header.get("alg") != ALGORITHM:
        raise Refused(f"a JWT of algorithm {_shown(header.get('alg'))}, not {ALGORITHM}")
    # No extension that a signer may demand is known here (RFC 7515, 4.1.11; RFC 7797).
    if "crit" in header or "b64" in header:
        raise Refused("a JWT that requires an extension ('crit' or 'b64')")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise Refused("a JWT without a key id ('kid')")
    return kid


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = orjson.loads(payload)
    except orjson.JSONDecodeError:
        claims = None
    if not isinstance(claims, dict):
        raise Refused("a JWT whose payload is not a JSON object")
    return claims


def _strings(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    found = claims.get(name, [])
    if (
        not isinstance(found, list)
        or len(found) > _MOST_GRANTS
        or not all(isinstance(each, str) for each in found)
    ):
        raise Refused(f"a JWT with a bad claim: {name} is not a list of strings")
    return frozenset(found)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _credential_id(token: str, claims: Mapping[str, Any]) -> str:
    """Name the token for logs and for watchers; it cannot be made a token again."""
    token_id = claims.get("jti")
    if isinstance(token_id, str) and _TOKEN_ID.fullmatch(token_id):
        return f"jwt:{token_id}"
    return f"jwt:sha256:{hashlib.sha256(token.encode()).hexdigest()[:32]}"


def _shown(value: object) -> str:
    """Show what a stranger sent, within bounds."""
    return shortened(repr(value), 100)
