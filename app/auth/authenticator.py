"""From a bearer token to a `Caller`."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import structlog
from typing_extensions import override

from app.caller import Caller
from app.database.errors import DatabaseError
from app.errors import AUTH_TOKEN_INVALID, AUTH_TOKEN_MISSING, AUTH_UNAVAILABLE, ApiError
from app.scaikey import api_keys
from app.scaikey.api_key_lookup import KeyLookup
from app.scaikey.api_keys import ApiKey
from app.scaikey.permissions import granted

log = structlog.get_logger()

#: Seconds after which a caller whose token could not be checked may try again.
_RETRY_AFTER = 2
#: Longer than any key or JWT of the platform.
_LONGEST_TOKEN = 8192


class Refused(Exception):
    """A token is not valid; the text is for operators, never for the caller."""


class Verifier(Protocol):
    """Checks tokens of one form."""

    def recognises(self, token: str) -> bool:
        """Return whether the token has the form that this verifier handles."""

    async def verify(self, token: str) -> Caller:
        """Return the token's caller. Raises `Refused`, or an `ApiError` if the check failed.

        The caller has a `subject_token` only where that is another than the token.
        """

    def at_hand(self, token: str) -> Caller | None:
        """Return whom `verify` would return without waiting; None where it has to wait, or
        refuses the token.
        """
        return None


class Authenticator:
    """Finds the caller of a request, whatever kind of token there is."""

    def __init__(self, *, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = tuple(verifiers)

    async def authenticate(self, authorization: Sequence[str], *, request_id: str) -> Caller:
        """Return who sent these `Authorization` headers (RFC 6750, 2.1).

        Raises `ApiError`: the token is missing, not valid, or cannot be
        checked at the moment.
        """
        token = _bearer_token(authorization)
        verifier = self._verifier(token)
        try:
            if verifier is None:
                raise Refused("it does not have the form of a known kind of token")
            caller = await verifier.verify(token)
        except Refused as refused:
            log.info("token_refused", reason=str(refused))
            raise ApiError(AUTH_TOKEN_INVALID) from None
        return caller.of_request(request_id, token)

    def at_hand(
        self, authorization: Sequence[str], *, request_id: str | None = None
    ) -> Caller | None:
        """Return whom `authenticate` would return without waiting, without an id as of no
        request; None where it has to wait, or would refuse these headers.
        """
        try:
            token = _bearer_token(authorization)
        except ApiError:
            return None
        verifier = self._verifier(token)
        caller = None if verifier is None else verifier.at_hand(token)
        if caller is None or request_id is None:
            return caller
        return caller.of_request(request_id, token)

    def _verifier(self, token: str) -> Verifier | None:
        for each in self._verifiers:
            if each.recognises(token):
                return each
        return None


class ApiKeyVerifier(Verifier):
    """API keys, as PostgreSQL has them."""

    def __init__(self, *, keys: KeyLookup, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._now = now

    @override
    def recognises(self, token: str) -> bool:
        return token.startswith(api_keys.PREFIX)

    @override
    async def verify(self, token: str) -> Caller:
        if not api_keys.is_api_key(token):
            raise Refused("an API key of an invalid form")
        try:
            key = await self._keys.find(token)
        except DatabaseError as error:
            log.error("api_key_lookup_failed", reason=str(error))
            raise ApiError(AUTH_UNAVAILABLE, retry_after=_RETRY_AFTER) from None
        if key is None:
            raise Refused("an API key that does not exist")
        if (refusal := key.refusal(self._now())) is not None:
            raise Refused(f"{key.key_id} is {refusal}")
        return _caller(key)

    @override
    def at_hand(self, token: str) -> Caller | None:
        key = self._keys.at_hand(token) if api_keys.is_api_key(token) else None
        if key is None or key.refusal(self._now()) is not None:
            return None
        return _caller(key)


def _caller(key: ApiKey) -> Caller:
    return Caller(
        tenant_id=key.tenant_id,
        user_id=key.user_id,
        roles=key.roles,
        permissions=granted(key.roles, key.permissions),
        credential_id=key.key_id,
        expires_at=key.expires_at,
    )


def _bearer_token(authorization: Sequence[str]) -> str:
    if len(authorization) > 1:
        raise ApiError(
            AUTH_TOKEN_INVALID, "The request has several Authorization headers. Send one."
        )
    scheme, _, token = (authorization[0] if authorization else "").strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise ApiError(AUTH_TOKEN_MISSING)
    if len(token) > _LONGEST_TOKEN or not token.isascii():
        raise ApiError(AUTH_TOKEN_INVALID)
    return token
