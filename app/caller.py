"""Who makes a request: the value that every room of the gateway passes on."""

import math
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller, as of one request.

    Tenant and user come from the token alone, never from a body or a query.
    """

    tenant_id: str
    user_id: str | None
    roles: frozenset[str] = frozenset()
    #: Permission keys, those that the roles grant included.
    permissions: frozenset[str] = frozenset()
    #: Which credential this is, so that it can be revoked; never the secret itself.
    credential_id: str = ""
    #: The console session through which the credential is used, which can end before it; empty
    #: without one.
    session_id: str = ""
    #: From when on the credential does not count: for requests, streams and tickets alike, with
    #: any tolerance for clocks that differ included. None if it does not end by itself.
    expires_at: datetime | None = None
    request_id: str = ""
    #: The bearer token as it came, to be exchanged (RFC 8693); never logged.
    subject_token: str = field(default="", repr=False)

    def of_request(self, request_id: str, token: str) -> "Caller":
        """Return the caller as of a request with this id and this bearer token.

        A credential that has another token to be exchanged keeps that.
        """
        # What `dataclasses.replace` does, at a third of its cost: it is done for each request.
        return Caller(
            self.tenant_id,
            self.user_id,
            self.roles,
            self.permissions,
            self.credential_id,
            self.session_id,
            self.expires_at,
            request_id,
            self.subject_token or token,
        )

    @property
    def revocable_by(self) -> tuple[str, ...]:
        """The ids by which what the caller has open can be revoked."""
        return (self.credential_id, self.session_id) if self.session_id else (self.credential_id,)

    def expired(self, now: datetime) -> bool:
        """Return whether the credential has ended at `now`."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class DownstreamTokens:
    """Tokens minted for the caller, to be forwarded with one call; never logged."""

    scaidrive: str = field(repr=False)
    scaiatlas: str = field(repr=False)
    #: When the first of them ends, by its issuer's word, on the monotonic clock of who got them.
    ends_at: float = field(default=math.inf, compare=False)
