"""How an issuer's public keys are fetched. Each program reads it from its own variables."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JwksSettings:
    """Where the keys are, and how long they are used. Times are seconds."""

    url: str
    #: Maximum age of the cached keys.
    ttl: float
    #: Minimum time between two fetches, for an unknown `kid` or after a failure.
    cooldown: float
    #: How long the keys are used beyond their maximum age while they cannot be fetched.
    stale_limit: float
