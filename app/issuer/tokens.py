"""Who a subject token speaks for, and the tokens that are made of it.

The issuer exchanges only its tokens for the gateway: a token for ScaiDrive must not
become one for anything else. `iss` is a name, not an address, since the port changes
from start to start while tokens live on.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from app.issuer.keys import ALGORITHM, SigningKeys
from app.issuer.settings import IssuerSettings
from app.scaikey import api_keys

if TYPE_CHECKING:
    from app.scaikey.api_key_lookup import Reader

#: The gateway's own audience: a token for it can be exchanged again.
GATEWAY = "scaimind"
#: Whom tokens are made for.
AUDIENCES = (GATEWAY, "scaidrive", "scaiatlas")


class SubjectRefused(Exception):
    """A subject token is not valid; the text is for operators."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token speaks for, and until when: seconds since 1970, None for ever."""

    tenant_id: str
    user_id: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, and the seconds that it lives."""

    token: str
    lifetime: int
    token_id: str


class TokenMint:
    """Makes tokens out of API keys, and out of its own tokens for the gateway.

    A token never outlives what it was made of. `now` is in seconds since 1970.
    """

    def __init__(
        self,
        *,
        settings: IssuerSettings,
        keys: SigningKeys,
        database: "Reader",
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._database = database
        self._now = now
        self._verification_keys = KeySet(
            [RSAKey.import_key(each) for each in keys.public()["keys"]]
        )
        self._claims = JWTClaimsRegistry(
            now=lambda: int(now()),
            iss={"essential": True, "value": settings.name},
            # What was made for ScaiDrive must not become a token for the gateway.
            aud={"essential": True, "value": GATEWAY},
            exp={"essential": True},
        )

    async def of_api_key(self, secret: str) -> Subject:
        """Look a key up. Raises `SubjectRefused` and `DatabaseError`."""
        digest = api_keys.digest(secret)
        key = api_keys.found(await self._database.read(*api_keys.lookup_statement(digest)), digest)
        if key is None:
            raise SubjectRefused("an API key that does not exist")
        if (refusal := key.refusal(datetime.fromtimestamp(self._now(), UTC))) is not None:
            raise SubjectRefused(f"{key.key_id} is {refusal}")
        return Subject(
            tenant_id=key.tenant_id,
            user_id=key.user_id,
            roles=tuple(sorted(key.roles)),
            permissions=tuple(sorted(key.permissions)),
            expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        )

    def of_jwt(self, token: str) -> Subject:
        """Check a token of this issuer's own. Raises `SubjectRefused`."""
        try:
            claims = jwt.decode(token, self._verification_keys, algorithms=[ALGORITHM]).claims
            self._claims.validate(claims)
            return Subject(
                tenant_id=claims["tenant_id"],
                user_id=claims["sub"],
                roles=tuple(claims["roles"]),
                permissions=tuple(claims["permissions"]),
                expires_at=claims["exp"],
            )
        # KeyError, TypeError: signed here, and yet of another shape: by another version.
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise SubjectRefused(f"a JWT that is not valid: {type(error).__name__}") from None

    def mint(self, subject: Subject, audience: str) -> Minted:
        """Sign a token for one of the `AUDIENCES`. Raises `SubjectRefused` if there is no time."""
        now = int(self._now())
        settings = self._settings
        lifetime = settings.session_lifetime if audience == GATEWAY else settings.token_lifetime
        expires_at = now + lifetime
        if subject.expires_at is not None:
            expires_at = min(expires_at, int(subject.expires_at))
        if expires_at <= now:
            raise SubjectRefused("it has expired")
        token_id = secrets.token_hex(16)
        token = jwt.encode(
            {"alg": ALGORITHM, "kid": self._keys.kid},
            {
                "iss": settings.name,
                "aud": audience,
                "sub": subject.user_id,
                "tenant_id": subject.tenant_id,
                "roles": list(subject.roles),
                "permissions": list(subject.permissions),
                "iat": now,
                "nbf": now,
                "exp": expires_at,
                "jti": token_id,
            },
            self._keys.current,
        )
        return Minted(token, expires_at - now, token_id)
